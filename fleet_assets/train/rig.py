"""What vehicles listen to, from the contracts.

In: contracts of the streams, the causal alignment policy, the policy of live features. Out: Rig, which is frozen into a model:
its frames are made by these rules for ever.
"""

from __future__ import annotations

from fleet_assets.contracts.loader import load_streams
from fleet_assets.edge.rig import SENSORS, Rig, Stream
from fleet_assets.features.policy import load_live_policy
from fleet_assets.synchronise.policy import load_alignment


def vehicle_rig() -> Rig:
    """Raises ContractError."""
    live, alignment, contracts = load_live_policy(), load_alignment(), load_streams()
    causal = next(policy for policy in alignment.policies if policy.name == live.alignment)
    streams = []
    for source, choices in live.sources.items():
        for choice in choices:
            contract = contracts[choice.stream]
            how = causal.channels[contract.kind]
            streams.append(
                Stream(
                    contract.name, source, contract.topics, choice.signal, contract.ahead_ns, how.before_ns, how.after_ns,
                    how.wait_ns or 0,
                )
            )  # fmt: skip
    kinds = [contracts[name].kind for name in alignment.key_streams]
    return Rig(tuple(streams), tuple(dict.fromkeys(kind for kind in kinds if kind in SENSORS)))

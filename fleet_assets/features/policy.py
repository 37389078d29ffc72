"""The policy of live features: a versioned contract file.

In: `contracts/policies/features.yaml`. Out: LivePolicy. A mistake is a ContractError with file, line, place and remedy.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import fleet_assets.contracts
from fleet_assets.contracts.document import Node, read_document
from fleet_assets.contracts.loader import load_streams
from fleet_assets.kernels.features.records import SOURCES
from fleet_assets.synchronise.policy import load_alignment

PATH = Path(fleet_assets.contracts.__file__).parent / "policies" / "features.yaml"
_KIND = {
    "imu": "imu",
    "gnss": "gnss",
    "speed": "bus",
    "steering": "bus",
    "camera": "camera",
    "lidar": "lidar",
    "radar": "radar",
}
_LONGEST_MS = 3_600_000


@dataclass(frozen=True)
class Source:
    """Where a source's records come from. signal: of a bus, else None."""

    stream: str
    signal: str | None


@dataclass(frozen=True)
class LivePolicy:
    """alignment: name of the alignment policy whose frames and wait count. wait_ns: from the arrival of a frame's key record to
    the reading of its features. delay_ns: declared, from the time of the frame to when the vehicle has them."""

    version: str
    alignment: str
    wait_ns: int
    delay_ns: int
    sources: Mapping[str, tuple[Source, ...]]
    fingerprint: str


@lru_cache(maxsize=4)
def load_live_policy(path: Path = PATH) -> LivePolicy:
    """Reads and checks the policy. Raises ContractError."""
    document = read_document(path)
    document.only(("version", "description", "alignment", "delay_ms", "sources"))
    document["sources"].only(SOURCES)
    causal = {one.name: one for one in load_alignment().policies if one.causal}
    alignment = causal[document["alignment"].one_of(tuple(causal))]
    return LivePolicy(
        alignment=alignment.name,
        version=document["version"].text,
        wait_ns=max(channel.wait_ns or 0 for channel in alignment.channels.values()),
        delay_ns=_ns(document["delay_ms"]),
        sources={name: tuple(_source(name, node) for node in document["sources"][name]) for name in SOURCES},
        fingerprint=hashlib.sha256(
            json.dumps([document.value, load_alignment().fingerprint], sort_keys=True).encode()
        ).hexdigest(),
    )


def _source(name: str, node: Node) -> Source:
    streams = tuple(stream for stream, contract in load_streams().items() if contract.kind == _KIND[name])
    stream = node["stream"].one_of(streams)
    is_bus = _KIND[name] == "bus"
    node.only(("stream", "signal") if is_bus else ("stream",))
    return Source(stream, node["signal"].text if is_bus else None)


def _ns(node: Node) -> int:
    if not 0 < node.positive <= _LONGEST_MS:
        raise node.error(f"{node.value!r} is out of range", "Give milliseconds, at most an hour.")
    return round(node.positive * 1e6)

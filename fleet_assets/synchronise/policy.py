"""The alignment policies: a versioned contract file.

In: `contracts/policies/alignment.yaml`. Out: Alignment, with the policies by which frames are made. A mistake is a
ContractError with file, line, place and remedy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import fleet_assets.contracts
from fleet_assets.contracts.document import Node, read_document
from fleet_assets.contracts.loader import load_streams, load_tables

PATH = Path(fleet_assets.contracts.__file__).parent / "policies" / "alignment.yaml"
_TOLERANCES = {"nearest": ("before_ms", "after_ms"), "linear": (), "slerp": (), "hold": ("before_ms",)}
METHODS = tuple(_TOLERANCES)
KINDS = ("camera", "lidar", "radar", "imu", "pose", "gnss", "bus")
EGO = ("speed_mps", "yaw_rate_radps", "accel_x_mps2", "latitude_deg", "longitude_deg")
ORIENTATION = ("orientation_x", "orientation_y", "orientation_z", "orientation_w")
_ENTRIES = (
    "version", "description", "key_streams", "grid_hz", "policies", "required_kinds", "required_kinds_without_payload",
    "ego", "orientation", "limits", "gap_limit_without_rate_ms",
)  # fmt: skip
_LONGEST_NS = 3_600_000_000_000


@dataclass(frozen=True)
class ChannelPolicy:
    """How one kind of stream is matched. Tolerances on the reference clock. wait_ns: how long a frame waits for it, from the
    arrival of its key record; None: a record counts whenever it came."""

    method: str
    before_ns: int
    after_ns: int
    wait_ns: int | None


@dataclass(frozen=True)
class Policy:
    """One way to make frames. Causal: what had not arrived in time does not count."""

    name: str
    channels: Mapping[str, ChannelPolicy]

    @property
    def causal(self) -> bool:
        return any(channel.wait_ns is not None for channel in self.channels.values())


@dataclass(frozen=True)
class Source:
    """Where a value of the ego motion comes from: a column, or a bus signal."""

    stream: str
    column: str | None = None
    signal: str | None = None


@dataclass(frozen=True)
class Limits:
    """Beyond these, a drive has no frames."""

    residual_ns: int
    misalignment_m: float
    complete_share: float


@dataclass(frozen=True)
class Alignment:
    """policies: the first is the one that drives are judged by, and that commands show. orientation: streams that tell it, the
    best first."""

    version: str
    key_streams: tuple[str, ...]
    grid_period_ns: int
    policies: tuple[Policy, ...]
    required_kinds: tuple[str, ...]
    required_kinds_without_payload: tuple[str, ...]
    ego: Mapping[str, tuple[Source, ...]]
    orientation: tuple[str, ...]
    limits: Limits
    gap_limit_without_rate_ns: int
    fingerprint: str


@lru_cache(maxsize=4)
def load_alignment(path: Path = PATH) -> Alignment:
    """Reads and checks the policies. Raises ContractError."""
    document = read_document(path)
    document.only(_ENTRIES)
    version = document["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version.text):
        raise version.error(f"{version.value!r} is no version", "Use MAJOR.MINOR.PATCH.")
    policies = document["policies"]
    if not policies.of(dict):
        raise policies.error("no policy", "Describe at least one.")
    document["ego"].only(EGO)
    turning = tuple(name for name, contract in load_streams().items() if set(ORIENTATION) <= _columns(contract.table))
    return Alignment(
        version=version.text,
        key_streams=_choices(document["key_streams"], tuple(load_streams())),
        grid_period_ns=_ns(document["grid_hz"], lambda rate_hz: 1e9 / rate_hz),
        policies=tuple(_policy(policies, name) for name in policies.of(dict)),
        required_kinds=_choices(document["required_kinds"], KINDS),
        required_kinds_without_payload=_choices(document["required_kinds_without_payload"], KINDS),
        ego={name: tuple(_source(node) for node in _list(document["ego"][name])) for name in EGO},
        orientation=_choices(document["orientation"], turning),
        limits=_limits(document["limits"]),
        gap_limit_without_rate_ns=_ns(document["gap_limit_without_rate_ms"]),
        fingerprint=hashlib.sha256(json.dumps(document.value, sort_keys=True).encode()).hexdigest(),
    )


def _policy(policies: Node, name: str) -> Policy:
    node = policies[name]
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,31}", name):
        raise node.error(f"a policy called {name!r}", "Use lower case letters, digits and underscores.")
    node.only(KINDS)
    causal = [kind for kind in KINDS if "wait_ms" in node[kind].of(dict)]
    for kind in KINDS:
        if causal and kind not in causal:
            raise node[kind].error(
                f"{kind} has no wait_ms, but {causal[0]} has", "A policy waits for all kinds or none."
            )
    return Policy(name, {kind: _channel(node[kind], bool(causal)) for kind in KINDS})


def _channel(node: Node, causal: bool) -> ChannelPolicy:
    method = node["method"].one_of(METHODS)
    node.only(("method", *_TOLERANCES[method], *(("wait_ms",) if causal else ())))
    tolerances = {name: _ns(node[name]) for name in _TOLERANCES[method]}
    wait_ns = _ns(node["wait_ms"]) if causal else None
    return ChannelPolicy(method, tolerances.get("before_ms", 0), tolerances.get("after_ms", 0), wait_ns)


def _limits(node: Node) -> Limits:
    node.only(("residual_ms", "misalignment_m", "complete_share"))
    share = node["complete_share"]
    if not 0 <= share.number <= 1:
        raise share.error(f"{share.value!r} is no share", "Give a number from 0 to 1.")
    return Limits(_ns(node["residual_ms"]), float(node["misalignment_m"].positive), float(share.number))


def _source(node: Node) -> Source:
    contract = load_streams()[node["stream"].one_of(tuple(load_streams()))]
    what = "signal" if contract.kind == "bus" else "column"
    node.only(("stream", what))
    if what == "signal":
        return Source(contract.name, signal=node["signal"].text)
    columns = tuple(column.name for column in load_tables()[contract.table].columns if column.type == "double")
    return Source(contract.name, column=node["column"].one_of(columns))


def _columns(table: str) -> set[str]:
    return {column.name for column in load_tables()[table].columns}


def _list(node: Node) -> list[Node]:
    return list(node)


def _choices(node: Node, values: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(entry.one_of(values) for entry in _list(node))


def _ns(node: Node, to_ns: Callable[[float], float] = lambda ms: ms * 1e6) -> int:
    """Milliseconds, or what to_ns takes, as nanoseconds."""
    found = to_ns(node.positive)
    if not 1 <= found <= _LONGEST_NS:
        raise node.error(f"{node.value!r} is out of range", "Give a time between 1 ns and an hour.")
    return round(found)

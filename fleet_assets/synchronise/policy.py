"""The alignment policy: a versioned contract file.

In: `contracts/policies/alignment.yaml`. Out: Policy. A mistake is a ContractError with file, line, place and remedy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import fleet_assets.contracts
from fleet_assets.contracts.document import Node, read_document
from fleet_assets.contracts.loader import load_streams, load_tables

PATH = Path(fleet_assets.contracts.__file__).parent / "policies" / "alignment.yaml"
_TOLERANCES = {"nearest": ("before_ms", "after_ms"), "linear": (), "hold": ("before_ms",)}
METHODS = tuple(_TOLERANCES)
KINDS = ("camera", "lidar", "radar", "imu", "gnss", "bus")
EGO = ("speed_mps", "yaw_rate_radps", "accel_x_mps2", "latitude_deg", "longitude_deg")
_ENTRIES = (
    "version", "description", "key_streams", "grid_hz", "channels", "required_kinds", "required_kinds_without_payload",
    "ego", "gap_limit_without_rate_ms",
)  # fmt: skip
_LONGEST_NS = 3_600_000_000_000


@dataclass(frozen=True)
class ChannelPolicy:
    """How one kind of stream is matched. Tolerances on the reference clock."""

    method: str
    before_ns: int
    after_ns: int


@dataclass(frozen=True)
class Source:
    """Where a value of the ego motion comes from: a column, or a bus signal."""

    stream: str
    column: str | None = None
    signal: str | None = None


@dataclass(frozen=True)
class Policy:
    version: str
    key_streams: tuple[str, ...]
    grid_period_ns: int
    channels: Mapping[str, ChannelPolicy]
    required_kinds: tuple[str, ...]
    required_kinds_without_payload: tuple[str, ...]
    ego: Mapping[str, tuple[Source, ...]]
    gap_limit_without_rate_ns: int
    fingerprint: str


@lru_cache(maxsize=4)
def load_policy(path: Path = PATH) -> Policy:
    """Reads and checks the policy. Raises ContractError."""
    document = read_document(path)
    _only(document, _ENTRIES)
    version = document["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version.text):
        raise version.error(f"{version.value!r} is no version", "Use MAJOR.MINOR.PATCH.")
    for node, names in ((document["channels"], KINDS), (document["ego"], EGO)):
        _only(node, names)
    return Policy(
        version=version.text,
        key_streams=tuple(node.one_of(tuple(load_streams())) for node in _list(document["key_streams"])),
        grid_period_ns=_ns(document["grid_hz"], lambda rate_hz: 1e9 / rate_hz),
        channels={kind: _channel(document["channels"][kind]) for kind in KINDS},
        required_kinds=tuple(node.one_of(KINDS) for node in _list(document["required_kinds"])),
        required_kinds_without_payload=tuple(
            node.one_of(KINDS) for node in _list(document["required_kinds_without_payload"])
        ),
        ego={name: tuple(_source(node) for node in _list(document["ego"][name])) for name in EGO},
        gap_limit_without_rate_ns=_ns(document["gap_limit_without_rate_ms"]),
        fingerprint=hashlib.sha256(json.dumps(document.value, sort_keys=True).encode()).hexdigest(),
    )


def _channel(node: Node) -> ChannelPolicy:
    method = node["method"].one_of(METHODS)
    _only(node, ("method", *_TOLERANCES[method]))
    tolerances = {name: _ns(node[name]) for name in _TOLERANCES[method]}
    return ChannelPolicy(method, tolerances.get("before_ms", 0), tolerances.get("after_ms", 0))


def _source(node: Node) -> Source:
    contract = load_streams()[node["stream"].one_of(tuple(load_streams()))]
    what = "signal" if contract.kind == "bus" else "column"
    _only(node, ("stream", what))
    if what == "signal":
        return Source(contract.name, signal=node["signal"].text)
    columns = tuple(column.name for column in load_tables()[contract.table].columns if column.type == "double")
    return Source(contract.name, column=node["column"].one_of(columns))


def _only(node: Node, names: Sequence[str]) -> None:
    """A mapping with exactly these entries."""
    for name in node.of(dict):
        if name not in names:
            raise node.error(f"{name!r} is not known here", f"Remove it, or use one of {', '.join(names)}.")
    for name in names:
        node[name]


def _list(node: Node) -> list[Node]:
    return list(node)


def _ns(node: Node, to_ns: Callable[[float], float] = lambda ms: ms * 1e6) -> int:
    """Milliseconds, or what to_ns takes, as nanoseconds."""
    found = to_ns(node.positive)
    if not 1 <= found <= _LONGEST_NS:
        raise node.error(f"{node.value!r} is out of range", "Give a time between 1 ns and an hour.")
    return round(found)

"""The alignment policy: a versioned contract file.

In: `contracts/policies/alignment.yaml`. Out: Policy. A mistake is an error with file, place and remedy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

import fleet_assets.contracts
from fleet_assets.errors import FleetError

PATH = Path(fleet_assets.contracts.__file__).parent / "policies" / "alignment.yaml"
METHODS = ("nearest", "linear", "hold")
KINDS = ("camera", "lidar", "radar", "imu", "gnss", "bus")
EGO = ("speed_mps", "yaw_rate_radps", "accel_x_mps2", "latitude_deg", "longitude_deg")


class PolicyError(FleetError):
    """A mistake in the policy file."""


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
    """Reads and checks the policy. Raises PolicyError."""
    try:
        document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, OSError) as error:
        raise PolicyError(f"Policy {path.name} cannot be read", where=str(error).splitlines()[0]) from error

    def check(holds: bool, place: str, remedy: str) -> None:
        if not holds:
            raise PolicyError(f"Policy {path.name} is wrong", where=place, remedy=remedy)

    check(isinstance(document, dict), "file", "It must be a mapping.")
    wanted = {
        "version", "description", "key_streams", "grid_hz", "channels", "required_kinds",
        "required_kinds_without_payload", "ego", "gap_limit_without_rate_ms",
    }  # fmt: skip
    missing, unknown = sorted(wanted - set(document)), sorted(set(document) - wanted)
    check(not missing, ", ".join(missing), "Add it.")
    check(not unknown, ", ".join(map(str, unknown)), "It is not known; remove it.")
    check(bool(re.fullmatch(r"\d+\.\d+\.\d+", str(document["version"]))), "version", "Use MAJOR.MINOR.PATCH.")
    check(_positive(document["grid_hz"]), "grid_hz", "Give a rate above 0.")
    limit_ms = document["gap_limit_without_rate_ms"]
    check(_positive(limit_ms), "gap_limit_without_rate_ms", "Give milliseconds above 0.")
    check(set(document["channels"]) == set(KINDS), "channels", f"Give each of {', '.join(KINDS)}, and no other.")
    channels = {}
    for kind, entry in document["channels"].items():
        method = entry.get("method")
        check(method in METHODS, f"channels/{kind}/method", f"Use one of {', '.join(METHODS)}.")
        needed = {"nearest": ("before_ms", "after_ms"), "hold": ("before_ms",), "linear": ()}[method]
        for name in needed:
            check(_positive(entry.get(name)), f"channels/{kind}/{name}", "Give milliseconds above 0.")
        before, after = (round(entry.get(name, 0) * 1e6) for name in ("before_ms", "after_ms"))
        channels[kind] = ChannelPolicy(method, before, after)
    check(set(document["ego"]) == set(EGO), "ego", f"Give each of {', '.join(EGO)}, and no other.")
    ego = {}
    for name, sources in document["ego"].items():
        for number, source in enumerate(sources):
            place = f"ego/{name}/{number}"
            check(isinstance(source, dict) and "stream" in source, place, "Name its stream.")
            check(("column" in source) != ("signal" in source), place, "Name a column or a signal.")
        ego[name] = tuple(Source(**source) for source in sources)
    for name in ("required_kinds", "required_kinds_without_payload"):
        check(set(document[name]) <= set(KINDS), name, f"Use {', '.join(KINDS)}.")
    return Policy(
        version=str(document["version"]),
        key_streams=tuple(document["key_streams"]),
        grid_period_ns=round(1e9 / document["grid_hz"]),
        channels=channels,
        required_kinds=tuple(document["required_kinds"]),
        required_kinds_without_payload=tuple(document["required_kinds_without_payload"]),
        ego=ego,
        gap_limit_without_rate_ns=round(limit_ms * 1e6),
        fingerprint=hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest(),
    )


def _positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0

"""What the served form of lane curvature is, and how far it may be from the full form: a versioned contract file.

In: `contracts/policies/lane_curvature.yaml`. Out: LanePolicy. A mistake is a ContractError with file, line, place and remedy.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import fleet_assets.contracts
from fleet_assets.contracts.document import Node, read_document
from fleet_assets.kernels.features.lane_cell import CELL_M, SECTORS

PATH = Path(fleet_assets.contracts.__file__).parent / "policies" / "lane_curvature.yaml"
_MILLION = 1_000_000


@dataclass(frozen=True)
class Fix:
    """Where a vehicle believes to be, seen from the centre line; noises are standard deviations."""

    beside_m: float
    noise_m: float
    heading_noise_deg: float


@dataclass(frozen=True)
class Bound:
    """Of one slice: 95 % of the errors are at most so large, and at least such a share of fixes finds a value."""

    error_p95_per_m: float
    found_ppm: int


@dataclass(frozen=True)
class LanePolicy:
    """curves: name -> largest size of the full form's curvature [1/m], ascending. bounds: by curve and fix."""

    version: str
    reach_m: float
    turn_deg: float
    gap_m: float
    quantum_per_m: float
    fixes: Mapping[str, Fix]
    curves: Mapping[str, float]
    bounds: Mapping[tuple[str, str], Bound]
    fingerprint: str


@lru_cache(maxsize=4)
def load_lane_policy(path: Path = PATH) -> LanePolicy:
    """Reads and checks the policy. Raises ContractError."""
    document = read_document(path)
    document.only(("version", "description", "full", "served", "fixes", "curves", "bounds"))
    full, served = document["full"], document["served"]
    full.only(("reach_m", "turn_deg", "gap_m"))
    served.only(("cell_m", "sectors", "quantum_per_m"))
    for name, known in (("cell_m", CELL_M), ("sectors", SECTORS)):
        if served[name].number != known:
            raise served[name].error(f"{name} is {served[name].value!r}; the kernel has {known:g}", "Change both.")
    if math.frexp(served["quantum_per_m"].positive)[0] != 0.5:
        raise served["quantum_per_m"].error("the quantum is no power of two", "Give one, such as 0.000244140625.")
    fixes = {name: _fix(document["fixes"][name]) for name in document["fixes"].of(dict)}
    curves = {name: float(document["curves"][name].positive) for name in document["curves"].of(dict)}
    if list(curves.values()) != [*sorted(curves.values())[:-1], math.inf]:
        raise document["curves"].error(
            "the limits do not ascend to .inf", "Name the straightest first; the last has no limit."
        )
    document["bounds"].only(tuple(curves))
    for curve in curves:
        document["bounds"][curve].only(tuple(fixes))
    return LanePolicy(
        version=document["version"].text,
        reach_m=float(_at_most(full["reach_m"], 30)),
        turn_deg=float(_at_most(full["turn_deg"], 90)),
        gap_m=float(_at_most(full["gap_m"], 200)),
        quantum_per_m=float(served["quantum_per_m"].positive),
        fixes=fixes,
        curves=curves,
        bounds={(curve, fix): _bound(document["bounds"][curve][fix]) for curve in curves for fix in fixes},
        fingerprint=hashlib.sha256(json.dumps(document.value, sort_keys=True).encode()).hexdigest(),
    )


def _fix(node: Node) -> Fix:
    names = ("beside_m", "noise_m", "heading_noise_deg")
    node.only(names)
    return Fix(*(float(node[name].number) for name in names))


def _bound(node: Node) -> Bound:
    values = [entry.number for entry in node]
    if len(values) != 2 or not values[0] >= 0 or not 0 <= values[1] <= _MILLION:
        raise node.error(
            f"{node.value!r} is no bound", "Give the error (1/m) and the share found, in parts of a million."
        )
    return Bound(float(values[0]), int(values[1]))


def _at_most(node: Node, limit: float) -> float:
    if node.positive > limit:
        raise node.error(f"{node.value!r} is out of range", f"Give at most {limit:g}.")
    return node.positive

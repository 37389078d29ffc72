"""Recipes: what a dataset is made by.

In: `contracts/datasets/*.yaml`. Out: Recipe. A mistake is a ContractError with file, line, place and remedy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fleet_assets.contracts
from fleet_assets.contracts.document import Node, read_document
from fleet_assets.curate.clips import ClipRule
from fleet_assets.curate.predicates import Predicate, PredicateError
from fleet_assets.curate.scenarios import condition, load_scenarios
from fleet_assets.errors import FleetError

FOLDER = Path(fleet_assets.contracts.__file__).parent / "datasets"
SPLITS = ("train", "validation", "test")
_ENTRIES = (
    "version", "description", "owner", "select", "clip", "splits", "seed", "together_h", "caps", "near_duplicate_bits",
    "wanted", "label_rate",
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """splits: share of the drives of each. together_ns: drives at one place this close in time are one group. caps: scenario ->
    largest share of the clips of train. wanted_*: of every slice in every split. label_rate_*: see coverage.py, rare_labels.
    document: the file as it is, for the manifest."""

    name: str
    version: str
    select: Predicate
    clip: ClipRule
    splits: Mapping[str, float]
    seed: int
    together_ns: int
    caps: Mapping[str, float]
    near_duplicate_bits: int
    wanted_drives: int
    wanted_objects: int
    label_rate_share: float
    label_rate_drives: int
    document: Mapping[str, Any]
    fingerprint: str


def load_recipe(name: str, folder: Path = FOLDER) -> Recipe:
    """Raises FleetError for an unknown name, ContractError for a file that is wrong."""
    known = sorted(path.stem for path in folder.glob("*.yaml"))
    if name not in known:
        raise FleetError(f"There is no recipe {name}", where=str(folder), remedy=f"Use one of {', '.join(known)}.")
    document = read_document(folder / f"{name}.yaml")
    _only(document, _ENTRIES)
    version = document["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version.text):
        raise version.error(f"{version.value!r} is no version", "Use MAJOR.MINOR.PATCH.")
    wanted, label_rate = document["wanted"], document["label_rate"]
    _only(wanted, ("drives", "objects"))
    _only(label_rate, ("least_share", "least_drives"))
    return Recipe(
        name=name,
        version=version.text,
        select=_select(document["select"]),
        clip=_clip(document["clip"]),
        splits=_splits(document["splits"]),
        seed=_whole(document["seed"]),
        together_ns=round(document["together_h"].positive * 3600e9),
        caps={scenario: _share(document["caps"][scenario]) for scenario in _scenarios(document["caps"])},
        near_duplicate_bits=_whole(document["near_duplicate_bits"]),
        wanted_drives=_whole(wanted["drives"]),
        wanted_objects=_whole(wanted["objects"]),
        label_rate_share=_share(label_rate["least_share"]),
        label_rate_drives=max(_whole(label_rate["least_drives"]), 2),
        document=document.value,
        fingerprint=hashlib.sha256(json.dumps(document.value, sort_keys=True).encode()).hexdigest(),
    )


def _select(node: Node) -> Predicate:
    try:
        return condition(node.text)
    except PredicateError as error:
        raise node.error(f"{error.what} ({error.where})", error.remedy or "Correct it.") from error


def _clip(node: Node) -> ClipRule:
    for entry in node.of(dict):
        if entry not in ("window_s", "stride_s", "largest_gap_s"):
            raise node[entry].error(f"{entry!r} is not known here", "Use window_s, stride_s and largest_gap_s.")
    window = node.get("window_s")
    return ClipRule(
        window_ns=round(window.positive * 1e9) if window else 0,
        stride_ns=round(node["stride_s"].positive * 1e9),
        largest_gap_ns=round(node["largest_gap_s"].positive * 1e9),
    )


def _splits(node: Node) -> dict[str, float]:
    _only(node, SPLITS)
    shares = {name: _share(node[name]) for name in SPLITS}
    if abs(sum(shares.values()) - 1) > 1e-9:
        raise node.error(f"shares that add up to {sum(shares.values()):g}", "They add up to 1.")
    return shares


def _scenarios(node: Node) -> list[str]:
    for name in node.of(dict):
        if name not in load_scenarios():
            raise node[name].error(f"there is no scenario {name!r}", f"Use one of {', '.join(load_scenarios())}.")
    return list(node.value)


def _share(node: Node) -> float:
    if not 0 <= node.number <= 1:
        raise node.error(f"{node.value!r} is no share", "Give a number from 0 to 1.")
    return float(node.number)


def _whole(node: Node) -> int:
    if not isinstance(node.number, int) or node.number < 0:
        raise node.error(f"{node.value!r} is no count", "Give a whole number, 0 or more.")
    return node.number


def _only(node: Node, names: tuple[str, ...]) -> None:
    """A mapping with exactly these entries."""
    for name in node.of(dict):
        if name not in names:
            raise node.error(f"{name!r} is not known here", f"Remove it, or use one of {', '.join(names)}.")
    for name in names:
        node[name]

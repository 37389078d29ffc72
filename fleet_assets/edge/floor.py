"""A vehicle's own floor: what a release must have shown, whoever signed it.

In: a floor file, and a verdict whose counts were signed. Out: nothing, or a refusal that names what is below. Bounds are found
anew from the counts with the gate's own functions, at the floor's limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet_assets.edge.payload import read_document
from fleet_assets.edge.verdict import COUNT_LIMIT, LEVEL_PPM, PPM, Status, Verdict
from fleet_assets.errors import FleetError

TYPE = "floor"
PROFILES = ("demo", "full")  # a vehicle whose floor asks for one takes it and those behind it
_CELLS_LIMIT = 1024
_REMEDY = "Release a model that was judged by this floor; the vehicle keeps what it has."
_ENTRIES = {"metric", "slice", "limit_ppm"}


@dataclass(frozen=True)
class Demand:
    """The least bound of one metric in one slice."""

    metric: str
    slice: Mapping[str, str]
    limit_ppm: int


@dataclass(frozen=True)
class Floor:
    """profile: the least. level_ppm: how often a bound may be above the truth, at most. The minima hold for every cell."""

    profile: str = "full"
    level_ppm: int = LEVEL_PPM
    minimum_drives: int = 10
    minimum_positives: int = 60
    demands: tuple[Demand, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Floor:
        """Raises FleetError for a file that is no floor."""
        return cls.from_document(read_document(path), str(path))

    @classmethod
    def from_document(cls, document: Mapping[str, Any], name: str) -> Floor:
        try:
            counts = {key: document[key] for key in ("level_ppm", "minimum_drives", "minimum_positives")}
            demands = tuple(_demand(entry) for entry in document["demands"])
            whole = set(document) == {"_type", *cls.__dataclass_fields__} and document["_type"] == TYPE
            whole = whole and document["profile"] in PROFILES and len(demands) <= _CELLS_LIMIT
            whole = whole and all(type(count) is int and 0 < count <= COUNT_LIMIT for count in counts.values())
            whole = whole and counts["level_ppm"] < PPM
        except (KeyError, TypeError, ValueError):
            whole = False
        if not whole:
            raise FleetError(f"{name} is no floor", remedy="See docs/releases.md for what is in one.")
        return cls(document["profile"], **counts, demands=demands)

    def to_document(self) -> dict[str, Any]:
        demands = [{**vars(demand), "slice": dict(demand.slice)} for demand in self.demands]
        return {"_type": TYPE, **vars(self), "demands": demands}

    def check(self, verdict: Verdict) -> None:
        """Raises FleetError, naming the cell, if the verdict is below this floor or is not what its counts say."""
        verdict.check()
        if verdict.profile not in PROFILES or PROFILES.index(verdict.profile) < PROFILES.index(self.profile):
            raise _below(f"it was judged by the profile {verdict.profile!r}, and this floor asks for {self.profile!r}")
        if verdict.level_ppm > self.level_ppm:
            raise _below(f"its bounds are at a level of {verdict.level_ppm} ppm, not {self.level_ppm}")
        for cell in verdict.blocking:
            raise _below(f"{cell.name} is {cell.status}")
        for cell in verdict.cells:
            if cell.drives < self.minimum_drives or cell.positives < self.minimum_positives:
                counts = f"{cell.positives} positives in {cell.drives} drives"
                raise _below(f"{cell.name} has {counts}, of {self.minimum_positives} and {self.minimum_drives}")
        for demand in self.demands:
            self._meets(verdict, demand)

    def _meets(self, verdict: Verdict, demand: Demand) -> None:
        where = f"{demand.metric} in {', '.join(f'{key}={value}' for key, value in demand.slice.items())}"
        cells = [cell for cell in verdict.cells if cell.metric == demand.metric and cell.slice == demand.slice]
        if not cells:
            raise _below(f"{where} was not judged")
        judged = replace(cells[0], limit_ppm=demand.limit_ppm).judged(verdict.cell_level_ppm)
        if judged.status is not Status.PASS:
            raise _below(f"{where} is at least {judged.bound_ppm} ppm for certain, and {demand.limit_ppm} is asked for")


def _below(why: str) -> FleetError:
    return FleetError(f"The release is below the floor: {why}", remedy=_REMEDY)


def _demand(entry: Mapping[str, Any]) -> Demand:
    if set(entry) != _ENTRIES or not isinstance(entry["metric"], str):
        raise ValueError("no demand")
    limit_ppm, slice_ = entry["limit_ppm"], dict(entry["slice"])
    if type(limit_ppm) is not int or not 0 <= limit_ppm <= PPM:
        raise ValueError("no limit")
    if not all(isinstance(value, str) for value in (*slice_, *slice_.values())):
        raise ValueError("no slice")
    return Demand(entry["metric"], slice_, limit_ppm)

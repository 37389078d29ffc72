"""Where a release may be relied on: the slices that its verdict is on, and those that it leaves out.

In: objects, a verdict, the conditions of a drive. Out: slices of the objects; and whether each may be relied on. Whoever judges a
model and whoever drives with it ask here, so that what was not judged is what is not relied on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.verdict import Verdict

Slice = Mapping[str, str]


def band_names(bands_m: Sequence[float]) -> tuple[str, ...]:
    """Such as 0-15: from the first edge, up to and without the second."""
    return tuple(f"{low:g}-{high:g}" for low, high in pairwise(bands_m))


def slices_of(objects: Objects, bands_m: Sequence[float]) -> dict[str, np.ndarray]:
    """class and distance of each object, text [n]. bands_m: edges of distance bands, ascending; the name beyond them is empty."""
    distance_m = objects.distance_m if objects.distance_m.size else np.hypot(objects.x_m, objects.y_m)
    names = np.array(["", *band_names(bands_m), ""])
    band = np.searchsorted(np.asarray(bands_m, dtype=float), distance_m, side="right")
    return {"class": np.array(CLASSES)[objects.class_id], "distance": names[band]}


def outside(slices: Mapping[str, np.ndarray], excluded: Sequence[Slice]) -> np.ndarray:
    """bool [n]: what lies beyond the distance bands, or may be in one of the slices. slices: as `slices_of` gives them, with
    others as far as they are known; what is not known may be."""
    found: np.ndarray = slices["distance"] == ""
    for slice_ in excluded:
        inside = np.ones(found.size, dtype=bool)
        for name in slice_.keys() & slices.keys():
            inside &= slices[name] == slice_[name]
        found |= inside
    return found


@dataclass(frozen=True)
class Domain:
    """Of a release, in a drive. not_judged: conditions of the drive on which there is no verdict, None for one that nobody told.
    excluded: slices that the verdict leaves out, and that may be met in these conditions. bands_m: as judged."""

    not_judged: Mapping[str, str | None]
    excluded: tuple[Slice, ...]
    bands_m: tuple[float, ...]

    @classmethod
    def of(cls, verdict: Verdict, conditions: Mapping[str, str]) -> Domain:
        """conditions: such as {"light": "night"}, as far as they are known; whatever else a recording tells is none: each object
        has a class and a distance of its own."""
        conditions = {name: value for name, value in conditions.items() if name in verdict.domain}
        return cls(
            {name: conditions.get(name) for name, known in verdict.domain.items() if conditions.get(name) not in known},
            tuple(
                slice_
                for slice_ in verdict.excluded
                if all(conditions.get(name, value) == value for name, value in slice_.items())
            ),
            verdict.bands_m,
        )

    @property
    def relied_on(self) -> bool:
        """Whether anything may be: no if a condition was not judged."""
        return not self.not_judged

    def to_document(self) -> dict[str, Any]:
        return {
            "relied_on": self.relied_on,
            "conditions_not_judged": dict(self.not_judged),
            "not_to_be_relied_on": [dict(slice_) for slice_ in self.excluded],
        }

    def holds(self, found: Objects) -> np.ndarray:
        """bool [n]: objects that may be relied on."""
        if self.not_judged:
            return np.zeros(len(found), dtype=bool)
        return ~outside(slices_of(found, self.bands_m), self.excluded)

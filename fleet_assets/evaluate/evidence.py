"""What a verdict rests on: what was there, what the model found, when and where.

In: frames with truth, detections of each pass over them, thresholds, scenarios. Out: Evidence; and from it rows that can be
counted, one per labelled object (recall) or per detection at the shipped threshold (precision), each with drive and slices.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fleet_assets.edge.domain import Slice, outside, slices_of
from fleet_assets.edge.objects import Objects
from fleet_assets.edge.verdict import PPM
from fleet_assets.kernels.matching import match

if TYPE_CHECKING:
    from fleet_assets.train.frames import FrameSet

NOMINAL = "nominal"  # the pass without a rehearsal
RECALL, PRECISION = "recall", "precision"
OF_FRAME = ("light", "weather", "region")
OF_OBJECT = ("class", "distance", "motion")
SCENARIO = "scenario"  # of a frame, too, which may be in several


@dataclass(frozen=True)
class Scenario:
    """Frames that a predicate selects. sha256: of the predicate and what else decides. holds: bool [frames]."""

    sha256: str
    holds: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """drive: int32 [frames], index into drives. t_ns: int64 [frames]. slices: text [frames] each of OF_FRAME. truth: labelled
    objects of all frames. passes: what the model found, by name: as it is (NOMINAL), and in rehearsals. thresholds_ppm: shipped,
    per class of CLASSES. scenarios: by slice, such as rain@1.0.0."""

    drives: tuple[str, ...]
    drive: np.ndarray
    t_ns: np.ndarray
    slices: Mapping[str, np.ndarray]
    truth: Objects
    passes: Mapping[str, Objects]
    thresholds_ppm: tuple[int, ...]
    scenarios: Mapping[str, Scenario] = field(default_factory=dict)

    def __len__(self) -> int:
        return int(self.drive.size)

    @classmethod
    def of(
        cls,
        frames: FrameSet,
        passes: Mapping[str, Objects],
        thresholds_ppm: Iterable[int],
        scenarios: Mapping[str, Scenario],
    ) -> Evidence:
        slices = {name: frames.slices[name] for name in OF_FRAME}
        thresholds_ppm = tuple(map(int, thresholds_ppm))
        return cls(
            frames.drives, frames.drive, frames.t_ns, slices, frames.truth, passes, thresholds_ppm, scenarios
        )  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """What is counted: n rows. hit: bool [n]. drive: int32 [n]. slices: by name, text [n] of each. scenarios: bool [n]
    by slice."""

    hit: np.ndarray
    drive: np.ndarray
    slices: Mapping[str, np.ndarray]
    scenarios: Mapping[str, np.ndarray]

    def within(self, slice_: Mapping[str, str]) -> np.ndarray:
        """bool [n]: rows that have all of these."""
        found = np.ones(self.hit.size, dtype=bool)
        for name, value in slice_.items():
            found &= self.scenarios[value] if name == SCENARIO else self.slices[name] == value
        return found

    def at(self, chosen: np.ndarray) -> Rows:
        """Some of them: bool [n], or row numbers."""
        slices, scenarios = (
            {name: values[chosen] for name, values in all_.items()} for all_ in (self.slices, self.scenarios)
        )
        return Rows(self.hit[chosen], self.drive[chosen], slices, scenarios)

    def per_drive(self, slice_: Mapping[str, str], drives: int) -> tuple[np.ndarray, np.ndarray]:
        """int64 [drives] each: rows in the slice, and hits among them."""
        chosen = self.within(slice_)
        return (
            np.bincount(self.drive[chosen], minlength=drives),
            np.bincount(self.drive[chosen & self.hit], minlength=drives),
        )


@dataclass(frozen=True)
class Matched:
    """A pass set against the truth, slices outside the operating domain left out.

    truth, truth_confidence: labelled objects, and float32 [n] the confidence of what was matched to each, -1 where nothing was.
    found, found_hit, found_error_m: detections, whether each is an object, and how far off it is (NaN if it is none).
    """

    truth: Rows
    truth_class: np.ndarray
    truth_confidence: np.ndarray
    found: Rows
    found_class: np.ndarray
    found_confidence: np.ndarray
    found_error_m: np.ndarray

    def rows(self, metric: str, thresholds_ppm: Sequence[int]) -> Rows:
        """At the thresholds."""
        least = np.asarray(thresholds_ppm, dtype=np.float64) / PPM
        if metric == RECALL:
            hit = self.truth_confidence.astype(np.float64) >= least[self.truth_class]
            return replace(self.truth, hit=hit)
        kept = self.found_confidence.astype(np.float64) >= least[self.found_class]
        return self.found.at(kept)


def matched(
    evidence: Evidence,
    name: str,
    *,
    radius_m: float,
    bands_m: Sequence[float],
    excluded: Sequence[Slice] = (),
) -> Matched:
    """Sets one pass against the truth.

    bands_m: edges of distance bands, ascending; what lies beyond the last is not counted. excluded: slices that are not judged.
    An object there is neither missed nor needed: what is matched to it does not count as false either.
    """
    found, truth = evidence.passes[name], evidence.truth
    row = match(
        truth.frame, truth.class_id, truth.x_m, truth.y_m,
        found.frame, found.class_id, found.x_m, found.y_m, found.confidence, radius_m,
    )  # fmt: skip
    hit = row >= 0
    confidence = np.full(len(truth), -1, dtype=np.float32)
    confidence[row[hit]] = found.confidence[hit]
    error_m = np.full(len(found), np.nan)
    error_m[hit] = np.hypot(
        found.x_m[hit].astype(float) - truth.x_m[row[hit]], found.y_m[hit].astype(float) - truth.y_m[row[hit]]
    )

    of_truth = _rows(evidence, truth, confidence >= 0, bands_m)
    of_found = _rows(evidence, found, hit, bands_m)
    counts = ~outside(of_truth.slices, excluded)
    found_counts = np.where(hit, _at(counts, row), ~outside(of_found.slices, excluded))
    return Matched(
        of_truth.at(counts), truth.class_id[counts], confidence[counts],
        of_found.at(found_counts), found.class_id[found_counts], found.confidence[found_counts], error_m[found_counts],
    )  # fmt: skip


def _rows(evidence: Evidence, objects: Objects, hit: np.ndarray, bands_m: Sequence[float]) -> Rows:
    slices = {name: values[objects.frame] for name, values in evidence.slices.items()}
    slices |= slices_of(objects, bands_m)
    known = objects.moving.size == len(objects)
    slices["motion"] = np.where(objects.moving, "moving", "standing") if known else np.full(len(objects), "unknown")
    scenarios = {name: one.holds[objects.frame] for name, one in evidence.scenarios.items()}
    return Rows(hit, evidence.drive[objects.frame], slices, scenarios)


def _at(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """values at rows, whatever where a row is -1."""
    return values[np.maximum(rows, 0)] if values.size else np.zeros(rows.size, dtype=bool)

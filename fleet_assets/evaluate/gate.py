"""The gate: evidence in, verdict out.

In: a gate, evidence, how many candidates were judged on these drives. Out: Verdict, with a cell for each limit; and, for people,
a line per cell with what is not gated beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from fleet_assets.edge.domain import Slice
from fleet_assets.edge.objects import CLASSES
from fleet_assets.edge.verdict import PPM, Cell, Verdict, upper_bound_ppm
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.evidence import NOMINAL, OF_FRAME, Evidence, Matched, Rows, matched
from fleet_assets.evaluate.gate_file import Fairness, Gate, Limit
from fleet_assets.evaluate.metrics import average_precision, calibration_error, recall_at_precision
from fleet_assets.evaluate.resample import bootstrap_bound, design_effect_ppm

_SEED = 20260101  # of resampling: the same evidence gives the same report


@dataclass(frozen=True)
class Counts:
    """Of one cell, per drive: int64 [drives] each."""

    positives: np.ndarray
    hits: np.ndarray


@dataclass(frozen=True)
class CellReport:
    """What is shown beside a cell: the bound by drawing drives anew, recall at the gate's equal precision, average precision, how
    far places are off, calibration error. NaN where there is nothing to tell from; shares from 0 to 1."""

    cell: Cell
    bootstrap_bound: float
    recall_at_equal_precision: float
    average_precision: float
    error_m: float
    calibration_error: float


class Judgement:
    """One gate on one piece of evidence. Raises FleetError if the gate asks for a rehearsal that was not run, or a scenario that
    was not looked up."""

    def __init__(self, gate: Gate, evidence: Evidence) -> None:
        lacking = [name for name in (NOMINAL, *gate.rehearsals) if name not in evidence.passes]
        if lacking:
            raise FleetError(
                f"Gate {gate.name} asks for what was not run: {', '.join(lacking)}",
                remedy="Run these rehearsals, or take a gate without them.",
            )
        unknown = [name for name in gate.scenarios if name not in evidence.scenarios]
        if unknown:
            raise FleetError(
                f"Gate {gate.name} asks for scenarios that were not looked up: {', '.join(unknown)}",
                remedy="Judge on frames of a dataset, whose scenarios the lake knows, or by a gate without them.",
            )
        self.gate, self.evidence = gate, evidence
        self._matched: dict[str, Matched] = {}
        self._effects_ppm: dict[tuple[str, str, str], int] = {}

    def matched(self, name: str = NOMINAL) -> Matched:
        """A pass set against the truth, by the gate's radius and operating domain."""
        if name not in self._matched:
            excluded = [one.slice for one in self.gate.outside] + list(self._beyond())
            self._matched[name] = matched(
                self.evidence, name, radius_m=self.gate.match_radius_m, bands_m=self.gate.distance_m, excluded=excluded
            )
        return self._matched[name]

    def verdict(self, *, candidates_judged: int, bound_to: Mapping[str, str]) -> Verdict:
        """candidates_judged: how many, this one among them, were judged on drives of this test set."""
        return Verdict(
            profile=self.gate.profile,
            gate_name=self.gate.name,
            gate_sha256=self.gate.sha256,
            level_ppm=self.gate.level_ppm,
            candidates_judged=candidates_judged,
            cells=tuple(self._cells(self.gate.level_ppm // candidates_judged)),
            domain=self.gate.domain,
            excluded=tuple(one.slice for one in self.gate.outside),
            distance_mm=tuple(round(edge * 1_000) for edge in self.gate.distance_m),
            bound_to={"gate_version": self.gate.version, **bound_to},
        ).recomputed()

    def report(self, verdict: Verdict) -> list[CellReport]:
        """A line per cell of the verdict."""
        demands: tuple[Limit | Fairness, ...] = (*self.gate.limits, *self.gate.fairness)
        return [self._line(cell, demand, verdict) for cell, demand in zip(verdict.cells, demands, strict=True)]

    # ---- cells -------------------------------------------------------------------------------------------------------

    def _cells(self, level_ppm: int) -> Iterator[Cell]:
        for limit in self.gate.limits:
            slice_ = {**limit.slice, **({"rehearsal": limit.rehearsal} if limit.rehearsal else {})}
            yield self._cell(limit, slice_, limit.limit_ppm)
        for fair in self.gate.fairness:
            yield self._cell(fair, {**fair.slice, "fairness": fair.between}, self._reference_ppm(fair, level_ppm))

    def _cell(self, demand: Limit | Fairness, slice_: Slice, limit_ppm: int) -> Cell:
        found = self.counts(demand)
        return Cell(
            metric=demand.metric,
            slice=slice_,
            positives=int(found.positives.sum()),
            hits=int(found.hits.sum()),
            drives=int((found.positives > 0).sum()),
            design_effect_ppm=self._design_effect_ppm(demand.metric, _pass_of(demand), slice_.get("class")),
            limit_ppm=limit_ppm,
            minimum_drives=demand.minimum.drives,
            minimum_positives=demand.minimum.positives,
        )

    def counts(self, demand: Limit | Fairness) -> Counts:
        """What a cell counts."""
        return self._counts(self._rows(demand.metric, _pass_of(demand)), demand.slice)

    def _reference_ppm(self, fair: Fairness, level_ppm: int) -> int:
        """What the slice must reach: the upper bound of the others, less the allowance.

        Two bounds at one level each: that both are off at once is rarer than the level, so a difference beyond the allowance
        passes no more often than a single limit would.
        """
        rows = self._rows(fair.metric, NOMINAL)
        rest = {name: value for name, value in fair.slice.items() if name != fair.between}
        others = rows.within(rest) & ~rows.within(fair.slice)
        positives, hits = int(others.sum()), int((others & rows.hit).sum())
        effect_ppm = self._design_effect_ppm(fair.metric, NOMINAL, rest.get("class"))
        return max(upper_bound_ppm(hits, positives, effect_ppm, level_ppm) - fair.allowance_ppm, 0)

    def _design_effect_ppm(self, metric: str, name: str, class_name: str | None) -> int:
        """Of a metric, a pass and a class: pooled over each light, weather and region of the domain, so that it does not depend
        on how the rules are written. No class: the largest of all."""
        if class_name is None:
            return max(self._design_effect_ppm(metric, name, one) for one in CLASSES)
        if (metric, name, class_name) not in self._effects_ppm:
            rows = self._rows(metric, name)
            cells = [
                self._counts(rows, {"class": class_name, dimension: value})
                for dimension, values in self.gate.domain.items()
                for value in values
            ]
            self._effects_ppm[metric, name, class_name] = design_effect_ppm(
                np.stack([cell.positives for cell in cells]), np.stack([cell.hits for cell in cells])
            )
        return self._effects_ppm[metric, name, class_name]

    def _rows(self, metric: str, name: str) -> Rows:
        return self.matched(name).rows(metric, self.evidence.thresholds_ppm)

    def _counts(self, rows: Rows, slice_: Slice) -> Counts:
        return Counts(*rows.per_drive(slice_, len(self.evidence.drives)))

    def _beyond(self) -> Iterator[dict[str, str]]:
        """Conditions of the frames that the gate's domain does not list."""
        for name in OF_FRAME:
            for value in np.unique(self.evidence.slices[name]).tolist():
                if value not in self.gate.domain[name]:
                    yield {name: value}

    # ---- what is shown beside them -----------------------------------------------------------------------------------

    def _line(self, cell: Cell, demand: Limit | Fairness, verdict: Verdict) -> CellReport:
        counts = self.counts(demand)
        found = self.matched(_pass_of(demand))
        truth, detections = found.truth.within(demand.slice), found.found.within(_told(demand.slice))
        confidence, hit = found.found_confidence[detections], found.found.hit[detections]
        if "motion" in demand.slice:  # a detection has the motion of the object that it is, or none: no precision
            confidence, hit = confidence[:0], hit[:0]
        positives = int(truth.sum())
        errors_m = found.found_error_m[detections & found.found.hit]
        return CellReport(
            cell,
            bootstrap_bound(counts.positives, counts.hits, level=verdict.cell_level_ppm / PPM, seed=_SEED),
            recall_at_precision(confidence, hit, positives, self.gate.equal_precision_ppm / PPM),
            average_precision(confidence, hit, positives),
            float(errors_m.mean()) if errors_m.size else float("nan"),
            calibration_error(confidence, hit),
        )


def _pass_of(demand: Limit | Fairness) -> str:
    return demand.rehearsal or NOMINAL if isinstance(demand, Limit) else NOMINAL


def _told(slice_: Slice) -> Slice:
    """Without what detections do not tell."""
    return {name: value for name, value in slice_.items() if name != "motion"}


def mean_average_precision(found: Matched) -> float:
    """Over the classes that were labelled; NaN if none was."""
    values = []
    for number in range(len(CLASSES)):
        own = found.found_class == number
        positives = int((found.truth_class == number).sum())
        values.append(average_precision(found.found_confidence[own], found.found.hit[own], positives))
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")

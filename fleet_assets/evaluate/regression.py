"""A candidate against the released model: what got better, what got worse.

In: both models' judgements on the same frames, by the same gate. Out: differences in average precision and in recall per slice,
paired by frame, with intervals from drawing drives anew. They are reported; what blocks are the gate's limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleet_assets.errors import FleetError
from fleet_assets.evaluate.evidence import NOMINAL, RECALL
from fleet_assets.evaluate.gate import Judgement, mean_average_precision
from fleet_assets.evaluate.resample import drawn, drive_weights

_SEED, _RESAMPLES, _MAP_RESAMPLES = 20260102, 2_000, 200
_TAIL = 0.05  # at each end of an interval: 90 % lie inside


@dataclass(frozen=True)
class Difference:
    """Candidate less released, and its interval."""

    name: str
    released: float
    candidate: float
    difference: float
    low: float
    high: float

    @property
    def is_worse(self) -> bool:
        return self.high < 0


def regression(released: Judgement, candidate: Judgement) -> list[Difference]:
    """Of mean average precision, then of each recall that the gate limits (rehearsals aside).

    Raises FleetError if the two were not judged on the same frames.
    """
    before, after = released.evidence, candidate.evidence
    same = (
        before.drives == after.drives
        and np.array_equal(before.t_ns, after.t_ns)
        and len(before.truth) == len(after.truth)
    )
    if not same or released.gate.sha256 != candidate.gate.sha256:
        raise FleetError(
            "The two models were not judged on the same frames by the same gate", remedy="Judge the released one anew."
        )
    drives = len(before.drives)
    found = [_of_average_precision(released, candidate, drives)]
    weights = drive_weights(drives, _SEED, _RESAMPLES)
    for limit in candidate.gate.limits:
        if limit.metric != RECALL or limit.rehearsal:
            continue
        old, new = released.counts(limit), candidate.counts(limit)
        total = int(old.positives.sum())
        if total:
            sums = weights @ old.positives
            spread = (weights @ (new.hits - old.hits))[sums > 0] / sums[sums > 0]
            found.append(_difference(limit.name, int(old.hits.sum()) / total, int(new.hits.sum()) / total, spread))
    return found


def _of_average_precision(released: Judgement, candidate: Judgement, drives: int) -> Difference:
    old, new = released.matched(NOMINAL), candidate.matched(NOMINAL)
    spread = np.array([
        mean_average_precision(drawn(new, weights)) - mean_average_precision(drawn(old, weights))
        for weights in drive_weights(drives, _SEED, _MAP_RESAMPLES)
    ])  # fmt: skip
    return _difference("mean average precision", mean_average_precision(old), mean_average_precision(new), spread)


def _difference(name: str, released: float, candidate: float, spread: np.ndarray) -> Difference:
    low, high = np.nanquantile(spread, [_TAIL, 1 - _TAIL])
    return Difference(name, released, candidate, candidate - released, float(low), float(high))

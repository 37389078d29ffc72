"""How sure a share is when what was counted comes in drives.

In: counts per drive. Out: the design effect, by which counts are divided before a bound is told from them; and intervals from
drawing drives anew, which are reported beside it.
"""

from __future__ import annotations

import numpy as np

from fleet_assets.edge.verdict import PPM
from fleet_assets.evaluate.evidence import Matched

RESAMPLES = 2_000


def design_effect_ppm(positives: np.ndarray, hits: np.ndarray) -> int:
    """By how much the variance of shares is above that of independent samples, pooled over cells; at least 1, rounded up, ppm.

    positives, hits: int [cells, drives]. Per cell, the variance of a ratio over drives of different size (Cochran, Sampling
    Techniques, 1977, 6.11), against p (1 - p) / n; numerators and denominators are summed over the cells, so that a cell with few
    drives borrows from the others. How well so many drives tell a variance is allowed for as Korn and Graubard (1998) do it, by
    the square of Student's quantile over the normal one.
    """
    total, share = positives.sum(axis=1), hits.sum(axis=1) / np.maximum(positives.sum(axis=1), 1)
    drives = (positives > 0).sum(axis=1)
    told = drives > 1  # one drive says nothing about how drives differ
    spread = ((hits - share[:, None] * positives) ** 2).sum(axis=1) * drives / np.maximum(drives - 1, 1)
    independent = float((total * share * (1 - share))[told].sum())
    if not independent:
        return PPM  # all were hits, or none: no drive differs
    freedom = int((positives > 0).any(axis=0).sum()) - 1
    return int(np.ceil(max(float(spread[told].sum()) / independent * _uncertainty(freedom), 1.0) * PPM))


def _uncertainty(freedom: int) -> float:
    """(Student's quantile / normal quantile) ** 2 at one-sided 95 %, by the expansion of Fisher and Cornish (1960)."""
    z = 1.6448536269514722
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return float((t / z) ** 2)


def drive_weights(drives: int, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """How often each drive is drawn: int [resamples, drives]; with replacement, as many as there are."""
    return np.random.default_rng(seed).multinomial(drives, np.full(drives, 1 / drives), size=resamples)


def bootstrap_bound(positives: np.ndarray, hits: np.ndarray, *, level: float, seed: int) -> float:
    """Percentile lower bound of a share, by drives drawn anew. positives, hits: int [drives] (those without a positive do not
    count). With few drives it is too high too often: it is shown beside the bound that counts, and decides nothing."""
    here = positives > 0
    if not here.any():
        return 0.0
    weights = drive_weights(int(here.sum()), seed)
    return float(np.quantile((weights @ hits[here]) / (weights @ positives[here]), level))


def drawn(found: Matched, weights: np.ndarray) -> Matched:
    """A matched pass with each drive as often as it was drawn. weights: int [drives]."""
    truth, detections = (
        np.repeat(np.arange(rows.drive.size), weights[rows.drive]) for rows in (found.truth, found.found)
    )
    return Matched(
        found.truth.at(truth), found.truth_class[truth], found.truth_confidence[truth],
        found.found.at(detections), found.found_class[detections], found.found_confidence[detections],
        found.found_error_m[detections],
    )  # fmt: skip

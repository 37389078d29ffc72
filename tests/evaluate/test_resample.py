"""Drives that differ: how often a bound lets a bad model pass, simulated."""

from __future__ import annotations

import numpy as np
import pytest

from fleet_assets.edge.verdict import LEVEL_PPM, PPM, lower_bound_ppm
from fleet_assets.evaluate.resample import bootstrap_bound, design_effect_ppm

LIGHTS = 3


def drives(
    random: np.random.Generator, trials: int, count: int, share: float, mean: float, correlation: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positives and hits [trials, LIGHTS, LIGHTS * count], each drive in one light; shares of drives are beta distributed."""
    a, b = share * (1 - correlation) / correlation, (1 - share) * (1 - correlation) / correlation
    positives = random.poisson(mean, (trials, LIGHTS, count))
    hits = random.binomial(positives, random.beta(a, b, positives.shape))
    spread = np.zeros((2, trials, LIGHTS, LIGHTS * count), dtype=np.int64)
    for light in range(LIGHTS):
        spread[:, :, light, light * count : (light + 1) * count] = positives[:, light], hits[:, light]
    return spread[0], spread[1]


def test_the_design_effect_is_that_of_the_correlation() -> None:
    """1 + (size - 1) correlation (Kish, 1965); of independent samples it is 1."""
    positives, hits = (values[0] for values in drives(np.random.default_rng(3), 1, 4000, 0.7, 30, 0.1))
    assert design_effect_ppm(positives, hits) / PPM == pytest.approx(1 + 30 * 0.1, rel=0.1)
    independent = np.random.default_rng(3).binomial(positives, 0.7)
    assert PPM <= design_effect_ppm(positives, independent) < 1.1 * PPM


def test_the_design_effect_of_next_to_nothing_is_one() -> None:
    assert design_effect_ppm(np.array([[30, 0]]), np.array([[20, 0]])) == PPM
    assert design_effect_ppm(np.array([[30, 30]]), np.array([[30, 30]])) == PPM
    assert design_effect_ppm(np.zeros((2, 3), dtype=int), np.zeros((2, 3), dtype=int)) == PPM


@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 20, 45])
@pytest.mark.parametrize(
    ("share", "mean", "correlation"), [(0.57, 30, 0.1), (0.8, 20, 0.1), (0.9, 30, 0.1), (0.57, 8, 0.3)]
)
def test_at_most_one_in_twenty_models_at_the_limit_passes(
    count: int, share: float, mean: float, correlation: float
) -> None:
    """The worst case, a share just at the limit. 2,000 trials: 5 % may look like 6.2 % (2.5 standard deviations)."""
    trials = 2000
    positives, hits = drives(np.random.default_rng(count), trials, count, share, mean, correlation)
    passed = 0
    for trial in range(trials):
        total, right = int(positives[trial, 0].sum()), int(hits[trial, 0].sum())
        if right >= share * total:
            effect_ppm = design_effect_ppm(positives[trial], hits[trial])
            passed += lower_bound_ppm(right, total, effect_ppm, LEVEL_PPM) >= share * PPM
    assert passed / trials <= 0.05 + 2.5 * (0.05 * 0.95 / trials) ** 0.5
    if (share, correlation) == (0.57, 0.1):
        assert passed / trials >= 0.02  # nor is it so careful that nothing would pass


@pytest.mark.slow
def test_a_bootstrap_alone_passes_too_many_when_drives_are_few() -> None:
    trials, share = 300, 0.57
    passed = {}
    for count in (4, 45):
        positives, hits = drives(np.random.default_rng(5), trials, count, share, 30, 0.1)
        passed[count] = np.mean(
            [bootstrap_bound(p[0], h[0], level=0.05, seed=1) >= share for p, h in zip(positives, hits, strict=True)]
        )
    assert passed[4] > 0.1 > passed[45]


def test_a_bootstrap_gives_the_same_each_time_and_ignores_drives_without_positives() -> None:
    positives, hits = (values[0, 0] for values in drives(np.random.default_rng(7), 1, 20, 0.7, 30, 0.1))
    bounds = {bootstrap_bound(p, h, level=0.05, seed=1) for p, h in ((positives, hits), (positives[:20], hits[:20]))}
    assert len(bounds) == 1
    assert 0.5 < bounds.pop() < hits.sum() / positives.sum()
    assert bootstrap_bound(positives * 0, hits * 0, level=0.05, seed=1) == 0

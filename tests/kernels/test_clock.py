"""Clock kernels: the hull against every line that could be one, the correlation against every lag."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.kernels.clock import correlate, fit_lag, lower_hull_line

points = st.lists(st.tuples(st.integers(0, 30), st.integers(-50, 50)), min_size=1, max_size=12).map(sorted)


def arrays(drawn: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.array(drawn, dtype=np.float64).T
    return np.ascontiguousarray(x), np.ascontiguousarray(y)


@given(points)
@settings(deadline=None)
def test_no_line_under_all_points_is_nearer_in_the_middle(drawn: list[tuple[int, int]]) -> None:
    x, y = arrays(drawn)
    slope, at_zero = lower_hull_line(x, y)
    assert (at_zero + slope * x <= y + 1e-9).all()
    if x[0] == x[-1]:
        assert (slope, at_zero) == (0.0, y.min())
        return
    middle = 0.5 * (x[0] + x[-1])
    best = -np.inf
    for left, right in combinations(range(x.size), 2):
        if x[left] < x[right]:
            tried = (y[right] - y[left]) / (x[right] - x[left])
            base = y[left] - tried * x[left]
            if (base + tried * x <= y + 1e-9).all():
                best = max(best, base + tried * middle)
    assert at_zero + slope * middle == pytest.approx(best, abs=1e-9)


@given(st.integers(0, 2**32), st.floats(-100, 100), st.floats(-1e7, 1e7))
@settings(deadline=None, max_examples=30)
def test_delay_on_one_side_hides_no_skew(seed: int, skew_ppm: float, offset_ns: float) -> None:
    """Ten minutes at 10 Hz, delayed by 2 ms on average and by up to 200 ms at times: 0.1 ppm and 0.1 ms."""
    random = np.random.default_rng(seed)
    x = np.arange(6000) * 1e8
    delay = random.exponential(2e6, x.size) + (random.random(x.size) < 0.05) * random.uniform(0, 2e8, x.size)
    slope, at_zero = lower_hull_line(x, offset_ns + skew_ppm * 1e-6 * x + delay)
    assert slope * 1e6 == pytest.approx(skew_ppm, abs=0.1)
    assert at_zero == pytest.approx(offset_ns, abs=1e5)


def score(reference: np.ndarray, other: np.ndarray, lag: int, min_overlap: int) -> float:
    """Pearson correlation of what overlaps when other is put lag samples later."""
    first, last = max(0, lag), min(reference.size, other.size + lag)
    if last - first < min_overlap:
        return -np.inf
    a, b = reference[first:last], other[first - lag : last - lag]
    spread = float(np.std(a) * np.std(b))
    return float(np.mean((a - a.mean()) * (b - b.mean())) / spread) if spread > 1e-9 else -np.inf


@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(2, 60), st.integers(2, 12))
@settings(deadline=None)
def test_correlation_against_every_lag(seed: int, n: int, m: int, min_overlap: int) -> None:
    random = np.random.default_rng(seed)
    reference, other = random.normal(size=n), random.normal(size=m)
    lag, peak, rival = correlate(reference, other, min_overlap)
    scores = {at: score(reference, other, at, min_overlap) for at in range(-(m - 1), n)}
    best = max(scores.values())
    if not np.isfinite(best):
        assert (lag, peak, rival) == (0.0, 0.0, 0.0)
        return
    assert peak == pytest.approx(best, abs=1e-6)
    assert rival <= max(peak, 0.0)
    # Within half a sample of a lag that is as good as any.
    assert min(abs(lag - at) for at, found in scores.items() if found >= best - 1e-6) <= 0.5 + 1e-9


@given(st.integers(0, 2**32), st.floats(-300, 300))
@settings(deadline=None, max_examples=30)
def test_lag_to_a_fraction_of_a_sample(seed: int, lag: float) -> None:
    random = np.random.default_rng(seed)
    waves = random.uniform(0.02, 0.2, 8), random.uniform(0, 6, 8)

    def signal(at: np.ndarray) -> np.ndarray:
        return np.asarray(np.sin(np.outer(at, waves[0]) + waves[1]).sum(axis=1))

    reference = signal(np.arange(2000.0))
    other = signal(np.arange(1200.0) + 400.0 - lag) * 3.0 + 0.5  # scale and bias are the sensor's own
    found, peak, rival = correlate(reference, other, 500)
    assert found == pytest.approx(400.0 - lag, abs=0.1)
    assert peak > 0.99
    assert rival < peak


@pytest.mark.parametrize(
    ("reference", "other"),
    [(np.zeros(0), np.zeros(0)), (np.ones(9), np.ones(9)), (np.ones(500), np.sin(np.arange(500.0)))],
    ids=["empty", "too short", "nothing varies"],
)
def test_what_cannot_be_told_is_nought(reference: np.ndarray, other: np.ndarray) -> None:
    assert correlate(reference, other, 10) == (0.0, 0.0, 0.0)


def bends(at: np.ndarray, seed: int) -> np.ndarray:
    """Turn rates as a road makes them, at 100 Hz: a bend of a second or two every few seconds."""
    places, lengths, rates = np.random.default_rng(seed).uniform((0, 80, -0.4), (9000, 250, 0.4), (30, 3)).T
    return np.asarray((rates * np.exp(-(((at[:, None] - places) / lengths) ** 2))).sum(axis=1))


@given(st.integers(0, 2**32), st.floats(-400, 400), st.floats(-80e-6, 80e-6), st.floats(-0.9, 0.9))
@settings(deadline=None, max_examples=30, derandomize=True)
def test_lag_and_skew_of_what_carries_no_noise(seed: int, lag: float, skew: float, off: float) -> None:
    """From a lag that is off by less than a sample; a signal without noise leaves nothing to likelihood."""
    t = np.arange(6000.0)
    reference = bends(np.arange(9000.0), seed)
    other = 3.0 * bends(1500 + t + lag + skew * (t - 3000), seed) + 0.5
    fit = fit_lag(reference, other, 1500 + lag + off, 41, 50e-6)
    assert fit is not None
    assert fit.lag + fit.skew * (t - fit.middle) == pytest.approx(1500 + lag + skew * (t - 3000), abs=0.02)
    assert fit.skew == pytest.approx(skew, abs=2e-6)


def test_errors_of_a_fit_are_those_that_it_makes() -> None:
    """Of 200 fits; and no bias, though the reference is noisy and the noise of its slope is its own."""
    t, off, skew_off = np.arange(6000.0), [], []
    for seed in range(200):
        random = np.random.default_rng(seed)
        reference = bends(t, 7) + random.normal(0, 0.005, t.size)
        fit = fit_lag(reference, bends(t + 0.4, 7) + random.normal(0, 0.002, t.size), 0.0, 41, 50e-6)
        assert fit is not None
        off.append((fit.lag - 0.4) / fit.lag_error)
        skew_off.append(fit.skew / fit.skew_error)
    assert abs(np.mean(off)) < 0.25
    assert 0.8 < np.std(off) < 1.3
    assert np.std(skew_off) < 1.3


@pytest.mark.parametrize(
    ("reference", "other", "lag"),
    [
        (np.ones(500), np.ones(500), 0.0),
        (bends(np.arange(6000.0), 3), np.zeros(6000), 0.0),
        (bends(np.arange(6000.0), 3), bends(np.arange(6000.0), 3), 5990.0),
        (np.ones(41), np.ones(41), 0.0),
        (np.full(500, np.nan), np.ones(500), 0.0),
    ],
    ids=["nothing varies", "one stands still", "nothing in common", "too short", "no numbers"],
)
def test_what_has_no_lag_has_no_fit(reference: np.ndarray, other: np.ndarray, lag: float) -> None:
    assert fit_lag(reference, other, lag, 41, 50e-6) is None

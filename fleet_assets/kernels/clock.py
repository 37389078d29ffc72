"""How one clock runs against another.

In: pairs of stamps, or two sampled signals. Out: offset and skew, or lag and how well they agree.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

ROUNDS = 5  # of the fit of a lag; it converges in two or three


@njit(cache=True)
def lower_hull_line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The line under all points that is nearest to them at the middle of x: slope and its value at x = 0.

    x: float64, ascending; y: float64. Delay only ever adds to y, so the points that carry no delay lie on the lower hull;
    least squares would follow the delays. Source: Moon, Skelly, Towsley, "Estimation and removal of clock skew from
    network delay measurements", INFOCOM 1999.
    """
    hull = np.empty(x.size, dtype=np.int64)
    size = 0
    for point in range(x.size):
        while size >= 2:
            first, last = hull[size - 2], hull[size - 1]
            cross = (x[last] - x[first]) * (y[point] - y[first]) - (y[last] - y[first]) * (x[point] - x[first])
            if cross > 0:
                break
            size -= 1
        if size == 1 and x[hull[0]] == x[point]:
            if y[point] < y[hull[0]]:
                hull[0] = point
            continue
        hull[size] = point
        size += 1
    middle = 0.5 * (x[0] + x[-1])
    for edge in range(size - 1):
        left, right = hull[edge], hull[edge + 1]
        if x[left] <= middle <= x[right] and x[right] > x[left]:
            slope = (y[right] - y[left]) / (x[right] - x[left])
            return slope, y[left] - slope * x[left]
    return 0.0, y[hull[0]]


def correlate(reference: np.ndarray, other: np.ndarray, min_overlap: int) -> tuple[float, float, float]:
    """Lag of other behind reference, by normalised cross-correlation over all lags with enough overlap.

    Both float64, sampled at the same rate; min_overlap in samples. Gives the lag in samples with sub-sample precision (a
    parabola through the peak), the correlation there, and the best correlation away from the peak. (0, 0, 0) when no lag
    has enough overlap or nothing varies.
    """
    n, m = reference.size, other.size
    if min(n, m) < min_overlap:
        return 0.0, 0.0, 0.0
    length = 1 << (n + m - 1).bit_length()

    def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """sum over i of a[i] b[i - lag], for lags -(m - 1) ... n - 1."""
        product = np.fft.irfft(np.fft.rfft(a, length) * np.conj(np.fft.rfft(b, length)), length)
        return np.concatenate([product[length - (m - 1) :], product[:n]]) if m > 1 else product[:n]

    ones_n, ones_m = np.ones(n), np.ones(m)
    count = np.round(cross(ones_n, ones_m))
    usable = count >= min_overlap
    with np.errstate(divide="ignore", invalid="ignore"):
        sum_a, sum_b = cross(reference, ones_m), cross(ones_n, other)
        variance_a = cross(reference**2, ones_m) - sum_a**2 / count
        variance_b = cross(ones_n, other**2) - sum_b**2 / count
        score = (cross(reference, other) - sum_a * sum_b / count) / np.sqrt(variance_a * variance_b)
    tiny = 1e-12 * max(float(np.sum(reference**2)), float(np.sum(other**2)), 1e-300)
    score = np.where(usable & (variance_a > tiny) & (variance_b > tiny), score, -np.inf)
    peak = int(np.argmax(score))
    if not np.isfinite(score[peak]):
        return 0.0, 0.0, 0.0
    shift = 0.0
    if 0 < peak < score.size - 1 and np.isfinite(score[peak - 1]) and np.isfinite(score[peak + 1]):
        low, top, high = score[peak - 1], score[peak], score[peak + 1]
        bend = low - 2 * top + high
        shift = 0.5 * (low - high) / bend if bend < 0 else 0.0
    # The rival: the best local maximum that is not this peak's own shoulder.
    left, right = peak, peak
    while left > 0 and score[left - 1] < score[left]:
        left -= 1
    while right < score.size - 1 and score[right + 1] < score[right]:
        right += 1
    away = np.concatenate([score[:left], score[right + 1 :]])
    rival = float(np.max(away)) if away.size and np.isfinite(np.max(away)) else 0.0
    return float(peak - (m - 1) + shift), float(score[peak]), rival


class Fit(NamedTuple):
    """reference time = t + lag + skew * (t - middle), in samples, both grids counted from their first; with standard errors."""

    lag: float
    skew: float
    middle: float
    half_span: float  # of the samples that were compared, around the middle
    lag_error: float
    skew_error: float


def fit_lag(reference: np.ndarray, other: np.ndarray, lag: float, width: int, likely_skew: float) -> Fit | None:
    """Lag and skew of other against reference by least squares, from a lag that is nearly right; scale and bias are the sensor's
    own. None where they do not fit, or only further than a window away.

    Both float64, sampled at the same rate. width: of the window, in samples, that both are smoothed with: reference alone would
    pull the lag to where its noise fits. likely_skew: the standard deviation of what clocks do, which counts as far as the
    signals do not tell. Errors are those of blocks of that width, so that what does not fit in one turn counts once. Source:
    White, "A heteroskedasticity-consistent covariance matrix estimator", Econometrica 48 (1980).
    """
    window = np.hanning(width + 2)[1:-1] / np.hanning(width + 2).sum()
    if min(reference.size, other.size) <= width:
        return None
    known, seen = np.convolve(reference, window, mode="valid"), np.convolve(other, window, mode="valid")
    slope = np.gradient(known)
    t, grid = np.arange(seen.size, dtype=np.float64), np.arange(known.size, dtype=np.float64)
    start, skew, middle, half_span = lag, 0.0, 0.0, 0.0
    for number in range(ROUNDS):
        at = t + lag + skew * (t - middle)
        inside = (at >= 0) & (at <= grid[-1])
        if inside.sum() <= width or abs(lag - start) > width:
            return None
        if number == 0:
            first, last = t[inside][0], t[inside][-1]
            middle, half_span = 0.5 * (first + last), 0.5 * (last - first)
        turn = np.interp(at[inside], grid, slope)
        columns = np.ones((turn.size, 4))
        columns[:, 1], columns[:, 2] = np.interp(at[inside], grid, known), turn
        columns[:, 3] = turn * (t[inside] - middle) / half_span
        square = columns.T @ columns
        if not np.isfinite(square).all() or np.linalg.matrix_rank(square) < 4:
            return None
        inverse = np.linalg.inv(square)
        found = inverse @ (columns.T @ seen[inside])
        if not found[1] > 0:
            return None
        left = seen[inside] - columns @ found
        scores = np.add.reduceat(columns * left[:, None], np.arange(0, turn.size, width))
        lag_error, skew_error = np.sqrt(np.diag(inverse @ (scores.T @ scores) @ inverse))[2:] / abs(found[1])
        skew_error /= half_span
        told = likely_skew**2 / (likely_skew**2 + skew_error**2)
        lag, skew = lag + found[2] / found[1], told * (skew + found[3] / found[1] / half_span)
    return Fit(lag, skew, middle + (width - 1) / 2, half_span, lag_error, np.sqrt(told) * skew_error)

"""How one clock runs against another.

In: pairs of stamps, or two sampled signals. Out: offset and skew, or lag and how well they agree.
"""

from __future__ import annotations

import numpy as np
from numba import njit


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

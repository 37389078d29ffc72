"""Places along a closed line.

In: a closed line sampled at even steps, distances along it. Out: places and headings.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit


@njit(cache=True, nogil=True, error_model="numpy")
def along(x_m, y_m, heading_rad, step_m, distance_m, left_m):  # type: ignore[no-untyped-def]
    """float64 [n, 3]: x, y, heading at each distance [n], so far to the left [n]; between samples linear.

    The line runs anticlockwise: each round adds a full turn to the heading, which is not wrapped.
    """
    size, turn = x_m.size, 2.0 * math.pi
    found = np.empty((distance_m.size, 3))
    for item in range(distance_m.size):
        place = distance_m[item] / step_m
        rounds = math.floor(place / size)
        place -= rounds * size
        low = min(int(place), size - 1)
        high = low + 1 if low + 1 < size else 0
        share = place - low
        ahead = heading_rad[high] if high > 0 else heading_rad[0] + turn
        heading = heading_rad[low] + share * (ahead - heading_rad[low]) + rounds * turn
        found[item, 0] = x_m[low] + share * (x_m[high] - x_m[low]) - left_m[item] * math.sin(heading)
        found[item, 1] = y_m[low] + share * (y_m[high] - y_m[low]) + left_m[item] * math.cos(heading)
        found[item, 2] = heading
    return found

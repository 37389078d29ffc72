"""Rows of a PNG image, as they were before its filters.

In: the decompressed bytes of its data chunks. Out: pixels. Source: ISO/IEC 15948, "Filtering".
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def unfilter(data: np.ndarray, height: int, row_bytes: int, pixel_bytes: int) -> tuple[np.ndarray, bool]:
    """data: uint8 [height * (1 + row_bytes)], each row behind the number of its filter. Gives uint8 [height, row_bytes], and
    False when a row has a filter that does not exist."""
    rows = np.zeros((height, row_bytes), dtype=np.uint8)
    at = 0
    for y in range(height):
        kind = data[at]
        at += 1
        if kind > 4:
            return rows, False
        for x in range(row_bytes):
            left = int(rows[y, x - pixel_bytes]) if x >= pixel_bytes else 0
            up = int(rows[y - 1, x]) if y > 0 else 0
            guess = 0
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = up
            elif kind == 3:
                guess = (left + up) // 2
            elif kind == 4:
                corner = int(rows[y - 1, x - pixel_bytes]) if y > 0 and x >= pixel_bytes else 0
                at_left, at_up, at_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
                if at_left <= at_up and at_left <= at_corner:
                    guess = left
                elif at_up <= at_corner:
                    guess = up
                else:
                    guess = corner
            rows[y, x] = (int(data[at + x]) + guess) & 255
        at += row_bytes
    return rows, True

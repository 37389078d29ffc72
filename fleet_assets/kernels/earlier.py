"""The records of a stream before one of them.

In: int64 times [records], in the order in which records came. Out: rows. Exact over the whole of int64.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fleet_assets.kernels.align import _distance

REACH = 8  # of so many records before one, the earlier ones are found


@njit(cache=True)
def earlier_rows(t_ns: np.ndarray, rows: np.ndarray, count: int, longest_ns: np.uint64) -> np.ndarray:
    """int64 [rows, count]: for each row the latest `count` that came before it, each measured before the one after it, none more
    than longest_ns before the row; -1 where there are no more. A row of -1 has none."""
    found = np.full((rows.size, count), -1, dtype=np.int64)
    for place in range(rows.size):
        row = rows[place]
        known, last = 0, row
        for at in range(row - 1, max(row - 1 - REACH, -1), -1):
            if known == count:
                break
            # Doubled records, and those that overtook others, are left out.
            if t_ns[at] < t_ns[last] and _distance(t_ns[at], t_ns[row]) <= longest_ns:
                found[place, known] = at
                known, last = known + 1, at
    return found

"""Sliding windows over the last ten seconds of arrival, in buckets of one second.

In: the numbers of a window's buckets, which are part of a kernel's state, and a time. Out: the bucket to write to, and those
to read. The window is the running second and the nine before it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

BUCKETS = 10
BUCKET_NS = 1_000_000_000
WINDOW_S = 10.0


@njit(cache=True)
def enter(t_ns: int, bucket: np.ndarray) -> tuple[int, bool]:
    """The index of the bucket for t_ns, and whether it is new: then the caller clears what it keeps there.

    bucket: int64 [BUCKETS], the second that each holds plus one, 0 where nothing was written yet. -1: the second has left
    the window, because a record of the same instant or a later one took its place.
    """
    second = t_ns // BUCKET_NS + 1
    index = second % BUCKETS
    if bucket[index] > second:
        return -1, False
    fresh = bucket[index] != second
    bucket[index] = second
    return index, fresh


@njit(cache=True)
def inside(index: int, t_ns: int, bucket: np.ndarray) -> bool:
    """Whether a bucket belongs to the window that ends at t_ns."""
    age = t_ns // BUCKET_NS + 1 - bucket[index]
    return bucket[index] != 0 and 0 <= age < BUCKETS

"""Which row was known at a time.

In: for each question a key and a time; for each row a key, the time that it speaks of, and the time from which it was available.
Out: for each question the row, or why there is none. One answer per question, in their order, whatever the rows hold.

A row that speaks of t and was available from a is known from max(t, a) on. Rows of one key in that order, with the best row so
far beside each, answer any question with one binary search.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FOUND, NO_KEY, NOT_YET, EXPIRED = 0, 1, 2, 3


@njit(cache=True)
def _later(t_ns: np.ndarray, available_ns: np.ndarray, row: int, other: int) -> bool:
    """Whether a row wins over another: by event time, then by availability, then by its place."""
    if t_ns[row] != t_ns[other]:
        return t_ns[row] > t_ns[other]
    if available_ns[row] != available_ns[other]:
        return available_ns[row] > available_ns[other]
    return row > other


@njit(cache=True)
def _by_key(row_key: np.ndarray, keys: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of each key, in their order: begin [keys + 1] and rows. Rows without a key are left out."""
    begin = np.zeros(keys + 1, dtype=np.int64)
    for row in range(row_key.size):
        if row_key[row] >= 0:
            begin[row_key[row] + 1] += 1
    for key in range(keys):
        begin[key + 1] += begin[key]
    free = begin[:-1].copy()
    rows = np.empty(begin[keys], dtype=np.int64)
    for row in range(row_key.size):
        key = row_key[row]
        if key >= 0:
            rows[free[key]] = row
            free[key] += 1
    return begin, rows


@njit(cache=True)
def latest_known(
    ask_key: np.ndarray,
    ask_ns: np.ndarray,
    row_key: np.ndarray,
    t_ns: np.ndarray,
    available_ns: np.ndarray,
    keys: int,
    ttl_ns: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The latest row known to each question.

    ask_key, row_key: int64 codes below keys, -1 for no key. ask_ns, t_ns, available_ns: int64. ttl_ns: a row that is older has
    expired; 0 for no limit. Gives row [questions], -1 where there is none, and the status.
    """
    begin, rows = _by_key(row_key, keys)
    known_ns = np.empty(rows.size, dtype=np.int64)
    for at in range(rows.size):
        known_ns[at] = max(t_ns[rows[at]], available_ns[rows[at]])
    best = np.empty(rows.size, dtype=np.int64)
    for key in range(keys):
        first, end = begin[key], begin[key + 1]
        for at in range(first + 1, end):
            if known_ns[at] < known_ns[at - 1]:
                order = np.argsort(known_ns[first:end], kind="mergesort")
                known_ns[first:end] = known_ns[first:end][order]
                rows[first:end] = rows[first:end][order]
                break
        for at in range(first, end):
            best[at] = rows[at]
            if at > first and not _later(t_ns, available_ns, rows[at], best[at - 1]):
                best[at] = best[at - 1]
    found = np.full(ask_key.size, -1, dtype=np.int64)
    status = np.full(ask_key.size, NO_KEY, dtype=np.uint8)
    for ask in range(ask_key.size):
        key = ask_key[ask]
        if key < 0 or begin[key] == begin[key + 1]:
            continue
        low, high = begin[key], begin[key + 1]
        while low < high:
            middle = (low + high) // 2
            if known_ns[middle] <= ask_ns[ask]:
                low = middle + 1
            else:
                high = middle
        if low == begin[key]:
            status[ask] = NOT_YET
            continue
        row = best[low - 1]
        # Both are int64, so their distance may not fit into one; it fits into uint64.
        if ttl_ns > 0 and np.uint64(ask_ns[ask]) - np.uint64(t_ns[row]) > np.uint64(ttl_ns):
            status[ask] = EXPIRED
            continue
        found[ask] = row
        status[ask] = FOUND
    return found, status

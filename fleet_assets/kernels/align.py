"""Which record belongs to which frame.

In: int64 stamps [ns]; frames and records sorted (records by a stable sort, so that equal stamps keep their order). Out:
indices into the records, -1 where nothing matches, and why. Exact over the whole of int64.
"""

from __future__ import annotations

import numpy as np
from numba import njit

OK, TOLERANCE, GAP, EMPTY = 0, 1, 2, 3


@njit(cache=True)
def _distance(low: np.int64, high: np.int64) -> np.uint64:
    """high - low for low <= high; does not overflow."""
    return np.uint64(high) - np.uint64(low)


@njit(cache=True)
def nearest(
    t_frame_ns: np.ndarray, t_ns: np.ndarray, before_ns: np.uint64, after_ns: np.uint64
) -> tuple[np.ndarray, np.ndarray]:
    """The record nearest to each frame, at most before_ns earlier or after_ns later; a tie goes to the earlier row.

    Gives index [frames] and reason [frames].
    """
    index = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, TOLERANCE, dtype=np.uint8)
    if t_ns.size == 0:
        reason[:] = EMPTY
        return index, reason
    for row in range(t_frame_ns.size):
        frame = t_frame_ns[row]
        right = np.searchsorted(t_ns, frame)  # the first record at or after the frame
        best, best_distance = -1, np.uint64(0)
        if right > 0:
            # The first of the rows with the last stamp before the frame.
            left = np.searchsorted(t_ns, t_ns[right - 1])
            distance = _distance(t_ns[left], frame)
            if distance <= before_ns:
                best, best_distance = left, distance
        if right < t_ns.size:
            distance = _distance(frame, t_ns[right])
            if distance <= after_ns and (best < 0 or distance < best_distance):
                best = right
        if best >= 0:
            index[row] = best
            reason[row] = OK
    return index, reason


@njit(cache=True)
def hold(t_frame_ns: np.ndarray, t_ns: np.ndarray, before_ns: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """The last record at or before each frame, at most before_ns old; of equal stamps the last row."""
    index = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, TOLERANCE, dtype=np.uint8)
    if t_ns.size == 0:
        reason[:] = EMPTY
        return index, reason
    for row in range(t_frame_ns.size):
        left = np.searchsorted(t_ns, t_frame_ns[row], side="right") - 1
        if left >= 0 and _distance(t_ns[left], t_frame_ns[row]) <= before_ns:
            index[row] = left
            reason[row] = OK
    return index, reason


@njit(cache=True)
def bracket(
    t_frame_ns: np.ndarray, t_ns: np.ndarray, gap_limit_ns: np.uint64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The records around each frame. A bracket wider than the limit is a gap; a frame outside the stream is out of
    tolerance. A frame on a record is bracketed by it alone.

    Gives the record before [frames], the one after [frames], and reason [frames].
    """
    before = np.full(t_frame_ns.size, -1, dtype=np.int64)
    after = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, TOLERANCE, dtype=np.uint8)
    if t_ns.size == 0:
        reason[:] = EMPTY
        return before, after, reason
    for row in range(t_frame_ns.size):
        right = np.searchsorted(t_ns, t_frame_ns[row])
        if right < t_ns.size and t_ns[right] == t_frame_ns[row]:
            before[row] = right
            after[row] = right
            reason[row] = OK
        elif 0 < right < t_ns.size:
            if _distance(t_ns[right - 1], t_ns[right]) > gap_limit_ns:
                reason[row] = GAP
            else:
                # Of several rows with the stamp before the frame, the last was valid at the frame.
                before[row] = right - 1
                after[row] = right
                reason[row] = OK
    return before, after, reason


@njit(cache=True)
def interpolate(
    t_frame_ns: np.ndarray, t_ns: np.ndarray, values: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """Linear between the bracket's values; NaN without a bracket, or where either value is NaN. values: float64."""
    found = np.full(t_frame_ns.size, np.nan)
    for row in range(t_frame_ns.size):
        left, right = before[row], after[row]
        if left < 0:
            continue
        if left == right:
            found[row] = values[left]
            continue
        width = np.float64(_distance(t_ns[left], t_ns[right]))
        share = np.float64(_distance(t_ns[left], t_frame_ns[row])) / width
        found[row] = values[left] * (1.0 - share) + values[right] * share
    return found

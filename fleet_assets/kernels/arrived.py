"""Which record belongs to which frame, of those that had arrived by the frame's deadline.

In: as in align.py, and int64 times of arrival [records] and deadlines [frames] on the same clock. Out: as in align.py; LATE
where only a record that came after the deadline would have matched. Exact over the whole of int64.

Arrival is nearly in order, so the searches of align.py are followed by a few steps; where it is not, whole blocks of records
that had not arrived are skipped by their minimum.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fleet_assets.kernels.align import EMPTY, GAP, OK, TOLERANCE, _check_sorted, _distance, _first_at

LATE = 4
_BLOCK = 256
_LAST_NS = np.iinfo(np.int64).max


@njit(cache=True)
def _block_minima(t_arrival_ns: np.ndarray) -> np.ndarray:
    minima = np.full((t_arrival_ns.size + _BLOCK - 1) // _BLOCK, _LAST_NS)
    for row in range(t_arrival_ns.size):
        minima[row // _BLOCK] = min(minima[row // _BLOCK], t_arrival_ns[row])
    return minima


@njit(cache=True)
def _last_arrived(t_arrival_ns: np.ndarray, minima: np.ndarray, end: int, deadline_ns: np.int64) -> int:
    """The last row before end that had arrived; -1 for none."""
    row = end - 1
    while row >= 0:
        if minima[row // _BLOCK] > deadline_ns:
            row = row // _BLOCK * _BLOCK - 1
        elif t_arrival_ns[row] <= deadline_ns:
            return row
        else:
            row -= 1
    return -1


@njit(cache=True)
def _first_arrived(t_arrival_ns: np.ndarray, minima: np.ndarray, start: int, deadline_ns: np.int64) -> int:
    """The first row from start on that had arrived; the number of rows for none."""
    row = start
    while row < t_arrival_ns.size:
        if minima[row // _BLOCK] > deadline_ns:
            row = (row // _BLOCK + 1) * _BLOCK
        elif t_arrival_ns[row] <= deadline_ns:
            return row
        else:
            row += 1
    return int(t_arrival_ns.size)


@njit(cache=True)
def _first_after(t_ns: np.ndarray, frame_ns: np.int64, guess: int) -> int:
    """The first row after the frame."""
    return int(t_ns.size) if frame_ns == _LAST_NS else _first_at(t_ns, frame_ns + 1, guess)


@njit(cache=True)
def nearest_arrived(
    t_frame_ns: np.ndarray,
    deadline_ns: np.ndarray,
    t_ns: np.ndarray,
    t_arrival_ns: np.ndarray,
    before_ns: np.uint64,
    after_ns: np.uint64,
) -> tuple[np.ndarray, np.ndarray]:
    """As align.nearest, of the records that had arrived. Gives index [frames] and reason [frames]."""
    _check_sorted(t_ns)
    minima = _block_minima(t_arrival_ns)
    index = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, EMPTY if t_ns.size == 0 else TOLERANCE, dtype=np.uint8)
    right, stride = 0, 0
    for row in range(t_frame_ns.size):
        frame, deadline, last = t_frame_ns[row], deadline_ns[row], right
        right = _first_at(t_ns, frame, last + stride)
        stride = right - last
        best, best_distance = -1, np.uint64(0)
        earlier = _last_arrived(t_arrival_ns, minima, right, deadline)
        if earlier >= 0:
            distance = _distance(t_ns[earlier], frame)
            if distance <= before_ns:
                best, best_distance = earlier, distance
        later = _first_arrived(t_arrival_ns, minima, right, deadline)
        if later < t_ns.size:
            distance = _distance(frame, t_ns[later])
            if distance <= after_ns and (best < 0 or distance < best_distance):
                best = later
        if best > 0 and t_ns[best - 1] == t_ns[best]:  # of equal stamps, the first row that had arrived
            best = _first_arrived(t_arrival_ns, minima, _first_at(t_ns, t_ns[best], best), deadline)
        if best >= 0:
            index[row] = best
            reason[row] = OK
        elif t_ns.size > 0 and (
            (right > 0 and _distance(t_ns[right - 1], frame) <= before_ns)
            or (right < t_ns.size and _distance(frame, t_ns[right]) <= after_ns)
        ):
            reason[row] = LATE
    return index, reason


@njit(cache=True)
def hold_arrived(
    t_frame_ns: np.ndarray,
    deadline_ns: np.ndarray,
    t_ns: np.ndarray,
    t_arrival_ns: np.ndarray,
    before_ns: np.uint64,
) -> tuple[np.ndarray, np.ndarray]:
    """As align.hold, of the records that had arrived. Gives index [frames] and reason [frames]."""
    _check_sorted(t_ns)
    minima = _block_minima(t_arrival_ns)
    index = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, EMPTY if t_ns.size == 0 else TOLERANCE, dtype=np.uint8)
    right, stride = 0, 0
    for row in range(t_frame_ns.size):
        frame, last = t_frame_ns[row], right
        right = _first_after(t_ns, frame, last + stride)
        stride = right - last
        found = _last_arrived(t_arrival_ns, minima, right, deadline_ns[row])
        if found >= 0 and _distance(t_ns[found], frame) <= before_ns:
            index[row] = found
            reason[row] = OK
        elif right > 0 and _distance(t_ns[right - 1], frame) <= before_ns:
            reason[row] = LATE
    return index, reason


@njit(cache=True)
def bracket_arrived(
    t_frame_ns: np.ndarray,
    deadline_ns: np.ndarray,
    t_ns: np.ndarray,
    t_arrival_ns: np.ndarray,
    gap_limit_ns: np.uint64,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As align.bracket, of the records that had arrived: where the record after the frame had not, there is none.

    Gives the record before [frames], the one after [frames], and reason [frames].
    """
    _check_sorted(t_ns)
    minima = _block_minima(t_arrival_ns)
    before = np.full(t_frame_ns.size, -1, dtype=np.int64)
    after = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, EMPTY if t_ns.size == 0 else TOLERANCE, dtype=np.uint8)
    right, stride = 0, 0
    for row in range(t_frame_ns.size):
        frame, deadline, last = t_frame_ns[row], deadline_ns[row], right
        right = _first_at(t_ns, frame, last + stride)
        stride = right - last
        exact = right < t_ns.size and t_ns[right] == frame
        if not exact and (right == 0 or right == t_ns.size):
            continue  # outside the stream, whatever had arrived
        later = _first_arrived(t_arrival_ns, minima, right, deadline)
        if later < t_ns.size and t_ns[later] == frame:
            before[row] = later
            after[row] = later
            reason[row] = OK
            continue
        earlier = _last_arrived(t_arrival_ns, minima, right, deadline)
        whole = exact or _distance(t_ns[right - 1], t_ns[right]) <= gap_limit_ns
        if earlier < 0 or later == t_ns.size or _distance(t_ns[earlier], t_ns[later]) > gap_limit_ns:
            reason[row] = LATE if whole else GAP
            continue
        before[row] = earlier
        after[row] = later
        reason[row] = OK
    return before, after, reason

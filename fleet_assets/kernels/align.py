"""Which record belongs to which frame.

In: int64 stamps [ns]; frames in any order (sorted is fastest), records sorted (by a stable sort, so that equal stamps keep
their order). Out: indices into the records, -1 where nothing matches, and why. Exact over the whole of int64. Records that
are not sorted are refused with ValueError.

Sensors are regular, so each search starts where the last two answers point to, and widens from there: a few looks per frame
whatever the rates, and never more than a logarithm of the records.
"""

from __future__ import annotations

import numpy as np
from numba import njit

OK, TOLERANCE, GAP, EMPTY = 0, 1, 2, 3
_LAST_NS = np.iinfo(np.int64).max


@njit(cache=True)
def _distance(low: np.int64, high: np.int64) -> np.uint64:
    """high - low for low <= high; does not overflow."""
    return np.uint64(high) - np.uint64(low)


@njit(cache=True)
def _check_sorted(t_ns: np.ndarray) -> None:
    backward = 0
    for row in range(1, t_ns.size):  # no early end: so it runs at the speed of memory
        backward += t_ns[row] < t_ns[row - 1]
    if backward > 0:
        raise ValueError("records must be sorted by time")


@njit(cache=True)
def _first_at(t_ns: np.ndarray, frame_ns: np.int64, guess: int) -> int:
    """The first row at or after the frame; as numpy.searchsorted, from a guess."""
    low = high = min(max(guess, 0), t_ns.size)
    step = 1
    while low > 0 and t_ns[low - 1] >= frame_ns:
        high = low - 1
        low = max(low - step, 0)
        step *= 2
    if step == 1:
        while high < t_ns.size and t_ns[high] < frame_ns:
            low = high + 1
            high = min(high + step, t_ns.size)
            step *= 2
    while low < high:
        middle = (low + high) // 2
        if t_ns[middle] < frame_ns:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True)
def nearest(
    t_frame_ns: np.ndarray, t_ns: np.ndarray, before_ns: np.uint64, after_ns: np.uint64
) -> tuple[np.ndarray, np.ndarray]:
    """The record nearest to each frame, at most before_ns earlier or after_ns later; a tie goes to the earlier row.

    Gives index [frames] and reason [frames].
    """
    _check_sorted(t_ns)
    index = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, TOLERANCE, dtype=np.uint8)
    if t_ns.size == 0:
        reason[:] = EMPTY
        return index, reason
    right, stride = 0, 0
    for row in range(t_frame_ns.size):
        frame = t_frame_ns[row]
        last = right
        right = _first_at(t_ns, frame, last + stride)
        stride = right - last
        best, best_distance = -1, np.uint64(0)
        if right > 0:
            distance = _distance(t_ns[right - 1], frame)
            if distance <= before_ns:
                best, best_distance = right - 1, distance
        if right < t_ns.size:
            distance = _distance(frame, t_ns[right])
            if distance <= after_ns and (best < 0 or distance < best_distance):
                best = right
        if best > 0 and t_ns[best - 1] == t_ns[best]:
            best = _first_at(t_ns, t_ns[best], best)  # of equal stamps, the first row
        if best >= 0:
            index[row] = best
            reason[row] = OK
    return index, reason


@njit(cache=True)
def hold(t_frame_ns: np.ndarray, t_ns: np.ndarray, before_ns: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """The last record at or before each frame, at most before_ns old; of equal stamps the last row."""
    _check_sorted(t_ns)
    index = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, TOLERANCE, dtype=np.uint8)
    if t_ns.size == 0:
        reason[:] = EMPTY
        return index, reason
    right, stride = 0, 0
    for row in range(t_frame_ns.size):
        frame = t_frame_ns[row]
        last = right
        # The first row after the frame.
        right = t_ns.size if frame == _LAST_NS else _first_at(t_ns, frame + 1, last + stride)
        stride = right - last
        if right > 0 and _distance(t_ns[right - 1], frame) <= before_ns:
            index[row] = right - 1
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
    _check_sorted(t_ns)
    before = np.full(t_frame_ns.size, -1, dtype=np.int64)
    after = np.full(t_frame_ns.size, -1, dtype=np.int64)
    reason = np.full(t_frame_ns.size, TOLERANCE, dtype=np.uint8)
    if t_ns.size == 0:
        reason[:] = EMPTY
        return before, after, reason
    right, stride = 0, 0
    for row in range(t_frame_ns.size):
        frame = t_frame_ns[row]
        last = right
        right = _first_at(t_ns, frame, last + stride)
        stride = right - last
        if right < t_ns.size and t_ns[right] == frame:
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


@njit(cache=True)
def slerp(
    t_frame_ns: np.ndarray, t_ns: np.ndarray, quaternions: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """Rotation between the bracket's two, at constant rate along the shorter arc: q and -q are one rotation.

    quaternions: float64 [records, 4], x y z w, of any length but 0. Gives unit quaternions [frames, 4] with w >= 0; NaN
    without a bracket, or where either is no rotation. Source: Shoemake, "Animating rotation with quaternion curves", 1985.
    """
    found = np.full((t_frame_ns.size, 4), np.nan)
    one, other = np.empty(4), np.empty(4)
    for row in range(t_frame_ns.size):
        left, right = before[row], after[row]
        if left < 0 or not (_unit(quaternions[left], one) and _unit(quaternions[right], other)):
            continue
        share = 0.0
        if left != right:
            width = np.float64(_distance(t_ns[left], t_ns[right]))
            share = np.float64(_distance(t_ns[left], t_frame_ns[row])) / width
        if one[0] * other[0] + one[1] * other[1] + one[2] * other[2] + one[3] * other[3] < 0:
            other[:] = -other
        apart, together = 0.0, 0.0
        for axis in range(4):
            apart += (one[axis] - other[axis]) ** 2
            together += (one[axis] + other[axis]) ** 2
        angle = 2.0 * np.arctan2(np.sqrt(apart), np.sqrt(together))  # exact for small angles, where arccos is not
        if angle > 1e-9:
            first, second = np.sin((1.0 - share) * angle), np.sin(share * angle)
        else:
            first, second = 1.0 - share, share
        for axis in range(4):
            found[row, axis] = first * one[axis] + second * other[axis]
        _unit(found[row], found[row])
        if found[row, 3] < 0:
            found[row] = -found[row]
    return found


@njit(cache=True)
def _unit(quaternion: np.ndarray, unit: np.ndarray) -> bool:
    """Writes the quaternion at length 1; False, and nothing written, when it has no direction."""
    largest = 0.0
    for axis in range(4):
        if not np.isfinite(quaternion[axis]):
            return False
        largest = max(largest, abs(quaternion[axis]))
    if largest == 0.0:
        return False
    squares = 0.0
    for axis in range(4):  # by the largest, or squares of tiny or huge values are lost
        squares += (quaternion[axis] / largest) ** 2
    length = np.sqrt(squares)
    for axis in range(4):
        unit[axis] = quaternion[axis] / largest / length
    return True

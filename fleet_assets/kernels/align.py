"""Which record belongs to which frame.

In: int64 stamps [ns]; frames in any order (sorted is fastest), records sorted (by a stable sort, so that equal stamps keep
their order). Out: indices into the records, -1 where nothing matches, and why. Exact over the whole of int64. Records that
are not sorted are refused with ValueError.

Sensors are regular, so where a frame's records lie is told from the time that passed since a record near by, and looked at in
a small window; only where that fails a search widens from there: never more looks than a logarithm of the records. The
kernels hold no lock, so that threads can work on a stream each.
"""

from __future__ import annotations

import numpy as np
from numba import njit

OK, TOLERANCE, GAP, EMPTY = 0, 1, 2, 3
_LAST_NS = np.iinfo(np.int64).max
# Frames of a block are told from one record, independently of each other, so that a processor works on several at once. What
# that record tells gets worse with the records in between, so that a block spans about so many of them.
_BLOCK_RECORDS = 640
_WINDOW = 8


@njit(cache=True, nogil=True)
def _distance(low: np.int64, high: np.int64) -> np.uint64:
    """high - low for low <= high; does not overflow."""
    return np.uint64(high) - np.uint64(low)


@njit(cache=True, nogil=True)
def _backward(t_ns: np.ndarray, start: int, stop: int) -> int:
    """How many of these rows, from the second on, are earlier than the row before."""
    backward = 0
    for row in range(np.uint64(start), np.uint64(stop)):  # no early end: so it runs at the speed of memory
        backward += t_ns[row] < t_ns[row - np.uint64(1)]
    return backward


@njit(cache=True, nogil=True)
def _refuse(backward: int) -> None:
    if backward > 0:
        raise ValueError("records must be sorted by time")


@njit(cache=True, nogil=True)
def _check_sorted(t_ns: np.ndarray) -> None:
    _refuse(_backward(t_ns, min(1, t_ns.size), t_ns.size))


@njit(cache=True, nogil=True)
def _in_window(t_ns: np.ndarray, frame_ns: np.int64, first: np.uint64) -> np.uint64:
    """The first of so many rows that is at or after the frame; at either end of them, it may lie outside.

    Three halvings without a branch: a processor cannot predict them, and would wait for each.
    """
    row = first
    row += np.uint64(4) * np.uint64(t_ns[row + np.uint64(3)] < frame_ns)
    row += np.uint64(2) * np.uint64(t_ns[row + np.uint64(1)] < frame_ns)
    row += np.uint64(t_ns[row] < frame_ns)
    return row


@njit(cache=True, nogil=True)
def _first_at(t_ns: np.ndarray, frame_ns: np.int64, guess: int) -> int:
    """The first row at or after the frame; as numpy.searchsorted, from a guess."""
    first = guess - _WINDOW // 2
    if first >= 0 and first + _WINDOW <= t_ns.size:
        row = _in_window(t_ns, frame_ns, np.uint64(first))
        if first < np.int64(row) < first + _WINDOW - 1:  # else it may lie outside
            return np.int64(row)  # type: ignore[return-value]  # int() of an unsigned number stays unsigned in numba
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


@njit(cache=True, nogil=True)
def _pace(t_ns: np.ndarray) -> float:
    """Records per nanosecond, over all; at most one half, so that no guess leaves int64."""
    span_ns = np.float64(_distance(t_ns[0], t_ns[t_ns.size - 1]))
    return min(np.float64(t_ns.size - 1) / max(span_ns, 1.0), 0.5)


@njit(cache=True, nogil=True)
def _block(t_frame_ns: np.ndarray, t_ns: np.ndarray) -> int:
    """Frames of a block."""
    return max(16, min(128, _BLOCK_RECORDS * t_frame_ns.size // t_ns.size))


@njit(cache=True, nogil=True)
def _check_until(
    t_ns: np.ndarray, block_ns: np.ndarray, pace: float, known: int, checked: int, backward: int
) -> tuple[int, int]:
    """Goes on with the check of order, over about what the block's frames will look at: so memory is read once, in order.

    checked, backward: rows that are checked, and what was found, before and after. What is looked up before all rows are checked
    may be wrong, and is refused then.
    """
    known = min(known, t_ns.size - 1)
    ahead = known + int((block_ns[block_ns.size - 1] - t_ns[known]) * pace)
    until = max(checked, min(ahead, t_ns.size))
    return until, backward + _backward(t_ns, checked, until)


@njit(cache=True, nogil=True)
def _first_rows(
    t_ns: np.ndarray, block_ns: np.ndarray, beyond_ns: int, pace: float, known: int, rows: np.ndarray
) -> int:
    """The first row at or after each frame plus beyond_ns, into rows. known: a row near by. Gives one for what follows."""
    known = min(known, t_ns.size - 1)
    known_ns, last, outside = t_ns[known], np.int64(t_ns.size - _WINDOW), 0
    if last < 0:  # too few for a window
        rows[: block_ns.size], outside = -1, 1
    else:
        for frame in range(np.uint64(block_ns.size)):
            frame_ns = block_ns[frame] + beyond_ns
            guess = np.int64(known + 1 - _WINDOW // 2) + np.int64((frame_ns - known_ns) * pace)
            first = np.uint64(min(max(guess, np.int64(0)), last))
            row = _in_window(t_ns, frame_ns, first)
            inside = (row > first) & (row < first + np.uint64(_WINDOW - 1))
            outside += not inside
            rows[frame] = np.int64(row) if inside else ~np.int64(row)
    if outside > 0:
        for frame in range(np.uint64(block_ns.size)):
            if rows[frame] < 0:
                rows[frame] = _first_at(t_ns, block_ns[frame] + beyond_ns, ~rows[frame])
    return rows[block_ns.size - 1]


def _answers(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Index and reason, to be filled. Here and not in the kernels, because numpy takes large pages for large arrays."""
    return np.empty(frames, dtype=np.int64), np.empty(frames, dtype=np.uint8)


def nearest(
    t_frame_ns: np.ndarray, t_ns: np.ndarray, before_ns: np.uint64, after_ns: np.uint64
) -> tuple[np.ndarray, np.ndarray]:
    """The record nearest to each frame, at most before_ns earlier or after_ns later; a tie goes to the earlier row.

    Gives index [frames] and reason [frames].
    """
    index, reason = _answers(t_frame_ns.size)
    _nearest(t_frame_ns, t_ns, before_ns, after_ns, index, reason)
    return index, reason


@njit(cache=True, nogil=True)
def _nearest(
    t_frame_ns: np.ndarray,
    t_ns: np.ndarray,
    before_ns: np.uint64,
    after_ns: np.uint64,
    index: np.ndarray,
    reason: np.ndarray,
) -> None:
    if t_ns.size == 0:
        index[:] = -1
        reason[:] = EMPTY
        return
    pace, block = _pace(t_ns), _block(t_frame_ns, t_ns)
    known, checked, backward, rows = 0, 1, 0, np.empty(block, dtype=np.int64)
    for start in range(0, t_frame_ns.size, block):
        block_ns = t_frame_ns[start : start + block]
        checked, backward = _check_until(t_ns, block_ns, pace, known, checked, backward)
        known = _first_rows(t_ns, block_ns, 0, pace, known, rows)
        for frame in range(np.uint64(block_ns.size)):
            right = rows[frame]
            if 0 < right < t_ns.size:
                earlier = _distance(t_ns[np.uint64(right - 1)], block_ns[frame])
                later = _distance(block_ns[frame], t_ns[np.uint64(right)])
                # Which is nearer is anybody's guess, so without a branch.
                takes_later = (later <= after_ns) & ((later < earlier) | (earlier > before_ns))
                best = right - 1 + np.int64(takes_later)
                if not (takes_later | (earlier <= before_ns)):
                    best = -1
            elif right > 0:
                best = right - 1 if _distance(t_ns[right - 1], block_ns[frame]) <= before_ns else -1
            else:
                best = 0 if _distance(block_ns[frame], t_ns[0]) <= after_ns else -1
            if best > 0 and t_ns[np.uint64(best - 1)] == t_ns[np.uint64(best)]:
                best = _first_at(t_ns, t_ns[best], best)  # of equal stamps, the first row
            index[np.uint64(start) + frame] = best
            reason[np.uint64(start) + frame] = OK if best >= 0 else TOLERANCE
    _refuse(backward + _backward(t_ns, checked, t_ns.size))


def hold(t_frame_ns: np.ndarray, t_ns: np.ndarray, before_ns: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """The last record at or before each frame, at most before_ns old; of equal stamps the last row."""
    index, reason = _answers(t_frame_ns.size)
    _hold(t_frame_ns, t_ns, before_ns, index, reason)
    return index, reason


@njit(cache=True, nogil=True)
def _hold(
    t_frame_ns: np.ndarray, t_ns: np.ndarray, before_ns: np.uint64, index: np.ndarray, reason: np.ndarray
) -> None:
    if t_ns.size == 0:
        index[:] = -1
        reason[:] = EMPTY
        return
    pace, block = _pace(t_ns), _block(t_frame_ns, t_ns)
    known, checked, backward, rows = 0, 1, 0, np.empty(block, dtype=np.int64)
    for start in range(0, t_frame_ns.size, block):
        block_ns = t_frame_ns[start : start + block]
        checked, backward = _check_until(t_ns, block_ns, pace, known, checked, backward)
        known = _first_rows(t_ns, block_ns, 1, pace, known, rows)
        for frame in range(np.uint64(block_ns.size)):
            # The last nanosecond has none after it.
            best = (t_ns.size if block_ns[frame] == _LAST_NS else rows[frame]) - 1
            if best >= 0 and _distance(t_ns[best], block_ns[frame]) > before_ns:
                best = -1
            index[np.uint64(start) + frame] = best
            reason[np.uint64(start) + frame] = OK if best >= 0 else TOLERANCE
    _refuse(backward + _backward(t_ns, checked, t_ns.size))


def bracket(
    t_frame_ns: np.ndarray, t_ns: np.ndarray, gap_limit_ns: np.uint64
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The records around each frame. A bracket wider than the limit is a gap; a frame outside the stream is out of
    tolerance. A frame on a record is bracketed by it alone.

    Gives the record before [frames], the one after [frames], and reason [frames].
    """
    before, reason = _answers(t_frame_ns.size)
    after = np.empty_like(before)
    _bracket(t_frame_ns, t_ns, gap_limit_ns, before, after, reason)
    return before, after, reason


@njit(cache=True, nogil=True)
def _bracket(
    t_frame_ns: np.ndarray,
    t_ns: np.ndarray,
    gap_limit_ns: np.uint64,
    before: np.ndarray,
    after: np.ndarray,
    reason: np.ndarray,
) -> None:
    if t_ns.size == 0:
        before[:] = -1
        after[:] = -1
        reason[:] = EMPTY
        return
    pace, block = _pace(t_ns), _block(t_frame_ns, t_ns)
    known, checked, backward, rows = 0, 1, 0, np.empty(block, dtype=np.int64)
    for start in range(0, t_frame_ns.size, block):
        block_ns = t_frame_ns[start : start + block]
        checked, backward = _check_until(t_ns, block_ns, pace, known, checked, backward)
        known = _first_rows(t_ns, block_ns, 0, pace, known, rows)
        for frame in range(np.uint64(block_ns.size)):
            right = rows[frame]
            left, why = np.int64(-1), TOLERANCE
            if right < t_ns.size and t_ns[right] == block_ns[frame]:
                left, why = right, OK
            elif 0 < right < t_ns.size:
                if _distance(t_ns[right - 1], t_ns[right]) > gap_limit_ns:
                    why = GAP
                else:
                    # Of several rows with the stamp before the frame, the last was valid at the frame.
                    left, why = right - 1, OK
            before[start + frame] = left
            after[start + frame] = right if why == OK else -1
            reason[np.uint64(start) + frame] = why
    _refuse(backward + _backward(t_ns, checked, t_ns.size))


@njit(cache=True, nogil=True)
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

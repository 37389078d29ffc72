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
_SMALL = 1e-3  # of the square of the chord between two unit quaternions: below, four terms of a series give all digits


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
def shares(t_frame_ns: np.ndarray, t_ns: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far each frame is on the way through its bracket, 0 to 1; NaN without one. Gives float64 [frames]."""
    found = np.empty(t_frame_ns.size)
    for row in range(np.uint64(t_frame_ns.size)):
        left, right = before[row], after[row]
        if left < 0:
            found[row] = np.nan
        elif left == right:
            found[row] = 0.0
        else:
            width = np.float64(_distance(t_ns[np.uint64(left)], t_ns[np.uint64(right)]))
            found[row] = np.float64(_distance(t_ns[np.uint64(left)], t_frame_ns[row])) / width
    return found


@njit(cache=True, nogil=True)
def interpolate(values: np.ndarray, before: np.ndarray, after: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Linear between the bracket's values; NaN without a bracket, or where either value is NaN.

    values: numbers [records]. share: float64 [frames], of `shares`; not read where before and after are one row. Gives float64
    [frames].
    """
    found = np.empty(before.size)
    for row in range(np.uint64(before.size)):
        left, right = before[row], after[row]
        if left < 0:
            found[row] = np.nan
        elif left == right:
            found[row] = values[np.uint64(left)]
        else:
            found[row] = values[np.uint64(left)] * (1.0 - share[row]) + values[np.uint64(right)] * share[row]
    return found


@njit(cache=True, nogil=True)
def slerp(
    quaternions: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    before: np.ndarray,
    after: np.ndarray,
    share: np.ndarray,
) -> np.ndarray:
    """Rotation between the bracket's two, at constant rate along the shorter arc: q and -q are one rotation.

    quaternions: x, y, z, w, float64 [records] each, together of any length but 0. share: float64 [frames], of `shares`. Gives
    unit quaternions [4, frames] with w >= 0; NaN without a bracket, or where either is no rotation. Source: Shoemake,
    "Animating rotation with quaternion curves", 1985.
    """
    x, y, z, w = quaternions
    found = np.empty((4, share.size))
    for row in range(np.uint64(share.size)):
        if before[row] < 0:
            found[:, row] = np.nan
            continue
        left, right, way = np.uint64(before[row]), np.uint64(after[row]), share[row]
        x0, y0, z0, w0 = _unit(x[left], y[left], z[left], w[left])
        x1, y1, z1, w1 = _unit(x[right], y[right], z[right], w[right])
        sign = -1.0 if x0 * x1 + y0 * y1 + z0 * z1 + w0 * w1 < 0 else 1.0
        x1, y1, z1, w1 = sign * x1, sign * y1, sign * z1, sign * w1
        apart = (x0 - x1) ** 2 + (y0 - y1) ** 2 + (z0 - z1) ** 2 + (w0 - w1) ** 2
        if apart < _SMALL:
            square = apart * (1.0 + apart * (1.0 / 12.0 + apart * (1.0 / 90.0 + apart / 560.0)))
            first, second = _sine_by_angle(1.0 - way, square), _sine_by_angle(way, square)
        else:
            together = (x0 + x1) ** 2 + (y0 + y1) ** 2 + (z0 + z1) ** 2 + (w0 + w1) ** 2
            angle = 2.0 * np.arctan2(np.sqrt(apart), np.sqrt(together))
            first, second = np.sin((1.0 - way) * angle), np.sin(way * angle)
        x0, y0, z0, w0 = _unit(
            first * x0 + second * x1, first * y0 + second * y1, first * z0 + second * z1, first * w0 + second * w1
        )
        sign = -1.0 if w0 < 0 else 1.0
        found[0, row], found[1, row], found[2, row], found[3, row] = sign * x0, sign * y0, sign * z0, sign * w0
    return found


@njit(cache=True, nogil=True)
def _sine_by_angle(share: float, square: float) -> float:
    """sin(share * angle) / angle for the square of a small angle, to the last digit; also for 0."""
    by = share * share * square
    return share * (1.0 - by / 6.0 * (1.0 - by / 20.0 * (1.0 - by / 42.0)))


@njit(cache=True, nogil=True)
def _unit(x: float, y: float, z: float, w: float) -> tuple[float, float, float, float]:
    """The quaternion at length 1; NaN when it has no direction."""
    squares = x * x + y * y + z * z + w * w
    if not 1e-200 < squares < 1e200:  # by the largest, or squares of tiny or huge values are lost
        largest = max(abs(x), abs(y), abs(z), abs(w))
        if not (np.isfinite(x) and np.isfinite(y) and np.isfinite(z) and np.isfinite(w) and largest > 0.0):
            return np.nan, np.nan, np.nan, np.nan
        x, y, z, w = x / largest, y / largest, z / largest, w / largest
        squares = x * x + y * y + z * z + w * w
    by = 1.0 / np.sqrt(squares)
    return x * by, y * by, z * by, w * by

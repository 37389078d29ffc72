"""Objects from a map of scores.

In: logits and offsets on a grid, per frame. Out: the cells that are higher than all around them, as rows.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def peaks(heat, offset, least, most):  # type: ignore[no-untyped-def]
    """heat: float32 [n, classes, rows, columns]; offset: float32 [n, 2, rows, columns], 0 to 1 in the cell. least: logit
    under which a cell does not count. most: peaks of a frame that are kept, the highest.

    Gives frame, class [peaks], row and column [cells, with the offset], logit: by frame, class, row, column. Of equal
    neighbours the first is the peak. A logit that is no number is none."""
    frames, classes, rows, columns = heat.shape
    frame_of, class_of = np.empty(frames * most, dtype=np.int32), np.empty(frames * most, dtype=np.int8)
    place = np.empty((frames * most, 2), dtype=np.float32)
    logit = np.empty(frames * most, dtype=np.float32)
    cells = np.empty(classes * rows * columns, dtype=np.int64)
    total = 0
    for frame in range(frames):
        count = 0
        for kind in range(classes):
            for row in range(rows):
                for column in range(columns):
                    value = heat[frame, kind, row, column]
                    if value >= least and _is_peak(heat[frame, kind], row, column, value):
                        cells[count] = (kind * rows + row) * columns + column
                        count += 1
        kept = cells[:count]
        if count > most:
            values = np.empty(count, dtype=np.float32)
            for at in range(count):
                kind, rest = divmod(kept[at], rows * columns)
                values[at] = heat[frame, kind, rest // columns, rest % columns]
            kept = np.sort(kept[np.argsort(-values, kind="mergesort")[:most]])
        for at in range(kept.size):
            kind, rest = divmod(kept[at], rows * columns)
            row, column = rest // columns, rest % columns
            frame_of[total], class_of[total] = frame, kind
            place[total, 0] = row + offset[frame, 0, row, column]
            place[total, 1] = column + offset[frame, 1, row, column]
            logit[total] = heat[frame, kind, row, column]
            total += 1
    return frame_of[:total], class_of[:total], place[:total], logit[:total]


@njit(cache=True, nogil=True)
def _is_peak(heat, row, column, value):  # type: ignore[no-untyped-def]
    for near_row in range(max(row - 1, 0), min(row + 2, heat.shape[0])):
        for near_column in range(max(column - 1, 0), min(column + 2, heat.shape[1])):
            other = heat[near_row, near_column]
            earlier = near_row < row or (near_row == row and near_column < column)
            if other > value or (earlier and other == value):
                return False
    return True

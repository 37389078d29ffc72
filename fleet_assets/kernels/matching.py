"""Which detection is which object: by the distance of centres, greedily by confidence.

In: places, classes and confidences, a row per object, sorted by frame. Out: for each detection the row of its object, or -1.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def match(  # type: ignore[no-untyped-def]
    truth_frame, truth_class, truth_x_m, truth_y_m, frame, class_id, x_m, y_m, confidence, radius_m
):
    """int64 [detections]: rows of truth, -1 where there is none.

    Within a frame, detections choose in order of confidence (a tie goes to the earlier row): each takes the nearest object of its
    class, at most radius_m away, that is not taken yet (a tie goes to the earlier row). So what is matched above a threshold does
    not depend on what is below it, and one matching serves all thresholds. As nuScenes does it (Caesar et al., 2020).
    """
    found = np.full(frame.size, -1, dtype=np.int64)
    taken = np.zeros(truth_frame.size, dtype=np.bool_)
    first, truth_first = 0, 0
    while first < frame.size:
        number = frame[first]
        end = first
        while end < frame.size and frame[end] == number:
            end += 1
        while truth_first < truth_frame.size and truth_frame[truth_first] < number:
            truth_first += 1
        truth_end = truth_first
        while truth_end < truth_frame.size and truth_frame[truth_end] == number:
            truth_end += 1
        order = np.argsort(-confidence[first:end], kind="mergesort")
        for place in range(order.size):
            row = first + order[place]
            best, best_m2 = -1, np.float64(radius_m) * np.float64(radius_m)
            for candidate in range(truth_first, truth_end):
                if taken[candidate] or truth_class[candidate] != class_id[row]:
                    continue
                dx_m = np.float64(truth_x_m[candidate]) - np.float64(x_m[row])
                dy_m = np.float64(truth_y_m[candidate]) - np.float64(y_m[row])
                m2 = dx_m * dx_m + dy_m * dy_m
                if m2 < best_m2 or (m2 == best_m2 and best < 0):
                    best, best_m2 = candidate, m2
            if best >= 0:
                found[row] = best
                taken[best] = True
        first = end
    return found

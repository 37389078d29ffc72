"""How the stamps of a stream run.

In: int64 stamps in the order of the recording. Out: counts of gaps, of steps back, of repeats.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def sequence_steps(t_ns: np.ndarray, gap_limit_ns: int) -> tuple[int, int, int, int]:
    """t_ns: int64 [n]. gap_limit_ns: a step over this is a gap; 0 for no limit.

    Gives gaps, the longest step forward [ns], steps back, and repeats. A step beyond int64 counts as the longest there is.
    """
    gaps, longest, backward, repeated = 0, 0, 0, 0
    for index in range(1, t_ns.size):
        before, now = t_ns[index - 1], t_ns[index]
        if now == before:
            repeated += 1
        elif now < before:
            backward += 1
        else:
            step = now - before
            if step < 0:  # the difference has overflowed
                step = np.int64(9223372036854775807)
            if step > longest:
                longest = step
            if gap_limit_ns > 0 and step > gap_limit_ns:
                gaps += 1
    return gaps, longest, backward, repeated

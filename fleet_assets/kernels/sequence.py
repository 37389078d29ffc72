"""How the stamps of a stream run.

In: int64 stamps in the order of the recording. Out: counts of gaps, of steps back, of repeats, of records lost in gaps.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

_LONGEST = np.uint64(2**63 - 1)


class SequenceFacts(NamedTuple):
    """gaps: steps forward of more than the limit; lost_rows: records that fit into them; repeated_steps: steps of zero;
    rate_hz: None for fewer than two times."""

    gaps: int
    longest_gap_ns: int
    backward_steps: int
    repeated_steps: int
    lost_rows: int
    rate_hz: float | None


def sequence_facts(t_ns: np.ndarray, nominal_period_ns: int | None, gap_limit_periods: float | None) -> SequenceFacts:
    """t_ns: int64 [n] in the order of the recording, across the borders of its files.

    A gap is a step of strictly more than gap_limit_periods nominal periods; without a nominal period or a limit none is.
    """
    limit_ns = round(nominal_period_ns * gap_limit_periods) if nominal_period_ns and gap_limit_periods else 0
    stamps = np.ascontiguousarray(t_ns, dtype=np.int64)
    gaps, longest_ns, backward, repeated, lost = sequence_steps(stamps, limit_ns, nominal_period_ns or 0)
    span_ns = int(t_ns.max()) - int(t_ns.min()) if len(t_ns) else 0
    rate_hz = (len(t_ns) - 1) * 1e9 / span_ns if span_ns > 0 else None
    return SequenceFacts(int(gaps), int(longest_ns), int(backward), int(repeated), int(lost), rate_hz)


@njit(cache=True)
def sequence_steps(t_ns: np.ndarray, gap_limit_ns: int, period_ns: int) -> tuple[int, int, int, int, int]:
    """t_ns: int64 [n]. gap_limit_ns: a step over this is a gap; 0 for no limit. period_ns: nominal; 0 for none.

    Gives gaps, the longest step forward [ns], steps back, repeats, and the records that the gaps have room for. A step
    beyond int64 counts as the longest there is.
    """
    gaps, longest, backward, repeated, lost = 0, 0, 0, 0, 0
    for index in range(1, t_ns.size):
        before, now = t_ns[index - 1], t_ns[index]
        if now == before:
            repeated += 1
        elif now < before:
            backward += 1
        else:
            # Signed, it could overflow; and a compiler may take it that it does not, and leave a check out.
            step = int(np.int64(min(np.uint64(now) - np.uint64(before), _LONGEST)))
            if step > longest:
                longest = step
            if gap_limit_ns > 0 and step > gap_limit_ns:
                gaps += 1
                if period_ns > 0:
                    missing = step // period_ns + (step % period_ns * 2 >= period_ns) - 1  # a sum would overflow
                    lost += min(missing, 4611686018427387904 - lost)
    return gaps, longest, backward, repeated, lost

"""Earlier records, against a search through all."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.kernels.earlier import REACH, earlier_rows

_TIMES = st.integers(-4, 12) | st.sampled_from([np.iinfo(np.int64).min, np.iinfo(np.int64).max])


@settings(deadline=None)
@given(st.lists(_TIMES, max_size=24), st.integers(0, 4), st.integers(0, 20))
def test_the_latest_before_a_row_each_older_than_the_one_after_it(
    times: list[int], count: int, longest_ns: int
) -> None:
    rows = [-1, *range(len(times))]
    found = earlier_rows(np.array(times, np.int64), np.array(rows, np.int64), count, np.uint64(longest_ns))
    for row, got in zip(rows, found.tolist(), strict=True):
        wanted: list[int] = []
        for at in reversed(range(max(row - REACH, 0), max(row, 0))):
            last = wanted[-1] if wanted else row
            if times[at] < times[last] and times[row] - times[at] <= longest_ns:
                wanted.append(at)
        assert got == (wanted + [-1] * count)[:count]


def test_a_record_that_overtook_others_is_left_out() -> None:
    t_ns = np.array([100, 200, 200, 350, 300, 400])
    assert earlier_rows(t_ns, np.array([5]), 3, np.uint64(250)).tolist() == [[4, 2, -1]]

"""The point-in-time kernel beside brute force."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.kernels.point_in_time import EXPIRED, FOUND, NO_KEY, NOT_YET, latest_known

LEAST, MOST = -(2**63), 2**63 - 1
# Few values, so that ties, duplicates and late availability are common; and the ends of int64.
times = st.one_of(st.integers(0, 12), st.sampled_from([LEAST, LEAST + 1, MOST - 1, MOST]))
keys = st.integers(-1, 3)
rows = st.lists(st.tuples(keys, times, times), max_size=25)
questions = st.lists(st.tuples(keys, times), max_size=12)


def brute_force(
    asked: list[tuple[int, int]], table: list[tuple[int, int, int]], ttl_ns: int
) -> tuple[list[int], list[int]]:
    found, status = [], []
    for key, at in asked:
        of_key = [(t, available, row) for row, (k, t, available) in enumerate(table) if k == key and key >= 0]
        known = [entry for entry in of_key if entry[0] <= at and entry[1] <= at]
        best = max(known, default=None)
        if best is None:
            found.append(-1)
            status.append(NOT_YET if of_key else NO_KEY)
        elif ttl_ns and at - best[0] > ttl_ns:
            found.append(-1)
            status.append(EXPIRED)
        else:
            found.append(best[2])
            status.append(FOUND)
    return found, status


@settings(max_examples=1000, deadline=None)
@given(questions, rows, st.one_of(st.integers(0, 8), st.just(2**62)))
def test_as_brute_force(asked: list[tuple[int, int]], table: list[tuple[int, int, int]], ttl_ns: int) -> None:
    ask = np.array(asked, dtype=np.int64).reshape(-1, 2)
    row = np.array(table, dtype=np.int64).reshape(-1, 3)
    found, status = latest_known(ask[:, 0], ask[:, 1], row[:, 0], row[:, 1], row[:, 2], 4, ttl_ns)
    assert (found.tolist(), status.tolist()) == brute_force(asked, table, ttl_ns)


def test_one_answer_per_question_in_order() -> None:
    ask = np.array([0, 0, 1, -1, 0], dtype=np.int64)
    found, status = latest_known(
        ask,
        np.array([5, 5, 5, 5, 0], dtype=np.int64),
        np.array([0, 0], dtype=np.int64),
        np.array([1, 3], dtype=np.int64),
        np.array([2, 6], dtype=np.int64),
        2,
        0,
    )
    assert found.tolist() == [0, 0, -1, -1, -1]
    assert status.tolist() == [FOUND, FOUND, NO_KEY, NO_KEY, NOT_YET]

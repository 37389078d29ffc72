"""Matching against the plainest way to say it."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.kernels.matching import match

RADIUS_M = 2.0

# Places on a coarse lattice, so that ties and equal distances are common.
objects = st.lists(
    st.tuples(
        st.integers(0, 3), st.integers(0, 1), st.integers(0, 4), st.integers(0, 4), st.sampled_from([0.25, 0.5, 1.0])
    ),
    max_size=25,
)


def columns(rows: list[tuple[int, int, int, int, float]]) -> tuple[np.ndarray, ...]:
    kinds = (np.int32, np.int8, np.float32, np.float32, np.float32)
    values = zip(*rows, strict=True) if rows else ([] for _ in kinds)
    return tuple(np.array(list(column), dtype=kind) for column, kind in zip(values, kinds, strict=True))


def plainly(truth: list[tuple[int, int, int, int, float]], found: list[tuple[int, int, int, int, float]]) -> list[int]:
    answer, taken = [-1] * len(found), set()
    for row in sorted(range(len(found)), key=lambda row: (found[row][0], -found[row][4], row)):
        frame, class_id, x, y, _ = found[row]
        near = [
            ((t[2] - x) ** 2 + (t[3] - y) ** 2, candidate)
            for candidate, t in enumerate(truth)
            if candidate not in taken
            and t[:2] == (frame, class_id)
            and (t[2] - x) ** 2 + (t[3] - y) ** 2 <= RADIUS_M**2
        ]
        if near:
            answer[row] = min(near)[1]
            taken.add(answer[row])
    return answer


@given(objects, objects)
@settings(max_examples=300, deadline=None)
def test_it_is_the_plain_greedy_matching(truth: list, found: list) -> None:  # type: ignore[type-arg]
    truth, found = sorted(truth, key=lambda row: row[0]), sorted(found, key=lambda row: row[0])
    got = match(*columns(truth)[:4], *columns(found), RADIUS_M)
    assert got.tolist() == plainly(truth, found)


@given(objects, objects)
@settings(max_examples=100, deadline=None)
def test_what_is_above_a_threshold_does_not_depend_on_what_is_below(truth: list, found: list) -> None:  # type: ignore[type-arg]
    truth, found = sorted(truth, key=lambda row: row[0]), sorted(found, key=lambda row: row[0])
    all_of_them = match(*columns(truth)[:4], *columns(found), RADIUS_M)
    above = [row for row in found if row[4] >= 0.5]
    assert match(*columns(truth)[:4], *columns(above), RADIUS_M).tolist() == [
        answer for row, answer in zip(found, all_of_them.tolist(), strict=True) if row[4] >= 0.5
    ]

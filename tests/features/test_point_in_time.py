"""Joins of Arrow tables by any keys, beside brute force."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.errors import FleetError
from fleet_assets.features.point_in_time import STATUSES, as_ns, join

names = st.one_of(st.none(), st.sampled_from(["a", "b", ""]))
numbers = st.one_of(st.none(), st.integers(-2, 2))
times = st.integers(0, 9)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.tuples(names, numbers, times), max_size=10),
    st.lists(st.tuples(names, numbers, times, times), max_size=20),
    st.booleans(),
    st.integers(0, 4),
)
def test_as_brute_force(
    asked: list[tuple[Any, ...]], table: list[tuple[Any, ...]], by_availability: bool, ttl_ns: int
) -> None:
    def expected(name: Any, number: Any, at: int) -> tuple[int | None, str]:
        same = [(t, available, row) for row, (n, m, t, available) in enumerate(table) if (n, m) == (name, number)]
        if name is None or number is None or not same:
            return None, "no such key"
        known = [
            (t, a if by_availability else t, row) for t, a, row in same if t <= at and (a <= at or not by_availability)
        ]
        if not known:
            return None, "not yet known"
        best = max(known)
        return (None, "expired") if ttl_ns and at - best[0] > ttl_ns else (best[2], "found")

    ask = [pa.array([row[0] for row in asked], pa.string()), pa.array([row[1] for row in asked], pa.int64())]
    keys = [pa.array([row[0] for row in table], pa.string()), pa.array([row[1] for row in table], pa.int64())]
    ask_ns = np.array([row[2] for row in asked], dtype=np.int64)
    t_ns = np.array([row[2] for row in table], dtype=np.int64)
    available_ns = np.array([row[3] for row in table], dtype=np.int64)
    known = join(ask, ask_ns, keys, t_ns, available_ns if by_availability else None, ttl_ns)
    assert list(zip(known.row.to_pylist(), known.statuses.to_pylist(), strict=True)) == [
        expected(*row) for row in asked
    ]
    assert set(known.statuses.to_pylist()) <= set(STATUSES)


def test_nulls_and_duplicates_of_values_are_kept() -> None:
    rows = pa.table({"key": ["a", "a"], "value": [1.0, None]})
    known = join([pa.array(["a", "a", "a"])], np.array([1, 2, 2]), [rows["key"]], np.array([1, 2]), None)
    assert known.take(rows, ["value"])[0].to_pylist() == [1.0, None, None]


def test_times() -> None:
    stamps = pa.array([1_767_323_045_000_000_001], pa.timestamp("ns", "UTC"))
    assert as_ns(stamps, "a row").tolist() == [1_767_323_045_000_000_001]
    assert as_ns(pa.array([5]), "a row").tolist() == [5]
    assert as_ns(pa.array([1], pa.timestamp("s")), "a row").tolist() == [1_000_000_000]
    with pytest.raises(FleetError, match=r"a row has no time \(row 1\)"):
        as_ns(pa.array([1, None]), "a row")
    with pytest.raises(FleetError, match="is no time"):
        as_ns(pa.array(["yesterday"]), "a row")
    with pytest.raises(FleetError, match="out of range"):
        as_ns(pa.array([2**62], pa.timestamp("s")), "a row")

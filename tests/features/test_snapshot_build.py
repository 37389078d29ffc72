"""What goes into a snapshot file comes out of it, by every path; the same content gives the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from features.tables import FEATURES, T_NS, built, mixed_view, numeric_view, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.edge import keys
from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.errors import FleetError
from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot, rows_of
from fleet_assets.kernels import lookup


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([(name, "ascending") for name in table.column_names[:2]])


@pytest.mark.parametrize("rows", [0, 1, 2, 63, 5000])
def test_all_types_come_back(tmp_path: Path, rows: int) -> None:
    view = mixed_view(rows)
    back = rows_of(built(tmp_path / "s", view).view("place"))
    assert _sorted(back).equals(_sorted(view.rows))


def test_every_row_is_found_by_every_path(tmp_path: Path) -> None:
    source = mixed_view(3000, ttl_ns=1000)
    snapshot = built(tmp_path / "s", source, numeric_view(10, 3, name="other"))
    view = snapshot.view("place@v1")
    rows = truth(source)
    wanted = list(rows) + [(cell + 1, text) for cell, text in rows] + [(0, "x" * 200)]
    words, used = keys.encode_keys([[k[0] for k in wanted], [k[1] for k in wanted]], view.entity_types)
    compiled = lookup.find_many(snapshot.words, view.numba_view(), words, used)
    assert np.array_equal(view.find_many(words, used), compiled)
    assert [view.find(view.key(key)) for key in wanted] == compiled.tolist()
    for key, row in zip(wanted, compiled.tolist(), strict=True):
        if key not in rows:
            assert row == -1
            continue
        there = dict(zip(view.features, view.values(row), strict=True))
        expected = {name: rows[key][name] for name in FEATURES}
        expected["seen"] = None if expected["seen"] is None else expected["seen"].value
        assert there == expected
        assert view.event_time_ns(row) == rows[key][EVENT_TIME]


def test_compiled_values_and_status_are_those_of_the_plain_path(tmp_path: Path) -> None:
    for source in (mixed_view(500, ttl_ns=200), numeric_view(500, 70), numeric_view(3, 1)):
        snapshot = built(tmp_path / "s", source)
        view = snapshot.view("place")
        where, now_ns = view.numba_view(), T_NS + 400
        words, used = keys.encode_keys([rows_of(view)[name].to_pylist() for name in view.entities], view.entity_types)
        count, features = len(words), len(view.features)
        values, status = np.empty((count, features)), np.empty((count, features), np.uint8)
        times = np.empty(count, np.int64)
        lookup.lookup_many(snapshot.words, where, words, used, now_ns, values, status, times)
        for index in range(count):
            out = np.empty(features)
            view.fill(index, out)
            assert np.array_equal(out, values[index], equal_nan=True)
            assert times[index] == view.event_time_ns(index)
            stale = view.ttl_ns and times[index] < now_ns - view.ttl_ns
            expected = np.where(view.valid(np.array([index]))[0], lookup.STALE if stale else lookup.FRESH, lookup.NULL)
            assert status[index].tolist() == expected.tolist()


def test_the_same_content_gives_the_same_bytes_in_whatever_order(tmp_path: Path) -> None:
    view = mixed_view(1000)
    built(tmp_path / "a", view)
    order = np.random.default_rng(1).permutation(1000)
    built(tmp_path / "b", SnapshotView(**{**vars(view), "rows": view.rows.take(order)}))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("keys_", [[1, 1, 2, 1, 2], [7] * 5])
def test_the_latest_row_of_a_key_wins_and_the_others_are_counted(tmp_path: Path, keys_: list[int]) -> None:
    times = [5, 9, 1, 9, 0]
    table = pa.table({"cell": keys_, EVENT_TIME: times, "f": [float(index) for index in range(5)]})
    view = SnapshotView("v", 1, ("cell",), ("f",), table, 0, "")
    done = build_snapshot(tmp_path / "s", [view], service="s", lakefs_commit="c", delta_versions={})
    latest: dict[int, tuple[int, float]] = {}
    for key, time, value in zip(keys_, times, range(5), strict=True):
        if key not in latest or time >= latest[key][0]:
            latest[key] = (time, float(value))
    back = rows_of(Snapshot.open(tmp_path / "s").view("v")).to_pylist()
    assert {row["cell"]: (row[EVENT_TIME], row["f"]) for row in back} == latest
    assert done.superseded == {"v": 5 - len(latest)}
    assert done.rows == {"v": len(latest)}


def test_size_is_close_to_the_raw_values(tmp_path: Path) -> None:
    done = build_snapshot(tmp_path / "s", [numeric_view(50_000, 30)], service="s", lakefs_commit="c", delta_versions={})
    assert done.file_bytes < 1.3 * 50_000 * 30 * 8


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([[1.0]]), "cannot hold list"),
        (pa.array([b"x"]), "cannot hold binary"),
        (pa.array([2**63], pa.uint64()), "cannot hold uint64"),
    ],
)
def test_types_that_it_cannot_hold_are_named(tmp_path: Path, column: pa.Array, message: str) -> None:
    table = pa.table({"cell": [1], EVENT_TIME: [1], "f": column})
    with pytest.raises(FleetError, match=message):
        built(tmp_path / "s", SnapshotView("v", 1, ("cell",), ("f",), table, 0, ""))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"cell": [None], EVENT_TIME: [1], "f": [1.0]}, "key is null|key cannot be"),
        ({"cell": [1.5], EVENT_TIME: [1], "f": [1.0]}, "key cannot be double"),
        ({"cell": ["x" * 300], EVENT_TIME: [1], "f": [1.0]}, "key has 302 bytes"),
        ({"cell": [1], EVENT_TIME: pa.array([None], pa.int64()), "f": [1.0]}, "event time is null"),
        ({"cell": [1], EVENT_TIME: [1]}, "lack columns"),
    ],
)
def test_rows_that_it_cannot_hold_are_refused(tmp_path: Path, table: dict, message: str) -> None:
    with pytest.raises(FleetError, match=message):
        built(tmp_path / "s", SnapshotView("v", 1, ("cell",), ("f",), pa.table(table), 0, ""))


KEYS = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.text(max_size=20)), min_size=1, max_size=20)


@given(KEYS)
@settings(max_examples=200, deadline=None)
def test_keys_have_one_encoding_and_one_hash(pairs: list[tuple[int, str]]) -> None:
    types = ("int64", "string")
    pairs = [(number, text.encode("utf-8", "ignore").decode()) for number, text in pairs]
    words, used = keys.encode_keys([[p[0] for p in pairs], [p[1] for p in pairs]], types)
    many = keys.hash_keys(words, used)
    for index, pair in enumerate(pairs):
        key = keys.encode_key(pair, types)
        assert words[index].tobytes()[: len(key)] == key
        assert used[index] == len(key) // 8
        assert keys.hash_key(key) == many[index]
        assert keys.decode_key(key, types) == pair


@given(KEYS)
@settings(max_examples=50, deadline=None)
def test_any_keys_are_found(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, str]]) -> None:
    pairs = list({(number, text.encode("utf-8", "ignore").decode()) for number, text in pairs})
    numbers, texts = [p[0] for p in pairs], [p[1] for p in pairs]
    table = pa.table(
        {"n": numbers, "t": texts, EVENT_TIME: range(len(pairs)), "f": [float(i) for i in range(len(pairs))]}
    )
    path = tmp_path_factory.mktemp("any") / "s"
    snapshot = built(path, SnapshotView("v", 1, ("t", "n"), ("f",), table, 0, ""))
    view = snapshot.view("v")
    for index, (number, text) in enumerate(pairs):
        row = view.find(view.key((text, number)))
        assert view.values(row) == [float(index)]
        assert lookup.find(snapshot.words, view.numba_view(), np.frombuffer(view.key((text, number)), "<u8")) == row


def test_equal_hashes_of_different_keys_stay_apart(tmp_path: Path) -> None:
    mask = (1 << 64) - 1

    def after_one(word: int) -> int:
        value = ((keys.SEED ^ word) * keys.STEP) & mask
        return value ^ (value >> 32)

    # What the second word meets differs; a second word that makes up for it gives the same hash.
    second = after_one(1) ^ 2 ^ after_one(5)
    pairs = [(1, 2), (5, second - (1 << 64) if second >> 63 else second)]
    assert len({keys.hash_key(keys.encode_key(pair, ("int64", "int64"))) for pair in pairs}) == 1
    table = pa.table({"a": [p[0] for p in pairs], "b": [p[1] for p in pairs], EVENT_TIME: [1, 1], "f": [1.0, 2.0]})
    snapshot = built(tmp_path / "s", SnapshotView("v", 1, ("a", "b"), ("f",), table, 0, ""))
    view = snapshot.view("v")
    for pair, value in zip(pairs, (1.0, 2.0), strict=True):
        row = view.find(view.key(pair))
        assert view.values(row) == [value]
        assert lookup.find(snapshot.words, view.numba_view(), np.frombuffer(view.key(pair), "<u8")) == row

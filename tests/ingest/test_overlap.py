"""Records of several recordings against a search through all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.ingest import overlap as module
from fleet_assets.ingest.overlap import Overlap
from fleet_assets.lake.payload import KEY_COLUMNS

Record = tuple[str, int, float | None]  # stream, stamp, content
record = st.tuples(st.sampled_from(["imu", "gnss"]), st.integers(0, 12), st.sampled_from([0.0, 1.0, None]))
recordings = st.lists(st.lists(st.lists(record, max_size=6), max_size=3), max_size=4)


def table(values: list[float | None]) -> pa.Table:
    # Places differ between copies of a record, and are not content.
    where = np.random.default_rng().integers(0, 2**40, len(values))
    return pa.table(
        {"sequence": where, "t_device_ns": where, "message_offset": where, "value": pa.array(values, pa.float64())}
    )


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("overlap")


@given(delivered=recordings, block_rows=st.integers(1, 8))
@settings(deadline=None, max_examples=200)
def test_against_a_search_through_all(
    delivered: list[list[list[Record]]], block_rows: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK_ROWS", block_rows)
        overlap = Overlap(tmp_path_factory.mktemp("records") / "overlap")
        earlier: list[list[Record]] = []
        for recording in delivered:
            for batch in recording:
                for stream in ("imu", "gnss"):
                    rows = [row for row in batch if row[0] == stream]
                    stamps = np.array([t for _, t, _ in rows], dtype=np.int64)
                    repeated = overlap.observe(stream, stamps, table([value for *_, value in rows]))
                    assert repeated.tolist() == [any(row in other for other in earlier) for row in rows]
            whole = [row for batch in recording for row in batch]
            assert overlap.close() == _contradictions(whole, earlier)
            earlier.append(whole)


def _contradictions(recording: list[Record], earlier: list[list[Record]]) -> dict[str, int]:
    """Stream -> records that another recording, which also has some that this one lacks, lacks in its time."""
    found: dict[str, int] = {}
    for stream in ("imu", "gnss"):
        ours = [row for row in recording if row[0] == stream]
        for other in earlier:
            theirs = [row for row in other if row[0] == stream]
            if not ours or not theirs:
                continue
            extra = sum(row not in theirs for row in _within(ours, theirs))
            lacking = len(_within(theirs, ours)) - sum(row in theirs for row in ours)
            if extra and lacking > 0:
                found[stream] = max(found.get(stream, 0), extra)
    return found


def _within(rows: list[Record], time_of: list[Record]) -> list[Record]:
    stamps = [t for _, t, _ in time_of]
    return [row for row in rows if min(stamps) <= row[1] <= max(stamps)]


def recording(overlap: Overlap, stamps: list[int], values: list[float | None]) -> tuple[int, dict[str, int]]:
    """One IMU recording: how many of its records were known, and what it contradicts."""
    repeated = overlap.observe("imu", np.array(stamps, dtype=np.int64), table(values))
    return int(repeated.sum()), overlap.close()


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_payload_is_compared_where_stamp_and_length_are_the_same(codec: str, folder: Path) -> None:
    def recorded(name: str, *messages: bytes) -> tuple[pa.Table, Path]:
        """Two messages to a chunk, behind three bytes of something else."""
        path, rows, at = folder / name, [], 3
        content = b"xyz"
        for first in range(0, len(messages), 2):
            records = b"".join(messages[first : first + 2])
            stored = records if codec == "none" else zstandard.compress(records)
            for message in messages[first : first + 2]:
                offset = records.index(message) + (at if codec == "none" else 0)
                chunk = (0, 0, 0) if codec == "none" else (at, len(stored), len(records))
                rows.append((*chunk, codec, offset, len(message), "a"))
            content, at = content + stored, at + len(stored)
        path.write_bytes(content)
        names = (*KEY_COLUMNS[1:], "schema_name")
        return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True))), path

    overlap = Overlap(folder / "o")
    at = np.arange(5, dtype=np.int64)
    assert not overlap.observe("lidar", at, *recorded("1", b"aaaa", b"bbbb", b"cccc", b"dddd", b"eeee")).any()
    assert overlap.close() == {}
    known = overlap.observe("lidar", at, *recorded("2", b"aaaa", b"bbbx", b"ccc", b"dddd", b"eeee"))
    assert known.tolist() == [True, False, False, True, True]
    assert overlap.close() == {"lidar": 2}


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_recordings_that_follow_each_other_do_not_meet(order: list[int], folder: Path) -> None:
    overlap = Overlap(folder / "o")
    for part in order:
        assert recording(overlap, [t + 100 * part for t in range(100)], [1.0] * 100) == (0, {})


@pytest.mark.parametrize("lossy_first", [True, False])
def test_a_copy_that_lost_records_contradicts_nothing(lossy_first: bool, folder: Path) -> None:
    overlap = Overlap(folder / "o")
    whole = (list(range(100)), [float(n) for n in range(100)])
    lossy = ([t for t in range(100) if t % 7], [float(n) for n in range(100) if n % 7])
    first, second = (lossy, whole) if lossy_first else (whole, lossy)
    assert recording(overlap, *first) == (0, {})
    assert recording(overlap, *second) == (len(lossy[0]), {})


def test_memory_holds_a_few_blocks_whatever_the_length(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK_ROWS", 1000)
    overlap = Overlap(folder / "o")
    for copy in range(2):
        for first in range(0, 50_000, 500):
            t_ns = np.arange(first, first + 500, dtype=np.int64)
            known = overlap.observe("imu", t_ns, table([1.0] * 500))
            assert known.all() == bool(copy)
            assert sum(stream.waiting_rows for stream in overlap._open.values()) < 1000
        assert overlap.close() == {}
    assert sum(file.stat().st_size for file in (folder / "o").iterdir()) == 2 * 50_000 * 16

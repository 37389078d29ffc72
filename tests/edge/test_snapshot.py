"""A snapshot file that is cut off, foreign or hostile is refused; a reader's file never changes under it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from features.tables import (
    VERSION_FEATURES,
    VERSION_ROWS,
    built,
    mixed_view,
    numeric_view,
    write_version,
)
from features.writers import writers
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.edge import layout as lo
from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.errors import FleetError
from fleet_assets.kernels import lookup


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("snapshot") / "s"
    built(path, mixed_view(40), numeric_view(20, 3, name="other"))
    return path.read_bytes()


def test_every_cut_is_refused(whole: bytes) -> None:
    for length in [*range(0, 4096, 8), *range(4096, len(whole), 512), len(whole) - 8]:
        if length < len(whole):
            with pytest.raises(FleetError):
                Snapshot(memoryview(whole[:length]), "cut")


def test_every_changed_byte_before_the_data_is_refused(whole: bytes) -> None:
    header = np.frombuffer(whole, lo.HEADER, 1)[0]
    end = int(header["metadata_offset"] + header["metadata_bytes"])
    for index in range(0, end, 3):
        broken = bytearray(whole)
        broken[index] ^= 0x41
        with pytest.raises(FleetError):
            Snapshot(memoryview(bytes(broken)), "changed")


@pytest.mark.parametrize("content", [b"", b"x" * 7, b"PK\3\4" + bytes(996), lo.MAGIC, lo.MAGIC + bytes(120)])
def test_foreign_files_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(FleetError, match="no usable snapshot"):
        Snapshot.open(path)
    with pytest.raises(FleetError, match="Cannot read"):
        Snapshot.open(tmp_path / "absent")
    with pytest.raises(FleetError, match="Cannot read"):
        Snapshot.open(tmp_path)


def resealed(data: bytearray) -> bytes:
    """The file with a digest that fits, as a hostile author would write it."""
    header = np.frombuffer(bytes(data[: lo.HEADER.itemsize]), lo.HEADER, 1).copy()
    end = min(int(header[0]["metadata_offset"]) + int(header[0]["metadata_bytes"]), len(data))
    header["digest"] = np.void(lo.digest(header, bytes(data[lo.HEADER.itemsize : end])))
    return header.tobytes() + bytes(data[lo.HEADER.itemsize :])


EDITS = st.lists(
    st.tuples(st.integers(0, 900), st.sampled_from([0, 1, 7, 8, 0x7F, 0xFF]) | st.integers(0, 255)),
    min_size=1,
    max_size=6,
)


@given(EDITS, st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_hostile_file_makes_a_reader_leave_it(whole: bytes, edits: list[tuple[int, int]], random_data: bool) -> None:
    data = bytearray(whole)
    for index, value in edits:
        data[8 + index] = value
    if random_data:  # the index and the rows too
        start = int(np.frombuffer(whole, lo.HEADER, 1)[0]["metadata_offset"])
        start += int(np.frombuffer(whole, lo.HEADER, 1)[0]["metadata_bytes"])
        data[start:] = np.random.default_rng(len(edits)).bytes(len(data) - start)
    try:
        snapshot = Snapshot(memoryview(resealed(data)), "hostile")
    except FleetError:
        return
    for view in set(snapshot.views.values()):
        where = view.numba_view()
        block = np.empty(lookup.block_words(len(view.features)), np.uint64)
        for key in (0, 3, 5, -40, 2**62):
            words = np.array([key], np.int64).view(np.uint64)
            row = lookup.lookup(snapshot.words, where, words, 0, block)
            assert view.find(words.tobytes()) == row
            assert view.find_many(words.reshape(1, 1), np.ones(1, np.int64)).tolist() == [row]
            if row >= 0:
                with contextlib.suppress(FleetError):  # a category without a text
                    view.values(row)


def test_unknown_views_are_named(whole: bytes) -> None:
    snapshot = Snapshot(memoryview(whole), "file")
    assert snapshot.view("place").version == 1
    with pytest.raises(FleetError, match=r"no view place@v2.*other@v1, place@v1"):
        snapshot.view("place@v2")
    assert snapshot.metadata["lakefs_commit"] == "c0ffee"
    assert snapshot.metadata["delta_versions"] == {"features.place": 3}


# ---- activation ------------------------------------------------------------------------------------------------------


def version_seen(path: Path) -> int:
    """The version of a file, after looking that it is of one piece."""
    snapshot = Snapshot.open(path)
    view = snapshot.view("place")
    version = int(snapshot.metadata["lakefs_commit"])
    everything = np.stack([view.column(index, np.arange(VERSION_ROWS)) for index in range(VERSION_FEATURES)])
    assert (everything == version).all()
    return version


@pytest.mark.slow
def test_writers_killed_at_fifty_moments_leave_a_whole_version(tmp_path: Path) -> None:
    path = tmp_path / "s"
    moments = random.Random(0)
    write_version(path, 0)
    last = 0
    with writers(path) as start:
        for _ in range(50):
            writer = start(last + 1)
            until = time.monotonic() + 60
            while version_seen(path) == last and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(moments.random() * 0.02)  # somewhere in the next versions
            os.kill(writer, signal.SIGKILL)
            seen = version_seen(path)
            assert seen > last
            last = seen
    assert len(list(tmp_path.iterdir())) <= 51  # what killed writers left is beside it, under other names


def test_an_open_file_stays_what_it_was(tmp_path: Path) -> None:
    path = tmp_path / "s"
    before = built(path, numeric_view(50, 3, value=1.0))
    after = built(path, numeric_view(90, 3, value=2.0))
    out = np.empty(3)
    for snapshot, value in ((before, 1.0), (after, 2.0)):
        view = snapshot.view("place")
        view.fill(view.find(view.key([30])), out)
        assert out.tolist() == [value] * 3

"""Files of the online store: a log that is cut off, foreign or just begun, writers that are killed, and readers beside them."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from features.tables import VERSION_FEATURES, write_version
from features.writers import fold_version, folded_view, publish_version, push_version, writers

from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.errors import FleetError
from fleet_assets.features.online_files import OnlineFiles
from fleet_assets.features.online_rows import Source, pack_key


def test_a_log_that_was_cut_off_anywhere_loses_only_the_last_write(tmp_path: Path) -> None:
    files = OnlineFiles(tmp_path / "a")
    ends = []
    for index in range(3):
        files.write("t", [(bytes([index]), index, {"f": b"value"})])
        ends.append((tmp_path / "a" / "log").stat().st_size)
    whole = (tmp_path / "a" / "log").read_bytes()
    for length in range(ends[0], ends[2] + 1):
        folder = tmp_path / "b"
        OnlineFiles(folder).remove()
        folder.mkdir()
        (folder / "log").write_bytes(whole[:length])
        cut = OnlineFiles(folder)
        cut.refresh()
        kept = sum(length >= end for end in ends)
        assert len(cut.table("t").rows) == kept
        cut.write("t", [(b"new", 9, {"f": b"value"})])
        again = OnlineFiles(folder)
        again.refresh()
        cut.refresh()
        assert len(again.table("t").rows) == len(cut.table("t").rows) == kept + 1


def test_a_foreign_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"something else, and long")
    with pytest.raises(FleetError, match="no log of an online store"):
        OnlineFiles(tmp_path).refresh()


@pytest.mark.parametrize("begun", [b"", b"FLT"])
def test_a_log_whose_first_record_is_on_its_way_is_none_yet(tmp_path: Path, begun: bytes) -> None:
    (tmp_path / "log").write_bytes(begun)
    reader = OnlineFiles(tmp_path)
    assert version_of(reader, "push") == 0
    push_version(tmp_path, 7)
    assert version_of(reader, "push") == version_of(OnlineFiles(tmp_path), "push") == 7


@pytest.mark.slow
@pytest.mark.parametrize("work", ["push", "publish", "fold"])
def test_writers_killed_at_fifty_moments_leave_whole_writes(tmp_path: Path, work: str) -> None:
    folder = tmp_path / "online"
    reader, moments, last = OnlineFiles(folder), random.Random(0), 0
    with writers(folder, work) as start:
        for _ in range(50):
            writer = start(last + 1)
            until = time.monotonic() + 60
            while last == version_of(reader, work) and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(moments.random() * 0.02)
            os.kill(writer, signal.SIGKILL)
            seen = version_of(reader, work)
            assert seen > last
            assert version_of(OnlineFiles(folder), work) >= seen
            last = seen
    write_version(tmp_path / "whole", last)
    OnlineFiles(folder).publish(tmp_path / "whole", "s")
    assert [path.name for path in folder.glob(".new-*")] == []  # nor does anything of the killed ones stay


def version_of(files: OnlineFiles, work: str) -> int:
    """The version of the rows, after looking that all are of one write; 0 for none."""
    with files.moment():
        if work == "publish":
            views = [base.view for base in files.table("place").bases]
            values = [view.rows[str(index)] for view in views for index in range(len(view.features))]
        elif work == "push":
            values = [float(row.values["f"]) for row in files.table("t").rows.values()]
        else:
            source = Source(files.table("t"), folded_view(), ["f"])
            found = [source.one(pack_key([cell]), [cell]) for cell in range(5)]
            values = [row.values[0] for row in found if row is not None]
    seen = np.unique(values)
    assert len(values) == {"publish": VERSION_FEATURES, "push": 5, "fold": 5}[work] or not len(values)
    assert seen.size <= 1
    return int(seen[0]) if seen.size else 0


@pytest.mark.parametrize("work", ["publish", "fold"])
def test_what_is_published_while_a_reader_opens_files_is_taken_up(
    tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening of the files and of the log, another process goes on."""
    change = {"publish": publish_version, "fold": fold_version}[work]
    change(tmp_path, 1)
    honest = Snapshot.open

    def opened(path: Path) -> Snapshot:
        found = honest(path)
        if path.is_relative_to(tmp_path):
            monkeypatch.setattr(Snapshot, "open", honest)
            change(tmp_path, 2)
        return found

    monkeypatch.setattr(Snapshot, "open", opened)
    reader = OnlineFiles(tmp_path)
    assert version_of(reader, work) == 2
    change(tmp_path, 3)
    assert version_of(reader, work) == 3

"""What a drive is does not depend on names, on the borders of files, or on the order in which they arrive."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from formats import samples
from formats.samples import Message, write_mcap
from ingest.decoding import decode_landed, faults, ledger, streams, tables

from fleet_assets.capture.deliver import deliver
from fleet_assets.capture.recordings import recordings_of
from fleet_assets.formats import ros2
from fleet_assets.ingest.decode import DecodedDrive

START = "2026-01-02T03:04:05Z"
ROWS = ("ingest.imu", "ingest.gnss", "ingest.bus_signals", "ingest.messages")
# Where the bytes lie, which depends on the files.
PLACES = ["object", "chunk_offset", "chunk_length", "chunk_size", "message_offset"]


def drive() -> list[Message]:
    """Two seconds; no two IMU records are alike."""
    zero = np.zeros(3)
    return [
        replace(m, data=ros2.imu(m.t_host_ns - 3_000_000, "imu", np.array([n / 9, 0, 9]), zero))
        if m.topic == "/imu"
        else m
        for n, m in enumerate(samples.drive(2.0))
    ]


def landed(landing: Path, recordings: Sequence[Sequence[Message]]) -> str:
    """Delivers recordings, in this order, as parts of one drive."""
    for number, messages in enumerate(recordings):
        file = write_mcap(landing.parent / f"{landing.name}-{number}.mcap", list(messages))
        delivered = deliver(file, landing, vehicle="car7", start=START)
    return delivered.drive_id


def decoded(landing: Path, drive_id: str) -> DecodedDrive:
    """As a run does it: whatever lies in the landing folder for this drive."""
    folders = tuple(found.folder for found in recordings_of(landing, [drive_id])[drive_id])
    scratch = landing.parent / f"{landing.name}-scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    return decode_landed(landing, drive_id, folders, scratch)


def rows(drive: DecodedDrive) -> dict[str, pa.Table]:
    assert drive.accepted, drive.faults
    found = tables(drive)
    return {
        name: found[name]
        .drop_columns([column for column in PLACES if column in found[name].column_names])
        .sort_by([("stream", "ascending"), ("sequence", "ascending")])
        for name in ROWS
    }


MESSAGES = drive()
CUT = len(MESSAGES) // 3
SPLIT = (MESSAGES[:CUT], MESSAGES[CUT:])
DELIVERIES = {
    "in two": SPLIT,
    "in two, and whole": (MESSAGES, *SPLIT),
    "parts that overlap": (MESSAGES[: CUT + 50], MESSAGES[CUT - 50 :]),
    "by topic": ([m for m in MESSAGES if m.topic == "/imu"], [m for m in MESSAGES if m.topic != "/imu"]),
}


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_file_borders_and_order_of_arrival_do_not_matter(delivery: str, tmp_path: Path) -> None:
    whole = rows(decoded(tmp_path / "whole", landed(tmp_path / "whole", [MESSAGES])))
    for number, order in enumerate(permutations(DELIVERIES[delivery])):
        landing = tmp_path / str(number)
        found = decoded(landing, landed(landing, order))
        assert rows(found) == whole
        for name, expected in streams(decoded(tmp_path / "whole", found.item.drive_id)).items():
            seen = streams(found)[name]
            for fact in (
                "t_first_ns",
                "t_last_ns",
                "seen_rows",
                "expected_rows",
                "lost_rows",
                "gaps",
                "repeated_steps",
            ):
                assert seen[fact] == expected[fact], (name, fact)


def test_two_drives_merged_into_one_file_are_the_parts(tmp_path: Path) -> None:
    parts = rows(decoded(tmp_path / "parts", landed(tmp_path / "parts", SPLIT)))
    assert rows(decoded(tmp_path / "merged", landed(tmp_path / "merged", [MESSAGES]))) == parts


def test_names_of_folders_and_files_do_not_matter(tmp_path: Path) -> None:
    landing = tmp_path / "landing"
    drive_id = landed(landing, SPLIT)
    before = decoded(landing, drive_id)
    for number, folder in enumerate(sorted(landing.iterdir(), reverse=True)):
        folder.rename(landing / f"{number} renamed")
    after = decoded(landing, drive_id)
    assert rows(after) == rows(before)
    assert {row["object"] for row in tables(after)["ingest.messages"].to_pylist()} == {
        row["object"] for row in tables(before)["ingest.messages"].to_pylist()
    }


def test_parts_that_say_when_the_drive_started_are_one_drive(tmp_path: Path) -> None:
    told = [write_mcap(tmp_path / f"{n}.mcap", list(part), metadata={"start": START}) for n, part in enumerate(SPLIT)]
    delivered = [deliver(file, tmp_path / "landing") for file in told]
    assert {each.drive_id for each in delivered} == {"demo1--20260102T030405Z"}


def test_a_copy_that_lost_messages_is_made_whole(tmp_path: Path) -> None:
    lossy = [message for n, message in enumerate(MESSAGES) if not 100 < n < 150]
    whole = rows(decoded(tmp_path / "whole", landed(tmp_path / "whole", [MESSAGES])))
    both = decoded(tmp_path / "both", landed(tmp_path / "both", [lossy, MESSAGES]))
    assert rows(both) == whole
    assert sum(row["refused_rows"] for row in ledger(both).values()) == len(lossy)


def test_two_loggers_of_one_time_that_disagree_are_in_conflict(tmp_path: Path) -> None:
    still = np.zeros(3)
    other = [
        replace(m, data=ros2.imu(m.t_host_ns - 3_000_000, "imu", still, still)) if m.topic == "/imu" else m
        for m in MESSAGES
    ]
    found = decoded(tmp_path / "landing", landed(tmp_path / "landing", [MESSAGES, other]))
    assert not found.accepted
    assert faults(found)["recordings agree"].startswith("conflict")

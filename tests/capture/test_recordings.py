"""Scanning the landing folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from capture.conftest import CONTENT, document, put_document, put_files, put_recording
from hypothesis import given
from hypothesis import strategies as st

from fleet_assets.capture.manifest import NAME, Manifest, ManifestFile
from fleet_assets.capture.recordings import Found, distinct, recordings_of, scan
from fleet_assets.errors import FleetError


def test_each_folder_is_new_rejected_or_incomplete(landing: Path) -> None:
    put_recording(landing / "good")
    put_files(landing / "half", CONTENT)
    put_document(landing / "hostile", document(files=[]))
    (landing / "loose.mcap").write_bytes(b"x")
    (landing / "link").symlink_to(landing / "good")
    (landing / ".incoming-abc").mkdir()
    result = scan(landing)
    assert [found.folder for found in result.new] == ["good"]
    assert [item.folder for item in result.rejected] == ["hostile", "link", "loose.mcap"]
    (half,) = result.incomplete
    assert (half.folder, half.bytes) == ("half", sum(map(len, CONTENT.values())))
    not_taken = result.not_taken()
    assert [item.folder for item in not_taken] == ["half", "hostile", "link", "loose.mcap"]
    assert all(item.reason and item.remedy for item in not_taken)
    assert NAME in not_taken[0].reason


def test_seen_folders_are_passed_over_and_a_limit_is_kept(landing: Path) -> None:
    for number in range(5):
        put_recording(landing / f"r{number}", {"a": bytes([number])})
    seen: set[bytes] = set()
    ticks = []
    while (found := scan(landing, seen=seen, limit=2)).new:
        ticks.append([item.folder for item in found.new])
        seen |= set(found.marks.values())
    assert ticks == [["r0", "r1"], ["r2", "r3"], ["r4"]]


def test_a_recording_that_lost_a_file_is_rejected_but_still_belongs_to_its_drive(landing: Path) -> None:
    manifest = put_recording(landing / "r")
    (landing / "r" / "drive.mcap").unlink()
    (rejected,) = scan(landing).rejected
    assert "drive.mcap is missing" in rejected.reason
    drive = str(manifest.drive)
    assert [found.folder for found in recordings_of(landing, [drive])[drive]] == ["r"]


def test_recordings_by_drive_in_order_of_folder(landing: Path) -> None:
    drive = str(put_recording(landing / "b", {"a": b"1"}).drive)
    put_recording(landing / "a", {"a": b"2"})
    put_recording(landing / "copy of b", {"other name": b"1"})
    other = str(put_recording(landing / "c", {"a": b"3"}, vehicle="car8").drive)
    found = recordings_of(landing, [drive, "nobody--20260101T000000Z"])
    assert {key: [item.folder for item in items] for key, items in found.items()} == {
        drive: ["a", "b"],
        "nobody--20260101T000000Z": [],
    }
    assert other not in found


def test_a_missing_landing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="cannot be read") as caught:
        scan(tmp_path / "nowhere")
    assert "fleet ingest" in (caught.value.remedy or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_rights_costs_no_other_one_anything(landing: Path) -> None:
    put_recording(landing / "closed")
    put_recording(landing / "open", {"a": b"2"})
    (landing / "closed").chmod(0)
    try:
        result = scan(landing)
    finally:
        (landing / "closed").chmod(0o700)
    assert [found.folder for found in result.new] == ["open"]


@given(st.lists(st.frozensets(st.integers(0, 5), min_size=1), max_size=6))
def test_distinct_against_every_pair(contents: list[frozenset[int]]) -> None:
    recordings = []
    for number, content in enumerate(contents):
        files = tuple(ManifestFile(str(n), 1, f"{n:064x}") for n in content)
        recordings.append(Found(str(number), Manifest(None, files)))  # type: ignore[arg-type]
    expected = [
        str(number)
        for number, content in enumerate(contents)
        if not any(content < other or (content == other and n < number) for n, other in enumerate(contents))
    ]
    assert [found.folder for found in distinct(recordings)] == expected

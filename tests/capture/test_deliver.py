"""Delivery: what `fleet ingest` puts into the landing folder."""

from __future__ import annotations

import errno
import hashlib
import os
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from capture.conftest import CONTENT, put_files, put_recording
from formats.sample_folders import kitti_tracking
from formats.samples import radiate

from fleet_assets.capture.deliver import deliver
from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.capture.files import BLOCK_BYTES, copy_hashed, open_regular
from fleet_assets.capture.manifest import NAME, read_manifest
from fleet_assets.capture.recordings import marks, scan
from fleet_assets.errors import FleetError
from fleet_assets.simulate.drives import write_drive

GIVEN = {"vehicle": "car7", "start": "2026-01-02T03:04:05Z"}
DRIVE = "car7--20260102T030405Z"


def names(landing: Path) -> list[str]:
    return sorted(path.name for path in landing.iterdir())


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    put_files(tmp_path / "card", CONTENT)
    return tmp_path / "card"


def test_a_folder_is_copied_with_its_manifest(recording: Path, landing: Path) -> None:
    told: list[tuple[int, int]] = []
    delivered = deliver(recording, landing, **GIVEN, progress=lambda done, total: told.append((done, total)))
    assert (delivered.drive_id, delivered.status, delivered.files) == (DRIVE, "delivered", 2)
    assert told[-1] == (delivered.bytes, delivered.bytes)
    (found,) = scan(landing).new
    assert (found.folder, found.manifest.recording_id) == (delivered.folder, delivered.recording_id)
    found.manifest.verify(landing / found.folder)
    assert names(landing) == [delivered.folder]
    assert {name: (recording / name).read_bytes() for name in CONTENT} == CONTENT
    assert not (recording / NAME).exists()


@pytest.mark.parametrize("error", [None, errno.EXDEV, errno.EINVAL])
@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 7])
def test_a_copy_and_its_hash_wherever_the_disks_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None, size: int
) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "source").write_bytes(content)

    def refused(*_: object) -> int:
        raise OSError(error, "refused")

    if error is not None:
        monkeypatch.setattr(os, "copy_file_range", refused)
    with open_regular(tmp_path, "source") as source, open(tmp_path / "copy", "x+b", buffering=0) as copy:
        assert copy_hashed(source, copy) == (hashlib.sha256(content).hexdigest(), size)
    assert (tmp_path / "copy").read_bytes() == content


def test_a_full_disk_while_copying_leaves_nothing(
    recording: Path, landing: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(FleetError, match="No space left"):
        deliver(recording, landing, **GIVEN)
    assert names(landing) == []


def test_the_same_content_counts_once(recording: Path, landing: Path) -> None:
    first = deliver(recording, landing, **GIVEN)
    (recording / "drive.mcap").rename(recording / "renamed.mcap")
    again = deliver(recording, landing, **GIVEN)
    assert (again.status, again.folder) == ("present", first.folder)
    with pytest.raises(FleetError, match=f"there already, as drive {DRIVE}"):
        deliver(recording, landing, vehicle="car8", start=GIVEN["start"])
    assert names(landing) == [first.folder]


@pytest.mark.parametrize("damage", ["lost", "flipped", "link"])
def test_a_damaged_landed_copy_is_replaced_and_registered_anew(damage: str, recording: Path, landing: Path) -> None:
    first = deliver(recording, landing, **GIVEN)
    before = marks(landing)
    copy = landing / first.folder / "drive.mcap"
    content = bytearray(copy.read_bytes())
    copy.unlink()
    if damage == "flipped":  # the same size
        content[0] ^= 1
        copy.write_bytes(content)
    elif damage == "link":
        copy.symlink_to(recording / "drive.mcap")
    again = deliver(recording, landing, **GIVEN)
    assert (again.status, again.folder) == ("repaired", first.folder)
    assert names(landing) == [first.folder]
    read_manifest(landing / first.folder).verify(landing / first.folder)
    assert not marks(landing) & before
    assert deliver(recording, landing, **GIVEN).status == "present"


def test_a_folder_in_the_landing_does_not_stand_in_for_a_damaged_one(recording: Path, landing: Path) -> None:
    first = deliver(recording, landing, **GIVEN)
    (landing / first.folder / "drive.mcap").write_bytes(b"x")
    put_files(landing / "by hand", CONTENT)
    with pytest.raises(FleetError, match=r"damaged: drive\.mcap is not what"):
        deliver(landing / "by hand", landing, **GIVEN)
    assert names(landing) == sorted(["by hand", first.folder])


def test_a_folder_in_the_landing_gets_its_manifest_in_place(landing: Path) -> None:
    put_files(landing / "by hand", CONTENT)
    delivered = deliver(landing / "by hand", landing, **GIVEN)
    assert (delivered.folder, delivered.status) == ("by hand", "delivered")
    assert [found.folder for found in scan(landing).new] == ["by hand"]


def test_a_recording_that_has_a_manifest_is_described_by_it(tmp_path: Path, landing: Path) -> None:
    manifest = put_recording(tmp_path / "r")
    (tmp_path / "r" / "left over").write_bytes(b"not listed")
    delivered = deliver(tmp_path / "r", landing)
    assert (delivered.drive_id, delivered.recording_id) == (str(manifest.drive), manifest.recording_id)
    assert read_manifest(landing / delivered.folder) == manifest


def test_content_that_its_manifest_does_not_know_is_refused(tmp_path: Path, landing: Path) -> None:
    put_recording(tmp_path / "r")
    (tmp_path / "r" / "drive.mcap").write_bytes(b"pAyload")
    with pytest.raises(FleetError, match=r"drive\.mcap is not what its manifest says"):
        deliver(tmp_path / "r", landing)
    assert names(landing) == []


def test_what_is_not_given_comes_from_the_recording(tmp_path: Path, landing: Path) -> None:
    path = tmp_path / "drive.mcap"
    start = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    truth = write_drive(path, seed=1, start=start, duration_s=2.0, vehicle="car9")
    drive = DriveKey.parse(deliver(path, landing).drive_id)
    assert drive.vehicle == "car9"
    # By the logger's clock: only synchronisation knows how wrong it is.
    by_logger = start - timedelta(microseconds=truth.clocks["logger"][0]["offset_ns"] // 1000)
    assert abs(drive.start - by_logger) < timedelta(seconds=1.5)


def test_context_comes_from_the_recording_also_when_the_drive_is_given(tmp_path: Path, landing: Path) -> None:
    path = tmp_path / "drive.mcap"
    write_drive(path, seed=1, start=datetime(2026, 3, 4, tzinfo=UTC), duration_s=2.0, vehicle="car9")
    given = deliver(path, landing, vehicle="car7", start="2026-03-04T00:00:00Z")
    context = read_manifest(landing / given.folder).context
    assert context["weather"]["source"] == "recording"


def test_a_damaged_key_of_context_costs_no_delivery(tmp_path: Path, landing: Path) -> None:
    path = tmp_path / "drive.mcap"
    write_drive(path, seed=1, start=datetime(2026, 3, 4, tzinfo=UTC), duration_s=2.0, vehicle="car9")
    path.write_bytes(path.read_bytes().replace(b"weather", b"\x17eather"))
    context = read_manifest(landing / deliver(path, landing).folder).context
    assert context["\N{REPLACEMENT CHARACTER}eather"]["source"] == "recording"


def test_what_is_missing_is_named(recording: Path, landing: Path) -> None:
    with pytest.raises(FleetError, match="No reader knows what is in card") as caught:
        deliver(recording, landing, vehicle="car7")
    assert caught.value.remedy
    with pytest.raises(FleetError, match="no ISO 8601"):
        deliver(recording, landing, vehicle="car7", start="noon")
    assert names(landing) == []


def test_what_a_readable_recording_does_not_tell_is_named(tmp_path: Path, landing: Path) -> None:
    known = radiate(tmp_path / "radiate").files.root
    with pytest.raises(FleetError, match="does not say which vehicle made it") as caught:
        deliver(known, landing)
    assert caught.value.remedy == "Give --vehicle."
    unstamped = kitti_tracking(tmp_path / "kitti").files.root
    with pytest.raises(FleetError, match="does not say when it starts") as caught:
        deliver(unstamped, landing, vehicle="car7")
    assert "Give --start" in str(caught.value.remedy)
    assert not list(landing.glob("*"))
    assert deliver(known, landing, vehicle="car7").drive_id.startswith("car7--")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder link"])
def test_only_regular_files_are_delivered(kind: str, recording: Path, landing: Path) -> None:
    bad = recording / "bad"
    if kind == "pipe":
        os.mkfifo(bad)
    else:
        bad.symlink_to("/etc/passwd" if kind == "link" else "/etc")
    with pytest.raises(FleetError, match="link or no regular file"):
        deliver(recording, landing, **GIVEN)
    assert names(landing) == []


def test_an_empty_folder_and_a_full_disk(tmp_path: Path, landing: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FleetError, match="holds no file"):
        deliver(tmp_path / "empty", landing, **GIVEN)
    with open(tmp_path / "huge.mcap", "wb") as file:
        file.truncate(1 << 43)
    with pytest.raises(FleetError, match="no room for"):
        deliver(tmp_path / "huge.mcap", landing, **GIVEN)
    assert names(landing) == []


def test_copies_of_a_killed_writer_are_removed_when_they_are_old(recording: Path, landing: Path) -> None:
    for name, age_s in (("old", 2 * 24 * 3600), ("young", 60)):
        folder = landing / f".incoming-{name}"
        folder.mkdir()
        then = folder.stat().st_mtime - age_s
        os.utime(folder, (then, then))
    delivered = deliver(recording, landing, **GIVEN)
    assert names(landing) == [".incoming-young", delivered.folder]

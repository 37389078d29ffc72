"""KITTI raw and tracking: values in our axes, frames and files that disagree, hostile labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from formats.sample import Sample
from formats.sample_folders import OXTS, TRACKING_LABELS, kitti_raw, kitti_tracking

from fleet_assets.errors import FleetError
from fleet_assets.formats.kitti import KittiRawReader, KittiReader, KittiTrackingReader
from fleet_assets.formats.reader import RecordingFiles

BASE = "2011_09_26/2011_09_26_drive_0001_sync"
T0_NS = 1_317_042_145_000_000_000  # 2011-09-26 13:02:25 UTC


def rows(reader: KittiReader, topic: str) -> list[dict[str, object]]:
    return [row for batch in reader.read(topics=[topic]) for row in batch.table.to_pylist()]


def account(reader: KittiReader) -> dict[tuple[str | None, str], int]:
    return {(refusal.topic, refusal.reason): refusal.count for refusal in reader.refusals}


def test_inertial_unit(tmp_path: Path) -> None:
    reader = KittiRawReader(kitti_raw(tmp_path).files)
    imu, fix = rows(reader, "/oxts")[0], rows(reader, "/oxts/fix")[0]
    assert imu["t_host_ns"] == T0_NS + 2_000_000
    assert imu["t_device_ns"] is None
    assert [imu[f"accel_{axis}_mps2"] for axis in "xyz"] == [0.3, -0.2, 9.8]
    assert [imu[f"gyro_{axis}_radps"] for axis in "xyz"] == [0.001, 0.002, 0.03]
    # Yaw of a quarter turn from east is north.
    assert imu["orientation_z"] == pytest.approx(np.sqrt(0.5), abs=0.01)
    assert fix["heading_deg"] == pytest.approx(0, abs=1e-5)
    assert (fix["latitude_deg"], fix["altitude_m"], fix["accuracy_m"], fix["satellites"]) == (
        49.0150038,
        112.5,
        0.05,
        10,
    )
    assert fix["speed_mps"] == pytest.approx(np.hypot(8, 0.5))


def test_frames_and_files_that_disagree(tmp_path: Path) -> None:
    sample = kitti_raw(tmp_path)
    (tmp_path / BASE / "image_00/timestamps.txt").write_text("2011-09-26 13:02:25.000000000\nsoon\n\n2011-13-01 1\n")
    (tmp_path / BASE / "image_01/data/0000000001.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / BASE / "velodyne_points/data/0000000003.bin").write_bytes(bytes(17))
    (tmp_path / BASE / "oxts/data/0000000004.txt").write_text(OXTS.replace("49.0", "north"))
    extra = [f"{BASE}/image_02/data/1.png", f"{BASE}/image_02/data/one.png", f"{BASE}/notes.doc"]
    for name in extra:
        (tmp_path / name).write_bytes(b"")
    reader = KittiRawReader(RecordingFiles(tmp_path, (*sample.files.names, *extra)))
    found = [payload.topic for payload in reader.payloads()]
    list(reader.read())
    assert account(reader) == {
        ("/camera/00", "the stamp cannot be read"): 2,
        ("/camera/00", "the file has no stamp in the index"): 5,
        ("/camera/01", "the file cannot be read"): 1,
        ("/camera/02", "two files have the same frame number"): 1,
        ("/camera/02", "the file's name is no frame of the sensor"): 1,
        ("/camera/03", "the file has no stamp in the index"): 1,
        ("/lidar/velodyne", "the index names a file that is not there"): 1,
        ("/lidar/velodyne", "the file cannot be read"): 1,
        ("/oxts", "the file cannot be read"): 1,
        ("/oxts/fix", "the file cannot be read"): 1,
        (None, "the file belongs to no sensor"): 1,
    }
    assert [found.count(f"/camera/{n:02d}") for n in range(4)] == [1, 5, 6, 5]


def test_tracklets(tmp_path: Path) -> None:
    first, *_, last = rows(KittiRawReader(kitti_raw(tmp_path).files), "/labels")
    assert (first["class_name"], first["subtype"], first["track_id"]) == ("vehicle", "van", "0")
    assert [first[f"{name}_m"] for name in ("x", "y", "z")] == [10, -4, -0.5]  # its centre, not its bottom
    assert [first[f"{name}_m"] for name in ("length", "width", "height")] == [4.5, 1.8, 2.0]
    assert first["yaw_rad"] == pytest.approx(0.25)
    assert first["left_px"] is first["image_stream"] is first["moving"] is None
    assert first["t_host_ns"] == T0_NS + 112_345_678
    assert (last["class_name"], last["track_id"], last["t_host_ns"]) == ("cyclist", "1", T0_NS + 412_345_678)


BOMB = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;&b;">]><a>&c;</a>'
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/hostname">]><a>&b;</a>'


@pytest.mark.parametrize("content", [BOMB, OUTSIDE, "<a>" * 100_000, "<a/>", "<a", "", "\xff\xfe"])
def test_hostile_tracklets(tmp_path: Path, content: str) -> None:
    sample = kitti_raw(tmp_path)
    (tmp_path / BASE / "tracklet_labels.xml").write_bytes(content.encode("latin-1"))
    reader = KittiRawReader(sample.files)
    assert rows(reader, "/labels") == []
    assert account(reader)["/labels", "the file cannot be read"] == 0


def test_tracking_labels_are_in_the_lidar_frame(tmp_path: Path) -> None:
    van, region, later, person = rows(KittiTrackingReader(kitti_tracking(tmp_path).files), "/labels")
    # Camera (-4.5, 1.75, 13.5), bottom: 13.5 + 0.25 ahead, 4.5 left, 1.75 + 0.1 - 1 of half its height below.
    assert [van[f"{name}_m"] for name in ("x", "y", "z")] == pytest.approx([13.75, 4.5, -0.85])
    assert van["yaw_rad"] == pytest.approx(0, abs=1e-6)  # it faces ahead
    assert [van[f"{side}_px"] for side in ("left", "top", "right", "bottom")] == [296.7, 161.8, 455.2, 292.4]
    assert (van["image_stream"], van["track_id"], van["t_host_ns"]) == ("camera_02", "0", 100_000_000)
    assert (region["class_name"], region["track_id"], region["x_m"], region["width_m"]) == (
        "unlabelled",
        None,
        None,
        None,
    )
    assert later["t_host_ns"] == person["t_host_ns"] == 200_000_000
    assert (person["class_name"], person["subtype"]) == ("pedestrian", "sitting")
    assert person["yaw_rad"] == pytest.approx(-np.pi / 2)  # a turn of 0 faces right


@pytest.mark.parametrize(
    "calibration", ["", "P0: 1 2 3", "R_rect 0 0 0 0 0 0 0 0 0\nTr_velo_cam 0 0 0 0 0 0 0 0 0 0 0 0"]
)
def test_without_a_calibration_labels_have_no_place(tmp_path: Path, calibration: str) -> None:
    sample = kitti_tracking(tmp_path)
    (tmp_path / "training/calib/0007.txt").write_text(calibration)
    reader = KittiTrackingReader(sample.files)
    assert [row["x_m"] for row in rows(reader, "/labels")] == [None] * 4
    assert account(reader) == {("/labels", "without a calibration labels have no place"): 0}


def test_tracking_lines_that_cannot_be_read(tmp_path: Path) -> None:
    sample = kitti_tracking(tmp_path)
    (tmp_path / "training/label_02/0007.txt").write_text(
        TRACKING_LABELS + "0 1 Car\n-" + TRACKING_LABELS.splitlines()[2]
    )
    (tmp_path / "training/oxts/0007.txt").write_text(f"{OXTS}\n{OXTS} 7\n{OXTS}\n")
    reader = KittiTrackingReader(sample.files)
    assert len(rows(reader, "/labels")) == 4
    assert account(reader) == {("/labels", "the label line cannot be read"): 2}
    assert len(rows(reader, "/oxts")) == 2
    assert account(reader) == {
        ("/oxts", "the line cannot be read"): 1,
        ("/oxts", "the frame has no line of the inertial unit"): 2,
    }


def test_a_recording_is_one_sequence(tmp_path: Path) -> None:
    sample: Sample = kitti_tracking(tmp_path)
    (tmp_path / "training/oxts/0008.txt").write_text(OXTS)
    names = (*sample.files.names, "training/oxts/0008.txt")
    with pytest.raises(FleetError, match=r"2 sequences .*0007, training/0008.* Deliver each"):
        KittiTrackingReader(RecordingFiles(tmp_path, names))

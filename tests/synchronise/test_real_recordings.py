"""The real recordings, decoded and synchronised in this process: the faults that are in them, and no others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from formats.shared_data import shared
from ingest.decoding import decode, ledger, reasons, streams, tables
from synchronise.drives import MS, SECOND, clocks, frames, matches, synchronised

from fleet_assets.contracts.loader import load_streams
from fleet_assets.ingest.decode import DecodedDrive
from fleet_assets.synchronise.policy import load_alignment

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def radiate(tmp_path_factory: pytest.TempPathFactory) -> DecodedDrive:
    folder = shared("radiate_tiny_foggy")
    return decode(tmp_path_factory.mktemp("radiate"), folder, vehicle="radiate", start=None)


@pytest.fixture(scope="module")
def canedge(tmp_path_factory: pytest.TempPathFactory) -> DecodedDrive:
    folder = shared("canedge_3BA199E2")
    return decode(tmp_path_factory.mktemp("canedge"), folder, vehicle=None, start=None)


def test_radiate_is_accepted_and_what_does_not_match_is_refused(radiate: DecodedDrive) -> None:
    assert radiate.faults == []
    found = ledger(radiate)
    assert reasons(found["lidar"]) == {"the file has no stamp in the index": 18}
    assert reasons(found["camera_left"]) == {"the index names a file that is not there": 50}
    assert {name: row["published_rows"] for name, row in found.items() if row["published_rows"]} == {
        "lidar": 42, "camera_left": 50, "camera_right": 50, "radar": 18, "radar_polar": 18, "gps_imu": 249 + 1,
        "gps_imu_fix": 249 + 1, "labels": 42,
    }  # fmt: skip
    steps = streams(radiate)["gps_imu"]
    assert steps["repeated_steps"] + steps["backward_steps"] == 126
    assert streams(radiate)["camera_left"]["longest_gap_ns"] == pytest.approx(133.6 * MS, abs=MS)


def test_radiate_tells_no_offset_and_matches_what_overlaps(radiate: DecodedDrive) -> None:
    found = synchronised(radiate)
    models = clocks(found)
    for stream in ("gps_imu", "gps_imu_fix"):
        (model,) = models[stream]
        assert (model["status"], model["offset_ns"], model["confidence"]) == ("insufficient", None, 0.0)
        assert "first stamp 64.05 s after lidar's" in model["evidence"]
        assert {row["reason"] for row in matches(found, stream)} == {"clock"}
    for row in frames(found):
        assert row["key_stream"] == "lidar"
        motion = ("speed_mps", "yaw_rate_radps", "accel_x_mps2", "latitude_deg", "longitude_deg", "misalignment_m")
        assert {row[name] for name in motion} == {None}
    stamps = {
        stream: sent["t_device_ns"].to_numpy()
        for stream in ("lidar", "camera_left", "camera_right", "radar", "radar_polar")
        if (sent := of_stream(radiate, "ingest.messages", stream)).num_rows
    }
    policy = load_alignment().policies[0]
    for stream, t_ns in stamps.items():
        limit = policy.channels[load_streams()[stream].kind].before_ns
        t_ns = t_ns + load_streams()[stream].ahead_ns
        key_ns = stamps["lidar"] + load_streams()["lidar"].ahead_ns
        nearest = [int(np.argmin(np.abs(t_ns - frame))) for frame in key_ns]
        expected = [
            best if abs(t_ns[best] - frame) <= limit else None for best, frame in zip(nearest, key_ns, strict=True)
        ]
        assert [row["sequence"] for row in matches(found, stream)] == expected, stream
        assert {row["reason"] for row in matches(found, stream)} <= {None, "tolerance"}
    matched = {stream: sum(row["sequence"] is not None for row in matches(found, stream)) for stream in stamps}
    # The cameras begin 0.73 s after the LiDAR.
    assert matched == {"lidar": 42, "camera_left": 34, "camera_right": 34, "radar": 42, "radar_polar": 42}
    assert sum(row["complete"] for row in frames(found)) == 34


def of_stream(decoded: DecodedDrive, table: str, stream: str) -> pa.Table:
    rows = tables(decoded)[table]
    return rows.filter(pc.equal(rows["stream"], stream)).sort_by("sequence")


def test_canedge_is_one_drive_and_garbage_is_refused(canedge: DecodedDrive) -> None:
    assert canedge.faults == []
    (recording,) = tables(canedge)["ingest.recordings"].to_pylist()
    assert sum(file["path"].endswith(".MF4") for file in recording["files"]) == 5
    found = ledger(canedge)
    # Each row counts once, though all three axes read -64.
    assert reasons(found["imu"]) == {"broke the rule: acceleration x is in range": 3}
    for axis in "xyz":
        accel = tables(canedge)["ingest.imu"][f"accel_{axis}_mps2"]
        assert pc.min(accel).as_py() > -64
        assert accel.null_count == 0
    assert streams(canedge)["gnss"]["gaps"] == 95
    # 21 more steps are of exactly a period and a half; the 1,893 of the data's README comes from rounding floats.
    assert streams(canedge)["imu"]["gaps"] == 1885
    t_ns = of_stream(canedge, "ingest.imu", "imu")["t_host_ns"].to_numpy()
    assert int((np.diff(t_ns) > 15 * MS).sum()) == 1885


def test_canedge_goes_to_utc_by_gnss(canedge: DecodedDrive) -> None:
    models: dict[str, list[dict[str, Any]]] = clocks(synchronised(canedge))
    assert set(models) == {"imu", "gnss", "bus_can"}
    for (model,) in models.values():
        assert (model["status"], model["method"], model["clock"]) == ("ok", "reference", "host")
        assert model["offset_ns"] / SECOND == pytest.approx(-4.40, abs=0.05)
        assert 0 < model["spread_ns"] < SECOND // 2
        assert model["confidence"] > 0.9


def test_canedge_has_no_motion_inside_gaps(canedge: DecodedDrive) -> None:
    found = synchronised(canedge)
    (model,) = clocks(found)["imu"]
    rows = frames(found)
    frame_ns = np.array([row["t_ns"] for row in rows])
    assert (np.diff(frame_ns) == 100 * MS).all()
    for table, stream, columns, limit_ns in (
        ("ingest.imu", "imu", ("accel_x_mps2", "yaw_rate_radps"), 15 * MS),
        ("ingest.gnss", "gnss", ("latitude_deg", "longitude_deg"), 1500 * MS),
    ):
        sent = of_stream(canedge, table, stream)
        t_ns = sent["t_host_ns"].to_numpy() + model["offset_ns"]
        on_record = np.isin(frame_ns, t_ns)
        right = np.searchsorted(t_ns, frame_ns)
        inside = (right > 0) & (right < t_ns.size)
        width = np.where(inside, t_ns[np.minimum(right, t_ns.size - 1)] - t_ns[np.maximum(right - 1, 0)], 0)
        gap = inside & ~on_record & (width > limit_ns)
        assert gap.sum() > 90
        match = matches(found, stream)
        assert [row["reason"] == "gap" for row in match] == gap.tolist()
        for column in columns:
            known = np.array([row[column] is not None for row in rows])
            assert not (known & gap).any(), column
    accel = of_stream(canedge, "ingest.imu", "imu")
    low, high = pc.min_max(accel["accel_x_mps2"]).as_py().values()
    assert all(low <= row["accel_x_mps2"] <= high for row in rows if row["accel_x_mps2"] is not None)

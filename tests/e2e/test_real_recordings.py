"""The main job on real recordings with real faults: by `fleet ingest` and the daemon, and by `fleet run`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from formats.shared_data import shared

from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]
Fleet = Callable[..., Any]
DEADLINE_S = 400


@pytest.fixture(scope="module")
def lake_ready(fleet_home: Home, fleet: Fleet) -> None:
    fleet("contracts", "apply")


def by(rows: list[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    return {row[name]: row for row in rows}


def reasons(ledger: dict[str, Any]) -> dict[str, int]:
    return {reason["reason"]: reason["count"] for reason in ledger["reasons"]}


def assert_adds_up(drive: dict[str, Any]) -> None:
    for row in drive["ledger"]:
        accounted = row["published_rows"] + row["quarantined_rows"] + row["refused_rows"]
        assert row["read_rows"] == accounted, row["stream"]


def frame_facts(fleet: Fleet, drive_id: str) -> dict[str, int]:
    """Frames, and those with each value of ego motion."""
    (facts,) = fleet(
        "query",
        "SELECT count(*) AS frames, count(speed_mps) AS speed, count(yaw_rate_radps) AS yaw_rate, "
        "count(accel_x_mps2) AS accel, count(latitude_deg) AS latitude "
        f"FROM synchronise.frames WHERE drive_id = '{drive_id}' AND policy = 'offline'",
    )
    return dict(facts)


@pytest.mark.usefixtures("lake_ready")
def test_radiate_is_carried_to_frames_by_the_daemon(fleet: Fleet) -> None:
    (delivered,) = fleet("ingest", shared("radiate_tiny_foggy"), "--vehicle", "radiate")
    drive_id = delivered["drive_id"]
    deadline = time.monotonic() + DEADLINE_S
    while not (drives := by(fleet("show", "drives"), "drive_id")).get(drive_id, {}).get("frames"):
        assert time.monotonic() < deadline, f"not carried to frames: {drives}"
        time.sleep(3)
    assert drives[drive_id]["status"] == "published"

    drive = fleet("show", "drive", drive_id)
    assert_adds_up(drive)
    ledger = by(drive["ledger"], "stream")
    assert reasons(ledger["lidar"]) == {"the file has no stamp in the index": 18}
    assert reasons(ledger["camera_left"]) == {"the index names a file that is not there": 50}
    streams = by(drive["streams"], "stream")
    for stream in ("gps_imu", "gps_imu_fix"):
        assert streams[stream]["repeated_steps"] + streams[stream]["backward_steps"] == 126
    clocks = by(drive["clock_models"], "stream")
    for stream in ("gps_imu", "gps_imu_fix"):
        assert clocks[stream]["status"] == "insufficient"
        assert clocks[stream]["offset_ns"] is None
        assert "64.05 s" in clocks[stream]["evidence"]
    matches = by(drive["matches"], "channel")
    for channel in ("camera_left", "camera_right", "radar", "radar_polar", "lidar"):
        assert clocks[channel]["status"] == "ok"
        # The cameras begin 0.73 s after the LiDAR: no match is made up for the frames before.
        assert matches[channel]["matched"] == (34 if channel.startswith("camera") else 42)
    assert matches["gps_imu"]["matched"] == matches["gps_imu_fix"]["matched"] == 0
    assert frame_facts(fleet, drive_id) == {"frames": 42, "speed": 0, "yaw_rate": 0, "accel": 0, "latitude": 0}


@pytest.mark.usefixtures("lake_ready")
def test_canedge_is_one_drive_by_fleet_run(fleet: Fleet) -> None:
    (delivered,) = fleet("ingest", shared("canedge_3BA199E2"))
    drive_id = delivered["drive_id"]
    ended = fleet("run")
    assert ended["ok"], ended["failures"]

    drive = fleet("show", "drive", drive_id)
    assert (drive["status"], len(drive["recordings"])) == ("published", 1)
    assert_adds_up(drive)
    ledger = by(drive["ledger"], "stream")
    assert sum(reasons(ledger["imu"]).values()) == 3  # accelerations of -64
    unknown = reasons(ledger["bus_can"])
    assert unknown["no signal database covers CAN id 0x7e8"] == 28930
    assert unknown["no signal database covers CAN id 0x17f00010"] == 4780
    streams = by(drive["streams"], "stream")
    assert streams["gnss"]["gaps"] == 95
    # 1,885 steps of more than 15 ms. 21 more are of exactly 15 ms, which float seconds round to both sides.
    assert streams["imu"]["gaps"] == 1885
    clock = by(drive["clock_models"], "stream")["gnss"]
    assert clock["method"] == "reference"
    assert abs(clock["offset_ns"] / 1e9 - -4.40) < 0.05
    assert clock["spread_ns"] > 0

    # Frames are there on a fixed grid, with null where a sensor has a gap, and with a reason.
    facts = frame_facts(fleet, drive_id)
    assert facts["frames"] == 23708
    matches = by(drive["matches"], "channel")
    assert facts["latitude"] == matches["gnss"]["matched"] < facts["frames"]
    assert facts["accel"] == matches["imu"]["matched"] < facts["frames"]
    (left,) = fleet(
        "query",
        "SELECT count(*) AS n FROM synchronise.matches "
        f"WHERE drive_id = '{drive_id}' AND sequence IS NULL AND reason IS NULL",
    )
    assert left["n"] == 0
    (invented,) = fleet(
        "query",
        "SELECT count(*) AS n FROM synchronise.matches AS m JOIN synchronise.frames AS f "
        "ON m.drive_id = f.drive_id AND m.policy = f.policy AND m.frame = f.frame "
        f"WHERE m.drive_id = '{drive_id}' AND m.policy = 'offline' AND m.channel = 'gnss' AND m.reason = 'gap' "
        "AND f.latitude_deg IS NOT NULL",
    )
    assert invented["n"] == 0


@pytest.mark.usefixtures("lake_ready")
def test_comma2k19_is_published_with_its_bursts(fleet: Fleet) -> None:
    (delivered,) = fleet("ingest", shared("comma2k19"))
    drive_id = delivered["drive_id"]
    assert drive_id.startswith("b0c9d2329ad1606b--20180802T1614")
    ended = fleet("run")
    assert ended["ok"], ended["failures"]

    drive = fleet("show", "drive", drive_id)
    assert drive["status"] == "published"
    assert_adds_up(drive)
    ledger = by(drive["ledger"], "stream")
    published = {stream: row["published_rows"] for stream, row in ledger.items() if row["published_rows"]}
    assert published == {
        "bus_vehicle": 4974 * 6, "imu": 6256, "gnss_ublox": 579, "gnss_qcom": 30, "gnss_time": 1200, "pose": 1200,
        "radar_tracks": 10_100,
    }  # fmt: skip
    assert reasons(ledger["/imu/magnetometer"]) == {"no table holds such values": 592}
    # Float seconds, converted once: the device's boot time is 1,533,180,079.8 s behind UTC.
    clock = by(drive["clock_models"], "stream")["gnss_ublox"]
    assert clock["method"] == "reference"
    assert abs(clock["offset_ns"] / 1e9 - 1_533_180_079.8) < 0.5
    (bursts,) = fleet(
        "query",
        "SELECT count(*) AS n, count(DISTINCT t_host_ns) AS stamps FROM ingest.messages "
        f"WHERE drive_id = '{drive_id}' AND stream = 'radar_tracks'",
    )
    # No stamp was moved: 3,937 steps of nothing, as in the arrays (and a few below a nanosecond).
    assert bursts["n"] - bursts["stamps"] >= 3937


@pytest.mark.usefixtures("lake_ready")
def test_a_repeat_has_nothing_to_do(fleet: Fleet) -> None:
    (again,) = fleet("ingest", shared("canedge_3BA199E2"))
    assert again["status"] == "present"
    before = fleet("show", "drives")
    ended = fleet("run")
    assert ended["ok"], ended["failures"]
    assert ended["drives"] == []
    assert fleet("show", "drives") == before

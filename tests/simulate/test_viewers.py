"""Recordings open in what others use: the MCAP library's own ROS 2 decoder, which Foxglove's is like, and Rerun."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from simulate.conftest import SENT, START, write

from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.reader import RecordingFiles
from fleet_assets.simulate.drives import write_drive

RERUN = Path(sys.executable).with_name("rerun")


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("viewers") / "drive.mcap"
    write(path, setup="surround", seconds=2.0, light="day", weather="clear")
    return path


def test_the_mcap_library_decodes_every_message(recording: Path) -> None:
    from matplotlib import image as images

    counts: Counter[str] = Counter()
    last = {}
    with open(recording, "rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()], validate_crcs=True)
        assert reader.get_header().profile == "ros2"
        for _, channel, message, decoded in reader.iter_decoded_messages(log_time_order=False):
            counts[channel.topic] += 1
            last[channel.topic] = decoded
            assert abs(decoded.header.stamp.sec - message.log_time // 10**9) <= 7
    assert counts["/imu"] == 200
    assert len([topic for topic in counts if topic.startswith("/camera")]) == 6
    picture = images.imread(io.BytesIO(bytes(last["/camera/back_left"].data)))
    assert picture.shape == (64, 192, 3)
    sweep = images.imread(io.BytesIO(bytes(last["/radar/polar"].data)))
    assert sweep.shape == (64, 48, 3)
    cloud = last["/lidar"]
    points = np.frombuffer(bytes(cloud.data), "<f4").reshape(-1, 4)
    assert [field.name for field in cloud.fields] == ["x", "y", "z", "intensity"]
    assert len(points) == cloud.width > 5000
    assert np.abs(points[:, :2]).max() < 110
    objects = last["/labels"].objects
    assert objects
    assert {item.class_name for item in objects} <= {"vehicle", "cyclist", "pedestrian"}
    assert all(item.image_stream.startswith("camera_") for item in objects)
    orientation = last["/imu"].orientation
    assert orientation.z**2 + orientation.w**2 == pytest.approx(1.0)


@pytest.mark.skipif(not RERUN.exists(), reason="rerun-sdk (the extra `viewer`) is not installed")
def test_rerun_opens_a_recording(recording: Path, tmp_path: Path) -> None:
    into = tmp_path / "drive.rrd"
    # Without a network it would wait to tell of its use.
    quiet = {**os.environ, "HOME": str(tmp_path), "RERUN": "off", "TELEMETRY_ENABLED": "false"}
    subprocess.run(
        [RERUN, "mcap", "convert", recording, "-o", into], check=True, capture_output=True, env=quiet, timeout=120
    )
    told = subprocess.run(
        [RERUN, "rrd", "print", "-v", into], check=True, capture_output=True, text=True, env=quiet, timeout=120
    )
    assert all(f"/camera/{name}" in told.stdout for name in ("front", "back_right"))
    for what in ("/lidar", "Points3D:positions", "EncodedImage:blob", "/imu", "/gnss", "/labels"):
        assert what in told.stdout, what


def test_sensors_of_a_recording_tell_one_motion(tmp_path: Path) -> None:
    """Wheels, steering, inertial unit, receiver and pose, integrated and compared."""
    write(tmp_path / "a.mcap", seconds=20.0)
    reader = McapReader(RecordingFiles(tmp_path, ("a.mcap",)))
    read: dict[str, list] = {}
    for batch in reader.read():
        read.setdefault(batch.topic, []).append(batch.table)
    import pyarrow as pa

    tables = {topic: pa.concat_tables(parts) for topic, parts in read.items()}
    imu, pose, fix, bus = (tables[topic] for topic in ("/imu", "/pose", "/gnss", "/bus/vehicle"))
    is_speed = np.array(bus["signal"].to_pylist()) == "speed"
    speed, angle = bus["value"].to_numpy()[is_speed], bus["value"].to_numpy()[~is_speed]
    yaw = np.unwrap(2 * np.arctan2(pose["orientation_z"].to_numpy(), pose["orientation_w"].to_numpy()))
    x, y = pose["x_m"].to_numpy(), pose["y_m"].to_numpy()
    # Heading: the unit's turn rate, its orientation, and what wheels and steering say, against the pose.
    turned = np.cumsum(imu["gyro_z_radps"].to_numpy())[:: 100 // 20] / 100
    assert np.abs(turned - (yaw - yaw[0])).max() < 0.02
    told = np.unwrap(2 * np.arctan2(imu["orientation_z"].to_numpy(), imu["orientation_w"].to_numpy()))[::5]
    assert np.abs(told - told[0] - (yaw - yaw[0])).max() < 0.02
    steered = np.cumsum(speed * np.tan(np.radians(angle)) / 2.8) / 20
    assert np.abs(steered - (yaw - yaw[0])).max() < 0.05
    # Way: wheels against the pose; forward acceleration against the wheels; sideways against speed and turn rate.
    assert np.cumsum(speed)[-1] / 20 == pytest.approx(np.hypot(np.diff(x), np.diff(y)).sum(), rel=0.01)
    gained = np.cumsum(imu["accel_x_mps2"].to_numpy())[::5] / 100
    assert np.abs(gained - (speed - speed[0])).max() < 0.3
    sideways = imu["accel_y_mps2"].to_numpy() - imu["gyro_z_radps"].to_numpy() * np.repeat(speed, 5)
    assert np.abs(sideways).mean() < 0.15
    # Place: fixes are the pose's places, somewhere on the earth.
    north = np.radians(fix["latitude_deg"].to_numpy()) * 6_371_000
    east = (
        np.radians(fix["longitude_deg"].to_numpy()) * 6_371_000 * np.cos(np.radians(fix["latitude_deg"].to_numpy()[0]))
    )
    assert np.abs((east - east.mean()) - (x[::20] - x[::20].mean())).max() < 2.0
    assert np.abs((north - north.mean()) - (y[::20] - y[::20].mean())).max() < 2.0
    assert len(imu) == 20 * SENT["imu"] // 22


@pytest.mark.slow
def test_memory_does_not_grow_with_a_drive(tmp_path: Path) -> None:
    """The dense set-up, 64 MB and 256 MB of it."""
    peaks, sizes = [], []
    for seconds in (1.5, 6.0):
        path = tmp_path / "dense.mcap"
        tracemalloc.start()
        write_drive(path, seed=1, start=START, duration_s=seconds, setup="dense", unique_s=0.5, weather="clear")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        sizes.append(path.stat().st_size)
    assert sizes[1] > 3.5 * sizes[0] > 3.5 * 50e6
    assert peaks[1] < 1.3 * peaks[0] + 10e6

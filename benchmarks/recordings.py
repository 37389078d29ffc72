"""Recordings of any length for benchmarks: MCAP with ROS 2 messages, made as fast as the disk takes them.

In: a length and a set-up. Out: a file whose payload repeats a few frames with new stamps, while motion, position and bus signals
are those of a drive that curves, so that clocks can be told and every record passes its contract.
"""

from __future__ import annotations

import heapq
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fleet_assets.formats import ros2
from fleet_assets.formats.rewrite import McapFile

START_NS = 1_767_600_000_000_000_000  # 2026-01-05T08:00:00Z
_STAMP_AT = 4  # a header's stamp follows the head of the message
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])
_SPEED_MPS = 10.0


@dataclass(frozen=True)
class Setup:
    """Topics of cameras, bytes of an encoded image, points of a sweep; rates in Hz."""

    cameras: tuple[str, ...]
    camera_hz: float
    image_bytes: int
    lidar_points: int
    lidar_hz: float = 10.0


STANDARD = Setup(("/camera/front",), 10.0, 25_000, 64 * 80)
_AROUND = ("front", "front_left", "front_right", "back", "back_left", "back_right")
DENSE = Setup(tuple(f"/camera_fast_{side}" for side in _AROUND), 30.0, 60_000, 200_000)


def write(
    path: Path, seconds: float, setup: Setup = STANDARD, *, vehicle: str = "bench", start_ns: int = START_NS
) -> int:
    """Writes a recording; gives the number of its messages."""
    count = 0
    with McapFile(path, {"vehicle": vehicle}, compress=False) as target:
        for t_ns, topic, schema_name, data in heapq.merge(*_streams(setup, seconds, start_ns)):
            target.write(topic, schema_name, data, t_ns + 1_000_000)
            count += 1
    return count


def land(landing: Path, seconds: float, setup: Setup, vehicle: str) -> tuple[Path, int]:
    """A recording where the vehicle uploads to, so that delivering it copies nothing: its files stay, and get their manifest.
    Gives its file, in a folder of its own, and the number of its messages."""
    path = landing / vehicle / "drive.mcap"
    path.parent.mkdir(parents=True)
    return path, write(path, seconds, setup, vehicle=vehicle)


Message = tuple[int, str, str, bytes]  # stamp, topic, type, data


def _streams(setup: Setup, seconds: float, start_ns: int) -> Iterator[Iterator[Message]]:
    random = np.random.default_rng(0)

    def every(rate_hz: float, topic: str, schema_name: str, encode: Callable[[int, int], bytes]) -> Iterator[Message]:
        """encode: number and stamp to a message."""
        phase_ns = int(random.integers(0, int(1e9 / rate_hz)))
        for number in range(int(seconds * rate_hz)):
            t_ns = start_ns + phase_ns + round(number * 1e9 / rate_hz)
            yield t_ns, topic, schema_name, encode(number, t_ns)

    def repeated(frames: list[bytes]) -> Callable[[int, int], bytes]:
        def encode(number: int, t_ns: int) -> bytes:
            data = frames[number % len(frames)]
            stamp = struct.pack("<iI", t_ns // 1_000_000_000, t_ns % 1_000_000_000)
            return data[:_STAMP_AT] + stamp + data[_STAMP_AT + len(stamp) :]

        return encode

    def yaw_rate(t_ns: int) -> float:
        return float(0.3 * np.sin((t_ns - start_ns) / 7e9))

    def imu(_: int, t_ns: int) -> bytes:
        turn = yaw_rate(t_ns)
        return ros2.imu(t_ns, "imu", np.array([0.0, _SPEED_MPS * turn, 9.81]), np.array([0.0, 0.0, turn]))

    def fix(number: int, t_ns: int) -> bytes:
        return ros2.nav_sat_fix(t_ns, "gnss", 48.0 + number * 1e-6, 11.5, 520.0, 1.5)

    images = [ros2.compressed_image(0, "camera", "jpeg", random.bytes(setup.image_bytes)) for _ in range(8)]
    clouds = [ros2.point_cloud2(0, "lidar", _points(random, setup.lidar_points)) for _ in range(8)]
    echoes = [ros2.point_cloud2(0, "radar", _points(random, 200)) for _ in range(8)]
    for topic in setup.cameras:
        yield every(setup.camera_hz, topic, "sensor_msgs/msg/CompressedImage", repeated(images))
    yield every(setup.lidar_hz, "/lidar", "sensor_msgs/msg/PointCloud2", repeated(clouds))
    yield every(13.0, "/radar", "sensor_msgs/msg/PointCloud2", repeated(echoes))
    yield every(200.0, "/imu", "sensor_msgs/msg/Imu", imu)
    yield every(10.0, "/gnss", "sensor_msgs/msg/NavSatFix", fix)
    yield every(
        1.0,
        "/gnss/time",
        "sensor_msgs/msg/TimeReference",
        lambda _, t_ns: ros2.time_reference(t_ns, "gnss", t_ns, "gps"),
    )
    yield every(
        100.0,
        "/bus/vehicle",
        "fleet_msgs/msg/Signal",
        lambda _, t_ns: ros2.signal(t_ns, "bus", "wheels", "speed", _SPEED_MPS, "m/s"),
    )


def _points(random: np.random.Generator, count: int) -> np.ndarray:
    points = np.zeros(count, dtype=_POINT)
    for axis in ("x", "y", "z"):
        points[axis] = random.normal(0, 20, count)
    return points

"""Small generated drives, for the demo and for tests.

In: a seed, a start, a duration, faults by name. Out: one MCAP file with ROS 2 messages that Foxglove and Rerun open, and,
beside it, the truth about clocks and faults, which ingest never reads. The same arguments give the same bytes.

The vehicle follows one smooth path, and every sensor tells of it through its own clock: cameras, LiDAR and radar are on a
clock of their own, off from the logger's; arrival adds a one-sided delay.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from fleet_assets.errors import FleetError
from fleet_assets.formats import ros2
from fleet_assets.formats.rewrite import McapFile

# Radians per metre on the ground, good enough for a path of a few hundred metres.
_EARTH_RADIUS_M = 6_371_000.0
_ORIGIN_DEG = (48.1374, 11.5755)
_RATES_HZ = {
    "/camera/front": 10.0,
    "/lidar": 10.0,
    "/radar": 4.0,
    "/imu": 100.0,
    "/gnss": 1.0,
    "/gnss/time": 1.0,
    "/bus/vehicle": 20.0,
}
_ON_VEHICLE_PC = {"/camera/front", "/lidar", "/radar"}
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])

FAULTS = {
    "truncation": "the file ends in the middle of a chunk, as after a loss of power",
    "corrupt_chunk": "bytes in the middle of the file are overwritten",
    "nan_imu": "a third of the accelerations are not numbers",
    "missing_stream": "there is no LiDAR",
    "unknown_stream": "a sensor that no contract covers",
    "stuck_clock": "the LiDAR's clock stands still",
    "duplicate": "every tenth IMU record comes twice",
    "wrong_content": "the file is no recording at all",
}


@dataclass(frozen=True)
class Truth:
    """offset_ns: what to add to a stamp of that clock for UTC."""

    vehicle_pc_offset_ns: int
    logger_offset_ns: int
    faults: tuple[str, ...]


@dataclass(frozen=True)
class _Path:
    """The vehicle's motion as functions of time since the start [s]: speed and yaw rate vary smoothly."""

    speed_mps: float
    wave_radps: float
    phase: float

    def yaw_rate(self, t_s: np.ndarray | float) -> np.ndarray:
        return np.asarray(0.18 * np.sin(self.wave_radps * np.asarray(t_s) + self.phase))

    def heading(self, t_s: np.ndarray | float) -> np.ndarray:
        start = np.cos(self.phase)
        return np.asarray(0.18 / self.wave_radps * (start - np.cos(self.wave_radps * np.asarray(t_s) + self.phase)))

    def position(self, t_s: float) -> tuple[float, float]:
        """East and north [m], integrated in steps of 10 ms."""
        steps = np.arange(0.0, max(t_s, 1e-9), 0.01)
        heading = self.heading(steps)
        return float(np.sum(np.cos(heading)) * 0.01 * self.speed_mps), float(
            np.sum(np.sin(heading)) * 0.01 * self.speed_mps
        )


def write_drive(
    path: Path,
    *,
    seed: int,
    start: datetime,
    duration_s: float = 30.0,
    vehicle: str = "sim",
    faults: Sequence[str] = (),
) -> Truth:
    """Writes the recording, and its truth beside it as `<name>.truth.json`.

    start: with time zone. faults: names of FAULTS, alone or together. Raises FleetError for an unknown fault.
    """
    unknown = sorted(set(faults) - set(FAULTS))
    if unknown:
        raise FleetError(f"No fault is called {', '.join(unknown)}", remedy=f"There are {', '.join(FAULTS)}.")
    random = np.random.default_rng(seed)
    truth = Truth(
        int(random.integers(-80, 80)) * 1_000_000, int(random.integers(-5000, 5000)) * 1_000_000, tuple(faults)
    )
    path.with_suffix(".truth.json").write_text(json.dumps(vars(truth), indent=1))
    if "wrong_content" in faults:
        path.write_bytes(random.bytes(4096))
        return truth
    t_start_ns = int(start.timestamp()) * 1_000_000_000
    messages = sorted(_messages(random, t_start_ns, duration_s, truth), key=lambda message: (message[0], message[1]))
    with McapFile(path, {"vehicle": vehicle, "weather": "clear"}) as target:
        for t_host_ns, topic, schema_name, data in messages:
            target.write(topic, schema_name, data, t_host_ns)
    if "truncation" in faults:
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    if "corrupt_chunk" in faults:
        content = bytearray(path.read_bytes())
        content[len(content) // 2 : len(content) // 2 + 512] = random.bytes(512)
        path.write_bytes(bytes(content))
    return truth


def _messages(
    random: np.random.Generator, t_start_ns: int, duration_s: float, truth: Truth
) -> Iterator[tuple[int, str, str, bytes]]:
    """(host stamp, topic, type, data) in no order."""
    path = _Path(float(random.uniform(6, 14)), float(random.uniform(0.2, 0.5)), float(random.uniform(0, 6)))
    scene = random.uniform((-40, -20, 0), (40, 20, 3), size=(600, 3))
    for topic, rate_hz in _RATES_HZ.items():
        if topic == "/lidar" and "missing_stream" in truth.faults:
            continue
        for number in range(int(duration_s * rate_hz)):
            t_s = number / rate_hz
            t_ns = t_start_ns + round(t_s * 1e9)
            # What the logger's and the sensor's clocks show; arrival is later by a delay that is never negative.
            t_logger_ns = t_ns - truth.logger_offset_ns
            t_host_ns = t_logger_ns + int(random.exponential(300_000))
            on_pc = topic in _ON_VEHICLE_PC
            t_device_ns = t_ns - truth.vehicle_pc_offset_ns if on_pc else t_logger_ns
            if topic == "/lidar" and "stuck_clock" in truth.faults:
                t_device_ns = t_start_ns - truth.vehicle_pc_offset_ns
            for name, data in _encode(random, topic, t_device_ns, t_ns, t_s, path, scene, truth.faults):
                yield t_host_ns, topic, name, data
                if topic == "/imu" and "duplicate" in truth.faults and number % 10 == 0:
                    yield t_host_ns + 1, topic, name, data
    if "unknown_stream" in truth.faults:
        for number in range(int(duration_s)):
            t_ns = t_start_ns + number * 1_000_000_000 - truth.logger_offset_ns
            yield (
                t_ns,
                "/thermal",
                "sensor_msgs/msg/CompressedImage",
                ros2.compressed_image(t_ns, "thermal", "png", b"-"),
            )


def _encode(
    random: np.random.Generator,
    topic: str,
    t_device_ns: int,
    t_ns: int,
    t_s: float,
    path: _Path,
    scene: np.ndarray,
    faults: Sequence[str],
) -> Iterator[tuple[str, bytes]]:
    yaw_rate = float(path.yaw_rate(t_s))
    match topic:
        case "/camera/front":
            image = _png(_picture(random, t_s, path))
            yield "sensor_msgs/msg/CompressedImage", ros2.compressed_image(t_device_ns, "camera_front", "png", image)
        case "/lidar" | "/radar":
            points = _points(random, scene, t_s, path, 600 if topic == "/lidar" else 60)
            yield "sensor_msgs/msg/PointCloud2", ros2.point_cloud2(t_device_ns, topic[1:], points)
        case "/imu":
            accel = np.array([0.0, path.speed_mps * yaw_rate, 9.81]) + random.normal(0, 0.05, 3)
            if "nan_imu" in faults and random.random() < 0.33:
                accel[0] = np.nan
            gyro = np.array([0.0, 0.0, yaw_rate]) + random.normal(0, 0.002, 3)
            yield "sensor_msgs/msg/Imu", ros2.imu(t_device_ns, "imu", accel, gyro)
        case "/gnss":
            east_m, north_m = path.position(t_s)
            latitude = _ORIGIN_DEG[0] + np.degrees(north_m / _EARTH_RADIUS_M)
            longitude = _ORIGIN_DEG[1] + np.degrees(east_m / (_EARTH_RADIUS_M * np.cos(np.radians(_ORIGIN_DEG[0]))))
            yield "sensor_msgs/msg/NavSatFix", ros2.nav_sat_fix(t_device_ns, "gnss", latitude, longitude, 520.0, 1.5)
        case "/gnss/time":
            yield "sensor_msgs/msg/TimeReference", ros2.time_reference(t_device_ns, "gnss", t_ns, "gps")
        case "/bus/vehicle":
            speed = path.speed_mps + random.normal(0, 0.05)
            yield "fleet_msgs/msg/Signal", ros2.signal(t_device_ns, "bus", "wheels", "speed", speed, "m/s")
            steering = float(np.degrees(np.arctan2(2.8 * yaw_rate, path.speed_mps)))
            yield "fleet_msgs/msg/Signal", ros2.signal(t_device_ns, "bus", "steering", "angle", steering, "deg")


def _points(random: np.random.Generator, scene: np.ndarray, t_s: float, path: _Path, count: int) -> np.ndarray:
    """The scene's points as the vehicle sees them, with 4 cm of noise."""
    angle = -float(path.heading(t_s))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    seen = np.zeros(count, dtype=_POINT)
    seen["x"], seen["y"] = turn @ (scene[:count, :2] - [path.speed_mps * t_s % 40.0, 0.0]).T + random.normal(
        0, 0.04, (2, count)
    )
    seen["z"] = scene[:count, 2]
    seen["intensity"] = 0.5
    return seen


def _picture(random: np.random.Generator, t_s: float, path: _Path) -> np.ndarray:
    """uint8 [48, 128, 3]: sky, road, and posts that pass by."""
    image = np.full((48, 128, 3), (90, 90, 96), dtype=np.uint8)
    image[:24] = (150, 180, 220)
    for post in range(6):
        x = int((post * 25 - path.speed_mps * t_s * 8) % 128)
        image[14:34, x : x + 3] = (60, 40, 20)
    return np.clip(image + random.integers(-6, 6, image.shape), 0, 255).astype(np.uint8)


def _png(image: np.ndarray) -> bytes:
    """RGB image as PNG (ISO/IEC 15948), rows unfiltered."""
    height, width, _ = image.shape
    rows = np.concatenate([np.zeros((height, 1), dtype=np.uint8), image.reshape(height, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 1))
        + chunk(b"IEND", b"")
    )

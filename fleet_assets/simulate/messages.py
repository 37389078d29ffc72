"""What the sensors of a drive say, as ROS 2 messages.

In: a scene, a stream, the number of a message. Out: its type and bytes. The same number always says the same, and stamps are put
in afterwards, so that a message may be repeated, come twice, or be made by any thread.
"""

from __future__ import annotations

import struct
import threading
import zlib
from dataclasses import dataclass

import numpy as np

from fleet_assets.formats import ros2
from fleet_assets.simulate.parameters import parameters
from fleet_assets.simulate.scene import Label, Scene, generator
from fleet_assets.simulate.schedule import Schedule

EARTH_RADIUS_M = 6_371_000.0
GRAVITY_MPS2 = 9.81
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])
_ALTITUDE_M, _ACCURACY_M = 520.0, 1.5
_MOVING_MPS = 0.2
_AT_ZERO = 4  # a header's stamp lies behind the encapsulation: int32 seconds, uint32 nanoseconds
Message = tuple[str, bytes]  # type, CDR


@dataclass(frozen=True)
class _Track:
    """Our motion at the measurements of one stream; noise: standard normal [n, 7]."""

    x_m: np.ndarray
    y_m: np.ndarray
    yaw_rad: np.ndarray
    speed_mps: np.ndarray
    accel_mps2: np.ndarray
    curvature_pm: np.ndarray
    noise: np.ndarray

    def yaw_rate(self, tick: int) -> float:
        return float(self.speed_mps[tick] * self.curvature_pm[tick])


class Messages:
    """unique_s: payload of that much drive is made, and then repeated with new stamps; None: all of it is made."""

    def __init__(self, scene: Scene, t_start_ns: int, unique_s: float | None) -> None:
        self._scene, self._t_start_ns, self._unique_s = scene, t_start_ns, unique_s
        self._tracks: dict[str, _Track] = {}
        self._wheelbase_m = float(parameters()["vehicle"]["wheelbase_m"])
        self._kept: dict[tuple[str, int], Message] = {}
        self._lock = threading.Lock()
        self._origin_deg = origin_deg(scene.conditions.region, scene.seed)

    def payload(self, schedule: Schedule) -> bool:
        """Whether a stream's messages are worth a thread."""
        return self._family(schedule) in ("camera", "lidar", "radar", "labels")

    def message(self, schedule: Schedule, at: int) -> Message:
        """The message at a position of a schedule, stamped."""
        number, broken = int(schedule.number[at]), schedule.broken_at(at)
        if self._unique_s is not None and self.payload(schedule):
            number %= max(1, int(self._unique_s * schedule.stream.rate_hz))
            with self._lock:
                made = self._kept.get((schedule.stream.name, number))
            if made is None:
                made = self._made(schedule, number, broken)
                with self._lock:
                    self._kept[schedule.stream.name, number] = made
        else:
            made = self._made(schedule, number, broken)
        schema_name, data = made
        seconds, nanoseconds = divmod(int(schedule.t_device_ns[at]), 1_000_000_000)
        return schema_name, data[:_AT_ZERO] + struct.pack("<iI", seconds, nanoseconds) + data[_AT_ZERO + 8 :]

    def _family(self, schedule: Schedule) -> str:
        return schedule.stream.name.partition("_")[0] if schedule.stream.name != "gnss_time" else "time"

    def _made(self, schedule: Schedule, number: int, broken: str) -> Message:
        stream = schedule.stream
        tick, part = divmod(number, stream.messages)
        match self._family(schedule):
            case "camera":
                image = png(self._scene.image(stream.name, number))
                return "sensor_msgs/msg/CompressedImage", ros2.compressed_image(0, stream.name, "png", image)
            case "lidar":
                points = self._scene.points(number).view(_POINT)[:, 0]
                return "sensor_msgs/msg/PointCloud2", ros2.point_cloud2(0, "base_link", points)
            case "radar":
                image = png(self._scene.radar(number))
                return "sensor_msgs/msg/CompressedImage", ros2.compressed_image(0, stream.name, "png", image)
            case "labels":
                exposure = number * round(self._scene.setup.camera.rate_hz / stream.rate_hz)
                objects = [_object(label) for label in self._scene.labels(exposure)]
                return "fleet_msgs/msg/ObjectArray", ros2.object_array(0, "base_link", objects)
            case "pose":
                return "nav_msgs/msg/Odometry", self._pose(self._track(schedule), tick)
            case "imu":
                return "sensor_msgs/msg/Imu", self._imu(self._track(schedule), tick, broken)
            case "gnss":
                return "sensor_msgs/msg/NavSatFix", self._fix(self._track(schedule), tick)
            case "time":
                t_ns = self._t_start_ns + round(tick / stream.rate_hz * 1e9)
                return "sensor_msgs/msg/TimeReference", ros2.time_reference(0, "gnss", t_ns, "gps")
            case "bus":
                return "fleet_msgs/msg/Signal", self._signal(self._track(schedule), tick, part)
        return "sensor_msgs/msg/CompressedImage", ros2.compressed_image(0, stream.name, "png", b"-")

    def _track(self, schedule: Schedule) -> _Track:
        """Our motion at the measurements of a stream, worked out once."""
        stream = schedule.stream
        if stream.name not in self._tracks:
            count = int(schedule.number.max(initial=-1)) // stream.messages + 1
            t_s = np.arange(count) / stream.rate_hz + stream.offset_s
            motion = self._scene.motion
            noise = generator(self._scene.seed, stream.name).normal(0.0, 1.0, (count, 7))
            places = motion.distance(t_s)
            self._tracks[stream.name] = _Track(
                *motion.loop.at(places), motion.speed(t_s), motion.accel(t_s), motion.loop.curvature(places), noise
            )
        return self._tracks[stream.name]

    def _pose(self, track: _Track, tick: int) -> bytes:
        place = np.array([track.x_m[tick], track.y_m[tick], 0.0])
        velocity, rate = np.array([track.speed_mps[tick], 0.0, 0.0]), np.array([0.0, 0.0, track.yaw_rate(tick)])
        return ros2.odometry(0, "map", "base_link", place, _quaternion(track.yaw_rad[tick]), velocity, rate)

    def _imu(self, track: _Track, tick: int, broken: str) -> bytes:
        noise, rate = track.noise[tick], track.yaw_rate(tick)
        accel = np.array([track.accel_mps2[tick], track.speed_mps[tick] * rate, GRAVITY_MPS2]) + 0.05 * noise[:3]
        gyro = np.array([0.0, 0.0, rate]) + 0.002 * noise[3:6]
        if broken == "nan_imu":
            accel[0] = np.nan
        if broken == "wrong_contract":
            gyro[:] = np.nan
        return ros2.imu(0, "imu", accel, gyro, _quaternion(track.yaw_rad[tick] + 0.002 * noise[6]))

    def _fix(self, track: _Track, tick: int) -> bytes:
        east, north = np.array([track.x_m[tick], track.y_m[tick]]) + 0.3 * track.noise[tick, :2]
        latitude, longitude = latitude_longitude(self._origin_deg, east, north)
        return ros2.nav_sat_fix(0, "gnss", float(latitude), float(longitude), _ALTITUDE_M, _ACCURACY_M)

    def _signal(self, track: _Track, tick: int, part: int) -> bytes:
        if part == 0:
            speed = track.speed_mps[tick] + 0.03 * track.noise[tick, 0]
            return ros2.signal(0, "bus", "wheels", "speed", float(speed), "m/s")
        angle = np.degrees(np.arctan(self._wheelbase_m * track.curvature_pm[tick])) + 0.05 * track.noise[tick, 1]
        return ros2.signal(0, "bus", "steering", "angle", float(angle), "deg")


def origin_deg(region: str, seed: int) -> np.ndarray:
    """Where the town of a drive lies: somewhere within a few kilometres of the middle of its region."""
    middle = np.array(parameters()["regions"][region]["origin_deg"])
    return middle + generator(seed, "origin").uniform(-0.03, 0.03, 2)


def latitude_longitude(
    origin: np.ndarray, east_m: np.ndarray | float, north_m: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Degrees, of places on the plane of a town."""
    latitude = origin[0] + np.degrees(north_m / EARTH_RADIUS_M)
    longitude = origin[1] + np.degrees(east_m / (EARTH_RADIUS_M * np.cos(np.radians(origin[0]))))
    return latitude, longitude


def _quaternion(yaw_rad: float) -> np.ndarray:
    """x, y, z, w."""
    return np.array([0.0, 0.0, np.sin(yaw_rad / 2), np.cos(yaw_rad / 2)])


def _object(label: Label) -> ros2.Object:
    figure = label.figure
    return ros2.Object(
        figure.class_name, str(label.thing), figure.subtype, label.speed_mps > _MOVING_MPS, label.x_m, label.y_m,
        figure.height_m / 2, figure.length_m, figure.width_m, figure.height_m, label.yaw_rad, label.speed_mps,
        label.visible_fraction, label.camera, label.box_px,
    )  # fmt: skip


def png(image: np.ndarray) -> bytes:
    """uint8 [rows, columns, 3] as PNG (ISO/IEC 15948). Noise has no repeats to search for: each pixel is told by its difference
    from the one to its left, and packed by frequency alone, in a third of the time and less room."""
    height, width, _ = image.shape
    flat = image.reshape(height, -1)
    rows = np.ones((height, 1 + 3 * width), dtype=np.uint8)  # each begins with its filter: 1, Sub
    rows[:, 1:] = flat
    rows[:, 4:] -= flat[:, :-3]
    packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
    pixels = packer.compress(rows.tobytes()) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")

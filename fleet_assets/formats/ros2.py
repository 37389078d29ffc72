"""ROS 2 messages, written: the types that recordings are rewritten to, and generated with.

In: values. Out: little-endian CDR bytes, and the message definitions that MCAP tools need to open them. Layouts:
common_interfaces. Reading is cdr.py.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_HEADER = """
================================================================================
MSG: std_msgs/Header
builtin_interfaces/Time stamp
string frame_id
================================================================================
MSG: builtin_interfaces/Time
int32 sec
uint32 nanosec
"""
DEFINITIONS = {
    "sensor_msgs/msg/CompressedImage": "std_msgs/Header header\nstring format\nuint8[] data" + _HEADER,
    "sensor_msgs/msg/PointCloud2": (
        "std_msgs/Header header\nuint32 height\nuint32 width\nsensor_msgs/PointField[] fields\nbool is_bigendian\n"
        "uint32 point_step\nuint32 row_step\nuint8[] data\nbool is_dense" + _HEADER + "=" * 80 + "\n"
        "MSG: sensor_msgs/PointField\nuint8 INT8=1\nuint8 UINT8=2\nuint8 INT16=3\nuint8 UINT16=4\nuint8 INT32=5\n"
        "uint8 UINT32=6\nuint8 FLOAT32=7\nuint8 FLOAT64=8\nstring name\nuint32 offset\nuint8 datatype\nuint32 count\n"
    ),
    "sensor_msgs/msg/Imu": (
        "std_msgs/Header header\ngeometry_msgs/Quaternion orientation\nfloat64[9] orientation_covariance\n"
        "geometry_msgs/Vector3 angular_velocity\nfloat64[9] angular_velocity_covariance\n"
        "geometry_msgs/Vector3 linear_acceleration\nfloat64[9] linear_acceleration_covariance"
        + _HEADER
        + "=" * 80
        + "\n"
        "MSG: geometry_msgs/Quaternion\nfloat64 x\nfloat64 y\nfloat64 z\nfloat64 w\n" + "=" * 80 + "\n"
        "MSG: geometry_msgs/Vector3\nfloat64 x\nfloat64 y\nfloat64 z\n"
    ),
    "sensor_msgs/msg/NavSatFix": (
        "std_msgs/Header header\nsensor_msgs/NavSatStatus status\nfloat64 latitude\nfloat64 longitude\nfloat64 altitude\n"
        "float64[9] position_covariance\nuint8 position_covariance_type" + _HEADER + "=" * 80 + "\n"
        "MSG: sensor_msgs/NavSatStatus\nint8 status\nuint16 service\n"
    ),
    "sensor_msgs/msg/TimeReference": (
        "std_msgs/Header header\nbuiltin_interfaces/Time time_ref\nstring source" + _HEADER
    ),
    "nav_msgs/msg/Odometry": (
        "std_msgs/Header header\nstring child_frame_id\ngeometry_msgs/PoseWithCovariance pose\n"
        "geometry_msgs/TwistWithCovariance twist" + _HEADER + "=" * 80 + "\n"
        "MSG: geometry_msgs/PoseWithCovariance\ngeometry_msgs/Pose pose\nfloat64[36] covariance\n" + "=" * 80 + "\n"
        "MSG: geometry_msgs/TwistWithCovariance\ngeometry_msgs/Twist twist\nfloat64[36] covariance\n" + "=" * 80 + "\n"
        "MSG: geometry_msgs/Pose\ngeometry_msgs/Point position\ngeometry_msgs/Quaternion orientation\n"
        + "=" * 80
        + "\nMSG: geometry_msgs/Twist\ngeometry_msgs/Vector3 linear\ngeometry_msgs/Vector3 angular\n"
        + "=" * 80
        + "\nMSG: geometry_msgs/Point\nfloat64 x\nfloat64 y\nfloat64 z\n"
        + "=" * 80
        + "\nMSG: geometry_msgs/Vector3\nfloat64 x\nfloat64 y\nfloat64 z\n"
        + "=" * 80
        + "\nMSG: geometry_msgs/Quaternion\nfloat64 x\nfloat64 y\nfloat64 z\nfloat64 w\n"
    ),
    "fleet_msgs/msg/Signal": "std_msgs/Header header\nstring message\nstring signal\nfloat64 value\nstring unit"
    + _HEADER,
    # Objects seen or labelled: centre of the box in the vehicle frame (x forward, y left, z up), box in an image; NaN and ""
    # are not known.
    "fleet_msgs/msg/ObjectArray": (
        "std_msgs/Header header\nfleet_msgs/Object[] objects" + _HEADER + "=" * 80 + "\n"
        "MSG: fleet_msgs/Object\nstring track_id\nstring class_name\nstring subtype\nbool moving\nfloat64 x_m\n"
        "float64 y_m\nfloat64 z_m\nfloat64 length_m\nfloat64 width_m\nfloat64 height_m\nfloat64 yaw_rad\n"
        "float64 speed_mps\nfloat64 visible_fraction\nstring image_stream\nfloat64 left_px\nfloat64 top_px\n"
        "float64 right_px\nfloat64 bottom_px\n"
    ),
}
_FLOAT32, _UINT16 = 7, 4


class Body:
    """A CDR body: members are aligned to their size, counted from the byte behind the 4-byte head."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def put(self, form: str, *values: float) -> Body:
        """form: one struct code, for all values."""
        size = struct.calcsize(form)
        self._bytes += bytes(-len(self._bytes) % size)
        self._bytes += struct.pack(f"<{len(values)}{form}", *values)
        return self

    def string(self, text: str) -> Body:
        raw = text.encode() + b"\0"
        self.put("I", len(raw))
        self._bytes += raw
        return self

    def raw(self, data: bytes) -> Body:
        self.put("I", len(data))
        self._bytes += data
        return self

    def header(self, t_ns: int, frame_id: str) -> Body:
        """Raises ValueError for a stamp beyond what a message can carry, 2038."""
        seconds, rest_ns = divmod(t_ns, 1_000_000_000)
        if not -(1 << 31) <= seconds < 1 << 31:
            raise ValueError(f"no message can carry a stamp of {seconds} s")
        return self.put("i", seconds).put("I", rest_ns).string(frame_id)

    def bytes(self) -> bytes:
        return b"\0\1\0\0" + bytes(self._bytes)


def compressed_image(t_ns: int, frame_id: str, image_format: str, data: bytes) -> bytes:
    """image_format: png or jpeg."""
    return Body().header(t_ns, frame_id).string(image_format).raw(data).bytes()


def point_cloud2(t_ns: int, frame_id: str, points: np.ndarray) -> bytes:
    """points: structured [n], float32 and uint16 members."""
    names = points.dtype.names or ()
    body = Body().header(t_ns, frame_id).put("I", 1, len(points)).put("I", len(names))
    for name in names:
        kind, offset = points.dtype.fields[name][:2]  # type: ignore[index]
        code = _UINT16 if kind == np.uint16 else _FLOAT32
        body.string(name).put("I", offset).put("B", code).put("I", 1)
    step = points.dtype.itemsize
    return body.put("B", 0).put("I", step, step * len(points)).raw(points.tobytes()).put("B", 1).bytes()


def imu(
    t_ns: int,
    frame_id: str,
    accel_mps2: np.ndarray,
    gyro_radps: np.ndarray,
    orientation_xyzw: np.ndarray | None = None,
) -> bytes:
    """accel, gyro: [3]. orientation None: not measured, which a covariance of -1 says."""
    measured = orientation_xyzw is not None
    body = Body().header(t_ns, frame_id).put("d", *(orientation_xyzw if measured else (0, 0, 0, 1)))  # type: ignore[misc]
    body.put("d", 0 if measured else -1, *[0] * 8)
    return body.put("d", *gyro_radps).put("d", *[0] * 9).put("d", *accel_mps2).put("d", *[0] * 9).bytes()


def nav_sat_fix(
    t_ns: int, frame_id: str, latitude_deg: float, longitude_deg: float, altitude_m: float, accuracy_m: float
) -> bytes:
    body = Body().header(t_ns, frame_id).put("b", 0).put("H", 1).put("d", latitude_deg, longitude_deg, altitude_m)
    variance = accuracy_m**2
    return body.put("d", variance, 0, 0, 0, variance, 0, 0, 0, variance).put("B", 2).bytes()


def time_reference(t_ns: int, frame_id: str, t_gnss_ns: int, source: str) -> bytes:
    body = Body().header(t_ns, frame_id).put("i", t_gnss_ns // 1_000_000_000).put("I", t_gnss_ns % 1_000_000_000)
    return body.string(source).bytes()


def signal(t_ns: int, frame_id: str, message: str, name: str, value: float, unit: str) -> bytes:
    return Body().header(t_ns, frame_id).string(message).string(name).put("d", value).string(unit).bytes()


def odometry(
    t_ns: int,
    frame_id: str,
    child_frame_id: str,
    position_m: np.ndarray,
    orientation_xyzw: np.ndarray,
    velocity_mps: np.ndarray,
    rate_radps: np.ndarray,
) -> bytes:
    """position [3] and orientation [4] in frame_id; velocity and rate [3] in child_frame_id, the body."""
    body = Body().header(t_ns, frame_id).string(child_frame_id)
    body.put("d", *position_m).put("d", *orientation_xyzw).put("d", *[0] * 36)
    return body.put("d", *velocity_mps).put("d", *rate_radps).put("d", *[0] * 36).bytes()


_NAN = float("nan")


@dataclass(frozen=True)
class Object:
    """fleet_msgs/Object. box_px: left, top, right, bottom in the image of image_stream."""

    class_name: str
    track_id: str = ""
    subtype: str = ""
    moving: bool = False
    x_m: float = _NAN
    y_m: float = _NAN
    z_m: float = _NAN
    length_m: float = _NAN
    width_m: float = _NAN
    height_m: float = _NAN
    yaw_rad: float = _NAN
    speed_mps: float = _NAN
    visible_fraction: float = _NAN
    image_stream: str = ""
    box_px: tuple[float, float, float, float] = (_NAN,) * 4


def object_array(t_ns: int, frame_id: str, objects: Sequence[Object]) -> bytes:
    body = Body().header(t_ns, frame_id).put("I", len(objects))
    for o in objects:
        body.string(o.track_id).string(o.class_name).string(o.subtype).put("?", o.moving)
        body.put(
            "d", o.x_m, o.y_m, o.z_m, o.length_m, o.width_m, o.height_m, o.yaw_rad, o.speed_mps, o.visible_fraction
        )
        body.string(o.image_stream).put("d", *o.box_px)
    return body.bytes()

"""ROS 2 messages, decoded many at a time.

In: the bytes of a section and where each message lies in it. Out: arrays. Only the members that the lake keeps are read.
Layouts: common_interfaces (sensor_msgs), encoded as little-endian CDR (XCDR1); the body starts after 4 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.kernels.cdr_sequences import walk_sequence

_BODY = 4
_MAX_STRING = 4096


@dataclass
class Cursor:
    """Positions in many messages at once. at: int64 [n], relative to each body. ok: False once a message was too short."""

    data: np.ndarray
    offset: np.ndarray
    length: np.ndarray
    at: np.ndarray
    ok: np.ndarray

    @classmethod
    def of(cls, data: np.ndarray, offset: np.ndarray, length: np.ndarray) -> Cursor:
        """data: uint8; offset, length: int64 [n] of the messages in it."""
        ok = length >= _BODY
        last = max(data.size - 1, 0)
        zero, flag = data[np.minimum(offset, last)], data[np.minimum(offset + 1, last)]
        ok &= (zero == 0) & (flag == 1)
        return cls(data, offset + _BODY, length - _BODY, np.zeros(len(offset), dtype=np.int64), ok)

    def read(self, dtype: str, count: int = 1) -> np.ndarray:
        """The next members, aligned to their size; [n] or [n, count]. Messages that end before are no longer ok."""
        kind = np.dtype(dtype)
        self.at = (self.at + kind.itemsize - 1) // kind.itemsize * kind.itemsize
        size = kind.itemsize * count
        self.ok &= self.at + size <= self.length
        start = np.where(self.ok, self.offset + self.at, 0)
        if self.data.size < size:
            return np.zeros((len(start), count) if count > 1 else len(start), dtype=kind)
        raw = self.data[start[:, None] + np.arange(size)]
        self.at = self.at + size
        values = np.ascontiguousarray(raw).view(kind)
        return values if count > 1 else values[:, 0]

    def skip(self, dtype: str, count: int) -> None:
        size = np.dtype(dtype).itemsize
        self.at = (self.at + size - 1) // size * size + size * count
        self.ok &= self.at <= self.length

    def string(self) -> tuple[np.ndarray, np.ndarray]:
        """The next string: where it lies in data and how many bytes it has, without its closing zero."""
        size = self.read("<u4").astype(np.int64)
        self.ok &= (size <= _MAX_STRING) & (self.at + size <= self.length)
        size = np.where(self.ok, size, 0)
        start = self.offset + self.at
        self.at = self.at + size
        return start, np.maximum(size - 1, 0)

    def stamp(self) -> np.ndarray:
        """builtin_interfaces/Time in int64 nanoseconds."""
        seconds = self.read("<i4").astype(np.int64)
        return seconds * 1_000_000_000 + self.read("<u4").astype(np.int64)

    def header(self) -> np.ndarray:
        """std_msgs/Header: its stamp; the frame id is passed over."""
        t_ns = self.stamp()
        self.string()
        return t_ns


def strings(data: np.ndarray, start: np.ndarray, size: np.ndarray) -> pa.Array:
    """Slices of data as text; what is no UTF-8 becomes null."""
    ends = np.cumsum(size)
    total = int(ends[-1]) if len(ends) else 0
    index = np.repeat(start - (ends - size), size) + np.arange(total)
    offsets = np.concatenate([[0], ends]).astype(np.int32)
    text = pa.StringArray.from_buffers(len(size), pa.py_buffer(offsets), pa.py_buffer(data[index]))
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return pa.array([_text(data[a : a + n].tobytes()) for a, n in zip(start, size, strict=True)], type=pa.string())
    return text


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


Columns = dict[str, np.ndarray | pa.Array]


class Decoded(NamedTuple):
    """t_device_ns, ok: per message. message: of which message each row of the columns is; None: one row per message."""

    columns: Columns
    t_device_ns: np.ndarray
    ok: np.ndarray
    message: np.ndarray | None = None


def imu(cursor: Cursor) -> Decoded:
    """sensor_msgs/msg/Imu. A covariance that starts with -1 says that the member is not measured."""
    t_ns = cursor.header()
    orientation = cursor.read("<f8", 4)
    known = cursor.read("<f8", 9)[:, 0] != -1
    gyro = cursor.read("<f8", 3)
    cursor.skip("<f8", 9)
    accel = cursor.read("<f8", 3)
    columns: Columns = {
        **{f"accel_{axis}_mps2": accel[:, index] for index, axis in enumerate("xyz")},
        **{f"gyro_{axis}_radps": gyro[:, index] for index, axis in enumerate("xyz")},
        **{f"orientation_{axis}": np.where(known, orientation[:, index], np.nan) for index, axis in enumerate("xyzw")},
    }
    return Decoded(columns, t_ns, cursor.ok)


def nav_sat_fix(cursor: Cursor) -> Decoded:
    """sensor_msgs/msg/NavSatFix."""
    t_ns = cursor.header()
    status = cursor.read("i1")
    cursor.skip("<u2", 1)
    latitude, longitude, altitude = (cursor.read("<f8") for _ in range(3))
    covariance = cursor.read("<f8", 9)
    known = cursor.read("u1") > 0
    with np.errstate(invalid="ignore", over="ignore"):
        # Horizontal, one sigma: the mean of the variances east and north.
        accuracy = np.where(known, np.sqrt(covariance[:, 0] / 2 + covariance[:, 4] / 2), np.nan)
    columns: Columns = {
        "latitude_deg": latitude,
        "longitude_deg": longitude,
        "altitude_m": altitude,
        "accuracy_m": accuracy,
        "valid": status >= 0,
    }
    return Decoded(columns, t_ns, cursor.ok)


def time_reference(cursor: Cursor) -> Decoded:
    """sensor_msgs/msg/TimeReference: the receiver's UTC at the header's stamp."""
    t_ns = cursor.header()
    return Decoded({"t_gnss_ns": cursor.stamp(), "valid": np.ones(len(t_ns), dtype=bool)}, t_ns, cursor.ok)


def twist_stamped(cursor: Cursor) -> Decoded:
    """geometry_msgs/msg/TwistStamped: the ground speed that a receiver tells, from its velocity east and north (or
    forward and left)."""
    t_ns = cursor.header()
    linear = cursor.read("<f8", 3)
    with np.errstate(invalid="ignore", over="ignore"):
        return Decoded({"speed_mps": np.hypot(linear[:, 0], linear[:, 1])}, t_ns, cursor.ok)


def _header_with_frame(cursor: Cursor) -> tuple[Columns, np.ndarray]:
    t_ns = cursor.stamp()
    return {"frame": strings(cursor.data, *cursor.string())}, t_ns


def _pose(cursor: Cursor) -> Columns:
    """geometry_msgs/Pose."""
    position, orientation = cursor.read("<f8", 3), cursor.read("<f8", 4)
    return {
        **{f"{axis}_m": position[:, index] for index, axis in enumerate("xyz")},
        **{f"orientation_{axis}": orientation[:, index] for index, axis in enumerate("xyzw")},
    }


def odometry(cursor: Cursor) -> Decoded:
    """nav_msgs/msg/Odometry: pose in the header's frame, velocities in the body frame."""
    columns, t_ns = _header_with_frame(cursor)
    cursor.string()
    columns |= _pose(cursor)
    cursor.skip("<f8", 36)
    linear, angular = cursor.read("<f8", 3), cursor.read("<f8", 3)
    columns |= {f"velocity_{axis}_mps": linear[:, index] for index, axis in enumerate("xyz")}
    columns |= {f"{turn}_rate_radps": angular[:, index] for index, turn in enumerate(("roll", "pitch", "yaw"))}
    return Decoded(columns, t_ns, cursor.ok)


def pose_stamped(cursor: Cursor) -> Decoded:
    """geometry_msgs/msg/PoseStamped, and PoseWithCovarianceStamped, which begins like it."""
    columns, t_ns = _header_with_frame(cursor)
    return Decoded(columns | _pose(cursor), t_ns, cursor.ok)


_DOUBLES = (
    "x_m", "y_m", "z_m", "length_m", "width_m", "height_m", "yaw_rad", "speed_mps", "visible_fraction",
)  # fmt: skip
_BOX = ("left_px", "top_px", "right_px", "bottom_px")
# Members of fleet_msgs/Object: size and count of each; size 0 is a string.
_OBJECT = np.array([(0, 1), (0, 1), (0, 1), (1, 1), (8, len(_DOUBLES)), (0, 1), (8, len(_BOX))], dtype=np.int64)


def object_array(cursor: Cursor) -> Decoded:
    """fleet_msgs/msg/ObjectArray (see ros2.DEFINITIONS): a row per object. A text that is empty is not known: null."""
    t_ns = cursor.header()
    usable = np.where(cursor.ok, cursor.length, 0)
    message, start, size, whole = walk_sequence(cursor.data, cursor.offset, usable, cursor.at, _OBJECT, _MAX_STRING)
    columns: Columns = {"moving": cursor.data[start[:, 3]] != 0}
    for place, name in ((0, "track_id"), (1, "class_name"), (2, "subtype"), (5, "image_stream")):
        text = strings(cursor.data, start[:, place], size[:, place])
        columns[name] = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    for place, names in ((4, _DOUBLES), (6, _BOX)):
        raw = cursor.data[start[:, place, None] + np.arange(8 * len(names))]
        values = np.ascontiguousarray(raw).view("<f8").reshape(-1, len(names))
        columns |= {name: values[:, index] for index, name in enumerate(names)}
    return Decoded(columns, t_ns, cursor.ok & whole, message)


def signal(cursor: Cursor) -> Decoded:
    """fleet_msgs/msg/Signal: std_msgs/Header header, string message, string signal, float64 value, string unit."""
    t_ns = cursor.header()
    message, name = cursor.string(), cursor.string()
    value = cursor.read("<f8")
    unit = cursor.string()
    columns: Columns = {
        "message": strings(cursor.data, *message),
        "signal": strings(cursor.data, *name),
        "value": value,
        "unit": strings(cursor.data, *unit),
    }
    return Decoded(columns, t_ns, cursor.ok)


def stamped(cursor: Cursor) -> Decoded:
    """Any message that starts with a std_msgs/Header: its stamp alone."""
    return Decoded({}, cursor.stamp(), cursor.ok)

"""Messages of the vehicle's sensors, decoded and summed up as the values of a record.

In: the bytes of a ROS 2 message (CDR) and its type. Out: pixels or points, and values as kernels/features/records.py says, NaN
where the message holds nothing that is known here. A message that is cut off, or lies about its size, gives NaN too, and neither
pixels nor points, as one of another kind than its sensor's: it costs the vehicle nothing else.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fleet_assets.kernels.features.payload import checksum, cloud_summary, image_summary, radar_summary
from fleet_assets.kernels.features.records import VALUES
from fleet_assets.kernels.png_rows import unfilter

_PNG = b"\x89PNG\r\n\x1a\n"
_MAX_PIXELS = 64 * 1024 * 1024
_CHANNELS = {"mono8": 1, "8UC1": 1, "rgb8": 3, "bgr8": 3, "8UC3": 3, "rgba8": 4, "bgra8": 4}
_PNG_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_FIELD_TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 8: "f8"}


class NotKnown(ValueError):
    """A message that holds nothing that can be summed up."""


@dataclass(frozen=True)
class Decoded:
    """values: float64 [VALUES]. content: pixels, uint8 [height, width, channels], or points, float64 [n, 4] (x, y, z [m],
    intensity, 0 without one); None where there is nothing that is known here, or of another sensor."""

    values: np.ndarray
    content: np.ndarray | None


def values_of(source: str, schema_name: str, message: bytes) -> np.ndarray:
    """float64 [VALUES]: checksum of the message's data, then its summary. source: camera, lidar or radar."""
    return decode(source, schema_name, message).values


def decode(source: str, schema_name: str, message: bytes) -> Decoded:
    """source: camera, lidar or radar. Values are the checksum of the message's data, then its summary."""
    values = np.full(VALUES, np.nan)
    read = _PAYLOADS.get(schema_name)
    if read is None:
        return Decoded(values, None)
    try:
        data, summary, content = read(_Body(message), source)
    except NotKnown:
        return Decoded(values, None)
    values[0] = checksum(np.frombuffer(data, dtype=np.uint8))
    values[1 : 1 + len(summary)] = summary
    return Decoded(values, content if content is not None and _is_of(source, content) else None)


def _is_of(source: str, content: np.ndarray) -> bool:
    """Whether content is what a sensor's inputs are made of: points of a LiDAR, pixels of the others. A radar's picture without
    velocities is no sweep: it may be a map of the town, and whoever stands there would not be told from who walks."""
    if source == "lidar":
        return content.ndim == 2
    return content.ndim == 3 and (source != "radar" or content.shape[2] > 1)


def signal_values(schema_name: str, message: bytes, signal: str | None = None) -> np.ndarray | None:
    """float64 [VALUES] of a message of inertial unit, receiver or bus; None for one that tells nothing of these, or of another
    signal of the bus."""
    values = np.full(VALUES, np.nan)
    try:
        body = _Body(message)
        body.header()
        if schema_name == "sensor_msgs/msg/Imu":
            body.numbers("d", 4 + 9)
            gyro = body.numbers("d", 3)
            body.numbers("d", 9)
            values[:6] = *body.numbers("d", 3), *gyro
        elif schema_name == "sensor_msgs/msg/NavSatFix":
            body.number("b")
            body.number("H")
            values[:2] = body.numbers("d", 3)[:2]
            covariance = body.numbers("d", 9)
            variance = covariance[0] / 2 + covariance[4] / 2  # horizontal: the mean of east and north
            if body.number("B") > 0 and variance >= 0:
                values[4] = np.sqrt(variance)
        elif schema_name == "fleet_msgs/msg/Signal":
            body.text()
            if body.text() != signal:
                return None
            values[0] = body.numbers("d", 1)[0]
        else:
            return None
    except NotKnown:
        return None
    return values


def stamp_of(message: bytes) -> int | None:
    """Nanoseconds of the header's stamp; None where there is none, or nobody set it."""
    try:
        body = _Body(message)
        seconds, nanoseconds = body.number("i"), body.number("I")
    except NotKnown:
        return None
    return seconds * 1_000_000_000 + nanoseconds or None


@dataclass
class _Body:
    """A little-endian CDR body, read from its start."""

    message: bytes
    at: int = 4

    def __post_init__(self) -> None:
        if self.message[:2] != b"\0\1":
            raise NotKnown("no little-endian CDR")

    def number(self, form: str) -> int:
        size = struct.calcsize(form)
        self.at += -(self.at - 4) % size
        if self.at + size > len(self.message):
            raise NotKnown("cut off")
        (value,) = struct.unpack_from(f"<{form}", self.message, self.at)
        self.at += size
        return int(value)

    def numbers(self, form: str, count: int) -> tuple[float, ...]:
        size = struct.calcsize(form)
        self.at += -(self.at - 4) % size
        if self.at + size * count > len(self.message):
            raise NotKnown("cut off")
        values = struct.unpack_from(f"<{count}{form}", self.message, self.at)
        self.at += size * count
        return values

    def raw(self) -> memoryview:
        size = self.number("I")
        if size > len(self.message) - self.at:
            raise NotKnown("cut off")
        self.at += size
        return memoryview(self.message)[self.at - size : self.at]

    def text(self) -> str:
        return bytes(self.raw()).rstrip(b"\0").decode("utf-8", "replace")

    def header(self) -> None:
        self.number("i")
        self.number("I")
        self.raw()


Read = tuple[bytes | memoryview, tuple[float, ...], np.ndarray | None]  # data, summary, content


def _compressed_image(body: _Body, source: str) -> Read:
    body.header()
    body.text()
    data = body.raw()
    pixels = _png(bytes(data))
    return data, () if pixels is None else _of_image(pixels, source), pixels


def _image(body: _Body, source: str) -> Read:
    body.header()
    height, width = body.number("I"), body.number("I")
    encoding = body.text()
    body.number("B")
    step = body.number("I")
    data = body.raw()
    channels = _CHANNELS.get(encoding)
    if channels is None or step < width * channels or len(data) != step * height or not data:
        return data, (), None
    rows = np.frombuffer(data, dtype=np.uint8).reshape(height, step)[:, : width * channels]
    pixels = np.ascontiguousarray(rows).reshape(height, width, channels)
    summary = _of_image(pixels, source)
    if encoding.startswith("bgr"):  # told as it came, given as RGB
        pixels = np.ascontiguousarray(pixels[:, :, [2, 1, 0, 3][:channels]])
    return data, summary, pixels


def _of_image(pixels: np.ndarray, source: str) -> tuple[float, ...]:
    return radar_summary(pixels) if source == "radar" else image_summary(pixels)


def _png(data: bytes) -> np.ndarray | None:
    """uint8 [height, width, channels] of an image with 8 bits a channel that is not interlaced; None for any other."""
    if data[:8] != _PNG or len(data) < 33:
        return None
    width, height, bits, kind, _, _, interlaced = struct.unpack(">IIBBBBB", data[16:29])
    channels = _PNG_CHANNELS.get(kind)
    if channels is None or bits != 8 or interlaced or not 0 < width * height * channels <= _MAX_PIXELS:
        return None
    parts, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if length > len(data) - at - 12:
            return None
        if data[at + 4 : at + 8] == b"IDAT":
            parts.append(data[at + 8 : at + 8 + length])
        at += 12 + length
    size = height * (1 + width * channels)
    try:
        raw = zlib.decompressobj().decompress(b"".join(parts), size)
    except zlib.error:
        return None
    if len(raw) != size:
        return None
    rows, known = unfilter(np.frombuffer(raw, dtype=np.uint8), height, width * channels, channels)
    return rows.reshape(height, width, channels) if known else None


def _cloud(body: _Body, source: str) -> Read:
    body.header()
    height, width = body.number("I"), body.number("I")
    fields: dict[str, np.dtype] = {}
    offsets: dict[str, int] = {}
    for _ in range(min(body.number("I"), 64)):
        name = body.text()
        offsets[name], kind, _count = body.number("I"), body.number("B"), body.number("I")
        fields[name] = np.dtype("<" + _FIELD_TYPES.get(kind, "f4"))
    body.number("B")
    step, _row_step = body.number("I"), body.number("I")
    data = body.raw()
    count = height * width
    fits = all(offsets[name] + fields[name].itemsize <= step for name in fields)
    if not {"x", "y", "z"} <= set(fields) or not fits or step == 0 or len(data) < count * step:
        return data, (), None
    points = np.zeros((count, 4))
    for index, name in enumerate(("x", "y", "z", "intensity")):
        if name in fields and count:
            points[:, index] = np.ndarray(count, fields[name], buffer=data, offset=offsets[name], strides=(step,))
    columns = [np.ascontiguousarray(column) for column in points.T]
    if "intensity" not in fields:
        columns[3] = np.zeros(0)
    return data, cloud_summary(*columns), points


_PAYLOADS: dict[str, Callable[[_Body, str], Read]] = {
    "sensor_msgs/msg/CompressedImage": _compressed_image,
    "sensor_msgs/msg/Image": _image,
    "sensor_msgs/msg/PointCloud2": _cloud,
}

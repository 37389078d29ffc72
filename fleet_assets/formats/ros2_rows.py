"""ROS 2 messages -> rows of a stream.

In: CDR messages of one topic. Out: columns of its kind, with stamps; refusals for those that are not whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fleet_assets.formats import cdr
from fleet_assets.formats.reader import BATCH_ROWS, PAYLOAD_KINDS, Batch, Refusals, batch_table, in_window

# Message type -> kind and decoder. A radar has no settled message: an image or cloud on a topic /radar... is one.
TYPES: dict[str, tuple[str, Callable[[cdr.Cursor], cdr.Decoded]]] = {
    "sensor_msgs/msg/Image": ("camera", cdr.stamped),
    "sensor_msgs/msg/CompressedImage": ("camera", cdr.stamped),
    "sensor_msgs/msg/PointCloud2": ("lidar", cdr.stamped),
    "sensor_msgs/msg/LaserScan": ("lidar", cdr.stamped),
    "radar_msgs/msg/RadarScan": ("radar", cdr.stamped),
    "radar_msgs/msg/RadarTracks": ("radar", cdr.stamped),
    "sensor_msgs/msg/Imu": ("imu", cdr.imu),
    "sensor_msgs/msg/NavSatFix": ("gnss", cdr.nav_sat_fix),
    "sensor_msgs/msg/TimeReference": ("gnss", cdr.time_reference),
    "geometry_msgs/msg/TwistStamped": ("gnss", cdr.twist_stamped),
    "nav_msgs/msg/Odometry": ("pose", cdr.odometry),
    "geometry_msgs/msg/PoseStamped": ("pose", cdr.pose_stamped),
    "geometry_msgs/msg/PoseWithCovarianceStamped": ("pose", cdr.pose_stamped),
    "fleet_msgs/msg/Signal": ("bus", cdr.signal),
    "fleet_msgs/msg/ObjectArray": ("label", cdr.object_array),
}
RADAR_TOPIC = "/radar"
Window = tuple[int | None, int | None]
_FLUSH_ROWS, _FLUSH_BYTES = 16_384, 8 * 1024 * 1024


def kind_of_type(topic: str, schema_name: str) -> str | None:
    """Kind of stream; None: not one that is read."""
    if schema_name not in TYPES:
        return None
    kind = TYPES[schema_name][0]
    return "radar" if kind in PAYLOAD_KINDS and topic.startswith(RADAR_TOPIC) else kind


@dataclass(frozen=True)
class Decoder:
    """encoding: how messages are written, in words. decode: data uint8, offset and length int64 [n] -> what is in them, and which
    are so encoded at all."""

    encoding: str
    schema_name: str
    decode: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[cdr.Decoded, np.ndarray]]


def cdr_decoder(schema_name: str) -> Decoder:
    """For one of TYPES."""

    def decode(data: np.ndarray, offset: np.ndarray, length: np.ndarray) -> tuple[cdr.Decoded, np.ndarray]:
        cursor = cdr.Cursor.of(data, offset, length)
        encoded = cursor.ok.copy()
        return TYPES[schema_name][1](cursor), encoded

    return Decoder("little-endian CDR", schema_name, decode)


def decode_rows(
    topic: str,
    decoder: Decoder,
    data: np.ndarray,
    offset: np.ndarray,
    length: np.ndarray,
    t_host_ns: np.ndarray,
    window: Window,
    log: Refusals,
    place: str,
) -> tuple[cdr.Columns, np.ndarray]:
    """data: uint8; offset, length, t_host_ns (-1: none): int64 [n]. Gives columns with stamps, and which rows count."""
    (columns, t_device_ns, ok, message), encoded = decoder.decode(data, offset, length)
    for reason, hit in (
        (f"the message is no {decoder.encoding}", ~encoded),
        (f"the message is shorter than {decoder.schema_name}", encoded & ~ok),
    ):
        if hit.any():
            log.add(topic, reason, place, int(hit.sum()))
    keep = ok & in_window(np.where(t_host_ns >= 0, t_host_ns, t_device_ns), *window)
    if message is not None:
        t_device_ns, t_host_ns, keep = t_device_ns[message], t_host_ns[message], keep[message]
    columns |= {
        # ROS says with a stamp of zero that nobody set it.
        "t_device_ns": pa.array(t_device_ns, mask=t_device_ns == 0),
        "t_host_ns": pa.array(t_host_ns, mask=t_host_ns < 0),
    }
    return columns, keep


class Collected:
    """Messages that come one by one, as batches: of one topic each, in bounded memory."""

    def __init__(self, window: Window, log: Refusals) -> None:
        self._window = window
        self._log = log
        self._held: dict[str, list[bytes]] = {}
        self._stamps: dict[str, list[int]] = {}
        self._bytes: dict[str, int] = {}
        self._types: dict[str, str] = {}
        self._places: dict[str, str] = {}
        self._delivered: dict[str, int] = {}

    def add(self, topic: str, schema_name: str, t_host_ns: int, data: bytes, place: str) -> list[Batch]:
        """Batches that are full now."""
        done = self.flush(topic) if self._types.get(topic, schema_name) != schema_name else []
        self._types[topic] = schema_name
        self._places.setdefault(topic, place)
        self._held.setdefault(topic, []).append(data)
        self._stamps.setdefault(topic, []).append(t_host_ns)
        self._bytes[topic] = self._bytes.get(topic, 0) + len(data)
        if len(self._held[topic]) >= _FLUSH_ROWS or self._bytes[topic] >= _FLUSH_BYTES:
            done += self.flush(topic)
        return done

    def flush(self, topic: str | None = None) -> list[Batch]:
        """What is held of a topic, or of all."""
        batches = []
        for name in [topic] if topic is not None else list(self._held):
            held, schema_name = self._held.pop(name, []), self._types[name]
            if not held:
                continue
            length = np.array([len(data) for data in held], dtype=np.int64)
            data = np.frombuffer(b"".join(held), dtype=np.uint8)
            stamps = np.array(self._stamps.pop(name), dtype=np.int64)
            place = self._places.pop(name)
            self._bytes[name] = 0
            columns, keep = decode_rows(
                name,
                cdr_decoder(schema_name),
                data,
                np.cumsum(length) - length,
                length,
                stamps,
                self._window,
                self._log,
                place,
            )
            kind = TYPES[schema_name][0]
            table = batch_table(kind, columns, keep, first=self._delivered.get(name, 0))
            self._delivered[name] = self._delivered.get(name, 0) + table.num_rows
            batches += [
                Batch(name, kind, table.slice(start, BATCH_ROWS)) for start in range(0, table.num_rows, BATCH_ROWS)
            ]
        return batches


def device_stamp(data: bytes) -> int | None:
    """The header's stamp of a CDR message; None where nobody set one. Raises ValueError when it is not CDR, or too short."""
    if len(data) < 12 or data[:2] != b"\0\1":
        raise ValueError("the message is no little-endian CDR")
    seconds, rest = int.from_bytes(data[4:8], "little", signed=True), int.from_bytes(data[8:12], "little")
    return seconds * 1_000_000_000 + rest or None

"""MCAP with ROS 2 messages, indexed in place.

In: one `.mcap` file, in whatever state. Out: signal batches, decoded; for camera, LiDAR and radar, where each message lies.
Device stamps are the headers', host stamps the log times.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fleet_assets.formats import cdr
from fleet_assets.formats.mcap_scan import CHANNEL, MAGIC, MESSAGE, SCHEMA, Section, metadata, sections
from fleet_assets.formats.reader import (
    BATCH_ROWS,
    PAYLOAD_KINDS,
    SCHEMAS,
    Batch,
    Channel,
    Payload,
    RecordingFiles,
    RecordingInfo,
    Refusal,
    Unreadable,
    head,
)
from fleet_assets.kernels.mcap_records import scan_records

# Message type -> kind and decoder. A radar has no settled message: an image or cloud on a topic /radar... is one.
TYPES: dict[str, tuple[str, Callable[[cdr.Cursor], cdr.Decoded]]] = {
    "sensor_msgs/msg/Image": ("camera", cdr.stamped),
    "sensor_msgs/msg/CompressedImage": ("camera", cdr.stamped),
    "sensor_msgs/msg/PointCloud2": ("lidar", cdr.stamped),
    "sensor_msgs/msg/LaserScan": ("lidar", cdr.stamped),
    "radar_msgs/msg/RadarScan": ("radar", cdr.stamped),
    "sensor_msgs/msg/Imu": ("imu", cdr.imu),
    "sensor_msgs/msg/NavSatFix": ("gnss", cdr.nav_sat_fix),
    "sensor_msgs/msg/TimeReference": ("gnss", cdr.time_reference),
    "fleet_msgs/msg/Signal": ("bus", cdr.signal),
}
RADAR_TOPIC = "/radar"
METADATA_NAME = "fleet"  # vehicle and context, written by our recorder and the simulator


@dataclass
class _Topic:
    name: str
    schema_name: str
    encoding: str
    count: int = 0

    @property
    def kind(self) -> str | None:
        if self.encoding != "cdr" or self.schema_name not in TYPES:
            return None
        kind = TYPES[self.schema_name][0]
        return "radar" if kind in PAYLOAD_KINDS and self.name.startswith(RADAR_TOPIC) else kind


class McapReader:
    format: ClassVar[str] = "mcap_ros2"
    payload_in_place: ClassVar[bool] = True

    def __init__(self, files: RecordingFiles) -> None:
        (self._path,) = files.paths()
        self.refusals: list[Refusal] = []
        self._schemas: dict[int, str] = {}
        self._topics: dict[int, _Topic] = {}

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        return len(files.names) == 1 and head(files.root / files.names[0], len(MAGIC)) == MAGIC

    def info(self) -> RecordingInfo:
        ours = metadata(self._path).get(METADATA_NAME, {})
        first = next((t for section in sections(self._path, []) for t in _log_times(section)), None)
        context = {key: value for key, value in ours.items() if key != "vehicle"}
        return RecordingInfo(ours.get("vehicle"), first, context)

    def channels(self) -> list[Channel]:
        """Known once the file has been read: a recording that was cut off has no summary."""
        for section in sections(self._path, []):
            self._learn(section, scan_records(np.frombuffer(section.records, dtype=np.uint8))[0])
        return [Channel(t.name, t.kind, t.schema_name) for t in self._topics.values() if t.kind is not None]

    def payloads(self) -> Iterator[Payload]:
        raise Unreadable("MCAP is read in place", remedy="Use read().")

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        self.refusals.clear()
        for topic in self._topics.values():
            topic.count = 0
        for section in sections(self._path, self.refusals, t_from_ns, t_to_ns):
            data = np.frombuffer(section.records, dtype=np.uint8)
            found, end = scan_records(data)
            if end < data.size:
                self.refusals.append(Refusal(None, "a record is cut off", f"byte {section.offset + end}"))
            self._learn(section, found)
            messages = found[found[:, 0] == MESSAGE]
            for channel in np.unique(messages[:, 1]):
                rows = messages[messages[:, 1] == channel]
                yield from self._batches(int(channel), section, data, rows, topics, t_from_ns, t_to_ns)
        for refusal in self.refusals:  # lost chunks name channels; by now their topics are known
            if refusal.topic and refusal.topic.startswith("#"):
                known = self._topics.get(int(refusal.topic[1:]))
                refusal.topic = known.name if known else None

    def _learn(self, section: Section, found: np.ndarray) -> None:
        for opcode, _, _, offset, length in found[(found[:, 0] == SCHEMA) | (found[:, 0] == CHANNEL)].tolist():
            content = section.records[offset : offset + length]
            try:
                if opcode == SCHEMA:
                    self._schemas[int.from_bytes(content[:2], "little")] = _text(content, 2)[0]
                else:
                    number, schema = (int.from_bytes(content[at : at + 2], "little") for at in (0, 2))
                    topic, at = _text(content, 4)
                    encoding, _ = _text(content, at)
                    self._topics.setdefault(number, _Topic(topic, self._schemas.get(schema, ""), encoding))
            except UnicodeDecodeError:
                self.refusals.append(Refusal(None, "a schema or channel has no readable name", f"byte {offset}", 0))

    def _batches(
        self,
        channel: int,
        section: Section,
        data: np.ndarray,
        rows: np.ndarray,
        topics: Collection[str] | None,
        t_from_ns: int | None,
        t_to_ns: int | None,
    ) -> Iterator[Batch]:
        topic = self._topics.get(channel)
        place = f"byte {(section.chunk_offset or section.offset)}"
        if topic is None:
            why = "shorter than its own head" if channel < 0 else f"channel {channel} is not declared"
            self.refusals.append(Refusal(None, why, place, len(rows)))
            return
        if topics is not None and topic.name not in topics:
            return
        kind = topic.kind
        if kind is None:
            why = f"no decoder for {topic.schema_name or 'no schema'} ({topic.encoding})"
            self.refusals.append(Refusal(topic.name, why, place, len(rows)))
            return
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            columns, t_device_ns, ok = TYPES[topic.schema_name][1](cdr.Cursor.of(data, part[:, 3], part[:, 4]))
            if not ok.all():
                why = f"the message is shorter than {topic.schema_name}"
                self.refusals.append(Refusal(topic.name, why, place, int((~ok).sum())))
            keep = ok.copy()
            if t_from_ns is not None:
                keep &= t_device_ns >= t_from_ns
            if t_to_ns is not None:
                keep &= t_device_ns < t_to_ns
            if kind in PAYLOAD_KINDS:
                columns = _where(section, part, topic.schema_name)
            sequence = topic.count + np.cumsum(ok) - 1
            topic.count += int(ok.sum())
            stamps = {
                "sequence": sequence,
                "t_device_ns": t_device_ns,
                "t_host_ns": _null_if(part[:, 2], part[:, 2] < 0),
            }
            if keep.any():
                yield Batch(topic.name, kind, _table(kind, {**stamps, **columns}, keep))


def _where(section: Section, rows: np.ndarray, schema_name: str) -> dict[str, np.ndarray | pa.Array]:
    compressed = section.codec != "none"
    count = len(rows)
    return {
        "chunk_offset": np.full(count, section.chunk_offset),
        "chunk_length": np.full(count, section.chunk_length),
        "chunk_size": np.full(count, len(section.records) if compressed else 0),
        "codec": pa.repeat(section.codec, count),
        "message_offset": rows[:, 3] + section.offset,
        "message_length": rows[:, 4],
        "schema_name": pa.repeat(schema_name, count),
    }


def _null_if(values: np.ndarray, null: np.ndarray) -> pa.Array:
    return pa.array(values, mask=null)


def _table(kind: str, columns: dict[str, np.ndarray | pa.Array], keep: np.ndarray) -> pa.Table:
    """Columns in the kind's order; NaN becomes null here, missing columns are null."""
    schema = SCHEMAS[kind]
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(int(keep.sum()), field.type))
        elif isinstance(values, np.ndarray):
            arrays.append(pa.array(values[keep], type=field.type, from_pandas=True))
        else:
            arrays.append(values.filter(pa.array(keep)).cast(field.type))
    return pa.table(arrays, schema=schema)


def _log_times(section: Section) -> list[int]:
    found, _ = scan_records(np.frombuffer(section.records, dtype=np.uint8))
    return [int(t) for t in found[(found[:, 0] == MESSAGE) & (found[:, 2] >= 0), 2][:1]]


def _text(content: bytes, at: int) -> tuple[str, int]:
    length = int.from_bytes(content[at : at + 4], "little")
    return content[at + 4 : at + 4 + length].decode("utf-8"), at + 4 + length

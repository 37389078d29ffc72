"""MCAP with messages of ROS 2 (CDR), of protobuf, or in JSON, indexed in place.

In: one `.mcap` file, in whatever state; a licence may lie beside it. Out: signal batches, decoded; for camera, LiDAR and radar,
where each message lies; its schema_name says what it is. Only images in JSON are no use where they lie: a file with such is
rewritten. Device stamps are the headers', host stamps the log times (publish times where a recorder set none).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fleet_assets.formats import cdr
from fleet_assets.formats.foxglove import ENCODINGS, kind_of_message, layout_of
from fleet_assets.formats.json_rows import decode_json, image
from fleet_assets.formats.mcap_names import Channels, NotWellFormed, Topic
from fleet_assets.formats.mcap_scan import ChunkHead, McapScan, Section
from fleet_assets.formats.mcap_summary import MAGIC, Summary, read_metadata, read_summary
from fleet_assets.formats.protobuf_rows import BadSchema, decode_protobuf, members
from fleet_assets.formats.reader import (
    BATCH_ROWS,
    PAYLOAD_KINDS,
    Batch,
    Channel,
    Payload,
    RecordingFiles,
    RecordingInfo,
    Refusal,
    Refusals,
    Unreadable,
    batch_table,
    head,
)
from fleet_assets.formats.ros2_rows import Decoder, Window, cdr_decoder, decode_rows, device_stamp, kind_of_type
from fleet_assets.kernels.mcap_records import MESSAGE, SCHEMA, scan_records

IMAGE = "sensor_msgs/msg/CompressedImage"
METADATA_NAME = "fleet"  # vehicle and context, written by our recorder, the simulator and rewrite.py
HOST_CLOCK = "host_clock"  # an entry of it; "none": log times repeat the device stamps, there was no host clock
_FLUSH_ROWS = 16_384
_MOST_DECLARATIONS = 100_000  # in one section; there are 65,536 channel numbers
_MOST_MISSING = 10**9


class McapReader:
    format: ClassVar[str] = "mcap_ros2"

    def __init__(self, files: RecordingFiles) -> None:
        names = files.records()
        if len(names) != 1 or not (files.root / names[0]).is_file():
            raise Unreadable("The recording is not one MCAP file", where=str(files.root), remedy="Deliver it again.")
        self._name = names[0]
        self._path = files.root / names[0]
        # One account per pass, so that a pass that is repeated does not count twice.
        self._payload_log, self._log = Refusals(), Refusals()

    @property
    def refusals(self) -> list[Refusal]:
        return [*self._payload_log.list(), *self._log.list()]

    @cached_property
    def payload_in_place(self) -> bool:
        return not any(t.encoding == "json" and kind_of(t) in PAYLOAD_KINDS for t in self._declared.values())

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        """One file; several are read as those of a bag."""
        return [head(files.root / name, len(MAGIC)) for name in files.records()] == [MAGIC]

    @cached_property
    def _summary(self) -> Summary | None:
        return read_summary(self._path)

    @cached_property
    def _metadata(self) -> dict[str, str]:
        return read_metadata(self._path, self._summary).get(METADATA_NAME, {})

    def info(self) -> RecordingInfo:
        """t_start_ns: the first host stamp; None in a recording that has none."""
        first = self._summary.t_first_ns if self._summary else None
        if first is None:
            first = next(
                (int(t) for s in McapScan(self._path, Refusals()).sections() for t in _host_stamps(s)[:1]), None
            )
        if self._metadata.get(HOST_CLOCK) == "none":
            first = None
        context = {key: value for key, value in self._metadata.items() if key not in ("vehicle", HOST_CLOCK)}
        return RecordingInfo(self._metadata.get("vehicle"), first, context)

    @cached_property
    def _declared(self) -> dict[int, Topic]:
        """Channels of the summary; of a file without one, of all its sections."""
        if self._summary is not None:
            return self._summary.channels.topics
        channels, quiet = Channels(), Refusals()
        for section in McapScan(self._path, quiet).sections():
            _learn(channels, section, scan_records(np.frombuffer(section.records, dtype=np.uint8))[0], quiet)
        return channels.topics

    def channels(self) -> list[Channel]:
        """Topics that can be read; one that several channels carry counts once."""
        counts = self._summary.counts if self._summary else None
        found: dict[str, Channel] = {}
        for number, topic in self._declared.items():
            kind = kind_of(topic)
            if kind is not None:
                known = found.get(topic.name)
                count = None if counts is None else counts.get(number, 0) + ((known and known.message_count) or 0)
                rewritten = topic.encoding == "json" and kind in PAYLOAD_KINDS
                schema_name = IMAGE if rewritten else topic.schema_name
                found[topic.name] = Channel(topic.name, kind, schema_name, count)
        return list(found.values())

    def payloads(self) -> Iterator[Payload]:
        """None, when they are read in place."""
        self._payload_log.clear()
        if not self.payload_in_place:
            yield from self.rewritten(self._payload_log)

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """See Reader.read. Chunks without a wanted topic or time are passed over when the file has a summary."""
        self._log.clear()
        if self.payload_in_place:
            yield from self.indexed(topics, (t_from_ns, t_to_ns), self._log)
        else:
            yield from self.signals(topics, (t_from_ns, t_to_ns), self._log)

    def indexed(self, topics: Collection[str] | None, window: Window, log: Refusals) -> Iterator[Batch]:
        """Signals, and where payload lies."""
        yield from self._batches(None if topics is None else set(topics), window, log)

    def signals(self, topics: Collection[str] | None, window: Window, log: Refusals) -> Iterator[Batch]:
        """What has no payload; and refusals of what no decoder knows, whatever the topics."""
        wanted = {
            topic.name
            for topic in self._declared.values()
            if (kind := kind_of(topic)) is None
            or (kind not in PAYLOAD_KINDS and (topics is None or topic.name in topics))
        }
        yield from self._batches(wanted, window, log)

    def rewritten(self, log: Refusals) -> Iterator[Payload]:
        """Messages of the payload topics, in order of the file, for formats that hold MCAP files."""
        wanted = {topic.name for topic in self._declared.values() if kind_of(topic) in PAYLOAD_KINDS}
        run = self._run(wanted, (None, None), log)
        scan = McapScan(self._path, log, self._summary, run.skips if self._summary else None)
        for section in scan.sections():
            yield from run.payloads(section)
        run.account_for(scan)

    def _batches(self, wanted: set[str] | None, window: Window, log: Refusals) -> Iterator[Batch]:
        run = self._run(wanted, window, log)
        scan = McapScan(self._path, log, self._summary, run.skips if self._summary else None)
        for section in scan.sections():
            yield from run.batches(section)
        yield from run.flush()
        run.account_for(scan)

    def _run(self, wanted: set[str] | None, window: Window, log: Refusals) -> _Run:
        return _Run(self._name, log, self._summary, wanted, window, self._metadata.get(HOST_CLOCK) != "none")


class _Run:
    """One pass: batches of a topic grow over sections, so that their number follows the rows and not the chunks."""

    def __init__(
        self,
        file: str,
        log: Refusals,
        summary: Summary | None,
        topics: set[str] | None,
        window: Window,
        has_host_clock: bool,
    ) -> None:
        self._file = file
        self._log = log
        self._summary = summary
        self._topics = topics
        self._window = window
        self._has_host_clock = has_host_clock
        self._channels = Channels()
        if summary is not None:  # chunks are passed over, and with them their declarations
            self._channels.topics.update(summary.channels.topics)
        self._places = {chunk.offset: chunk.channels for chunk in summary.chunks} if summary else {}
        # By topic and kind: channels of one topic may carry different things.
        self._pending: dict[tuple[str, str], list[pa.Table]] = {}
        self._rows: dict[tuple[str, str], int] = {}
        self._delivered: dict[str, int] = {}
        self._seen: dict[int, int] = {}

    def skips(self, chunk: ChunkHead) -> bool:
        t_from_ns, t_to_ns = self._window
        timed = 0 < chunk.t_first_ns <= chunk.t_last_ns < 2**63  # 0: log times were not set
        if timed and t_to_ns is not None and chunk.t_first_ns >= t_to_ns:
            return True
        if timed and t_from_ns is not None and chunk.t_last_ns < t_from_ns:
            return True
        inside = self._places.get(chunk.at)
        if self._topics is None or inside is None:
            return False
        names = {topic.name for number in inside if (topic := self._channels.topics.get(number))}
        return not names & self._topics

    def batches(self, section: Section) -> Iterator[Batch]:
        data = np.frombuffer(section.records, dtype=np.uint8)
        found, end, unusable = scan_records(data)
        if end < data.size:
            self._log.add(None, "a record is cut off", f"chunk at byte {section.at}, {end} bytes in")
        if unusable:
            self._log.add(None, "a record of a chunk makes no sense", f"chunk at byte {section.at}", unusable)
        _learn(self._channels, section, found, self._log)
        messages = found[found[:, 0] == MESSAGE]
        for channel in np.unique(messages[:, 1]).tolist():
            rows = messages[messages[:, 1] == channel]
            self._seen[channel] = self._seen.get(channel, 0) + len(rows)
            topic = self._topic(channel, section, len(rows))
            if topic is not None and (self._topics is None or topic.name in self._topics):
                yield from self._take(topic, section, data, rows)

    def _topic(self, channel: int, section: Section, count: int) -> Topic | None:
        topic = self._channels.topics.get(channel)
        if topic is None or (self._summary is not None and channel not in self._summary.channels.topics):
            why = "the channel is not declared" if topic is None else "the summary does not know the channel"
            self._log.add(_name(topic), why, f"channel {channel}, byte {section.at}", count)
            return None
        return topic

    def _take(self, topic: Topic, section: Section, data: np.ndarray, rows: np.ndarray) -> Iterator[Batch]:
        kind = kind_of(topic)
        place = f"byte {section.at}"
        decoder: Decoder | None = None
        if kind is not None:
            try:
                decoder = decoder_of(topic)
            except BadSchema as error:
                self._log.add(topic.name, str(error), place, len(rows))
                return
        if kind is None or decoder is None:
            schema = topic.schema_name[:200] or "messages without a schema"
            self._log.add(topic.name, f"there is no decoder for {schema} ({topic.encoding[:50]})", place, len(rows))
            return
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            t_host_ns = part[:, 2] if self._has_host_clock else np.full(len(part), -1)
            columns, keep = decode_rows(
                topic.name,
                decoder,
                data,
                part[:, 3],
                part[:, 4],
                t_host_ns,
                self._window,
                self._log,
                place,
            )
            if not keep.any():
                continue
            if kind in PAYLOAD_KINDS:
                columns |= _where(section, part, topic.schema_name)
            table = batch_table(kind, columns, keep, first=self._delivered.get(topic.name, 0))
            self._delivered[topic.name] = self._delivered.get(topic.name, 0) + table.num_rows
            self._pending.setdefault((topic.name, kind), []).append(table)
            self._rows[topic.name, kind] = self._rows.get((topic.name, kind), 0) + table.num_rows
            if self._rows[topic.name, kind] >= _FLUSH_ROWS:
                yield from self._flush(topic.name, kind)

    def payloads(self, section: Section) -> Iterator[Payload]:
        """Wanted messages. What is wrong with the section, and messages without a channel, `batches` counts."""
        data = np.frombuffer(section.records, dtype=np.uint8)
        found, _, _ = scan_records(data)
        _learn(self._channels, section, found, Refusals())
        messages = found[found[:, 0] == MESSAGE]
        for channel, count in zip(*np.unique(messages[:, 1], return_counts=True), strict=True):
            self._seen[int(channel)] = self._seen.get(int(channel), 0) + int(count)
        for _, channel, t_host_ns, offset, length in messages.tolist():
            topic = self._channels.topics.get(channel)
            if topic is None or topic.name not in (self._topics or ()):
                continue
            message = section.records[offset : offset + length]
            try:
                if t_host_ns < 0 or not self._has_host_clock:
                    raise ValueError("the message has no stamp of the host")
                yield _as_ros2(topic, t_host_ns, message)
            except ValueError as error:
                self._log.add(topic.name, str(error), f"byte {section.at}")

    def _flush(self, name: str, kind: str) -> Iterator[Batch]:
        table = pa.concat_tables(self._pending.pop((name, kind))).combine_chunks()
        self._rows[name, kind] = 0
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield Batch(name, kind, table.slice(start, BATCH_ROWS), self._file)

    def flush(self) -> Iterator[Batch]:
        for name, kind in list(self._pending):
            yield from self._flush(name, kind)

    def account_for(self, scan: McapScan) -> None:
        """Messages that damage has taken, by topic: as their indexes tell, and as the summary counted them."""
        place = scan.first_damage or "summary"
        for channel, count in scan.lost.items():
            topic = self._channels.topics.get(channel)
            if self._topics is None or (topic is not None and topic.name in self._topics):
                self._log.add(_name(topic), "its chunk is damaged", place, count)
        if self._window != (None, None) or self._summary is None:
            return
        for channel, said in self._summary.counts.items():
            name = _name(self._channels.topics.get(channel))
            if self._topics is not None and name not in self._topics:
                continue
            missing = said - self._seen.get(channel, 0) - scan.lost.get(channel, 0)
            if missing > 0:
                count = missing if missing <= _MOST_MISSING else 0
                self._log.add(name, "the summary counts messages that are not there", place, count)


def _name(topic: Topic | None) -> str | None:
    return topic.name if topic else None


def kind_of(topic: Topic) -> str | None:
    """Kind of stream; None: not one that is read."""
    if topic.encoding == "cdr":
        return kind_of_type(topic.name, topic.schema_name)
    return kind_of_message(topic.name, topic.schema_name, topic.encoding) if topic.encoding in ENCODINGS else None


def decoder_of(topic: Topic) -> Decoder:
    """For a topic that has a kind. Raises BadSchema."""
    layout = layout_of(topic.schema_name)
    if topic.encoding == "cdr" or layout is None:
        return cdr_decoder(topic.schema_name)
    known = layout
    if topic.encoding == "json":

        def decode(data: np.ndarray, offset: np.ndarray, length: np.ndarray) -> tuple[cdr.Decoded, np.ndarray]:
            decoded = decode_json(data, offset, length, known)
            return decoded, decoded.ok

        return Decoder(f"{topic.schema_name} in JSON", topic.schema_name, decode)
    found = members(topic.schema, topic.schema_name, known.time, tuple(known.columns.values()))

    def decode_binary(data: np.ndarray, offset: np.ndarray, length: np.ndarray) -> tuple[cdr.Decoded, np.ndarray]:
        decoded = decode_protobuf(data, offset, length, known, found)
        return decoded, decoded.ok

    return Decoder(f"{topic.schema_name} in protobuf", topic.schema_name, decode_binary)


def _as_ros2(topic: Topic, t_host_ns: int, message: bytes) -> Payload:
    """Raises ValueError, which says why not."""
    if topic.encoding == "cdr":
        return Payload(topic.name, device_stamp(message), t_host_ns, topic.schema_name, message)
    if topic.encoding != "json":
        raise ValueError(f"payload in {topic.encoding} is not rewritten, as it has to be beside JSON or a database")
    try:
        data, t_device_ns = image(message)
    except ValueError as error:
        raise ValueError(f"the message is no {topic.schema_name[:200]} in JSON") from error
    return Payload(topic.name, t_device_ns, t_host_ns, IMAGE, data)


def _learn(channels: Channels, section: Section, found: np.ndarray, log: Refusals) -> None:
    declarations = found[found[:, 0] != MESSAGE]
    for opcode, _, _, offset, length in declarations[:_MOST_DECLARATIONS].tolist():
        content = section.records[offset : offset + length]
        try:
            if opcode == SCHEMA:
                channels.learn_schema(content)
            else:
                channels.learn_channel(content)
        except NotWellFormed:
            log.add(None, "a schema or channel is not well formed, or declared twice", f"byte {section.at}", 0)


def _where(section: Section, rows: np.ndarray, schema_name: str) -> cdr.Columns:
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


def _host_stamps(section: Section) -> np.ndarray:
    found = scan_records(np.frombuffer(section.records, dtype=np.uint8))[0]
    return found[(found[:, 0] == MESSAGE) & (found[:, 2] >= 0), 2]

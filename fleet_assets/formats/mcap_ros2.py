"""MCAP with ROS 2 messages, indexed in place.

In: one `.mcap` file, in whatever state. Out: signal batches, decoded; for camera, LiDAR and radar, where each message lies.
Device stamps are the headers', host stamps the log times (publish times where a recorder set none).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import cached_property
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fleet_assets.formats import cdr
from fleet_assets.formats.mcap_names import Channels, NotWellFormed, Topic
from fleet_assets.formats.mcap_scan import ChunkHead, McapScan, Section
from fleet_assets.formats.mcap_summary import MAGIC, Summary, read_metadata, read_summary
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
    batch_table,
    head,
)
from fleet_assets.formats.ros2_rows import Window, decode_rows, device_stamp, kind_of_type
from fleet_assets.kernels.mcap_records import MESSAGE, SCHEMA, scan_records

METADATA_NAME = "fleet"  # vehicle and context, written by our recorder, the simulator and rewrite.py
HOST_CLOCK = "host_clock"  # an entry of it; "none": log times repeat the device stamps, there was no host clock
_FLUSH_ROWS = 16_384
_MOST_DECLARATIONS = 100_000  # in one section; there are 65,536 channel numbers
_MOST_MISSING = 10**9


class McapReader:
    format: ClassVar[str] = "mcap_ros2"
    payload_in_place: ClassVar[bool] = True

    def __init__(self, files: RecordingFiles) -> None:
        (self._path,) = files.paths()
        self._log = Refusals()

    @property
    def refusals(self) -> list[Refusal]:
        return self._log.list()

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        return len(files.names) == 1 and head(files.root / files.names[0], len(MAGIC)) == MAGIC

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
                found[topic.name] = Channel(topic.name, kind, topic.schema_name, count)
        return list(found.values())

    def payloads(self) -> Iterator[Payload]:
        """None: they are read in place."""
        return iter(())

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """See Reader.read. Chunks without a wanted topic or time are passed over when the file has a summary."""
        self._log.clear()
        wanted = None if topics is None else set(topics)
        yield from self._batches(wanted, (t_from_ns, t_to_ns), self._log)

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
        return _Run(log, self._summary, wanted, window, self._metadata.get(HOST_CLOCK) != "none")


class _Run:
    """One pass: batches of a topic grow over sections, so that their number follows the rows and not the chunks."""

    def __init__(
        self,
        log: Refusals,
        summary: Summary | None,
        topics: set[str] | None,
        window: Window,
        has_host_clock: bool,
    ) -> None:
        self._log = log
        self._summary = summary
        self._topics = topics
        self._window = window
        self._has_host_clock = has_host_clock
        self._channels = Channels()
        if summary is not None:  # chunks are passed over, and with them their declarations
            self._channels.topics.update(summary.channels.topics)
        self._places = {chunk.offset: chunk.channels for chunk in summary.chunks} if summary else {}
        self._pending: dict[str, list[pa.Table]] = {}
        self._rows: dict[str, int] = {}
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
        if kind is None:
            schema = topic.schema_name[:200] or "messages without a schema"
            self._log.add(topic.name, f"there is no decoder for {schema} ({topic.encoding[:50]})", place, len(rows))
            return
        for start in range(0, len(rows), BATCH_ROWS):
            part = rows[start : start + BATCH_ROWS]
            t_host_ns = part[:, 2] if self._has_host_clock else np.full(len(part), -1)
            columns, keep = decode_rows(
                topic.name,
                topic.schema_name,
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
            self._pending.setdefault(topic.name, []).append(table)
            self._rows[topic.name] = self._rows.get(topic.name, 0) + table.num_rows
            if self._rows[topic.name] >= _FLUSH_ROWS:
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
                yield Payload(topic.name, device_stamp(message), t_host_ns, topic.schema_name, message)
            except ValueError as error:
                self._log.add(topic.name, str(error), f"byte {section.at}")

    def _flush(self, name: str, kind: str) -> Iterator[Batch]:
        table = pa.concat_tables(self._pending.pop(name)).combine_chunks()
        self._rows[name] = 0
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield Batch(name, kind, table.slice(start, BATCH_ROWS))

    def flush(self) -> Iterator[Batch]:
        kinds = {topic.name: kind_of(topic) for topic in self._channels.topics.values()}
        for name in list(self._pending):
            yield from self._flush(name, kinds[name] or "")

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
    return kind_of_type(topic.name, topic.schema_name) if topic.encoding == "cdr" else None


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

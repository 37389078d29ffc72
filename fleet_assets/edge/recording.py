"""A recording or a live stream, read as a vehicle receives it.

In: MCAP, in whatever state: a file, or a pipe that is read once. Out: its topics, what it says of itself, and its messages in
order of arrival. What is cut off gives what is whole, and then the error.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO

from mcap.exceptions import EndOfFile, McapError
from mcap.reader import NonSeekingReader, SeekingReader
from mcap.records import Channel, Message, Metadata, Schema
from mcap.stream_reader import StreamReader
from zstandard import ZstdError

from fleet_assets.errors import FleetError

METADATA_NAME = "fleet"  # what a recorder tells of vehicle and context
_RECORD_BYTES_LIMIT = 1 << 28
_MOST_TOPICS = 10_000
# What the reader raises on bytes that are no MCAP; its own errors are not all of one kind.
_DAMAGE = (McapError, ZstdError, struct.error, EOFError, KeyError, ValueError, RuntimeError, MemoryError, OverflowError)


LISTEN_S = 2.0  # of a live stream, to know its topics before the first frame
_MOST_HEARD_BYTES, _MOST_TEXT = 1 << 28, 4096

Arrived = tuple[str, str, bytes, int]  # topic, type, content, arrival [ns]


@dataclass(frozen=True)
class Recording:
    """topics: in order of their names. context: light, weather, vehicle and so on, as far as the recorder told."""

    path: Path
    topics: list[str]
    context: dict[str, str]
    indexed: bool

    @classmethod
    def open(cls, path: Path) -> Recording:
        """Raises FleetError if the file cannot be read or is no MCAP."""
        try:
            with open(path, "rb") as file:
                try:
                    reader = SeekingReader(file, record_size_limit=_RECORD_BYTES_LIMIT)
                    summary = reader.get_summary()
                    if summary is not None and summary.chunk_indexes:
                        topics = {channel.topic for channel in summary.channels.values()}
                        told = next((one for one in reader.iter_metadata() if one.name == METADATA_NAME), None)
                        return cls(path, sorted(topics), dict(told.metadata) if told else {}, True)
                except _DAMAGE:
                    pass  # not whole: read from its start, as far as it goes
                return cls(path, _topics(path), {}, False)
        except OSError as error:
            raise FleetError(f"Cannot read {path}: {error.strerror}", remedy="Give an MCAP file.") from error

    @property
    def name(self) -> str:
        return self.path.stem

    def messages(self) -> Iterator[Arrived]:
        """Raises FleetError where the file is damaged."""
        with open(self.path, "rb") as file:
            kind = SeekingReader if self.indexed else NonSeekingReader
            count = 0
            try:
                reader = kind(file, record_size_limit=_RECORD_BYTES_LIMIT)
                for schema, channel, message in reader.iter_messages(log_time_order=self.indexed):
                    t_host_ns = message.log_time or message.publish_time
                    if schema is not None and t_host_ns < 2**63:
                        yield channel.topic, schema.name, message.data, t_host_ns
                    count += 1
            except _DAMAGE as error:
                raise FleetError(
                    f"{self.path} is damaged: {error}", where=f"after message {count}",
                    remedy="What lies before was read. Copy the recording anew.",
                ) from error  # fmt: skip


class LiveStream:
    """MCAP from a pipe, read once. Nothing is read before somebody asks; then the first LISTEN_S seconds are kept, by whose end
    every channel must have been told, and after them one record at a time."""

    name = "live"

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._topics: set[str] = set()
        self._context: dict[str, str] = {}
        self._fault: FleetError | None = None
        self._rest = self._arriving()

    @property
    def topics(self) -> list[str]:
        """Raises FleetError if nothing came."""
        self._listen()
        return sorted(self._topics)

    @property
    def context(self) -> dict[str, str]:
        """As far as it was told by then. Raises as `topics`."""
        self._listen()
        return self._context

    def messages(self) -> Iterator[Arrived]:
        """Raises FleetError where the stream is damaged, or breaks off without the footer of MCAP."""
        self._listen()
        while self._heard:
            yield self._heard.popleft()
        if self._fault is not None:
            raise self._fault
        yield from self._rest

    @cached_property
    def _heard(self) -> deque[Arrived]:
        heard: deque[Arrived] = deque()
        size = 0
        try:
            for message in self._rest:
                heard.append(message)
                size += len(message[2])
                if message[3] - heard[0][3] >= LISTEN_S * 1e9 or size >= _MOST_HEARD_BYTES:
                    break
        except FleetError as error:
            if not heard:
                raise
            self._fault = error
        return heard

    def _listen(self) -> None:
        _ = self._heard

    def _arriving(self) -> Iterator[Arrived]:
        types: dict[int, str] = {}
        channels: dict[int, tuple[str, int]] = {}
        count = 0
        try:
            for record in StreamReader(self._pipe, record_size_limit=_RECORD_BYTES_LIMIT).records:
                if isinstance(record, Schema):
                    types[record.id] = _short(record.name)
                elif isinstance(record, Channel):
                    channels[record.id] = _short(record.topic), record.schema_id
                    if len(self._topics) < _MOST_TOPICS:
                        self._topics.add(record.topic)
                elif isinstance(record, Metadata) and record.name == METADATA_NAME and not count:
                    self._context = dict(record.metadata)
                elif isinstance(record, Message):
                    topic, schema_id = channels[record.channel_id]
                    t_host_ns = record.log_time or record.publish_time
                    count += 1
                    if schema_id in types and t_host_ns < 2**63:
                        yield topic, types[schema_id], record.data, t_host_ns
        except _DAMAGE as error:
            what = "broke off" if isinstance(error, EndOfFile) else f"is damaged: {error}"
            raise FleetError(
                f"The stream {what}", where=f"after message {count}",
                remedy="What came before was taken. Let the sender end it as MCAP does, with its footer.",
            ) from error  # fmt: skip


def _short(name: str) -> str:
    if len(name) > _MOST_TEXT:
        raise ValueError(f"a name of {len(name)} characters")
    return name


def _topics(path: Path) -> list[str]:
    found: set[str] = set()
    with open(path, "rb") as file:
        try:
            for record in StreamReader(file, record_size_limit=_RECORD_BYTES_LIMIT).records:
                if isinstance(record, Channel) and len(found) < _MOST_TOPICS:
                    found.add(record.topic)
        except _DAMAGE as error:
            if not found:
                raise FleetError(f"{path} is no MCAP recording: {error}", remedy="Give an MCAP file.") from error
    return sorted(found)

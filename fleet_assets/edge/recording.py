"""A recording, read as a vehicle would have received it.

In: an MCAP file, in whatever state. Out: its topics, what it says of itself, and its messages in order of arrival. A file that is
cut off gives what is whole, and then the error.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, SeekingReader
from mcap.records import Channel
from mcap.stream_reader import StreamReader
from zstandard import ZstdError

from fleet_assets.errors import FleetError

METADATA_NAME = "fleet"  # what a recorder tells of vehicle and context
_RECORD_BYTES_LIMIT = 1 << 28
_MOST_TOPICS = 10_000
# What the reader raises on bytes that are no MCAP; its own errors are not all of one kind.
_DAMAGE = (McapError, ZstdError, struct.error, EOFError, KeyError, ValueError, RuntimeError, MemoryError, OverflowError)


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

    def messages(self) -> Iterator[tuple[str, str, bytes, int]]:
        """Topic, type, content, arrival [ns]. Raises FleetError where the file is damaged."""
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

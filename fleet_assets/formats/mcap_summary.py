"""What an MCAP file says about itself in its summary, if it has one that holds.

In: a file. Out: channels, counts, chunks and metadata, or None. Nothing in it is trusted further than the file goes. Source:
the MCAP specification, "Summary section".
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from fleet_assets.formats.mcap_names import Channels, NotWellFormed, mapping, text

MAGIC = b"\x89MCAP0\r\n"
HEAD = 9  # opcode and length of a record
FOOTER, SCHEMA, CHANNEL, CHUNK_INDEX, STATISTICS, METADATA, METADATA_INDEX = 0x02, 0x03, 0x04, 0x08, 0x0B, 0x0C, 0x0D
MAX_SUMMARY_BYTES = 64 * 1024 * 1024
_FOOTER_BYTES = HEAD + 20
MAX_METADATA_BYTES = 1_000_000
_MAX_METADATA_RECORDS = 1_000


@dataclass(frozen=True)
class ChunkPlace:
    """A chunk record at offset; channels that have messages in it (None: not said)."""

    offset: int
    length: int
    channels: frozenset[int] | None


@dataclass
class Summary:
    """counts: messages by channel. chunks: in order, none overlaps another; empty if in doubt."""

    channels: Channels = field(default_factory=Channels)
    counts: Mapping[int, int] = field(default_factory=dict)
    t_first_ns: int | None = None
    chunks: list[ChunkPlace] = field(default_factory=list)
    metadata: list[int] = field(default_factory=list)  # offsets of metadata records


def read_summary(path: Path) -> Summary | None:
    """None: there is none (the recorder was cut off), it is damaged, or it does not name every channel."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        footer_at = size - len(MAGIC) - _FOOTER_BYTES
        if footer_at < len(MAGIC):
            return None
        file.seek(footer_at)
        footer = file.read(_FOOTER_BYTES + len(MAGIC))
        if footer[0] != FOOTER or footer[1:HEAD] != (20).to_bytes(8, "little") or not footer.endswith(MAGIC):
            return None
        start, _, crc = struct.unpack_from("<QQI", footer, HEAD)
        if not len(MAGIC) < start < footer_at or footer_at - start > MAX_SUMMARY_BYTES:
            return None
        file.seek(start)
        content = file.read(footer_at - start)
    if crc and zlib.crc32(content + footer[: _FOOTER_BYTES - 4]) != crc:
        return None
    try:
        summary, channels = _parse(content, start)
        return summary if channels == len(summary.channels.topics) else None
    except (NotWellFormed, struct.error):
        return None


def _parse(content: bytes, end_of_data: int) -> tuple[Summary, int | None]:
    """The summary, and how many channels the file says it has."""
    summary, channels = Summary(), None
    at = 0
    while at + HEAD <= len(content):
        length = int.from_bytes(content[at + 1 : at + HEAD], "little")
        body = content[at + HEAD : at + HEAD + length]
        if len(body) != length:
            raise NotWellFormed
        match content[at]:
            case 0x03:
                summary.channels.learn_schema(body)
            case 0x04:
                summary.channels.learn_channel(body)
            case 0x0B:
                channels = struct.unpack_from("<I", body, 10)[0]
                t_first_ns = struct.unpack_from("<Q", body, 26)[0]
                summary.t_first_ns = t_first_ns if 0 < t_first_ns < 2**63 else None
                summary.counts = mapping(body, 42, "<HQ")
            case 0x08:
                offset, chunk_length = struct.unpack_from("<QQ", body, 16)
                named = frozenset(mapping(body, 32, "<HQ"))
                summary.chunks.append(ChunkPlace(offset, chunk_length, named or None))
            case 0x0D:
                summary.metadata.append(struct.unpack_from("<Q", body)[0])
        at += HEAD + length
    summary.chunks.sort(key=lambda chunk: chunk.offset)
    ends = [len(MAGIC), *(chunk.offset + chunk.length for chunk in summary.chunks)]
    starts = [*(chunk.offset for chunk in summary.chunks), end_of_data]
    if any(end > start for end, start in zip(ends, starts, strict=True)):
        summary.chunks = []
    return summary, channels


def read_metadata(path: Path, summary: Summary | None) -> dict[str, dict[str, str]]:
    """Metadata records by name, through the summary's index; without a summary, as far as the file is whole."""
    found: dict[str, dict[str, str]] = {}
    size = path.stat().st_size
    with open(path, "rb") as file:

        def take(at: int) -> int | None:
            """Reads the record if it is metadata; gives where the next one starts, None at the end."""
            if not 0 <= at <= size - HEAD:
                return None
            file.seek(at)
            header = file.read(HEAD)
            length = int.from_bytes(header[1:], "little")
            if length > size - at - HEAD:
                return None
            if header[0] == METADATA and length <= MAX_METADATA_BYTES:
                try:
                    body = file.read(length)
                    name, after = text(body, 0)
                    found.setdefault(name, _texts(body, after))
                except NotWellFormed:
                    pass  # metadata helps; a recording is read without it
            return at + HEAD + length

        if summary is not None:
            for at in summary.metadata[:_MAX_METADATA_RECORDS]:
                take(at)
        else:
            # Recorders write it first or last; a file that was cut off has no last.
            next_at: int | None = len(MAGIC)
            for _ in range(_MAX_METADATA_RECORDS):
                next_at = take(next_at) if next_at is not None else None
    return found


def _texts(body: bytes, at: int) -> dict[str, str]:
    entries: dict[str, str] = {}
    if at + 4 > len(body):
        raise NotWellFormed
    end = at + 4 + int.from_bytes(body[at : at + 4], "little")
    at += 4
    while at < min(end, len(body)):
        key, at = text(body, at)
        entries[key], at = text(body, at)
    return entries

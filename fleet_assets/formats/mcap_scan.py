"""An MCAP file, section by section, whatever its state.

In: a file. Out: runs of records, uncompressed, with the place where they lie; and refusals for what is damaged. One section
is in memory at a time. Source: the MCAP specification.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fleet_assets.formats.reader import Refusal, Unreadable

MAGIC = b"\x89MCAP0\r\n"
SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, METADATA, DATA_END = 0x03, 0x04, 0x05, 0x06, 0x07, 0x0C, 0x0F
# A hostile length must not allocate more than this; recorders write chunks of a few megabytes.
MAX_CHUNK_BYTES = 256 * 1024 * 1024
_RUN_BYTES = 8 * 1024 * 1024
_HEAD = 9


@dataclass(frozen=True)
class Section:
    """records: whole records. codec none: offset is where they lie in the file, and the other two are 0; else the chunk's
    compressed bytes lie at chunk_offset."""

    records: bytes
    offset: int
    codec: str
    chunk_offset: int = 0
    chunk_length: int = 0


@dataclass(frozen=True)
class _Chunk:
    t_first_ns: int
    t_last_ns: int
    size: int
    crc: int
    codec: str
    offset: int
    length: int


def sections(
    path: Path, refusals: list[Refusal], t_from_ns: int | None = None, t_to_ns: int | None = None
) -> Iterator[Section]:
    """Sections of the file in order; chunks wholly outside the times are passed over unread.

    Damage is a refusal with its place: a chunk that cannot be used, with the counts per channel from the message index
    behind it (topic "#<channel>"), or the end of a file that was cut off.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise Unreadable(f"{path.name} is no MCAP file", where="byte 0", remedy="Deliver the recording again.")
        run, run_at, lost = bytearray(), len(MAGIC), False
        while True:
            at = file.tell()
            header = file.read(_HEAD)
            if at == size - len(MAGIC) and header == MAGIC:
                break
            opcode, length = (
                (header[0], int.from_bytes(header[1:9], "little")) if len(header) == _HEAD else (0, 1 << 62)
            )
            if length > size - at - _HEAD:
                if header:
                    refusals.append(Refusal(None, "the file is cut off", f"byte {at} of {size}"))
                break
            if opcode == MESSAGE_INDEX and lost:
                refusals += _lost_messages(file.read(length), at)
                continue
            if opcode in (SCHEMA, CHANNEL, MESSAGE) and length <= MAX_CHUNK_BYTES:
                if not run:
                    run_at = at
                run += header + file.read(length)
                if len(run) >= _RUN_BYTES:
                    yield Section(bytes(run), run_at, "none")
                    run.clear()
                continue
            if run:
                yield Section(bytes(run), run_at, "none")
                run.clear()
            if opcode == CHUNK:
                try:
                    chunk = _chunk(file, at, length)
                    lost = False
                    if not (t_to_ns is not None and chunk.t_first_ns >= t_to_ns) and not (
                        t_from_ns is not None and chunk.t_last_ns < t_from_ns
                    ):
                        yield _section(file, chunk)
                except _Damaged as error:
                    lost = True
                    refusals.append(Refusal(None, f"a chunk is damaged: {error}", f"byte {at}", 0))
            file.seek(at + _HEAD + length)
        if run:
            yield Section(bytes(run), run_at, "none")


class _Damaged(Exception):
    """What is wrong with a chunk."""


def _chunk(file: BinaryIO, at: int, length: int) -> _Chunk:
    fixed = file.read(32) if length >= 40 else b""
    if len(fixed) < 32:
        raise _Damaged("its head is too short")
    t_first, t_last, size, crc, name_length = struct.unpack("<QQQII", fixed)
    if name_length > 16:
        raise _Damaged("its compression has no sensible name")
    name = file.read(name_length).decode("ascii", "replace")
    (records_length,) = struct.unpack("<Q", file.read(8))
    offset = file.tell()
    if records_length > at + _HEAD + length - offset:
        raise _Damaged("its records are longer than itself")
    if size > MAX_CHUNK_BYTES or records_length > MAX_CHUNK_BYTES:
        raise _Damaged(f"it wants {max(size, records_length)} bytes of memory")
    if name not in ("", "lz4", "zstd"):
        raise _Damaged(f"its compression {name!r} is not known")
    return _Chunk(t_first, t_last, size, crc, name or "none", offset, records_length)


def _section(file: BinaryIO, chunk: _Chunk) -> Section:
    stored = file.read(chunk.length)
    records = decompress(chunk.codec, stored, chunk.size)
    if chunk.crc and zlib.crc32(records) != chunk.crc:
        raise _Damaged("its checksum is wrong")
    if chunk.codec == "none":
        return Section(records, chunk.offset, "none")
    return Section(records, 0, chunk.codec, chunk.offset, chunk.length)


def decompress(codec: str, stored: bytes, size: int) -> bytes:
    """A chunk's records. Raises ValueError when they are not `size` bytes; never allocates more."""
    try:
        if codec == "zstd":
            import zstandard

            records = zstandard.ZstdDecompressor().decompress(stored, max_output_size=max(size, 1))
        elif codec == "lz4":
            import lz4.frame

            records = lz4.frame.LZ4FrameDecompressor().decompress(stored, max_length=size + 1)
        else:
            records = stored
    except Exception as error:  # each codec has its own kinds
        raise _Damaged(f"it does not decompress ({error})") from error
    if len(records) != size:
        raise _Damaged(f"it has {len(records)} bytes, and says {size}")
    return records


def _lost_messages(content: bytes, at: int) -> list[Refusal]:
    if len(content) < 6:
        return []
    channel, length = struct.unpack_from("<HI", content)
    return [Refusal(f"#{channel}", "its chunk is damaged", f"byte {at}", length // 16)]


def metadata(path: Path) -> dict[str, dict[str, str]]:
    """Metadata records by name; payload is passed over, damage ends the search."""
    found: dict[str, dict[str, str]] = {}
    size = path.stat().st_size
    with open(path, "rb") as file:
        at = len(MAGIC)
        while at + _HEAD <= size:
            file.seek(at)
            header = file.read(_HEAD)
            length = int.from_bytes(header[1:9], "little")
            if length > size - at - _HEAD:
                break
            if header[0] == METADATA and length < 1_000_000:
                name, entries = _strings(file.read(length))
                found[name] = entries
            at += _HEAD + length
    return found


def _strings(content: bytes) -> tuple[str, dict[str, str]]:
    def text(at: int) -> tuple[str, int]:
        length = int.from_bytes(content[at : at + 4], "little")
        return content[at + 4 : at + 4 + length].decode("utf-8", "replace"), at + 4 + length

    name, at = text(0)
    entries: dict[str, str] = {}
    at += 4
    while at + 4 <= len(content):
        key, at = text(at)
        value, at = text(at)
        entries[key] = value
    return name, entries

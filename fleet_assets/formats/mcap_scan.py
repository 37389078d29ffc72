"""An MCAP file, section by section, whatever its state.

In: a file. Out: runs of records, uncompressed, with the place where they lie; and refusals for what is damaged. One section
is in memory at a time. Source: the MCAP specification.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from fleet_assets.formats.mcap_summary import HEAD, MAGIC, Summary
from fleet_assets.formats.reader import Refusals, Unreadable
from fleet_assets.kernels.mcap_records import CHANNEL, MESSAGE, SCHEMA

HEADER, FOOTER, CHUNK, MESSAGE_INDEX, ATTACHMENT = 0x01, 0x02, 0x06, 0x07, 0x09
_INDEX_AND_SUMMARY = range(0x07, 0x10)
# A hostile length must not allocate more than this; recorders write chunks of a few megabytes.
MAX_CHUNK_BYTES = 256 * 1024 * 1024
_RUN_BYTES = 8 * 1024 * 1024
_LEAST_CHUNK = 40


@dataclass(frozen=True)
class Section:
    """records: whole records. codec none: offset is where they lie in the file, and the other two are 0; else the chunk's
    compressed bytes lie at chunk_offset. at: the byte to name when something is wrong."""

    records: bytes
    offset: int
    codec: str
    chunk_offset: int = 0
    chunk_length: int = 0
    at: int = 0


@dataclass(frozen=True)
class ChunkHead:
    """A chunk record at `at`; its compressed records lie at offset."""

    at: int
    t_first_ns: int
    t_last_ns: int
    size: int
    crc: int
    codec: str
    offset: int
    length: int


class Damaged(Exception):
    """What is wrong with a chunk."""


class McapScan:
    """One pass over a file. lost: messages per channel that damaged chunks held, where their indexes tell."""

    def __init__(
        self,
        path: Path,
        refusals: Refusals,
        summary: Summary | None = None,
        skip: Callable[[ChunkHead], bool] | None = None,
    ) -> None:
        """skip: chunks to pass over unread."""
        self._path = path
        self._refusals = refusals
        self._skip = skip
        self._expected = [chunk.offset for chunk in summary.chunks][::-1] if summary else []
        self.lost: dict[int, int] = {}
        self.first_damage: str | None = None

    def sections(self) -> Iterator[Section]:
        """In order of the file. Damage is a refusal with its place, and the scan goes on behind it where the file, or its
        chunk index, says where that is. Raises Unreadable when it is no MCAP file."""
        size = self._path.stat().st_size
        with open(self._path, "rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                remedy = "Deliver the recording again."
                raise Unreadable(f"{self._path.name} is no MCAP file", where="byte 0", remedy=remedy)
            run, run_at, in_lost_chunk = bytearray(), 0, False
            at = len(MAGIC)
            while True:
                before, at = at, file.tell()
                if self._expected and at > self._expected[-1]:  # something led past a chunk that the index knows
                    self._damage("a record's length is wrong", before)
                    at = self._expected[-1]
                    file.seek(at)
                if self._expected and at == self._expected[-1]:
                    self._expected.pop()
                header = file.read(HEAD)
                if header == MAGIC and at == size - len(MAGIC):
                    break
                opcode = header[0] if header else 0
                length = int.from_bytes(header[1:], "little")
                if len(header) < HEAD or length > size - at - HEAD:
                    if self._expected:
                        self._damage("a record's length is wrong", at)
                        file.seek(self._expected[-1])
                        continue
                    self._damage("the file is cut off", at)
                    break
                if opcode in (SCHEMA, CHANNEL, MESSAGE) and length <= MAX_CHUNK_BYTES:
                    if not run:
                        run_at = at
                    run += header + file.read(length)
                    if len(run) >= _RUN_BYTES:
                        yield Section(bytes(run), run_at, "none", at=run_at)
                        run.clear()
                    continue
                if run:
                    yield Section(bytes(run), run_at, "none", at=run_at)
                    run.clear()
                if opcode == CHUNK:
                    try:
                        chunk = _chunk_head(file, at, length)
                        in_lost_chunk = False
                        if self._skip is None or not self._skip(chunk):
                            yield _section(file, chunk)
                    except Damaged as error:
                        in_lost_chunk = True
                        self._damage(f"a chunk is damaged: {error}", at)
                elif opcode == MESSAGE_INDEX:
                    if in_lost_chunk:
                        self._count_lost(file.read(min(length, 6)), length)
                elif opcode == ATTACHMENT:
                    self._refusals.add(None, "attachments are not read", f"byte {at}")
                elif opcode == MESSAGE:
                    self._refusals.add(None, f"a message wants {length} bytes of memory", f"byte {at}")
                elif opcode not in (HEADER, FOOTER) and opcode not in _INDEX_AND_SUMMARY and opcode < 0x80:
                    self._damage("there is no such kind of record", at)
                file.seek(at + HEAD + length)
            if run:
                yield Section(bytes(run), run_at, "none", at=run_at)

    def _damage(self, reason: str, at: int) -> None:
        place = f"byte {at}"
        self.first_damage = self.first_damage or place
        self._refusals.add(None, reason, place, 0)

    def _count_lost(self, content: bytes, length: int) -> None:
        if len(content) == 6:
            channel, entries = struct.unpack("<HI", content)
            self.lost[channel] = self.lost.get(channel, 0) + min(entries, length - 6) // 16


def _chunk_head(file: BinaryIO, at: int, length: int) -> ChunkHead:
    fixed = file.read(32) if length >= _LEAST_CHUNK else b""
    if len(fixed) < 32:
        raise Damaged("its head is too short")
    t_first, t_last, size, crc, name_length = struct.unpack("<QQQII", fixed)
    if name_length > 16 or length < _LEAST_CHUNK + name_length:
        raise Damaged("its compression has no sensible name")
    name = file.read(name_length).decode("ascii", "replace")
    (records_length,) = struct.unpack("<Q", file.read(8))
    offset = file.tell()
    if records_length > at + HEAD + length - offset:
        raise Damaged("its records are longer than itself")
    if size > MAX_CHUNK_BYTES or records_length > MAX_CHUNK_BYTES:
        raise Damaged("it wants too much memory")
    if name not in ("", "lz4", "zstd"):
        raise Damaged(f"its compression {name!r} is not known")
    return ChunkHead(at, t_first, t_last, size, crc, name or "none", offset, records_length)


def _section(file: BinaryIO, chunk: ChunkHead) -> Section:
    stored = file.read(chunk.length)
    records = decompress(chunk.codec, stored, chunk.size)
    if chunk.crc and zlib.crc32(records) != chunk.crc:
        raise Damaged("its checksum is wrong")
    if chunk.codec == "none":
        return Section(records, chunk.offset, "none", at=chunk.at)
    return Section(records, 0, chunk.codec, chunk.offset, chunk.length, at=chunk.at)


def decompress(codec: str, stored: bytes, size: int) -> bytes:
    """A chunk's records. Raises Damaged when they are not `size` bytes; never allocates more."""
    try:
        if codec == "zstd":
            import zstandard

            told = zstandard.frame_content_size(stored)  # zstandard allocates what the frame says
            if told not in (size, -1):
                raise Damaged("its compressed size and its own differ")
            records = zstandard.ZstdDecompressor().decompress(stored, max_output_size=max(size, 1))
        elif codec == "lz4":
            import lz4.frame  # type: ignore[import-untyped]

            records = lz4.frame.LZ4FrameDecompressor().decompress(stored, max_length=size + 1)
        else:
            records = stored
    except Damaged:
        raise
    except Exception as error:  # each codec has its own kinds
        raise Damaged("it does not decompress") from error
    if len(records) != size:
        raise Damaged("its size is not what it says")
    return records


def decompress_frame(codec: str, stored: bytes) -> bytes:
    """A message that was compressed alone. Raises Damaged when it is no such frame, or wants too much memory."""
    if codec != "zstd":
        raise Damaged(f"its compression {codec[:20]!r} is not known")
    import zstandard

    try:
        told = zstandard.frame_content_size(stored)
        if told > MAX_CHUNK_BYTES:
            raise Damaged("it wants too much memory")
        if told >= 0:
            return decompress("zstd", stored, told)
        pieces, left = [], MAX_CHUNK_BYTES
        with zstandard.ZstdDecompressor().stream_reader(stored) as reader:
            while piece := reader.read(min(left, 1 << 20)):
                pieces.append(piece)
                left -= len(piece)
        return b"".join(pieces)
    except zstandard.ZstdError as error:
        raise Damaged("it does not decompress") from error

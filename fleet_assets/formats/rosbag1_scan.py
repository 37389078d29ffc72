"""A ROS 1 bag, chunk by chunk, whatever its state.

In: a file. Out: messages of one chunk at a time, with their connections; refusals for what is damaged. Where the bag has an
index at its end, it is used to pass over chunks, to find the next one behind damage, and to count what is missing. Source: the
ROS bag format, version 2.0.
"""

from __future__ import annotations

import bz2
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from fleet_assets.formats.mcap_scan import MAX_CHUNK_BYTES, Damaged, decompress
from fleet_assets.formats.reader import Refusals

MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _BAG, _INDEX, _CHUNK, _CHUNK_INFO, _CONNECTION = 2, 3, 4, 5, 6, 7
_MAX_HEADER_BYTES = 1_000_000
_MOST_CONNECTIONS = 100_000


@dataclass(frozen=True)
class Connection:
    """md5sum: of the message's definition, as ROS 1 counts it."""

    topic: str
    type: str
    md5sum: str


@dataclass(frozen=True)
class Message:
    connection: int
    t_ns: int
    data: bytes


@dataclass(frozen=True)
class ChunkInfo:
    """What the index says of a chunk. counts: messages by connection."""

    at: int
    t_first_ns: int
    t_last_ns: int
    counts: dict[int, int]


@dataclass
class Index:
    """chunks: in order of the file; empty in a bag that was cut off."""

    connections: dict[int, Connection] = field(default_factory=dict)
    chunks: list[ChunkInfo] = field(default_factory=list)


class Broken(ValueError):
    """Bytes that are no record."""


def read_index(path: Path) -> Index:
    """The index at the end; an empty one where there is none, or none that holds."""
    index = Index()
    size = path.stat().st_size
    try:
        with open(path, "rb") as file:
            file.seek(len(MAGIC))
            head, _, _ = _record(file, size)
            if _number(head, b"op") != _BAG:
                return index
            file.seek(min(_number(head, b"index_pos", 8) or size, size))
            while file.tell() < size:
                fields, at, length = _record(file, size)
                op = _number(fields, b"op")
                if op == _CONNECTION and length <= _MAX_HEADER_BYTES:
                    _learn(index.connections, fields, file.read(length))
                elif op == _CHUNK_INFO and length <= _MAX_HEADER_BYTES:
                    pairs = struct.iter_unpack("<II", file.read(length // 8 * 8))
                    chunk_at = _number(fields, b"chunk_pos", 8)
                    if chunk_at < size:
                        first, last = _time(fields, b"start_time"), _time(fields, b"end_time")
                        index.chunks.append(ChunkInfo(chunk_at, first, last, dict(pairs)))
                file.seek(at + length)
    except Broken:
        return Index()
    index.chunks.sort(key=lambda chunk: chunk.at)
    return index


def scan(
    path: Path, index: Index, refusals: Refusals, skip: Callable[[ChunkInfo], bool] | None = None
) -> Iterator[tuple[dict[int, Connection], list[Message]]]:
    """Connections known so far, and messages of the next chunk. skip: chunks of the index to pass over unread."""
    size = path.stat().st_size
    connections = dict(index.connections)
    infos = {info.at: info for info in index.chunks}
    starts = [info.at for info in index.chunks]
    with open(path, "rb") as file:
        at = len(MAGIC)
        while at < size:
            place = f"{path.name}: byte {at}"
            if (info := infos.get(at)) is not None and skip is not None and skip(info):
                at = _behind(file, at, size, starts)
                continue
            file.seek(at)
            try:
                fields, data_at, length = _record(file, size)
                op = _number(fields, b"op")
            except Broken as error:
                refusals.add(None, f"a record is damaged: {error}", place, 0)
                following = next((start for start in starts if start > at), None)
                if following is None:
                    return
                at = following
                continue
            if op == _CHUNK:
                try:
                    yield connections, _messages(_unpacked(file, fields, length), connections, refusals, place)
                except (Broken, Damaged) as error:
                    refusals.add(None, f"a chunk is damaged: {error}", place, 0)
            elif op == _CONNECTION and length <= _MAX_HEADER_BYTES:
                try:
                    _learn(connections, fields, file.read(length))
                except Broken as error:
                    refusals.add(None, f"a connection is damaged: {error}", place, 0)
            elif op == _MESSAGE:
                refusals.add(None, "a message lies outside of the chunks", place)
            elif op not in (_BAG, _INDEX, _CHUNK_INFO):
                refusals.add(None, "there is no such kind of record", place, 0)
            at = data_at + length


def _behind(file: BinaryIO, at: int, size: int, starts: list[int]) -> int:
    file.seek(at)
    try:
        _, data_at, length = _record(file, size)
        return data_at + length
    except Broken:
        return next((start for start in starts if start > at), size)


def _unpacked(file: BinaryIO, fields: dict[bytes, bytes], length: int) -> bytes:
    size = _number(fields, b"size")
    if size > MAX_CHUNK_BYTES or length > MAX_CHUNK_BYTES:
        raise Damaged("it wants too much memory")
    name, stored = fields.get(b"compression", b""), file.read(length)
    if name == b"bz2":
        try:
            records = bz2.BZ2Decompressor().decompress(stored, max_length=size + 1)
        except (OSError, ValueError) as error:
            raise Damaged("it does not decompress") from error
        if len(records) != size:
            raise Damaged("its size is not what it says")
        return records
    if name not in (b"none", b"lz4"):
        raise Damaged(f"its compression {name[:20]!r} is not known")
    return decompress(name.decode(), stored, size)


def _messages(data: bytes, connections: dict[int, Connection], refusals: Refusals, place: str) -> list[Message]:
    """Messages of an unpacked chunk; learns its connections."""
    found = []
    at = 0
    while at < len(data):
        try:
            fields, content, length = _record_in(data, at)
            op = _number(fields, b"op")
            if op == _MESSAGE:
                stamp = _time(fields, b"time")
                found.append(Message(_number(fields, b"conn"), stamp, data[content : content + length]))
            elif op == _CONNECTION:
                _learn(connections, fields, data[content : content + length])
        except Broken as error:
            refusals.add(None, f"a record of a chunk is damaged: {error}", f"{place}, {at} bytes in", 0)
            break
        at = content + length
    return found


def _learn(connections: dict[int, Connection], fields: dict[bytes, bytes], content: bytes) -> None:
    told = _fields(content)
    number, topic = _number(fields, b"conn"), fields.get(b"topic", b"")
    if len(connections) < _MOST_CONNECTIONS:
        texts = (topic, told.get(b"type", b""), told.get(b"md5sum", b""))
        connections.setdefault(number, Connection(*(text[:1024].decode("utf-8", "replace") for text in texts)))


def _record(file: BinaryIO, size: int) -> tuple[dict[bytes, bytes], int, int]:
    """Header fields of the record at the file's place, and where its data lies."""
    at = file.tell()
    length = int.from_bytes(file.read(4), "little")
    if length > min(_MAX_HEADER_BYTES, size - at - 8):
        raise Broken("its header is longer than the file")
    fields = _fields(file.read(length))
    data_length = int.from_bytes(file.read(4), "little")
    if data_length > size - file.tell():
        raise Broken("it is cut off")
    return fields, file.tell(), data_length


def _record_in(data: bytes, at: int) -> tuple[dict[bytes, bytes], int, int]:
    length = int.from_bytes(data[at : at + 4], "little")
    content = at + 4 + length + 4
    if content > len(data):
        raise Broken("its header is longer than the chunk")
    data_length = int.from_bytes(data[content - 4 : content], "little")
    if data_length > len(data) - content:
        raise Broken("it is cut off")
    return _fields(data[at + 4 : content - 4]), content, data_length


def _fields(header: bytes) -> dict[bytes, bytes]:
    fields = {}
    at = 0
    while at < len(header):
        length = int.from_bytes(header[at : at + 4], "little")
        part = header[at + 4 : at + 4 + length]
        name, equals, value = part.partition(b"=")
        if len(part) != length or not equals:
            raise Broken("its header makes no sense")
        fields[name] = value
        at += 4 + length
    return fields


def _number(fields: dict[bytes, bytes], name: bytes, size: int = 4) -> int:
    """A member of `size` bytes (op: one)."""
    raw = fields.get(name, b"")
    if len(raw) != (1 if name == b"op" else size):
        raise Broken(f"it has no {name.decode()}")
    return int.from_bytes(raw, "little")


def _time(fields: dict[bytes, bytes], name: bytes) -> int:
    seconds, rest = divmod(_number(fields, name, 8), 2**32)[::-1]
    return seconds * 1_000_000_000 + rest

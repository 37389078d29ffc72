"""What lakeFS has committed, as its own files tell.

In: a file of a repository's `_lakefs/` folder: a range (entries of objects, by path) or a metarange (the ranges of one
commit). Out: physical addresses of the objects, or ids of the ranges. Such a file is written once, before the commit that
needs it, and never changed. Its name is the hash of what it holds, which is compared: a file that is not read whole and right is
Unreadable. They are tables in the format of RocksDB (version 2), written by Pebble: blocks of sorted records, compressed with
Snappy, found through an index of one or two levels
(https://github.com/facebook/rocksdb/wiki/Rocksdb-BlockBasedTable-Format).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

_MAGIC = bytes.fromhex("f7cff485b741e288")
_FOOTER = 53
_SNAPPY = 1
_MAX_BLOCK = 1 << 28
_TRAILER = 8  # of a key: its sequence number and kind
_TWO_LEVELS = b"\2\0\0\0"
_ADDED_LATER = frozenset({b"min_key", b"max_key", b"count", b"estimated_size_bytes"})


class Unreadable(Exception):
    """No whole range or metarange."""


@dataclass(frozen=True)
class Contents:
    """Of a range: addresses, and ranges is empty. Of a metarange: the other way round."""

    addresses: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()


def read(path: Path) -> Contents:
    """Raises Unreadable, and OSError where it cannot be opened."""
    data = path.read_bytes()
    try:
        records, properties = _table(memoryview(data))
        if _name(records, properties) != path.name:
            raise ValueError("what it holds does not give its name")
        values = [_value(value) for _, value in records]
        if properties[b"type"] == b"ranges":
            return Contents(addresses=tuple(_address(entry) for _, entry in values))
        return Contents(ranges=tuple(identity.decode("ascii") for identity, _ in values))
    except (IndexError, KeyError, ValueError, OSError, pa.ArrowException) as error:
        raise Unreadable(f"{path.name}: {error}") from error


def _table(data: memoryview) -> tuple[list[tuple[bytes, memoryview]], dict[bytes, bytes]]:
    """Records and properties."""
    if len(data) < _FOOTER or data[-8:] != _MAGIC:
        raise ValueError("no table, or cut short")
    footer = data[-_FOOTER:]
    at, size, place = _handle(footer, 1)  # behind the kind of checksum
    metaindex = dict(_records(_block(data, at, size)))
    at, size, _ = _handle(metaindex[b"rocksdb.properties"])
    properties = {key: bytes(value) for key, value in _records(_block(data, at, size))}
    records = list(_records(_block(data, *_handle(footer, place)[:2])))
    for _ in range(2 if properties[b"rocksdb.block.based.table.index.type"] == _TWO_LEVELS else 1):
        blocks = [_handle(value)[:2] for _, value in records]
        records = [record for at, size in blocks for record in _records(_block(data, at, size))]
    return [(key[:-_TRAILER], value) for key, value in records], properties


def _name(records: Iterable[tuple[bytes, memoryview]], properties: Mapping[bytes, bytes]) -> str:
    """The hash of records and of what the writer said beside them, which lakeFS names a file by."""
    digest = hashlib.sha256()
    for key, value in records:
        for part in (key, value):
            digest.update(str(len(part)).encode())
            digest.update(part)
            digest.update(b"|")
    told = {
        k: v for k, v in properties.items() if not k.startswith((b"rocksdb.", b"pebble.")) and k not in _ADDED_LATER
    }
    digest.update(b"\4" + _number(len(told)))
    for text in itertools.chain.from_iterable(sorted(told.items())):
        digest.update(b"\1" + _number(len(text)) + text)
    return digest.hexdigest()


def _number(value: int) -> bytes:
    return b"\2\x08" + value.to_bytes(8, "big")


def _block(data: memoryview, at: int, size: int) -> memoryview:
    if size < 4 or at + size + 5 > len(data) - _FOOTER:
        raise ValueError("a block lies outside of the file")
    block, kind = data[at : at + size], data[at + size]
    if kind == 0:
        return block
    if kind != _SNAPPY:
        raise ValueError(f"compression {kind} is not known")
    length, _ = _varint(block, 0)
    if length > _MAX_BLOCK:
        raise ValueError(f"a block of {length} bytes")
    return memoryview(pa.decompress(pa.py_buffer(block), decompressed_size=length, codec="snappy", asbytes=True))


def _records(block: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys (whole) and values. A key shares a prefix with the one before."""
    restarts = int.from_bytes(block[-4:], "little")
    end, at, key = len(block) - 4 - 4 * restarts, 0, b""
    if end < 0:
        raise ValueError("a block without records")
    while at < end:
        shared, at = _varint(block, at)
        rest, at = _varint(block, at)
        size, at = _varint(block, at)
        if shared > len(key) or at + rest + size > end:
            raise ValueError("a record does not fit its block")
        key = key[:shared] + bytes(block[at : at + rest])
        yield key, block[at + rest : at + rest + size]
        at += rest + size


def _handle(data: memoryview, at: int = 0) -> tuple[int, int, int]:
    """Offset and size of a block, and the place behind them."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return offset, size, at


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number without an end")


def _value(value: memoryview) -> tuple[bytes, memoryview]:
    """Identity and data of a record. Their lengths are signed (zigzag)."""
    length, at = _varint(value, 0)
    identity = bytes(value[at : at + length // 2])
    size, begin = _varint(value, at + length // 2)
    data = value[begin : begin + size // 2]
    if length % 2 or size % 2 or len(identity) != length // 2 or len(data) != size // 2:
        raise ValueError("a value is cut short")
    return identity, data


def _address(entry: memoryview) -> str:
    """The first field of an entry's protocol buffer, and not a missing one."""
    if entry[0] != 0x0A:
        raise ValueError("an entry without an address")
    length, at = _varint(entry, 1)
    address = bytes(entry[at : at + length])
    if not length or len(address) != length:
        raise ValueError("an address is cut short")
    return address.decode()

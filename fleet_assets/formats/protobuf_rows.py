"""Protobuf messages -> columns.

In: messages, and the descriptors that the file carries. Out: columns of a layout. Of the descriptors only numbers and types of
members are taken: no class is made of them. Source: protobuf's descriptor.proto.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from fleet_assets.errors import FleetError
from fleet_assets.formats.can_database import INSTALL
from fleet_assets.formats.cdr import Columns, Decoded, strings
from fleet_assets.formats.foxglove import Layout
from fleet_assets.kernels.protobuf import ABSENT, BROKEN, BYTES, FIXED32, FIXED64, VARINT, find_field

MAX_SCHEMA_BYTES = 1024 * 1024
_STAMP = ".google.protobuf.Timestamp"
_DOUBLE, _FLOAT, _STRING, _MESSAGE, _REPEATED = 1, 2, 9, 11, 3
_INTEGERS = {3, 4, 5, 13}  # int64, uint64, int32, uint32
_MAX_STRING = 4096


class BadSchema(ValueError):
    """Descriptors that do not describe what is read."""


@dataclass(frozen=True)
class Member:
    """numbers: of the fields on the way. kind: protobuf's number of the type."""

    numbers: tuple[int, ...]
    kind: int


@lru_cache(maxsize=256)
def members(schema: bytes, schema_name: str, layout_time: str, paths: tuple[str, ...]) -> dict[str, Member]:
    """Members of a message by path. Raises BadSchema; FleetError when protobuf is not installed."""
    try:
        from google.protobuf.descriptor_pb2 import FileDescriptorSet
        from google.protobuf.message import DecodeError
    except ImportError as error:
        raise FleetError("Protobuf messages need protobuf", remedy=INSTALL) from error
    if len(schema) > MAX_SCHEMA_BYTES:
        raise BadSchema("the schema is larger than a megabyte")
    try:
        described = FileDescriptorSet.FromString(schema)
    except DecodeError as error:
        raise BadSchema("the schema is no set of descriptors") from error
    types: dict[str, Any] = {}
    for file in described.file:
        waiting = [(f".{file.package}" if file.package else "", message) for message in file.message_type]
        while waiting:
            prefix, message = waiting.pop()
            name = f"{prefix}.{message.name}"
            types.setdefault(name, {field.name: field for field in message.field})
            waiting += [(name, nested) for nested in message.nested_type]
    found = {path: _member(types, f".{schema_name}", path.rstrip("*")) for path in paths}
    stamp = _member(types, f".{schema_name}", layout_time, stamp=True)
    return {**found, layout_time: stamp}


def _member(types: dict[str, Any], name: str, path: str, *, stamp: bool = False) -> Member:
    numbers = []
    field = None
    for part in path.split("."):
        field = types.get(name, {}).get(part)
        if field is None or field.label == _REPEATED:
            raise BadSchema(f"the schema has no single {path[:100]}")
        numbers.append(field.number)
        name = field.type_name
    if field is None or (stamp and field.type_name != _STAMP):
        raise BadSchema(f"{path[:100]} is no Timestamp")
    return Member(tuple(numbers), field.type)


def decode_protobuf(
    data: np.ndarray, offset: np.ndarray, length: np.ndarray, layout: Layout, found: dict[str, Member]
) -> Decoded:
    """found: from members(). ok: False for messages that are not whole."""
    ok = np.ones(len(offset), dtype=bool)
    columns: Columns = {}
    seconds, rest, there = _stamp(data, offset, length, found[layout.time], ok)
    for column, path in layout.columns.items():
        columns[column] = _column(data, offset, length, found[path], ok)
    t_ns = np.where(there, seconds * 1_000_000_000 + rest, 0)
    return Decoded(columns, t_ns, ok)


def _walk(
    data: np.ndarray, offset: np.ndarray, length: np.ndarray, numbers: tuple[int, ...], ok: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The last field of the way: wire, start, size, value; and where the message that holds it is there."""
    there = ok.copy()
    for number in numbers[:-1]:
        wire, offset, length, _ = find_field(data, offset, length, number)
        ok &= (wire != BROKEN) & ((wire == ABSENT) | (wire == BYTES))
        there &= wire == BYTES
        length = np.where(wire == BYTES, length, 0)
    wire, start, size, value = find_field(data, offset, length, numbers[-1])
    ok &= wire != BROKEN
    return wire, start, size, value, there


def _stamp(
    data: np.ndarray, offset: np.ndarray, length: np.ndarray, member: Member, ok: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = []
    for number in (1, 2):  # seconds, nanos
        wire, _, _, value, there = _walk(data, offset, length, (*member.numbers, number), ok)
        ok &= (wire == ABSENT) | (wire == VARINT)
        parts.append(value.view(np.int64))
    seconds, rest = parts
    usable = (seconds >= 0) & (seconds < 2**33) & (rest >= 0) & (rest < 1_000_000_000)
    return np.where(usable, seconds, 0), np.where(usable, rest, 0), there & usable


def _column(
    data: np.ndarray, offset: np.ndarray, length: np.ndarray, member: Member, ok: np.ndarray
) -> np.ndarray | pa.Array:
    """A member that is absent has protobuf's default; of a message that is absent, it is not known."""
    wire, start, size, value, there = _walk(data, offset, length, member.numbers, ok)
    if member.kind == _STRING:
        ok &= ((wire == ABSENT) | (wire == BYTES)) & (size <= _MAX_STRING)
        return strings(data, start, np.where((wire == BYTES) & (size <= _MAX_STRING), size, 0))
    numbers = np.where(there, 0.0, np.nan)
    expected = {_DOUBLE: FIXED64, _FLOAT: FIXED32}.get(member.kind, VARINT)
    if member.kind in (_DOUBLE, _FLOAT):
        here = np.flatnonzero(wire == expected)
        width = 8 if member.kind == _DOUBLE else 4
        raw = np.ascontiguousarray(data[start[here, None] + np.arange(width)])
        with np.errstate(invalid="ignore"):
            numbers[here] = raw.view("<f8" if width == 8 else "<f4")[:, 0]
    elif member.kind in _INTEGERS:
        here = wire == VARINT
        numbers[here] = value[here].view(np.int64)
    ok &= (wire == ABSENT) | (wire == expected)
    return numbers

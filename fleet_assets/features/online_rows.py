"""Rows of one table of the online store, as Feast wants them.

In: a table of `online_files` (written rows over snapshot files), names of features, keys. Out: Python values, the same as Feast
makes of its protobuf ones. What was written last counts; but a published snapshot is not hidden by what was written before it,
unless that is newer by its event time.
"""

from __future__ import annotations

import operator
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.type_map import feast_value_type_to_python_type
from feast.value_type import ValueType

from fleet_assets.edge.keys import encode_keys
from fleet_assets.edge.layout import TYPES
from fleet_assets.edge.snapshot import View
from fleet_assets.errors import FleetError
from fleet_assets.features.online_files import Base, Row, Table

_MANY = 8  # from so many entities on, columns are read with numpy
_KEY_MEMBERS = ("int64_val", "int32_val", "string_val")

# Type of a feature in Feast -> in a snapshot, and the member of Feast's Value.
STORED: Mapping[ValueType, tuple[str, str]] = {
    ValueType.DOUBLE: ("float64", "double_val"),
    ValueType.FLOAT: ("float32", "float_val"),
    ValueType.INT64: ("int64", "int64_val"),
    ValueType.INT32: ("int32", "int32_val"),
    ValueType.BOOL: ("bool", "bool_val"),
    ValueType.STRING: ("category", "string_val"),
    ValueType.UNIX_TIMESTAMP: ("timestamp_ns", "unix_timestamp_val"),
}

ABSENT = object()  # a feature that was never written for its entity


@dataclass
class Found:
    event_ns: int
    values: list[Any]


@dataclass
class Columns:
    """values: one list per feature. times_ns: per row, None = no such row. absent: (feature, row) never written."""

    values: list[list[Any]]
    times_ns: list[int | None]
    absent: set[tuple[int, int]] = field(default_factory=set)


class Source:
    """A table, for some of its features: rows that were written, over those of snapshot files."""

    def __init__(self, table: Table, view: FeatureView, features: list[str]) -> None:
        types = {field.name: field.dtype.to_value_type() for field in view.features}
        self.rows, self.features, self.types = table.rows, features, [types[name] for name in features]
        self.members = [STORED[kind][1] if kind in STORED else "" for kind in self.types]
        self.keys = sorted(column.name for column in view.entity_columns)
        folded = [base for base in table.bases if base.folded]
        published = [base for base in table.bases if not base.folded]
        # Of several published ones, the newest version, and of one version the one that was activated last.
        best = max(published, key=lambda base: (base.view.version, base.activated_ns), default=None)
        self.bases = [BaseRows(base, self) for base in (*folded, best) if base is not None]

    def one(self, key: bytes, values: Sequence[Any]) -> Found | None:
        """The row of one key. values: of the key, by name of the join key."""
        row = self.rows.get(key) if self.rows else None
        best: Found | None = None
        at_ns = 0
        for base in self.bases:
            found = base.one(values)
            if found is not None and (best is None or (base.at_ns >= at_ns and found.event_ns >= best.event_ns)):
                best, at_ns = found, base.at_ns
        if row is None or (best is not None and loses(row, best.event_ns, at_ns)):
            return best
        under = best.values if best is not None else [ABSENT] * len(self.features)
        merged = [
            self._python(index, row.values[name]) if name in row.values else under[index]
            for index, name in enumerate(self.features)
        ]
        return Found(row.event_ns, merged)

    def many(self, keys: list[list[Any]], count: int) -> Columns:
        """Rows of many keys, as columns."""
        if count == 1 and not self.rows and len(self.bases) == 1:
            row = self.bases[0].one([column[0] for column in keys])
            if row is None:
                return Columns([[None] for _ in self.features], [None])
            return Columns([[value] for value in row.values], [row.event_ns])
        if count >= _MANY and len(self.bases) == 1 and not self.rows:
            return self.bases[0].many(keys, count)
        found = [self.one(pack_key(values), values) for values in zip(*keys, strict=True)]
        return _as_columns(found, len(self.features))

    def _python(self, index: int, value: bytes) -> Any:
        proto = Value.FromString(value)
        return proto if not self.members[index] else feast_value_type_to_python_type(proto, self.types[index])


def _as_columns(rows: Sequence[Found | None], features: int) -> Columns:
    columns = Columns(
        [[None] * len(rows) for _ in range(features)], [None if row is None else row.event_ns for row in rows]
    )
    for at, row in enumerate(rows):
        for index, value in enumerate(row.values if row is not None else ()):
            if value is ABSENT:
                columns.absent.add((index, at))
            else:
                columns.values[index][at] = value
    return columns


def loses(row: Row, event_ns: int, activated_ns: int) -> bool:
    """Whether a written row is older than one that was activated after it."""
    return row.written_ns <= activated_ns and row.event_ns < event_ns


class BaseRows:
    """Rows of one snapshot file for some features, whole rows unpacked by one precompiled format."""

    def __init__(self, base: Base, source: Source) -> None:
        view = base.view
        self.view, self.at_ns, self.folded = view, base.activated_ns, base.folded
        self.order = _order_of_keys(view, source.keys)
        where = {name: index for index, name in enumerate(view.features)}
        for name, kind in zip(source.features, source.types, strict=True):
            stored = STORED[kind][0] if kind in STORED else kind.name
            if name not in where or view.types[where[name]] != stored:
                has = f"has it as {view.types[where[name]]}" if name in where else "lacks it"
                raise FleetError(
                    f"The registry says that {name} of {view.name} is {stored}, and the snapshot {has}",
                    remedy="Publish the snapshot anew, or apply the registry that it was made from.",
                )
        self.indices = [where[name] for name in source.features]
        self._unpack, self._pick = _row_format(view, self.indices)
        self._all_valid = tuple((1 << min(64, len(view.types) - at)) - 1 for at in range(0, len(view.types), 64))
        self._special = [
            (position, index) for position, index in enumerate(self.indices) if view.types[index] in _CONVERTED
        ]

    def _key(self, values: Sequence[Any]) -> bytes:
        return self.view.key(values if self.order is None else [values[index] for index in self.order])

    def find(self, values: Sequence[Any]) -> int:
        try:
            return self.view.find(self._key(values))
        except FleetError:  # a key of another type, or one too long to be there
            return -1

    def one(self, values: Sequence[Any]) -> Found | None:
        row = self.find(values)
        if row < 0:
            return None
        view = self.view
        unpacked = self._unpack(view.row_bytes, row * view.layout.row_bytes)
        valid = unpacked[1 : 1 + len(self._all_valid)]
        found = list(self._pick(unpacked))
        for position, index in self._special:
            found[position] = _CONVERTED[view.types[index]](view, index, found[position])
        if valid != self._all_valid:
            for position, index in enumerate(self.indices):
                if not valid[index >> 6] >> (index & 63) & 1:
                    found[position] = None
        return Found(unpacked[0], found)

    def many(self, keys: list[list[Any]], count: int) -> Columns:
        view = self.view
        ordered = keys if self.order is None else [keys[index] for index in self.order]
        try:
            words, used = encode_keys(ordered, view.entity_types)
        except (FleetError, ValueError, OverflowError):  # a key of another type among them
            return _as_columns([self.one(values) for values in zip(*keys, strict=True)], len(self.indices))
        rows = view.find_many(words, used)
        there = rows >= 0
        at = np.where(there, rows, 0)
        records = view.rows[at] if view.layout.rows else np.zeros(count, view.rows.dtype)
        times = records["event_time_ns"].tolist()
        valid = view.valid_of(records)
        valid[~there] = False
        whole = np.asarray(valid.all(axis=0))
        values = []
        for index in self.indices:
            column = records[str(index)].tolist()
            convert = _CONVERTED.get(view.types[index])
            keep = valid[:, index].tolist() if not whole[index] else None
            if convert is not None:
                column = [convert(view, index, v) if keep is None or keep[i] else None for i, v in enumerate(column)]
            elif keep is not None:
                column = [v if k else None for v, k in zip(column, keep, strict=True)]
            values.append(column)
        return Columns(values, [t if k else None for t, k in zip(times, there.tolist(), strict=True)])


_FORMATS = {
    "float64": "d",
    "float32": "f",
    "int64": "q",
    "int32": "i",
    "bool": "?",
    "timestamp_ns": "q",
    "category": "i",
}
_CONVERTED: Mapping[str, Callable[[View, int, Any], Any]] = {
    "category": lambda view, index, code: view.to_python(index, code),
    "bool": lambda view, index, value: bool(value),
    # Feast's times are whole seconds.
    "timestamp_ns": lambda view, index, ns: datetime.fromtimestamp(ns // 1_000_000_000, tz=UTC),
}


def _row_format(view: View, indices: Sequence[int]) -> tuple[Callable[..., tuple[Any, ...]], Callable[[Any], Any]]:
    """Unpacks time, validity words and values of a row; picks the wanted values of them."""
    layout = view.layout
    words = -(-len(layout.columns) // 64)
    at = layout.valid_offset + 8 * words
    text = f"<{layout.key_bytes}xq{words}Q"
    place: dict[int, int] = {}
    for index in sorted(range(len(layout.columns)), key=lambda i: layout.columns[i].offset):
        column = layout.columns[index]
        if column.offset < at:
            raise FleetError(f"Columns of {view.name} overlap", where=column.name, remedy="Build the snapshot anew.")
        text += f"{column.offset - at}x{_FORMATS[column.type]}"
        at = column.offset + TYPES[column.type][1].itemsize
        place[index] = 1 + words + len(place)
    chosen = [place[index] for index in indices]
    pick: Callable[[Any], Any] = operator.itemgetter(*chosen)
    if len(chosen) == 1:
        pick = lambda unpacked: (unpacked[chosen[0]],)  # noqa: E731
    return struct.Struct(text).unpack_from, pick


def _order_of_keys(view: View, names: list[str]) -> list[int] | None:
    """Where in the sorted join keys each entity column of the snapshot is; None if they are in order."""
    if sorted(view.entities) != names:
        raise FleetError(
            f"The snapshot has {view.name} by {', '.join(view.entities)}, and the registry by {', '.join(names)}",
            remedy="Publish the snapshot anew, or apply the registry that it was made from.",
        )
    order = [names.index(name) for name in view.entities]
    return None if order == sorted(order) else order


# ---- keys ----


def pack_key(values: Sequence[Any]) -> bytes:
    """Key of the log: values by name of the join key. An integer of 32 bits is the same as one of 64."""
    if len(values) == 1 and type(values[0]) is int:
        return b"i" + struct.pack("<q", values[0])
    parts = []
    for value in values:
        if type(value) is int:
            parts.append(b"i" + struct.pack("<q", value))
        elif type(value) is str:
            text = value.encode("utf-8", "surrogatepass")
            parts.append(b"s" + struct.pack("<I", len(text)) + text)
        else:  # Feast's own kinds, already serialised
            parts.append(b"p" + struct.pack("<I", len(value)) + value)
    return b"".join(parts)


def unpack_key(key: bytes) -> list[Any]:
    """Inverse of pack_key for integers and texts."""
    values: list[Any] = []
    at = 0
    while at < len(key):
        if key[at : at + 1] == b"i":
            values.append(struct.unpack_from("<q", key, at + 1)[0])
            at += 9
        else:
            length = struct.unpack_from("<I", key, at + 1)[0]
            values.append(key[at + 5 : at + 5 + length].decode("utf-8", "surrogatepass"))
            at += 5 + length
    return values


def values_of(key: EntityKey) -> list[Any]:
    """Values of an entity key by name of the join key; kinds other than integer and text as Feast serialises them."""
    pairs = sorted(zip(key.join_keys, key.entity_values, strict=True), key=lambda pair: pair[0])
    return [_value_of(value) for _, value in pairs]


def _value_of(value: Value) -> Any:
    member = value.WhichOneof("val")
    return getattr(value, member) if member in _KEY_MEMBERS else value.SerializeToString(deterministic=True)


def key_of(key: EntityKey) -> bytes:
    return pack_key(values_of(key))

"""Bytes of a snapshot file, version 1.

In: the file's bytes. Out: where each part lies, after every offset and length was checked against the file. Little-endian;
all parts start at multiples of 8. `c/fleet_snapshot.h` is the same for C.

    header      128 bytes, HEADER; the digest is over header (digest zeroed), views, columns and metadata
    views       one VIEW each
    columns     one COLUMN each, all views
    metadata    JSON: service, versions, commit, entities, identities, categories, sketches
    per view    buckets  uint32 [2**bucket_bits + 1]: where rows whose hash starts with these bits begin, and end
                rows     [rows, row_bytes], by hash: key, event time [ns, int64], validity (a bit per column), values
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from fleet_assets.errors import FleetError

MAGIC = b"FLTSNAP\0"
FORMAT = 1
HEADER = np.dtype(
    [
        ("magic", "S8"),
        ("format", "<u4"),
        ("views", "<u4"),
        ("file_bytes", "<u8"),
        ("columns", "<u8"),
        ("metadata_offset", "<u8"),
        ("metadata_bytes", "<u8"),
        ("schema_hash", "V32"),
        ("digest", "V32"),
        ("reserved", "V16"),
    ]
)
VIEW = np.dtype(
    [
        ("name", "S104"),
        ("version", "<u4"),
        ("bucket_bits", "<u4"),
        ("rows", "<u8"),
        ("first_column", "<u4"),
        ("columns", "<u4"),
        ("key_bytes", "<u4"),
        ("row_bytes", "<u4"),
        ("ttl_ns", "<i8"),  # 0: never stale
        ("buckets_offset", "<u8"),
        ("rows_offset", "<u8"),
        ("reserved", "V32"),
    ]
)
COLUMN = np.dtype([("name", "S88"), ("type", "<u4"), ("offset", "<u4")])
NAME_BYTES, COLUMN_NAME_BYTES = 103, 87  # and a zero, for C

# Type of a column -> its number in the file, numpy type. A category is the index of its text in the metadata.
TYPES: Mapping[str, tuple[int, np.dtype[Any]]] = {
    "float64": (1, np.dtype("<f8")),
    "float32": (2, np.dtype("<f4")),
    "int64": (3, np.dtype("<i8")),
    "int32": (4, np.dtype("<i4")),
    "bool": (5, np.dtype("u1")),
    "timestamp_ns": (6, np.dtype("<i8")),
    "category": (7, np.dtype("<i4")),
}
_TYPE_NAMES = {number: name for name, (number, _) in TYPES.items()}
KEY_BYTES_LIMIT = 256
METADATA_BYTES_LIMIT = 64 << 20
_VIEWS_LIMIT, _COLUMNS_LIMIT = 4096, 65536
_BUILD_ANEW = "Build or fetch it anew; a file that was being copied is whole only when its copy has ended."


@dataclass(frozen=True)
class ColumnLayout:
    name: str
    type: str
    offset: int  # within a row


@dataclass(frozen=True)
class ViewLayout:
    """Offsets are from the start of the file."""

    name: str
    version: int
    rows: int
    columns: tuple[ColumnLayout, ...]
    key_bytes: int
    row_bytes: int
    ttl_ns: int
    bucket_bits: int
    buckets_offset: int
    rows_offset: int

    @property
    def time_offset(self) -> int:
        return self.key_bytes

    @property
    def valid_offset(self) -> int:
        return self.key_bytes + 8

    @property
    def row_dtype(self) -> np.dtype[Any]:
        """Structured: key (words), event_time_ns, valid (words) and one field per column, named by its position."""
        names = ["key", "event_time_ns", "valid", *(str(index) for index in range(len(self.columns)))]
        valid_words = -(-len(self.columns) // 64)
        formats: list[Any] = [("<u8", (self.key_bytes // 8,)), "<i8", ("<u8", (valid_words,))]
        formats += [TYPES[column.type][1] for column in self.columns]
        offsets = [0, self.time_offset, self.valid_offset, *(column.offset for column in self.columns)]
        return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": self.row_bytes})


@dataclass(frozen=True)
class Layout:
    schema_hash: str
    views: tuple[ViewLayout, ...]
    metadata: dict[str, Any]


def place_columns(types: list[str], key_bytes: int) -> tuple[list[int], int]:
    """Offset of each column in a row, wide ones first, and the bytes of a row."""
    offsets, at = [0] * len(types), key_bytes + 8 + 8 * -(-len(types) // 64)
    for index in sorted(range(len(types)), key=lambda index: -TYPES[types[index]][1].itemsize):
        offsets[index] = at
        at += TYPES[types[index]][1].itemsize
    return offsets, -(-at // 8) * 8


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Canonical JSON, filled up with spaces to a multiple of 8 bytes."""
    text = json.dumps(metadata, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    return text + b" " * (-len(text) % 8)


def digest(header: np.ndarray, rest: bytes | memoryview) -> bytes:
    """sha256 of the header without its digest, and of what follows it up to the data."""
    blank = header.copy()
    blank["digest"] = np.void(bytes(32))
    return hashlib.sha256(blank.tobytes() + bytes(rest)).digest()


def read_layout(data: memoryview, name: str) -> Layout:
    """Checks the whole of header, views, columns and metadata. Raises FleetError (name: what to call the file)."""

    def require(holds: bool, what: str) -> None:
        if not holds:
            raise FleetError(f"{name} is no usable snapshot: {what}", remedy=_BUILD_ANEW)

    require(len(data) >= HEADER.itemsize, f"it has {len(data)} bytes, less than a header")
    header = np.frombuffer(data, HEADER, 1)
    head = header[0]
    require(bytes(data[:8]) == MAGIC, "it does not start as one")
    require(head["format"] == FORMAT, f"its format is {head['format']}, and this program reads {FORMAT}")
    require(head["file_bytes"] == len(data), f"it has {len(data)} bytes, and should have {head['file_bytes']}")
    view_count, column_count = int(head["views"]), int(head["columns"])
    require(0 < view_count <= _VIEWS_LIMIT and column_count <= _COLUMNS_LIMIT, "too many views or columns")
    columns_at = HEADER.itemsize + view_count * VIEW.itemsize
    metadata_at = columns_at + column_count * COLUMN.itemsize
    metadata_bytes = int(head["metadata_bytes"])
    require(int(head["metadata_offset"]) == metadata_at, "its metadata is not where it belongs")
    require(metadata_bytes <= METADATA_BYTES_LIMIT, "its metadata is too long")
    end = metadata_at + metadata_bytes
    require(end <= len(data), "its metadata ends after the file")
    require(digest(header, data[HEADER.itemsize : end]) == bytes(head["digest"]), "its header was changed")
    columns = [_column(row) for row in np.frombuffer(data, COLUMN, column_count, columns_at)]
    require(all(column is not None for column in columns), "a column has an unknown type or a name that is no text")
    views = []
    for row in np.frombuffer(data, VIEW, view_count, HEADER.itemsize):
        first, count = int(row["first_column"]), int(row["columns"])
        require(0 < count <= column_count and first <= column_count - count, "a view has columns that are not there")
        view = _view(row, tuple(column for column in columns[first : first + count] if column))
        fault = "a view's name is no text" if view is None else _fault(view, len(data), end)
        require(fault is None, fault or "")
        views.append(view)
    try:
        metadata = json.loads(bytes(data[metadata_at:end]))
    except (ValueError, RecursionError):
        metadata = None
    described = metadata.get("views") if isinstance(metadata, dict) else None
    require(isinstance(described, list) and len(described) == view_count, "its metadata does not describe its views")
    return Layout(bytes(head["schema_hash"]).hex(), tuple(v for v in views if v), metadata)


def _text(raw: np.bytes_) -> str | None:
    try:
        return bytes(raw).decode()
    except UnicodeDecodeError:
        return None


def _column(row: np.void) -> ColumnLayout | None:
    name, kind = _text(row["name"]), _TYPE_NAMES.get(int(row["type"]))
    return ColumnLayout(name, kind, int(row["offset"])) if name and kind else None


def _view(row: np.void, columns: tuple[ColumnLayout, ...]) -> ViewLayout | None:
    name = _text(row["name"])
    if not name:
        return None
    same = ("version", "rows", "key_bytes", "row_bytes", "ttl_ns", "bucket_bits")
    offsets = ("buckets_offset", "rows_offset")
    return ViewLayout(name=name, columns=columns, **{field: int(row[field]) for field in (*same, *offsets)})


def _fault(view: ViewLayout, file_bytes: int, data_from: int) -> str | None:
    """What is wrong with where a view's parts lie; None if nothing is."""
    if not (0 < view.key_bytes <= KEY_BYTES_LIMIT and view.key_bytes % 8 == 0):
        return f"the keys of {view.name} have {view.key_bytes} bytes"
    if not 1 <= view.bucket_bits <= 32 or view.rows >= 2**32 or view.ttl_ns < 0:
        return f"{view.name} has an index, a size or a time to live that cannot be"
    least = view.valid_offset + 8 * -(-len(view.columns) // 64)
    if view.row_bytes % 8 or view.row_bytes < least:
        return f"the rows of {view.name} are too short"
    for column in view.columns:
        size = TYPES[column.type][1].itemsize
        if column.offset < least or column.offset % size or column.offset + size > view.row_bytes:
            return f"column {column.name} of {view.name} lies outside its row"
    parts = (
        (view.buckets_offset, 4 * (2**view.bucket_bits + 1)),
        (view.rows_offset, view.row_bytes * view.rows),
    )
    for offset, length in parts:
        if offset % 8 or offset < data_from or offset + length > file_bytes:
            return f"a part of {view.name} lies outside the file"
    return None

"""Tables become a snapshot file.

In: one Arrow table per feature view. Out: one file per feature service, the same bytes for the same content, in place by
rename. Rows lie in the order of their keys' hashes; of several rows with one key, the one with the latest event time is kept
(of equal times, the last), and the others are counted.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.edge import keys
from fleet_assets.edge import layout as lo
from fleet_assets.edge.sketch import Sketch
from fleet_assets.edge.snapshot import View
from fleet_assets.errors import FleetError
from fleet_assets.kernels.lookup import fill_texts, scatter_rows

EVENT_TIME = "event_timestamp"
_BLOCK_ROWS = 4096
_SKETCH_ROWS = 1 << 14
_CATEGORIES_LIMIT = 1 << 20
_UNIX_EPOCH_TYPES = (pa.timestamp("ns"), pa.timestamp("us"), pa.timestamp("ms"), pa.timestamp("s"))


@dataclass(frozen=True)
class SnapshotView:
    """rows: entity columns, `event_timestamp` (int64 ns UTC, or a timestamp) and feature columns.

    ttl_ns: 0 if rows never grow stale. identity: of the view's features (kernels, sources, parameters, contract).
    """

    name: str
    version: int
    entity_columns: Sequence[str]
    feature_columns: Sequence[str]
    rows: pa.Table
    ttl_ns: int
    identity: str


@dataclass(frozen=True)
class Built:
    """rows: kept, per view; superseded: rows left out because a later one has their key, per view."""

    path: Path
    file_bytes: int
    schema_hash: str
    rows: Mapping[str, int]
    superseded: Mapping[str, int]


@dataclass(frozen=True)
class _Part:
    """A view's bytes, and what the header and the metadata say of it."""

    layout: lo.ViewLayout  # offsets not yet set
    entities: list[dict[str, str]]
    categories: dict[str, list[str]]
    sketches: dict[str, Any]
    buckets: np.ndarray
    rows: np.ndarray
    superseded: int


def build_snapshot(
    path: Path,
    views: Sequence[SnapshotView],
    *,
    service: str,
    lakefs_commit: str,
    delta_versions: Mapping[str, int],
    durable: bool = True,
) -> Built:
    """Writes the file beside its place and renames it there; readers have the old one or the new one, whole.

    durable: on disk before the rename. Raises FleetError for types, keys and names that a snapshot cannot hold.
    """
    if not views:
        raise FleetError(f"Service {service} has no view", remedy="Give at least one.")
    parts = [_part(view) for view in views]
    names = [part.layout.name for part in parts]
    if len(set(names)) != len(names):
        raise FleetError(f"Service {service} has a view twice", where=", ".join(names), remedy="Give each once.")
    schema = [
        {
            "name": part.layout.name,
            "version": part.layout.version,
            "ttl_ns": part.layout.ttl_ns,
            "identity": view.identity,
            "entities": part.entities,
            "features": [{"name": column.name, "type": column.type} for column in part.layout.columns],
        }
        for view, part in zip(views, parts, strict=True)
    ]
    schema_hash = hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).digest()
    described = [
        {**about, "categories": part.categories, "sketches": part.sketches}
        for about, part in zip(schema, parts, strict=True)
    ]
    metadata = {
        "service": service,
        "lakefs_commit": lakefs_commit,
        "delta_versions": dict(delta_versions),
        "views": described,
    }
    head, data = _assemble(parts, lo.encode_metadata(metadata), schema_hash)
    file_bytes = len(head) + sum(array.nbytes for array in data)
    _write(path, [head, *data], durable)
    return Built(
        path,
        file_bytes,
        schema_hash.hex(),
        {part.layout.name: part.layout.rows for part in parts},
        {part.layout.name: part.superseded for part in parts},
    )


def rows_of(view: View) -> pa.Table:
    """All rows of a view of a snapshot, as build_snapshot takes them: the two are inverse."""
    everything = np.arange(view.layout.rows)
    columns: dict[str, pa.Array] = {}
    key_rows = np.ascontiguousarray(view.rows["key"])
    if set(view.entity_types) == {"int64"}:
        for index, name in enumerate(view.entities):
            columns[name] = pa.array(key_rows[:, index].view(np.int64))
    else:
        decoded = [keys.decode_key(row.tobytes(), view.entity_types) for row in key_rows]
        for index, (name, kind) in enumerate(zip(view.entities, view.entity_types, strict=True)):
            columns[name] = pa.array(
                [values[index] for values in decoded], pa.string() if kind == "string" else pa.int64()
            )
    columns[EVENT_TIME] = pa.array(np.ascontiguousarray(view.rows["event_time_ns"]))
    valid = view.valid(everything)
    for index, (name, kind) in enumerate(zip(view.features, view.types, strict=True)):
        values = np.ascontiguousarray(view.column(index, everything))
        if kind == "category":
            texts = pa.array(view.categories[index], pa.string())
            codes = pa.array(values, mask=~valid[:, index])
            columns[name] = pa.DictionaryArray.from_arrays(codes, texts).cast(pa.string())
        elif kind == "bool":
            columns[name] = pa.array(values.astype(bool), mask=~valid[:, index])
        else:
            array = pa.array(values, mask=~valid[:, index])
            columns[name] = array.cast(pa.timestamp("ns")) if kind == "timestamp_ns" else array
    return pa.table(columns)


# ---- one view --------------------------------------------------------------------------------------------------------


def _part(view: SnapshotView) -> _Part:
    where = f"view {view.name}"
    wanted = [*view.entity_columns, EVENT_TIME, *view.feature_columns]
    absent = [name for name in wanted if name not in view.rows.column_names]
    if absent:
        raise FleetError("Rows of a snapshot lack columns", where=f"{where}: {', '.join(absent)}", remedy="Add them.")
    if not view.feature_columns or not view.entity_columns:
        raise FleetError("A view of a snapshot needs an entity and a feature", where=where, remedy="Name them.")
    _check_name(view.name, lo.NAME_BYTES)
    table = view.rows.select(wanted).combine_chunks()
    entities = [{"name": name, "type": _key_type(table[name], f"{where}: {name}")} for name in view.entity_columns]
    words, used = _encode_keys(table, entities, where)
    times_ns = _times(table[EVENT_TIME], where)
    hashes = keys.hash_keys(words, used)
    order = _order(hashes, words, times_ns)
    columns = [_Values(name, table[name], f"{where}: {name}") for name in view.feature_columns]
    key_bytes = 8 * words.shape[1]
    offsets, row_bytes = lo.place_columns([column.type for column in columns], key_bytes)
    bits = len(order).bit_length() + 1  # two to four buckets per row: most rows are alone in theirs
    layout = lo.ViewLayout(
        name=view.name,
        version=view.version,
        rows=len(order),
        columns=tuple(lo.ColumnLayout(c.name, c.type, offset) for c, offset in zip(columns, offsets, strict=True)),
        key_bytes=key_bytes,
        row_bytes=row_bytes,
        ttl_ns=view.ttl_ns,
        bucket_bits=bits,
        buckets_offset=0,
        rows_offset=0,
    )
    counts = np.bincount((hashes[order] >> np.uint64(64 - bits)).view(np.int64), minlength=2**bits)
    buckets = np.zeros(2**bits + 2, dtype="<u4")  # one more than there are ends, and one to fill up the last word
    np.cumsum(counts, out=buckets[1:-1], dtype="<u4")
    return _Part(
        layout=layout,
        entities=entities,
        categories={c.name: c.texts for c in columns if c.texts is not None},
        sketches={c.name: Sketch.of(c.sample(order)).to_json() for c in columns if c.type != "category"},
        buckets=buckets,
        rows=_rows(layout, words, times_ns, columns, order),
        superseded=len(hashes) - len(order),
    )


def _check_name(name: str, limit: int) -> None:
    if not name or "\0" in name or len(name.encode()) > limit:
        raise FleetError(f"A snapshot cannot hold the name {name!r}", remedy=f"Names have 1 to {limit} bytes.")


def _key_type(column: pa.ChunkedArray, where: str) -> str:
    if column.null_count:
        raise FleetError("A key is null", where=where, remedy="Leave such rows out.")
    if pa.types.is_integer(column.type) and column.type != pa.uint64():
        return "int64"
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return "string"
    raise FleetError(f"A key cannot be {column.type}", where=where, remedy="Keys are integers or texts.")


def _encode_keys(table: pa.Table, entities: list[dict[str, str]], where: str) -> tuple[np.ndarray, np.ndarray]:
    """As keys.encode_keys, without a Python loop over rows."""
    types = [entity["type"] for entity in entities]
    if set(types) == {"int64"}:
        return keys.encode_keys([table[entity["name"]].cast(pa.int64()).to_numpy() for entity in entities], types)
    rows = table.num_rows
    lengths = np.zeros(rows, dtype=np.int64)
    as_arrow = {"string": pa.large_string(), "int64": pa.int64()}
    columns = [_one_array(table[entity["name"]].cast(as_arrow[entity["type"]])) for entity in entities]
    for column in columns:
        lengths += (
            8 if pa.types.is_integer(column.type) else 2 + pc.binary_length(column).to_numpy(zero_copy_only=False)
        )
    longest = int(lengths.max(initial=8))
    if longest > lo.KEY_BYTES_LIMIT:
        raise FleetError(f"A key has {longest} bytes", where=where, remedy=f"Keys have at most {lo.KEY_BYTES_LIMIT}.")
    encoded = np.zeros((rows, -(-longest // 8) * 8), dtype=np.uint8)
    ends = np.zeros(rows, dtype=np.int64)
    for column in columns:
        if pa.types.is_integer(column.type):
            number = column.to_numpy(zero_copy_only=False).astype("<i8").view(np.uint8).reshape(-1, 8)
            encoded[np.arange(rows)[:, None], ends[:, None] + np.arange(8)] = number
            ends += 8
        else:
            _, offsets, text = column.buffers()
            starts = (
                np.frombuffer(offsets, np.int64)[column.offset : column.offset + rows + 1]
                if rows
                else np.zeros(1, np.int64)
            )
            fill_texts(encoded, ends, starts, np.frombuffer(text or b"", np.uint8))
    return encoded.view("<u8"), -(-lengths // 8)


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)


def _times(column: pa.ChunkedArray, where: str) -> np.ndarray:
    if column.null_count:
        raise FleetError("An event time is null", where=where, remedy="Leave such rows out.")
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    if column.type != pa.int64():
        raise FleetError(f"An event time cannot be {column.type}", where=where, remedy="Give int64 ns or a timestamp.")
    return column.to_numpy()


def _order(hashes: np.ndarray, words: np.ndarray, times_ns: np.ndarray) -> np.ndarray:
    """Rows to keep, by hash; of those with one key, the latest."""
    order = np.argsort(hashes)
    if len(order) == 0 or not (hashes[order[1:]] == hashes[order[:-1]]).any():
        return order
    # lexsort is stable: of equal times, the last row stays last.
    order = np.lexsort((times_ns, *words.T[::-1], hashes))
    ordered = words[order]
    last_of_key = np.append((ordered[1:] != ordered[:-1]).any(axis=1), True)
    return order[last_of_key]


class _Values:
    """One feature's column: its type in the file, values without nulls, and which of them are there."""

    def __init__(self, name: str, column: pa.ChunkedArray, where: str) -> None:
        _check_name(name, lo.COLUMN_NAME_BYTES)
        self.name = name
        self.texts: list[str] | None = None
        array = _one_array(column)
        if pa.types.is_dictionary(array.type):
            array = array.cast(array.type.value_type)
        self.type = self._type_of(array.type, where)
        self.valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
        if self.type == "category":
            array = array.cast(pa.string())
            texts = sorted(text for text in pc.unique(array).to_pylist() if text is not None)
            if len(texts) > _CATEGORIES_LIMIT:
                raise FleetError(
                    f"A feature has {len(texts)} different texts", where=where, remedy="A snapshot holds categories."
                )
            self.texts = texts
            array = pc.index_in(array, value_set=pa.array(texts, pa.string()))
        elif self.type == "timestamp_ns":
            array = array.cast(pa.timestamp("ns", array.type.tz)).cast(pa.int64())
        if array.null_count:
            array = array.fill_null(False if pa.types.is_boolean(array.type) else 0)
        self.values = array.to_numpy(zero_copy_only=False).astype(lo.TYPES[self.type][1], copy=False)

    @staticmethod
    def _type_of(kind: pa.DataType, where: str) -> str:
        named = {
            pa.float64(): "float64", pa.float32(): "float32", pa.int64(): "int64", pa.int32(): "int32",
            pa.int16(): "int32", pa.int8(): "int32", pa.uint8(): "int32", pa.uint16(): "int32", pa.uint32(): "int64",
            pa.bool_(): "bool", pa.string(): "category", pa.large_string(): "category",
        }  # fmt: skip
        if kind in named:
            return named[kind]
        if pa.types.is_timestamp(kind):
            return "timestamp_ns"
        raise FleetError(f"A snapshot cannot hold {kind}", where=where, remedy=f"It holds {', '.join(lo.TYPES)}.")

    def sample(self, order: np.ndarray) -> np.ndarray:
        """Up to _SKETCH_ROWS evenly spaced values as float64, NaN where one is missing."""
        chosen = order[:: max(1, -(-len(order) // _SKETCH_ROWS))]
        values = self.values[chosen].astype(np.float64)
        return values if self.valid is None else np.where(self.valid[chosen], values, np.nan)


def _rows(
    layout: lo.ViewLayout, words: np.ndarray, times_ns: np.ndarray, columns: Sequence[_Values], order: np.ndarray
) -> np.ndarray:
    """uint64 [rows, words]. Columns are read in order and whole rows are put in their places: each cache line once."""
    kept = np.sort(order)
    places = np.empty(len(words), dtype=np.int64)
    places[order] = np.arange(len(order))
    rows = np.empty((len(order), layout.row_bytes // 8), dtype=np.uint64)
    dense = len(kept) == len(words)
    for start in range(0, len(kept), _BLOCK_ROWS):
        chosen: Any = slice(start, start + _BLOCK_ROWS) if dense else kept[start : start + _BLOCK_ROWS]
        block = np.zeros(len(kept[start : start + _BLOCK_ROWS]), dtype=layout.row_dtype)
        block["key"] = words[chosen]
        block["event_time_ns"] = times_ns[chosen]
        for index, column in enumerate(columns):
            block[str(index)] = column.values[chosen]
            bit = np.uint64(1 << (index & 63))
            valid = bit if column.valid is None else column.valid[chosen] * bit
            block["valid"][:, index >> 6] |= valid
        scatter_rows(block.view(np.uint64).reshape(len(block), -1), places[chosen], rows)
    return rows


# ---- the file --------------------------------------------------------------------------------------------------------


def _assemble(parts: Sequence[_Part], metadata: bytes, schema_hash: bytes) -> tuple[bytes, list[np.ndarray]]:
    """Header with all that precedes the data, and the data in its order."""
    column_count = sum(len(part.layout.columns) for part in parts)
    metadata_at = lo.HEADER.itemsize + len(parts) * lo.VIEW.itemsize + column_count * lo.COLUMN.itemsize
    at = metadata_at + len(metadata)
    views, columns = np.zeros(len(parts), lo.VIEW), np.zeros(column_count, lo.COLUMN)
    data: list[np.ndarray] = []
    first = 0
    for view, part in zip(views, parts, strict=True):
        layout = part.layout
        for field in ("version", "rows", "key_bytes", "row_bytes", "ttl_ns", "bucket_bits"):
            view[field] = getattr(layout, field)
        view["name"], view["first_column"], view["columns"] = layout.name.encode(), first, len(layout.columns)
        for column in layout.columns:
            columns[first] = (column.name.encode(), lo.TYPES[column.type][0], column.offset)
            first += 1
        for field, array in (("buckets_offset", part.buckets), ("rows_offset", part.rows)):
            view[field] = at
            at += array.nbytes
            data.append(array)
    header = np.zeros(1, lo.HEADER)
    header["magic"], header["format"], header["views"], header["columns"] = (
        lo.MAGIC,
        lo.FORMAT,
        len(parts),
        column_count,
    )
    header["file_bytes"], header["metadata_offset"], header["metadata_bytes"] = at, metadata_at, len(metadata)
    header["schema_hash"] = np.void(schema_hash)
    rest = views.tobytes() + columns.tobytes() + metadata
    header["digest"] = np.void(lo.digest(header, rest))
    return header.tobytes() + rest, data


def _write(path: Path, pieces: Sequence[bytes | np.ndarray], durable: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            for piece in pieces:
                file.write(piece.data if isinstance(piece, np.ndarray) else piece)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(name)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

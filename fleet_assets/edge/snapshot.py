"""A snapshot file, mapped: rows by key without numba, without a copy of the file in memory.

In: a file that snapshot_build wrote. Out: rows of its views. Any number of processes map one file. A file is never changed in
place: a new version is renamed over it (or lies beside it), and who has the old one open keeps reading the old one whole.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.edge import keys
from fleet_assets.edge.layout import TYPES, Layout, ViewLayout, read_layout
from fleet_assets.errors import FleetError

_FLOAT64 = "float64"


class Snapshot:
    """One open file. Answers read from it are of one version, whatever is activated meanwhile."""

    def __init__(self, data: memoryview | mmap.mmap, name: str) -> None:
        """data: all bytes of the file; name: what errors call it. Raises FleetError if it is no whole snapshot."""
        self.name = name
        self._layout: Layout = read_layout(memoryview(data), name)
        self.data = np.frombuffer(data, dtype=np.uint8)
        self.words = self.data.view(np.uint64)
        described = self._layout.metadata["views"]
        self.views: dict[str, View] = {}
        for layout, about in zip(self._layout.views, described, strict=True):
            try:
                view = View(self, layout, about)
            except (KeyError, TypeError, ValueError) as error:
                raise FleetError(
                    f"{name} is no usable snapshot: its metadata does not describe {layout.name}",
                    remedy="Build or fetch it anew.",
                ) from error
            self.views[layout.name] = view
            self.views[f"{layout.name}@v{layout.version}"] = view

    @classmethod
    def open(cls, path: Path) -> Snapshot:
        """Maps the file. Raises FleetError if it is not there or no whole snapshot."""
        try:
            with open(path, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size == 0 or size % 8:
                    raise FleetError(
                        f"{path} is no usable snapshot: it has {size} bytes", remedy="Build or fetch it anew."
                    )
                data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except OSError as error:
            raise FleetError(
                f"Cannot read {path}: {error.strerror}", remedy="Build it, or name the folder that has it."
            ) from error
        return cls(data, str(path))

    @property
    def metadata(self) -> Mapping[str, Any]:
        """service, lakefs_commit, delta_versions, and per view entities, features, identities, sketches."""
        return self._layout.metadata

    @property
    def schema_hash(self) -> str:
        return self._layout.schema_hash

    def view(self, name: str) -> View:
        """By name, or by name@vN. Raises FleetError if it is not there."""
        found = self.views.get(name)
        if found is None:
            known = ", ".join(sorted({f"{view.name}@v{view.version}" for view in self.views.values()}))
            raise FleetError(f"{self.name} has no view {name}", remedy=f"It has {known}.")
        return found


class View:
    """One table of features by key. Parts of it are views on the mapped file; nothing is copied until it is asked for."""

    def __init__(self, snapshot: Snapshot, layout: ViewLayout, about: Mapping[str, Any]) -> None:
        self.layout = layout
        self.name, self.version, self.ttl_ns = layout.name, layout.version, layout.ttl_ns
        self.features = tuple(column.name for column in layout.columns)
        self.types = tuple(column.type for column in layout.columns)
        self.entities: tuple[str, ...] = tuple(str(entity["name"]) for entity in about["entities"])
        self.entity_types: tuple[str, ...] = tuple(str(entity["type"]) for entity in about["entities"])
        if not self.entities or not set(self.entity_types) <= set(keys.KEY_TYPES):
            raise ValueError("unknown types of keys")
        self.identity = str(about["identity"])
        self.sketches: Mapping[str, Any] = about.get("sketches", {})
        categories = about.get("categories", {})
        self.categories: dict[int, list[str]] = {
            index: [str(text) for text in categories[name]]
            for index, (name, kind) in enumerate(zip(self.features, self.types, strict=True))
            if kind == "category"
        }
        data = snapshot.data
        buckets = data[layout.buckets_offset :][: 4 * (2**layout.bucket_bits + 1)]
        rows = data[layout.rows_offset :][: layout.row_bytes * layout.rows]
        self.rows = rows.view(layout.row_dtype)
        self.buckets = buckets.view(np.uint32)
        self._shift = 64 - layout.bucket_bits
        # Plain Python indexing into these costs a third of what it costs into an array.
        self._buckets, self.row_bytes = self.buckets.data, rows.data
        self.all_float64 = all(kind == _FLOAT64 for kind in self.types)
        first = layout.columns[0].offset
        self._matrix = (
            np.ndarray((layout.rows, len(self.types)), "<f8", rows.data, first, (layout.row_bytes, 8))
            if self.all_float64 and layout.rows
            else None
        )
        self._all_valid = _valid_words(len(self.types))

    def key(self, values: Sequence[Any]) -> bytes:
        """Bytes of the key with these entity values, in the order of `entities`."""
        return keys.encode_key(values, self.entity_types)

    def find(self, key: bytes) -> int:
        """Row of an encoded key; -1 if it is not there."""
        layout = self.layout
        key_bytes, row_bytes = layout.key_bytes, layout.row_bytes
        bucket = keys.hash_key(key) >> self._shift
        if len(key) > key_bytes:
            return -1
        for row in range(self._buckets[bucket], min(self._buckets[bucket + 1], layout.rows)):
            at = row * row_bytes
            if self.row_bytes[at : at + key_bytes] == key.ljust(key_bytes, b"\0"):
                return row
        return -1

    def find_many(self, words: np.ndarray, used: np.ndarray) -> np.ndarray:
        """Rows of many keys as keys.encode_keys gives them, -1 where one is not there."""
        found = np.full(len(words), -1, dtype=np.int64)
        width = self.layout.key_bytes // 8
        wanted = np.zeros((len(words), width), dtype=np.uint64)
        wanted[:, : words.shape[1]] = words[:, :width]
        bucket = keys.hash_keys(words, used) >> np.uint64(self._shift)
        row = self.buckets[bucket].astype(np.int64)
        end = np.minimum(self.buckets[bucket + np.uint64(1)], self.layout.rows)
        open_ = np.flatnonzero((row < end) & (used <= width))
        while open_.size:  # mostly once: buckets are small
            at = row[open_]
            same = (self.rows["key"][at] == wanted[open_]).all(axis=1)
            found[open_[same]] = at[same]
            row[open_] += 1
            open_ = open_[~same & (at + 1 < end[open_])]
        return found

    def event_time_ns(self, row: int) -> int:
        at = row * self.layout.row_bytes + self.layout.time_offset
        return int.from_bytes(self.row_bytes[at : at + 8], "little", signed=True)

    def valid(self, rows: np.ndarray) -> np.ndarray:
        """bool [rows, features]: which values are there."""
        return self.valid_of(self.rows[rows])

    def valid_of(self, records: np.ndarray) -> np.ndarray:
        """The same of rows themselves."""
        words = records["valid"]
        column = np.arange(len(self.features))
        return (words[:, column >> 6] >> (column & 63).astype(np.uint64) & np.uint64(1)).astype(bool)

    def fill(self, row: int, out: np.ndarray) -> bool:
        """One row's values as float64 [features], NaN where one is null. Gives whether all are there."""
        if self._matrix is not None:
            out[:] = self._matrix[row]
        else:
            record = self.rows[row]
            for index in range(len(self.types)):
                out[index] = record[str(index)]
        at = row * self.layout.row_bytes + self.layout.valid_offset
        if self.row_bytes[at : at + len(self._all_valid)] == self._all_valid:
            return True
        out[~self.valid(np.array([row]))[0]] = np.nan
        return False

    def column(self, index: int, rows: np.ndarray) -> np.ndarray:
        """Values of one feature in its own type (a category: its code)."""
        return self.rows[str(index)][rows]

    def values(self, row: int) -> list[Any]:
        """One row as Python values; None where one is null. A category is its text."""
        record, valid = self.rows[row], self.valid(np.array([row]))[0]
        return [self.to_python(index, record[str(index)]) if valid[index] else None for index in range(len(valid))]

    def to_python(self, index: int, value: Any) -> Any:
        """A stored value of a feature as Python has it. Raises FleetError if a category has no text."""
        kind = self.types[index]
        if kind == "category":
            texts = self.categories[index]
            if not 0 <= value < len(texts):
                raise FleetError(
                    f"{self.features[index]} has a category {value} without a text", remedy="Build it anew."
                )
            return texts[value]
        return bool(value) if kind == "bool" else value.item()

    def numba_view(self) -> np.ndarray:
        """Where this view lies, as kernels.lookup takes it."""
        layout = self.layout
        first = layout.columns[0].offset
        packed = self.all_float64 and all(c.offset == first + 8 * i for i, c in enumerate(layout.columns))
        head = [layout.rows, self._shift, layout.buckets_offset // 8, layout.rows_offset // 8]
        head += [layout.key_bytes // 8, layout.row_bytes // 8, layout.ttl_ns, len(layout.columns), packed]
        head.append(int.from_bytes(self._all_valid[-8:], "little"))
        columns = [number for c in layout.columns for number in (TYPES[c.type][0], c.offset)]
        return np.array(head + columns, dtype=np.uint64)


def _valid_words(columns: int) -> bytes:
    return ((1 << columns) - 1).to_bytes(8 * -(-columns // 64), "little")

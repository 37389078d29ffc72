"""Written rows of the online store become a snapshot file.

In: a table with rows in the log. Out: a file with them and those that were folded before. Rows that a snapshot cannot hold (of
other types, or without some of their features) stay in the log, with all others of their table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from feast import FeatureView
from feast.protos.feast.types.Value_pb2 import Value
from feast.value_type import ValueType

from fleet_assets.features.online_files import Table
from fleet_assets.features.online_rows import STORED, BaseRows, Source, loses, unpack_key
from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot, rows_of

_ARROW = {
    "float64": pa.float64(),
    "float32": pa.float32(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "bool": pa.bool_(),
    "category": pa.string(),
    "timestamp_ns": pa.timestamp("ns"),
}
_KEYS = {ValueType.INT64: pa.int64(), ValueType.INT32: pa.int64(), ValueType.STRING: pa.string()}


def folded(view: FeatureView, table: Table, path: Path) -> bool:
    """Writes the file; False if these rows have to stay in the log."""
    types = {field.name: field.dtype.to_value_type() for field in view.features}
    keys = sorted((column.name, column.dtype.to_value_type()) for column in view.entity_columns)
    if not set(types.values()) <= STORED.keys() or not {kind for _, kind in keys} <= _KEYS.keys() or not keys:
        return False
    if any(row.values.keys() != types.keys() for row in table.rows.values()):
        return False
    source = Source(table, view, list(types))
    published = next((base for base in source.bases if not base.folded), None)
    before = next((base for base in source.bases if base.folded), None)
    written = _written(table, keys, types, published)
    if before is not None:
        if before.view.layout.rows > 4 * len(table.rows):
            return False  # not worth it yet
        written = pa.concat_tables([_kept(before, table, published).select(written.column_names), written])
    fresh = SnapshotView(
        name=view.name,
        version=int(getattr(view, "current_version_number", 0) or 0),
        entity_columns=[name for name, _ in keys],
        feature_columns=list(types),
        rows=written,
        ttl_ns=int(view.ttl.total_seconds() * 1e9) if view.ttl else 0,
        identity="written online",
    )
    build_snapshot(path, [fresh], service=view.name, lakefs_commit="", delta_versions={})
    return True


def _written(
    table: Table, keys: list[tuple[str, ValueType]], types: dict[str, ValueType], published: BaseRows | None
) -> pa.Table:
    rows = [
        (unpack_key(row.key), row)
        for row in table.rows.values()
        if not (
            published is not None
            and (found := published.one(unpack_key(row.key))) is not None
            and loses(row, found.event_ns, published.at_ns)
        )
    ]
    columns: dict[str, Any] = {
        name: pa.array([values[index] for values, _ in rows], _KEYS[kind]) for index, (name, kind) in enumerate(keys)
    }
    columns[EVENT_TIME] = pa.array([row.event_ns for _, row in rows], pa.int64())
    for name, kind in types.items():
        stored, member = STORED[kind]
        protos = [Value.FromString(row.values[name]) for _, row in rows]
        values = [getattr(proto, member) if proto.WhichOneof("val") else None for proto in protos]
        if stored == "timestamp_ns":
            values = [None if value is None else value * 1_000_000_000 for value in values]
        columns[name] = pa.array(values, pa.int64() if stored == "timestamp_ns" else _ARROW[stored]).cast(
            _ARROW[stored]
        )
    return pa.table(columns)


def _kept(before: BaseRows, table: Table, published: BaseRows | None) -> pa.Table:
    """Rows of the last fold that nothing replaced since."""
    rows = rows_of(before.view)
    keep = np.ones(rows.num_rows, dtype=bool)
    for key in table.rows:
        row = before.find(unpack_key(key))
        if row >= 0:
            keep[row] = False
    if published is not None and published.at_ns >= before.at_ns:
        keys = zip(*(rows[name].to_pylist() for name in sorted(before.view.entities)), strict=True)
        for index, values in enumerate(keys):
            found = published.one(values)
            keep[index] &= found is None or found.event_ns <= before.view.event_time_ns(index)
    return rows.filter(pa.array(keep))

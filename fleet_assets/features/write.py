"""Rows into a feature table, outside of a replay: what Feast pushes, publications of places and maps, lists of datasets.

In: rows with a table's columns. Out: one audited transaction in which they replace the rows of the same primary key; other
rows of the same drive stay. The drive's version is a hash of what it then holds, so a repeat publishes nothing new.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.errors import FleetError
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.publish import Published
from fleet_assets.lake.tables import contract_of, day_of
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import version_of

CODE_VERSION = "1"


def upsert(
    lake: Lake,
    table: str,
    rows: pa.Table,
    *,
    name: str,
    run_id: str | None = None,
    objects: Mapping[str, Path] | None = None,
    code_version: str = CODE_VERSION,
) -> Published | None:
    """rows: the contract's columns; what they lack is null, `day` is told from the drive, and columns of times may be timestamps.
    objects: files to go with them, by path in the lake. code_version: what made the rows. Raises FleetError, AuditFailed."""
    contract = contract_of(table)
    given = conform(table, rows)
    drives = sorted(pc.unique(given["drive_id"]).to_pylist())

    def body(tx: Transaction) -> None:
        before = tx.base.scan(table, drives=drives)
        merged = _replaced(before, given, contract.primary_key)
        for drive in drives:
            held = merged.filter(pc.equal(merged["drive_id"], drive))
            tx.declare(
                drive,
                version_of(inputs={"rows": _hash(held)}, code_version=code_version, contracts=[contract.fingerprint]),
            )
            if tx.is_done(drive):
                tx.forget(drive)
            else:
                tx.append(table, held)
                tx.count(drive, {table: held.num_rows})
        for path, file in (objects or {}).items():
            tx.put_object(path, file)

    tx, _ = lake.run_transaction(
        body,
        name=name,
        run_id=run_id or f"{name}-{secrets.token_hex(6)}",
        drives=drives,
        tables=[table],
        input_tables=[table],
    )
    return tx.published


def publication_key(kind: str, published: datetime) -> str:
    """What the rows of a publication are filed under, in form of a drive's key. Raises FleetError for a time in the future."""
    if published > datetime.now(UTC):
        raise FleetError(
            f"{published:%Y-%m-%d %H:%M:%S} has not come yet", remedy="Publish what is known now, as of now."
        )
    return f"{kind}--{published.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def conform(table: str, rows: pa.Table) -> pa.Table:
    """Rows in the contract's columns and types. Raises FleetError for a column that is not in the contract, or that it needs."""
    contract = contract_of(table)
    schema = contract.arrow_schema
    unknown = [name for name in rows.column_names if name not in schema.names]
    derived = {"day"} if "drive_id" in rows.column_names else set()
    missing = [
        field.name for field in schema if not field.nullable and field.name not in {*rows.column_names, *derived}
    ]
    if unknown or missing:
        parts = [("unknown", unknown), ("missing", missing)]
        raise FleetError(
            f"The rows do not fit {contract.name} {contract.version}",
            where="; ".join(f"{what} {', '.join(names)}" for what, names in parts if names),
            remedy="Give the contract's columns; docs/reference lists them.",
        )
    columns = []
    for field in schema:
        if field.name in rows.column_names:
            columns.append(_cast(rows[field.name], field))
        elif field.name == "day":
            columns.append(pa.array([day_of(drive) for drive in rows["drive_id"].to_pylist()], field.type))
        else:
            columns.append(pa.nulls(rows.num_rows, field.type))
    return pa.table(columns, schema=schema)


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type) and pa.types.is_integer(field.type):
        return column.cast(pa.timestamp("ns", column.type.tz)).cast(field.type)
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FleetError(
            f"Column {field.name} does not fit the contract",
            where=str(error),
            remedy=f"Give values of type {field.type}.",
        ) from error


def _replaced(before: pa.Table, given: pa.Table, key: tuple[str, ...]) -> pa.Table:
    """Rows of before whose key is not given, and the given ones, sorted by key. Of several given rows with one key the last
    counts."""
    both = pa.concat_tables([before, given])
    numbered = both.select(list(key)).append_column("row", pa.array(range(both.num_rows)))
    last = numbered.group_by(list(key), use_threads=False).aggregate([("row", "max")])
    return both.take(last["row_max"]).sort_by([(name, "ascending") for name in key])


def _hash(rows: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()[:16]

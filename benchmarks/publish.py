"""Publishing on real lakeFS: one to ten tables, branches of growing size, and replacing drives that share files.

In: nothing. Out: seconds from an audited branch to the merge on main, as Published tells them. Rows are made up, and not
audited, which is not timed anyway. Every publication also writes lake.versions.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.harness import Options, Row, installation
from fleet_assets.contracts.audit import AuditResult
from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.model import TableContract
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.publish import Published
from fleet_assets.lake.tables import day_of
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import DriveVersion

_GOAL_S = 0.3
_REPEATS = 5
_BIGGEST_FIRST = ("ingest.messages", "ingest.imu", "ingest.gnss", "ingest.bus_signals", "synchronise.matches")


def rows(options: Options) -> list[Row]:
    """Shortest of five publications each; sizes: rows per table, instead of 1,000, 100,000 and 1,000,000."""
    tables = [*_BIGGEST_FIRST, *(name for name in sorted(load_tables()) if name not in _BIGGEST_FIRST)]
    tables = [name for name in tables if load_tables()[name].per_drive][:10]
    sizes = [int(size) for size in options.sizes] or [1_000, 100_000, 1_000_000]
    found = []
    with installation(["lakefs"]) as home:
        lake = Lake(home, Lake.open(home).repository, auditor=_passes)
        for count in (1, 2, 5, 10):
            done = [_publish(lake, [_drive()], tables[:count], 1_000) for _ in range(_REPEATS)]
            found.append(_row(f"first publish, {count} tables", done, f"goal {_GOAL_S} s with ten tables"))
        for size in sizes:
            done = [_publish(lake, [_drive()], tables[:2], size) for _ in range(_REPEATS)]
            found.append(_row(f"first publish, 2 tables of {size} rows", done, "goal: no growth with the rows"))
        for size in sizes:
            done = [_replacement(lake, tables[:2], size) for _ in range(_REPEATS)]
            note = f"one of ten drives that share a file of {10 * size} rows in each table; what the file costs"
            found.append(_row(f"replace a drive, 2 tables of {size} rows", done, note))
    return found


def _row(work: str, done: Sequence[Published], note: str) -> Row:
    assert all(published.tries == 1 for published in done)
    return {"work": work, "ours_s": min(p.seconds for p in done), "peers_s": {}, "floor_s": None, "note": note}


def _replacement(lake: Lake, tables: Sequence[str], size: int) -> Published:
    drives = [_drive() for _ in range(10)]
    _publish(lake, drives, tables, size)
    replaced = _publish(lake, drives[:1], tables, size)
    assert replaced.replaced_drives == (drives[0],)
    counted = lake.at().scan(tables[0], ["drive_id"], drives=drives)["drive_id"].value_counts().to_pylist()
    assert {entry["values"]: entry["counts"] for entry in counted} == dict.fromkeys(drives, size)
    return replaced


def _drive() -> str:
    return f"bench{secrets.token_hex(6)}--20260105T080000Z"


def _publish(lake: Lake, drives: Sequence[str], tables: Sequence[str], size: int) -> Published:
    def body(tx: Transaction) -> None:
        for drive in drives:
            tx.declare(drive, DriveVersion(secrets.token_hex(8), {}, "bench"))
        for table in tables:
            tx.append(table, pa.concat_tables([_rows(load_tables()[table], drive, size) for drive in drives]))

    tx, _ = lake.run_transaction(body, name="bench", run_id=secrets.token_hex(8), drives=drives, tables=tables)
    assert tx.published is not None
    assert all(tx.published.rows[table] == size * len(drives) for table in tables)
    return tx.published


def _rows(contract: TableContract, drive: str, count: int) -> pa.Table:
    numbers = np.arange(count)
    known: dict[str, Any] = {"drive_id": drive, "day": day_of(drive)}
    columns = []
    for field in contract.arrow_schema:
        if field.name in known:
            columns.append(pa.repeat(pa.scalar(known[field.name], type=field.type), count))
        elif pa.types.is_integer(field.type) or pa.types.is_floating(field.type):
            columns.append(pa.array(numbers).cast(field.type))
        elif field.nullable:
            columns.append(pa.nulls(count, field.type))
        elif pa.types.is_boolean(field.type):
            columns.append(pa.array(numbers % 2 == 0))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([[]] * count, type=field.type))
        else:
            columns.append(pa.repeat("x", count).cast(field.type))
    return pa.Table.from_arrays(columns, schema=contract.arrow_schema)


def _passes(contract: TableContract, frame: Any) -> AuditResult:
    return AuditResult(contract.name, frame.num_rows, [])

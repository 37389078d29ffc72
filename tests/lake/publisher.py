"""Rows and publications for the lake's tests, in this process or in processes of their own that tests may kill.

In: a small plan, as keyword arguments or as JSON on the command line. Out: rows on main; one line of JSON per event.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fleet_assets.contracts.audit import AuditResult, RuleResult
from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.model import TableContract
from fleet_assets.contracts.rules import evaluate
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.publish import Published
from fleet_assets.lake.session import spark_session
from fleet_assets.lake.tables import VERSIONS, day_of
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import DriveVersion
from fleet_assets.services.home import Home

IMU, GNSS = "ingest.imu", "ingest.gnss"
TABLES = (IMU, GNSS)
MARKED = ("accel_x_mps2", "latitude_deg")  # of TABLES: a value there tells publications apart
__all__ = ["GNSS", "IMU", "TABLES", "VERSIONS", "publish", "rows", "rows_by_mark"]


def judge(contract: TableContract, rows: Any) -> AuditResult:
    """The contract's rules without Great Expectations, which takes ten seconds to import in every process. The
    contracts' own tests hold the two together; test_audit.py uses the real one."""
    results = [
        RuleResult(failure.rule, False, failure.count, failure.sample_rows)
        for scope in ("row", "drive", "table")
        for failure in evaluate(contract, rows, scope)
    ]
    return AuditResult(contract.name, rows.num_rows, results)


def rows(table: str, drive: str, count: int, mark: float = 0.0) -> pa.Table:
    """Valid rows of one drive. mark: see MARKED."""
    schema = load_tables()[table].arrow_schema
    numbers = np.arange(count, dtype=np.int64)
    given: dict[str, Any] = {
        "drive_id": [drive] * count,
        "day": [day_of(drive)] * count,
        "stream": ["imu"] * count,
        "vehicle": [drive.split("--")[0]] * count,
        "recording_id": [f"{number:064x}" for number in numbers],
    }
    columns = []
    for field in schema:
        if field.name in given:
            columns.append(pa.array(given[field.name], type=field.type))
        elif field.name in ("sequence", "frame") or field.name.startswith("t_"):
            columns.append(pa.array(numbers, type=field.type))
        elif pa.types.is_floating(field.type):
            value = mark if field.name in MARKED else 0.0
            columns.append(pa.array(np.full(count, value), type=field.type))
        elif field.nullable:
            columns.append(pa.nulls(count, field.type))
        elif pa.types.is_integer(field.type) or pa.types.is_boolean(field.type):
            columns.append(pa.array(np.zeros(count)).cast(field.type))
        elif pa.types.is_list(field.type):
            columns.append(pa.array([[]] * count, type=field.type))
        else:
            columns.append(pa.array(["x"] * count, type=field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def publish(
    lake: Lake,
    drives: Sequence[str],
    *,
    run_id: str,
    count: int = 100,
    mark: float = 0.0,
    version: str = "v1",
    tables: Sequence[str] = TABLES,
    input_tables: Sequence[str] = (),
    by_spark: bool = False,
    on_step: Callable[[int], None] | None = None,
    before_leaving: Callable[[Transaction], None] | None = None,
) -> Published:
    """One append per table with all drives in one file, then everything that a run does."""

    def body(tx: Transaction) -> None:
        due = []
        for drive in drives:
            tx.declare(drive, DriveVersion(version, {}, "test"))
            if tx.is_done(drive):
                tx.forget(drive)
            else:
                due.append(drive)
        for table in tables if due else ():
            made = pa.concat_tables([rows(table, drive, count, mark) for drive in due])
            if by_spark:
                tx.append_frame(table, spark_session(lake.home).createDataFrame(made))
            else:
                tx.append(table, made)
        if before_leaving is not None:
            before_leaving(tx)

    tx, _ = lake.run_transaction(
        body, name="test", run_id=run_id, drives=drives, tables=tables, input_tables=input_tables, on_step=on_step
    )
    assert tx.published is not None
    return tx.published


def rows_by_mark(lake: Lake, table: str = IMU, ref: str = "main") -> dict[str, set[tuple[float, int]]]:
    """drive -> {(mark, rows)}."""
    column = MARKED[TABLES.index(table)]
    found = lake.at(ref).scan(table, ["drive_id", column]).group_by(["drive_id", column]).aggregate([([], "count_all")])
    result: dict[str, set[tuple[float, int]]] = {}
    for row in found.to_pylist():
        result.setdefault(row["drive_id"], set()).add((row[column], row["count_all"]))
    return result


def main() -> None:
    """{"home", "repository", "publications": [keyword arguments of publish], "die_at": step, "pause_s": per step}"""
    plan = json.loads(sys.argv[1])
    lake = Lake(*_parts(plan), auditor=judge)

    def on_step(step: int) -> None:
        print(json.dumps({"step": step}), flush=True)
        if step == plan.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(plan.get("pause_s", 0.0))

    print(json.dumps({"begun": True}), flush=True)
    for publication in plan["publications"]:
        done = publish(lake, on_step=on_step, **publication)
        print(json.dumps({"commit_id": done.commit_id, "tries": done.tries}), flush=True)


def _parts(plan: dict[str, Any]) -> tuple[Home, Any]:
    lake = Lake.open(Home.open(Path(plan["home"])), plan["repository"])
    return lake.home, lake.repository


if __name__ == "__main__":
    main()

"""Spark and delta-rs on the same tables: every column type in use, both ways, whoever made the table."""

from __future__ import annotations

from datetime import date
from typing import Any

import pyarrow as pa
import pytest
from lake.conftest import new_lake
from lake.publisher import rows

from fleet_assets.contracts.generate import ddl
from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.model import TableContract
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.session import spark_session
from fleet_assets.lake.tables import VERSIONS, open_table
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import DriveVersion
from fleet_assets.services.home import Home

pytestmark = pytest.mark.services
A, B = "car1--20260101T080000Z", "car2--20261231T235959Z"
# Together they have every column type in use; see test_every_type_is_covered.
COVERING = ("ingest.recordings", "ingest.gnss", "ingest.quarantine", "curate.samples")


def edge_rows(contract: TableContract, drive: str, day: date) -> pa.Table:
    """Three rows: full of edge values, null where allowed, empty."""
    values: dict[str, list[Any]] = {
        "string": ["Straße 'x' \"y\" \\ % 東京", "", " "],
        "long": [2**63 - 1, -(2**63), 0],
        "double": [1.7976931348623157e308, -5e-324, 0.1],
        "boolean": [True, False, True],
        "binary": [b"\x00\xff\n", b"", b"x"],
        "array<string>": [["a", "", "ü"], [], ["b"]],
    }
    structs = {
        "name": "n", "version": "v", "key": "k", "value": None, "source": "s", "path": "p/q", "bytes": 2**40,
        "sha256": "00", "reason": "r", "count": 1, "first_position": "row 0",
    }  # fmt: skip
    columns: dict[str, list[Any]] = {}
    for column, field in zip(contract.columns, contract.arrow_schema, strict=True):
        if column.name == "drive_id":
            columns[column.name] = [drive] * 3
        elif column.name == "day":
            columns[column.name] = [day] * 3
        elif pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            names = [member.name for member in field.type.value_type]
            one = {name: structs.get(name) for name in names}
            columns[column.name] = [[one, one], [], [one]]
        else:
            columns[column.name] = list(values[column.type])
        if not column.required:
            columns[column.name][1] = None
    return pa.Table.from_pydict(columns, schema=contract.arrow_schema)


def plain(table: pa.Table | list[dict[str, Any]], contract: TableContract) -> list[dict[str, Any]]:
    found = table.to_pylist() if isinstance(table, pa.Table) else table
    found = [{name: row[name] for name in contract.arrow_schema.names} for row in found]
    return sorted(found, key=repr)


def read_with_spark(lake: Lake, ref: str, contract: TableContract) -> list[dict[str, Any]]:
    location = lake.repository.uri(ref, contract.location, "s3a")
    frame = spark_session(lake.home).read.format("delta").load(location)
    return [row.asDict(recursive=True) for row in frame.collect()]


def test_every_type_is_covered() -> None:
    def types(names: Any) -> set[str]:
        kinds = {column.type for name in names for column in load_tables()[name].columns}
        return {"array<struct>" if kind.startswith("array<struct") else kind for kind in kinds}

    assert types(COVERING) == types(load_tables())


@pytest.fixture(scope="module")
def both_lake(spark_home: Home) -> Lake:
    return new_lake(spark_home, COVERING)


@pytest.mark.parametrize("table", COVERING)
@pytest.mark.parametrize("maker", ["delta-rs", "spark"])
def test_they_read_each_others_rows(both_lake: Lake, table: str, maker: str) -> None:
    lake, contract = both_lake, load_tables()[table]
    spark = spark_session(lake.home)
    branch = f"{maker}-{table.replace('.', '-')}"
    lake.repository.create_branch(branch, "main")
    location = lake.repository.uri(branch, contract.location, "s3a")
    if maker == "spark":
        lake.repository.delete(branch, [item.path for item in lake.repository.list(branch, contract.location + "/")])
        spark.sql(ddl(contract, location)).collect()
    from deltalake import write_deltalake

    ours = edge_rows(contract, A, date(2026, 1, 1))
    theirs = edge_rows(contract, B, date(2026, 12, 31))
    write_deltalake(open_table(lake.repository, branch, contract), ours, mode="append")
    columns = ", ".join(f"`{column.name}` {column.type}" for column in contract.columns)
    spark.createDataFrame(theirs.to_pylist(), columns).write.format("delta").mode("append").save(location)
    expected = plain(pa.concat_tables([ours, theirs]), contract)
    assert plain(read_with_spark(lake, branch, contract), contract) == expected
    lake.repository.commit(branch, "both")
    snapshot = lake.at(branch)
    assert plain(snapshot.scan(table), contract) == expected
    # Each rewrites what the other wrote.
    spark.sql(f"OPTIMIZE delta.`{location}`").collect()
    open_table(lake.repository, branch, contract).delete(f"drive_id = '{A}'")
    spark.sql(f"UPDATE delta.`{location}` SET drive_id = '{A}'").collect()
    renamed = [{**row, "drive_id": A} for row in plain(theirs, contract)]
    lake.repository.commit(branch, "rewritten")
    assert plain(lake.at(branch).scan(table), contract) == sorted(renamed, key=repr)
    assert plain(read_with_spark(lake, branch, contract), contract) == sorted(renamed, key=repr)


def test_rows_that_spark_appends_are_published_with_their_statistics(spark_lake: Lake) -> None:
    lake, table = spark_lake, "ingest.imu"
    contract = load_tables()[table]

    def body(tx: Transaction) -> None:
        for drive in (A, B):
            tx.declare(drive, DriveVersion("v1", {}, "test"))
        columns = ", ".join(f"`{column.name}` {column.type}" for column in contract.columns)
        both = pa.concat_tables([rows(table, drive, 50, 1.0) for drive in (A, B)])
        tx.append_frame(table, spark_session(lake.home).createDataFrame(both.to_pandas(), columns))

    tx, _ = lake.run_transaction(body, name="test", run_id="run1", drives=[A, B], tables=[table])
    assert tx.published is not None
    assert tx.published.rows == {table: 100}
    snapshot = lake.at()
    assert snapshot.row_count(table) == 100
    actions = pa.table(snapshot.table(table).get_add_actions(flatten=True)).to_pylist()
    assert {(action["min.drive_id"], action["max.drive_id"]) for action in actions} == {(A, A), (B, B)}
    assert snapshot.scan(table, ["accel_x_mps2"], drives=[B])["accel_x_mps2"].to_pylist() == [1.0] * 50
    assert {name: version.rows for (_, name), version in snapshot.versions([A]).items()} == {table: 50}
    assert len(plain(read_with_spark(lake, "main", load_tables()[VERSIONS]), load_tables()[VERSIONS])) == 2

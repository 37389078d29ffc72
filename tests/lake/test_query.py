"""`fleet query`: one SELECT at one commit gives what pyarrow gives; everything else is refused before an engine sees it."""

from __future__ import annotations

import string

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lake.conftest import new_lake
from lake.publisher import GNSS, IMU, publish

from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.query import rewrite
from fleet_assets.services.home import Home

A, B = "car1--20260101T080000Z", "car2--20260101T090000Z"
ON_LAKE = pytest.mark.services

REFUSED = {
    "DELETE FROM ingest.imu": "not DELETE",
    "UPDATE ingest.imu SET sequence = 1": "not UPDATE",
    "INSERT INTO ingest.imu SELECT * FROM ingest.imu": "not INSERT",
    "MERGE INTO ingest.imu USING ingest.gnss ON 1 = 1 WHEN MATCHED THEN DELETE": "not MERGE",
    "WITH x AS (DELETE FROM ingest.imu RETURNING *) SELECT * FROM x": "DELETE",
    "SELECT 1 UNION (WITH x AS (INSERT INTO ingest.imu VALUES (1) RETURNING *) SELECT 1 FROM x)": "INSERT",
    "DROP TABLE ingest.imu": "not DROP",
    "CREATE TABLE x AS SELECT * FROM ingest.imu": "not CREATE",
    "CREATE EXTERNAL TABLE x STORED AS CSV LOCATION '/etc/passwd'": "not CREATE",
    "ALTER TABLE ingest.imu DROP COLUMN sequence": "not ALTER",
    "TRUNCATE ingest.imu": "not TRUNCATE",
    "SELECT * INTO x FROM ingest.imu": "INTO",
    "SELECT * FROM ingest.imu FOR UPDATE": "LOCK",
    "SELECT * FROM (SELECT * FROM ingest.imu FOR SHARE) AS x": "LOCK",
    "COPY ingest.imu TO '/tmp/x'": "not COPY",
    "COPY (SELECT * FROM ingest.imu) TO '/tmp/x.csv'": "not COPY",
    "SET datafusion.catalog.information_schema = true": "not SET",
    "SHOW TABLES": "not COMMAND",
    "EXPLAIN SELECT 1": "not COMMAND",
    "VALUES (1)": "not VALUES",
    "SELECT 1; SELECT 2": "2 statements",
    "SELECT 1; DROP TABLE ingest.imu": "2 statements",
    "": "0 statements",
    "-- nothing": "0 statements",
    "SELECT FROM WHERE": "no SQL",
    "what drives are there?": "no SQL",
    "SELECT * FROM '/etc/passwd'": "no table /etc/passwd",
    'SELECT * FROM "/etc/passwd"': "no table /etc/passwd",
    "SELECT * FROM 'file:///etc/passwd'": "no table file",
    "SELECT * FROM 's3://fleet/main/secrets.parquet'": "no table s3",
    "SELECT * FROM read_csv('/etc/passwd')": "Table function",
    "SELECT * FROM read_parquet('/tmp/x.parquet')": "Table function",
    "SELECT * FROM generate_series(1, 1000000000000)": "GENERATE_SERIES",
    "SELECT count(*) FROM unnest(range(0, 1000000000000))": "range",
    "SELECT repeat('x', 2000000000)": "repeat",
    "SELECT lpad('x', 2000000000)": "pad",
    "SELECT array_repeat(1, 2000000000)": "array_repeat",
    "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t) SELECT count(*) FROM t": "RECURSIVE",
    "SELECT * FROM ingest.imu TABLESAMPLE BERNOULLI (10)": "TABLESAMPLE",
    "SELECT * FROM ingest.imu PIVOT (sum(sequence) FOR stream IN ('imu'))": "PIVOT",
    "SELECT * FROM ingest.imv": "Did you mean ingest.imu",
    "SELECT * FROM imu": "no table imu",
    "SELECT * FROM information_schema.tables": "no table information_schema",
    "SELECT * FROM fleet.ingest.imu": "no catalogue",
    "SELECT * FROM ingest__imu": "no table ingest__imu",
    "SELECT 1 WHERE EXISTS (SELECT * FROM other.things)": "no table other.things",
    "SELECT '\ud800'": "cannot be printed",
    "SELECT 1 AS \x00": "cannot be printed",
    "SELECT " + "(" * 2_000 + "1" + ")" * 2_000: "no SQL",
    "SELECT " + "+".join("1" * 9_000): "9001 deep",
    "SELECT 1" + " UNION SELECT 1" * 1_000: "deep",
    "SELECT 1" + " " * 30_000: "characters",
}


@pytest.mark.parametrize("sql", REFUSED, ids=lambda sql: sql[:60].encode("unicode_escape").decode())
def test_anything_but_one_select_over_contract_tables_is_refused(sql: str) -> None:
    with pytest.raises(FleetError) as caught:
        rewrite(sql, 10)
    assert REFUSED[sql].lower() in str(caught.value).lower()
    assert len(str(caught.value).splitlines()) == 1


def test_a_cte_named_as_a_table_does_not_stand_for_it() -> None:
    text, tables = rewrite("WITH imu AS (SELECT 1 AS a) SELECT * FROM ingest.imu", 10)
    assert tables == {IMU}
    assert "ingest__imu" in text.partition(" FROM ")[2]


_WORDS = st.sampled_from(
    [
        *(
            "SELECT",
            "FROM",
            "ingest.imu",
            "imu",
            "(",
            ")",
            ",",
            "*",
            "1",
            "'a'",
            "WITH x AS",
            "x",
            "JOIN",
            "ON",
            "WHERE",
        ),
        *(
            "IN",
            "UNION",
            "INTO",
            "DELETE",
            "UPDATE",
            "DROP TABLE",
            "COPY",
            "FOR UPDATE",
            ";",
            "LIMIT 5",
            "'/etc/passwd'",
        ),
        *("count", "$1", "LATERAL", "unnest", "ORDER BY", "AS", "ROWS FROM", "read_csv", "EXISTS", "--", "/*"),
        *("VALUES (1)", "CALL f()"),
    ]
)
_TEXT = st.lists(_WORDS, max_size=25).map(" ".join) | st.text(string.printable + "ä\ud800\x00", max_size=200)


@settings(max_examples=400, deadline=None)
@given(_TEXT)
@example("FROM SELECT ingest.imu")
def test_any_text_is_refused_or_reads_contract_tables_alone(sql: str) -> None:
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import SqlglotError

    try:
        text, tables = rewrite(sql, 7)
        (statement,) = sqlglot.parse(text, dialect="postgres")
    except (FleetError, SqlglotError):  # what sqlglot cannot read again, the engine refuses
        return
    assert isinstance(statement, (exp.Select, exp.SetOperation))
    assert tables <= set(load_tables())
    ours = {table.replace(".", "__") for table in tables} | {cte.alias for cte in statement.find_all(exp.CTE)}
    assert {table.name for table in statement.find_all(exp.Table)} <= ours
    limit = statement.args["limit"].expression.name
    assert limit == "7"


@pytest.fixture(scope="module")
def lake(lakefs_home: Home) -> Lake:
    """Two drives, one of them twice."""
    lake = new_lake(lakefs_home)
    first = publish(lake, [A, B], run_id="run1", count=40, mark=1.0)
    lake.repository.tag("before", first.commit_id)
    publish(lake, [B], run_id="run2", count=10, mark=2.0, version="v2")
    return lake


@ON_LAKE
def test_results_are_those_of_pyarrow(lake: Lake) -> None:
    snapshot = lake.at()
    imu, gnss = snapshot.scan(IMU), snapshot.scan(GNSS)

    found = snapshot.query("SELECT * FROM ingest.imu ORDER BY drive_id, sequence", limit=1000)
    expected = imu.sort_by([("drive_id", "ascending"), ("sequence", "ascending")])
    assert found.column_names == expected.column_names
    assert found.cast(expected.schema).equals(expected)

    found = snapshot.query(
        "SELECT drive_id, count(*) AS n, sum(ingest.imu.sequence) AS s, max(accel_x_mps2) AS a FROM ingest.imu "
        "WHERE sequence % 2 = 1 GROUP BY drive_id ORDER BY drive_id",
        limit=10,
    )
    odd = imu.filter(pc.equal(pc.bit_wise_and(imu["sequence"], 1), 1))
    grouped = odd.group_by("drive_id").aggregate([([], "count_all"), ("sequence", "sum"), ("accel_x_mps2", "max")])
    grouped = grouped.rename_columns(["drive_id", "n", "s", "a"]).sort_by("drive_id")
    assert found.to_pylist() == grouped.to_pylist()

    found = snapshot.query(
        "WITH late AS (SELECT * FROM ingest.gnss WHERE t_host_ns > 5) "
        "SELECT count(*) AS n FROM ingest.imu AS i JOIN late AS g ON i.drive_id = g.drive_id AND i.sequence = g.sequence",
        limit=10,
    )
    joined = imu.select(["drive_id", "sequence"]).join(
        gnss.filter(pc.greater(gnss["t_host_ns"], 5)).select(["drive_id", "sequence"]),
        ["drive_id", "sequence"],
        join_type="inner",
    )
    assert found.to_pylist() == [{"n": joined.num_rows}]


@ON_LAKE
def test_columns_of_one_name_are_told_apart(lake: Lake) -> None:
    found = lake.at().query(
        "SELECT * FROM ingest.imu AS i JOIN ingest.gnss AS g ON i.drive_id = g.drive_id AND i.sequence = g.sequence",
        limit=3,
    )
    names = found.column_names
    columns = [*load_tables()[IMU].arrow_schema.names, *load_tables()[GNSS].arrow_schema.names]
    assert len(names) == len(set(names)) == len(columns)
    assert names == [name if name not in columns[:place] else f"{name}_2" for place, name in enumerate(columns)]
    assert all(len(row) == len(columns) for row in found.to_pylist())

    # The name that a number would give may be taken; a limit makes the engine number them in its own way.
    found = lake.at().query(
        "SELECT i.drive_id, g.drive_id, g.stream AS drive_id_2 FROM ingest.imu AS i JOIN ingest.gnss AS g USING (sequence)",
        limit=1,
    )
    assert found.column_names == ["drive_id", "drive_id_3", "drive_id_2"]
    found = lake.at().query("SELECT * FROM ingest.imu AS i JOIN ingest.gnss AS g USING (sequence) LIMIT 2", limit=1)
    assert len(set(found.column_names)) == len(columns) - 1


@ON_LAKE
def test_old_commits_and_tags_give_old_rows(lake: Lake) -> None:
    sql = f"SELECT count(*) AS n, max(accel_x_mps2) AS mark FROM ingest.imu WHERE drive_id = '{B}'"
    then = [{"n": 40, "mark": 1.0}]
    assert lake.at("main").query(sql, limit=1).to_pylist() == [{"n": 10, "mark": 2.0}]
    assert lake.at("before").query(sql, limit=1).to_pylist() == then
    assert lake.at(lake.at("before").commit_id).query(sql, limit=1).to_pylist() == then
    with pytest.raises(FleetError, match="no reference nowhere"):
        lake.at("nowhere")


@ON_LAKE
@pytest.mark.parametrize("own", ["", " LIMIT 30", " LIMIT 2", " OFFSET 3", " LIMIT 30 OFFSET 3"])
def test_the_row_limit_holds_and_keeps_the_order(lake: Lake, own: str) -> None:
    sql = f"SELECT sequence FROM ingest.imu WHERE drive_id = '{A}' ORDER BY sequence DESC{own}"
    expected = list(range(39, -1, -1))[3 if "OFFSET" in own else 0 :][: 2 if "LIMIT 2" in own else 5]
    assert lake.at().query(sql, limit=5)["sequence"].to_pylist() == expected


@ON_LAKE
@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_read_file('/etc/passwd')",
        "SELECT getenv('HOME')",
        "SELECT current_setting('data_directory')",
        "SELECT no_such_column FROM ingest.imu",
        "SELECT * FROM (WITH y AS (SELECT 1) SELECT * FROM y) AS z, y",  # y is known inside only
        'WITH "ingest.gnss" AS (SELECT 1) SELECT drive_id FROM "ingest.gnss"',
        "SELECT 1 / 0",
        "SELECT to_timestamp('x')",
        "SELECT drive_id FROM ingest.imu GROUP BY stream",
    ],
)
def test_what_the_engine_refuses_is_one_clear_line(lake: Lake, sql: str) -> None:
    with pytest.raises(FleetError, match="The query failed") as caught:
        lake.at().query(sql, limit=5)
    assert len(str(caught.value).splitlines()) == 1


@ON_LAKE
def test_as_deep_as_is_taken_is_carried_out(lake: Lake) -> None:
    found = lake.at().query("SELECT " + "+".join("1" * 490) + " AS n", limit=1)
    assert found.to_pylist() == [{"n": 490}]
    drives = ", ".join(f"'car{n}--20260101T000000Z'" for n in range(600))
    found = lake.at().query(f"SELECT count(*) AS n FROM ingest.imu WHERE drive_id IN ({drives}, '{A}')", limit=1)
    assert found == pa.table({"n": pa.array([40], pa.int64())}, schema=found.schema)

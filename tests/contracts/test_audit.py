"""Great Expectations and the evaluator say the same, on pandas and on Spark."""

from __future__ import annotations

import math
import socket
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_assets.contracts import model
from fleet_assets.contracts.audit import audit, suite
from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.model import Column, Rule, TableContract
from fleet_assets.contracts.rules import SAMPLE_ROWS, evaluate

SCHEMA = pa.schema(
    [
        ("a", pa.int64()),
        ("b", pa.int64()),
        ("x", pa.float64()),
        ("s", pa.string()),
        ("k", pa.bool_()),
        ("d", pa.date32()),
    ]
)
RULES = [
    (model.NOT_NULL, {"column": "x"}),
    (model.NOT_NULL, {"column": "a", "mostly": 0.6}),
    (model.NOT_NULL, {"column": "d"}),
    (model.BETWEEN, {"column": "x", "min_value": -64, "strict_min": True, "max_value": 64}),
    (model.BETWEEN, {"column": "x", "min_value": 0, "mostly": 0.6}),
    (model.BETWEEN, {"column": "a", "min_value": 0}),
    (model.BETWEEN, {"column": "b", "max_value": 2, "strict_max": True, "mostly": 0.5}),
    (model.IN_SET, {"column": "s", "value_set": ["on", "off"]}),
    (model.IN_SET, {"column": "a", "value_set": [0, 1, 2**63 - 1]}),
    (model.IN_SET, {"column": "k", "value_set": [True]}),
    (model.REGEX, {"column": "s", "regex": "^(?:on|off)$"}),
    (model.PAIR, {"column_A": "a", "column_B": "b", "or_equal": True}),
    (model.PAIR, {"column_A": "a", "column_B": "b", "mostly": 0.5}),
    (model.UNIQUE, {"column": "a"}),
    (model.UNIQUE_TOGETHER, {"column_list": ["a", "s"]}),
    (model.ROW_COUNT, {"min_value": 1, "max_value": 6}),
]
INT64 = st.none() | st.integers(-2, 3) | st.sampled_from([-(2**63), 2**63 - 1, 2**53, 2**53 + 1])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": INT64,
            "b": INT64,
            "x": st.none() | st.sampled_from([-64.0, 0.0, 64.0, math.nan, math.inf, -math.inf, 1e308]),
            "s": st.none() | st.sampled_from(["", "on", "off", "ON", "on off", "ø"]),
            "k": st.none() | st.booleans(),
            "d": st.none() | st.dates(),
        }
    ),
    max_size=8,
)


def contract_of(rules: list[Rule]) -> TableContract:
    names = {pa.int64(): "long", pa.float64(): "double", pa.string(): "string", pa.bool_(): "boolean"}
    return TableContract(
        name="demo.things",
        version="1.0.0",
        description="Things.",
        owner="team:fleet",
        columns=tuple(Column(f.name, names.get(f.type, "date"), False, "A column.", "none") for f in SCHEMA),
        primary_key=(),
        partition_by=(),
        rules=tuple(rules),
        per_drive=False,
        keeps_quarantined=False,
        freshness_hours=None,
        retention_class="permanent",
        residency="fleet region",
        join_limits={},
        usage="",
        limitations="",
        fingerprint="",
        path=Path("demo.things.odcs.yaml"),
    )


CONTRACT = contract_of([Rule(f"rule {i}", "table", True, e, kwargs, "why") for i, (e, kwargs) in enumerate(RULES)])


def verdicts(table: pa.Table) -> dict[str, int]:
    return {failure.rule.name: failure.count for failure in evaluate(CONTRACT, table, "table")}


def audited(result) -> dict[str, int]:
    # A rule on the number of rows has no unexpected rows; the evaluator gives the number itself.
    return {
        r.rule.name: result.rows if r.rule.expectation == model.ROW_COUNT else r.unexpected_count
        for r in result.failures
    }


@pytest.mark.slow
@given(rows=ROWS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_both_say_the_same(rows):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    result = audit(CONTRACT, table)
    assert not [r.detail for r in result.results if r.detail and r.rule.expectation != model.ROW_COUNT]
    assert audited(result) == verdicts(table)
    assert result.rows == len(rows)


def test_pandas_frames_are_taken_as_they_come():
    import pandas as pd

    table = pa.table(
        {"a": [1, None], "b": [2, 1], "x": [0.0, 70.0], "s": ["on", "x"], "k": [True, None], "d": [None, None]}
    )
    table = table.cast(SCHEMA)
    plain = table.to_pandas()
    nullable = table.to_pandas(types_mapper={pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}.get)
    nullable.index = [7, 7]
    for frame in (plain, nullable):
        assert audited(audit(CONTRACT, frame)) == verdicts(table)


def test_failures_say_which_rows():
    table = pa.table({"a": pa.array(range(-50, 10)), "b": pa.nulls(60, pa.int64()), "x": [0.0] * 60, "s": ["on"] * 60})
    rule = Rule("a counts from 0", "table", True, model.BETWEEN, {"column": "a", "min_value": 0}, "why")
    mild = Rule("a is 0", "table", False, model.BETWEEN, {"column": "a", "min_value": 0, "max_value": 0}, "why")
    result = audit(contract_of([rule, mild]), table)
    assert not result.ok
    (failure,) = result.failures
    assert failure.unexpected_count == 50
    assert [row["a"] for row in failure.sample_rows] == list(range(-50, -50 + SAMPLE_ROWS))
    assert failure.sentence.startswith("a counts from 0: 50 rows, first {'a': -50")
    assert [warning.rule.name for warning in result.warnings] == ["a is 0"]


def test_an_error_inside_a_rule_is_a_failure_with_its_text():
    rule = Rule("no such column", "table", True, model.NOT_NULL, {"column": "gone"}, "why")
    (failure,) = audit(contract_of([rule]), pa.table({"a": [1]})).failures
    assert "gone" in failure.detail


def test_rows_are_counted_per_drive():
    rule = Rule("two rows", "drive", True, model.ROW_COUNT, {"min_value": 2}, "why")
    table = pa.table({"drive_id": ["a", "a", "b"], "x": [1.0, 2.0, 3.0]})
    (failure,) = audit(contract_of([rule]), table).failures
    assert failure.unexpected_count == 1
    assert failure.sample_rows[0]["drive_id"] == "b"
    assert audit(contract_of([rule]), table.slice(0, 2)).ok
    assert audit(contract_of([rule]), table.slice(0, 0)).ok


@pytest.mark.slow
def test_every_contract_makes_a_suite_that_runs_on_an_empty_table():
    for contract in load_tables().values():
        assert len(suite(contract).expectations) == len(contract.rules)
        result = audit(contract, contract.arrow_schema.empty_table())
        assert result.ok, result.failures
        assert not [r.detail for r in result.results if r.detail]


def test_nothing_leaves_the_machine(monkeypatch):
    def refuse(*arguments, **_):
        raise AssertionError(f"a connection to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert audit(CONTRACT, pa.Table.from_pylist([{"a": 1, "x": 1.0, "d": None}], schema=SCHEMA)).rows == 1


@pytest.mark.services
@pytest.mark.slow
def test_spark_frames_are_judged_alike(spark_home):
    from fleet_assets.lake.session import spark_session

    spark = spark_session(spark_home)
    rows = [
        {"a": 1, "b": 2, "x": math.nan, "s": "on", "k": True, "d": None},
        {"a": 1, "b": None, "x": -64.0, "s": "on", "k": None, "d": None},
        {"a": -(2**63), "b": 2**63 - 1, "x": math.inf, "s": None, "k": False, "d": None},
    ]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    columns = ", ".join(f"{column.name} {column.type}" for column in CONTRACT.columns)
    for part in (table, table.slice(0, 0), table.slice(0, 1)):
        result = audit(CONTRACT, spark.createDataFrame(part.to_pylist(), columns))
        assert audited(result) == verdicts(part)
        assert all(r.sample_rows for r in result.failures if r.rule.expectation != model.ROW_COUNT)
    counted = Rule("two rows", "drive", True, model.ROW_COUNT, {"min_value": 2}, "why")
    frame = spark.createDataFrame(pa.table({"drive_id": ["a", "a", "b"]}))
    (failure,) = audit(contract_of([counted]), frame).failures
    assert failure.sample_rows[0]["drive_id"] == "b"

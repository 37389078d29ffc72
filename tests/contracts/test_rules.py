"""The evaluator: against a row-by-row reading of each rule, and on what the contracts promise."""

from __future__ import annotations

import math
import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.contracts import model
from fleet_assets.contracts.loader import load_streams, load_tables
from fleet_assets.contracts.model import Rule
from fleet_assets.contracts.rules import (
    SAMPLE_ROWS,
    DriveEvaluation,
    broken,
    evaluate,
    evaluate_drive,
    evaluate_rows,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.int64()), ("x", pa.float64()), ("s", pa.string())])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "a": st.none() | st.integers(-2, 2) | INT64,
            "b": st.none() | st.integers(-2, 2) | INT64,
            "x": st.none() | st.sampled_from([-64.0, 0.0, 64.0, math.nan, math.inf, -math.inf]) | st.floats(),
            "s": st.none() | st.sampled_from(["", "on", "off", "on\n", "ON"]) | st.text(max_size=4),
        }
    ),
    max_size=12,
)
RULES = [
    (model.NOT_NULL, {"column": "x"}, lambda r: r["x"] is not None),
    (model.NOT_NULL, {"column": "s"}, lambda r: r["s"] is not None),
    (
        model.BETWEEN,
        {"column": "x", "min_value": -64, "strict_min": True, "max_value": 64},
        lambda r: -64 < r["x"] <= 64,
    ),
    (model.BETWEEN, {"column": "x", "max_value": 0, "strict_max": True}, lambda r: r["x"] < 0),
    (model.BETWEEN, {"column": "a", "min_value": 0}, lambda r: r["a"] >= 0),
    (model.IN_SET, {"column": "s", "value_set": ["on", "off"]}, lambda r: r["s"] in ("on", "off")),
    (model.IN_SET, {"column": "x", "value_set": [0, 64.0]}, lambda r: r["x"] in (0, 64.0)),
    (model.REGEX, {"column": "s", "regex": "^(?:on|off)$"}, lambda r: bool(re.search("^(?:on|off)$", r["s"]))),
    (model.PAIR, {"column_A": "a", "column_B": "b", "or_equal": True}, lambda r: r["a"] >= r["b"]),
    (model.PAIR, {"column_A": "a", "column_B": "b"}, lambda r: r["a"] > r["b"]),
]


def rule_of(expectation, kwargs, scope="row"):
    return Rule("the rule", scope, True, expectation, kwargs, "why")


class Holder:
    def __init__(self, *rules):
        self.rules = rules


@given(rows=ROWS, cut=st.integers(0, 12))
@settings(max_examples=150, deadline=None)
def test_rules_read_row_by_row(rows, cut):
    plain = [{k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()} for row in rows]
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    # In one chunk or more, nothing changes.
    table = pa.concat_tables([table.slice(0, cut), table.slice(cut)])
    for expectation, kwargs, holds in RULES:
        rule = rule_of(expectation, kwargs)
        counted = [expectation == model.NOT_NULL or all(row[c] is not None for c in rule.columns) for row in plain]
        expected = [c and not holds(row) for c, row in zip(counted, plain, strict=True)]
        assert broken(rule, table).tolist() == expected
        drive = rule_of(expectation, {**kwargs, "mostly": 0.75}, "drive")
        fails = any(counted) and (sum(counted) - sum(expected)) / sum(counted) < 0.75
        assert bool(evaluate_drive(Holder(drive), table)) == fails
        batches, pieces = DriveEvaluation(Holder(drive)), [table.slice(n, 3) for n in range(0, table.num_rows, 3)]
        for piece in pieces:
            batches.observe(piece)
        # As text, in which a NaN equals itself.
        whole = repr(evaluate_drive(Holder(drive), table))
        assert repr(batches.failures()) == repr(evaluate_drive(Holder(drive), iter(pieces))) == whole


@given(rows=ROWS)
@settings(max_examples=80, deadline=None)
def test_keys_that_repeat(rows):
    table = pa.Table.from_pylist(rows, schema=SCHEMA)
    for rule in (
        rule_of(model.UNIQUE_TOGETHER, {"column_list": ["a", "s"]}, "table"),
        rule_of(model.UNIQUE, {"column": "s"}, "table"),
    ):
        keys = [tuple(row[column] for column in rule.columns) for row in rows]
        assert broken(rule, table).tolist() == [None not in key and keys.count(key) > 1 for key in keys]


def test_samples_are_bounded_and_the_first():
    table = pa.table({"x": np.arange(100.0)})
    rule = rule_of(model.BETWEEN, {"column": "x", "max_value": 9}, "drive")
    (failure,) = evaluate_drive(Holder(rule), table)
    assert failure.count == 90
    assert [row["x"] for row in failure.sample_rows] == list(range(10, 10 + SAMPLE_ROWS))


def test_row_counts():
    table = pa.table({"x": [1.0, 2.0]})
    low = rule_of(model.ROW_COUNT, {"min_value": 3}, "drive")
    (failure,) = evaluate_drive(Holder(low), table)
    assert (failure.count, failure.sample_rows) == (2, [])
    assert not evaluate_drive(Holder(rule_of(model.ROW_COUNT, {"min_value": 1, "max_value": 2}, "drive")), table)
    assert evaluate_drive(load_streams()["imu"], table.slice(0, 0))


def test_rules_that_do_not_block_cost_nothing():
    table = pa.table({"x": [1.0]})
    mild = Rule("mild", "row", False, model.BETWEEN, {"column": "x", "max_value": 0}, "why")
    assert not evaluate_rows(Holder(mild), table)
    assert not evaluate(Holder(mild), table, "row")
    read: list[pa.Table] = []
    pieces = (read.append(table) or table for _ in range(2))
    mild_for_drives = Rule("mild", "drive", False, model.BETWEEN, {"column": "x", "max_value": 0}, "why")
    assert not evaluate_drive(Holder(mild_for_drives), pieces)
    assert not read


def imu_rows(count: int) -> pa.Table:
    schema = load_tables()["ingest.imu"].arrow_schema
    columns = {field.name: pa.nulls(count, field.type) for field in schema if field.nullable}
    columns |= {
        "sequence": pa.array(range(count), pa.int64()),
        "accel_x_mps2": pa.array([0.0] * count),
        "accel_y_mps2": pa.array([0.0] * count),
        "accel_z_mps2": pa.array([9.81] * count),
    }
    return pa.table(columns)


@pytest.mark.parametrize("value", [-64.0, 64.0, -1e308, math.inf, None, math.nan])
def test_garbage_acceleration_is_refused_and_the_drive_goes_on(value):
    rows = imu_rows(10)
    values = [0.0] * 10
    values[3] = value
    rows = rows.set_column(rows.column_names.index("accel_y_mps2"), "accel_y_mps2", pa.array(values, pa.float64()))
    contract = load_tables()["ingest.imu"]
    (failure,) = evaluate_rows(contract, rows)
    assert np.flatnonzero(failure.mask).tolist() == [3]
    assert failure.rule.name.startswith("acceleration y")
    assert not evaluate_drive(contract, rows)


def test_mostly_garbage_quarantines_the_drive():
    rows = imu_rows(10)
    column = pa.array([-64.0] * 3 + [0.0] * 7)
    rows = rows.set_column(rows.column_names.index("accel_x_mps2"), "accel_x_mps2", column)
    (failure,) = evaluate_drive(load_tables()["ingest.imu"], rows)
    assert (failure.rule.scope, failure.count, len(failure.sample_rows)) == ("drive", 3, 3)


def test_a_ledger_that_does_not_add_up_fails_the_transaction():
    contract = load_tables()["ingest.ledger"]
    row = {field.name: 0 if field.type == pa.int64() else None for field in contract.arrow_schema}
    row |= {"drive_id": "car--20200101T000000Z", "stream": "imu", "unaccounted_rows": 1}
    (failure,) = [f for f in evaluate(contract, pa.Table.from_pylist([row]), "table") if "account" in f.rule.name]
    assert failure.count == 1

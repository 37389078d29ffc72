"""Contracts as they are loaded: what they say of tables, streams and columns."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pyarrow as pa
import pytest

from fleet_assets.contracts.loader import load_streams, load_tables, stream_for
from fleet_assets.contracts.model import KINDS, TABLE_OF_KIND, arrow_type


def test_every_table_of_a_drive_starts_with_its_key():
    for name, contract in load_tables().items():
        assert [column.name for column in contract.columns[:2]] == ["drive_id", "day"], name
        assert contract.partition_by == ("day",)
        assert contract.owner.startswith("team:")
        assert contract.usage
        assert contract.limitations
        assert set(contract.primary_key) <= {column.name for column in contract.columns if column.required}


def test_every_kind_of_stream_can_be_published():
    (rule,) = (
        rule
        for rule in load_tables()["ingest.streams"].rules
        if rule.kwargs.get("column") == "kind" and rule.kwargs.get("value_set")
    )
    assert set(rule.kwargs["value_set"]) == set(KINDS)


def test_times_say_that_they_are_nanoseconds():
    for contract in load_tables().values():
        for column in contract.columns:
            if column.name.endswith("_ns"):
                assert (column.type, column.unit) == ("long", "ns"), f"{contract.name}.{column.name}"


def test_arrow_schema_knows_what_is_never_null():
    schema = load_tables()["ingest.imu"].arrow_schema
    assert schema.field("sequence") == pa.field("sequence", pa.int64(), nullable=False)
    assert schema.field("accel_x_mps2").nullable
    assert schema.field("day").type == pa.date32()


def test_nested_types():
    assert arrow_type("array<struct<a:string,b:array<long>>>") == pa.list_(
        pa.field("element", pa.struct([("a", pa.string()), ("b", pa.list_(pa.field("element", pa.int64())))]))
    )


@pytest.mark.parametrize("text", ["float16", "array<>", "struct<a>", "struct<a:long,>", "array<long", "struct<1:long>"])
def test_unknown_types(text):
    with pytest.raises(ValueError, match="type"):
        arrow_type(text)


def test_topics_find_their_stream():
    for name, contract in load_streams().items():
        assert stream_for("/" + name.replace("_", "/"), contract.kind) is contract
        assert stream_for("/" + name + "/more", contract.kind) is None
        assert contract.kind in KINDS
        assert contract.table in load_tables()
    assert stream_for("/lidar", "camera") is None
    assert set(TABLE_OF_KIND) == set(KINDS)


def test_contracts_travel_to_other_processes():
    contract = load_tables()["ingest.imu"]
    assert pickle.loads(pickle.dumps(contract)) == contract  # noqa: S301 - our own bytes


def test_loading_imports_nothing_heavy():
    code = """
import sys
from fleet_assets.contracts.loader import load_streams, load_tables
load_tables(), load_streams()
print([name for name in ("great_expectations", "pandas", "pyspark", "jsonschema", "dagster") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_rewording_keeps_the_fingerprint_and_meaning_changes_it(table_of, table_text):
    plain = table_of(table_text).fingerprint
    assert table_of(table_text.replace("Things, one row each.", "All things.")).fingerprint == plain
    assert table_of("# a comment\n" + table_text).fingerprint == plain
    assert table_of(table_text.replace("max_value: 150", "max_value: 90")).fingerprint != plain
    assert table_of(table_text.replace("value: m/s", "value: km/h")).fingerprint != plain


def test_required_columns_make_rules(table_of, table_text, stream_of, stream_text):
    table = table_of(table_text)
    assert [rule.name for rule in table.rules] == [
        "drive_id is present",
        "day is present",
        "speed is possible",
        "state is known",
    ]
    assert stream_of(stream_text).required_columns == ("gyro_z_radps",)
    assert [rule.columns for rule in stream_of(stream_text).rules] == [("gyro_z_radps",)]


def test_synchronised_columns_say_what_they_are_made_from():
    for table in ("synchronise.frames", "synchronise.matches"):
        for column in load_tables()[table].columns:
            if column.unit:
                assert column.sources, f"{table}.{column.name}"

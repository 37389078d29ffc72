"""Every kind of mistake in a contract says file, line, place and remedy."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fleet_assets.contracts.document import parse_document
from fleet_assets.contracts.loader import ContractError, check_sources, load_tables, read_stream, read_table

# Each: what is replaced, by what, text of the line and the place that the error points at, a word of it, a word of the remedy.
TABLE_MISTAKES = {
    "yaml": ("version: 1.2.3", "version: [1.2.3", "status: active", "", "YAML", "quotes"),
    "tab": ("  purpose: Things", "\tpurpose: Things", "purpose: Things", "", "YAML", "indentation"),
    "key twice": ("version: 1.2.3", "version: 1.2.3\nversion: 1.2.4", "version: 1.2.4", "version", "twice", "Remove"),
    "alias": (
        "id: demo.things\nname: demo.things",
        "id: &a demo.things\nname: *a",
        "id: &a demo.things",
        "name",
        "alias",
        "Write",
    ),
    "no version": ("version: 1.2.3\n", "", "apiVersion", "top level", "'version' is missing", "Add"),
    "bad version": ("version: 1.2.3", "version: 1.2", "version: 1.2", "version", "1.2", "MAJOR.MINOR.PATCH"),
    "padded version": (
        "version: 1.2.3",
        "version: 1.02.3",
        "version: 1.02.3",
        "version",
        "1.02.3",
        "MAJOR.MINOR.PATCH",
    ),
    "wrong name": ("name: demo.things", "name: demo.other", "name: demo.other", "name", "demo.other", "Call the file"),
    "no owner": (
        "- property: owner\n  value: team:fleet\n",
        "",
        "apiVersion",
        "top level",
        "'owner' is missing",
        "Add",
    ),
    "bad owner": (
        "value: team:fleet",
        "value: fleet",
        "value: fleet",
        "customProperties[0].value",
        "owner",
        "team:<name>",
    ),
    "no purpose": ("  purpose: Things, one row each.", "  usage: a", "usage: a", "description", "'purpose'", "Add"),
    "unknown type": ("physicalType: double", "physicalType: float16", "float16", "physicalType", "float16", "double"),
    "types disagree": (
        "logicalType: number",
        "logicalType: string",
        "logicalType: string",
        "logicalType",
        "disagree",
        "number",
    ),
    "no class of personal data": (
        "    description: State.\n    classification: none\n",
        "    description: State.\n",
        "name: state",
        "schema[0].properties[5]",
        "classification",
        "Add",
    ),
    "unknown class of personal data": (
        "    description: State.\n    classification: none\n",
        "    description: State.\n    classification: harmless\n",
        "classification: harmless",
        "schema[0].properties[5].classification",
        "harmless",
        "personal: vehicle",
    ),
    "no residency": (
        "- property: residency\n  value: fleet region\n",
        "",
        "apiVersion",
        "top level",
        "residency",
        "customProperties",
    ),
    "residency": ("value: fleet region", "value: EU!", "value: EU!", "customProperties[4].value", "EU!", "lower case"),
    "no such retention class": (
        "value: permanent",
        "value: forever",
        "value: forever",
        "customProperties[3].value",
        "forever",
        "with_recording",
    ),
    "no type": ("    physicalType: double\n", "", "name: speed_mps", "schema[0].properties[4]", "physicalType", "Add"),
    "column twice": ("name: limit", "name: count", "name: count", "properties[3].name", "twice", "Rename"),
    "column name": ("name: speed_mps", "name: Speed", "name: Speed", "properties[4].name", "Speed", "lower case"),
    "required": (
        "required: true\n    description: Day.",
        "required: maybe\n    description: Day.",
        "maybe",
        "required",
        "maybe",
        "true",
    ),
    "rule twice": (
        "name: state is known",
        "name: speed is possible",
        "name: speed is possible",
        "quality[1].name",
        "twice",
        "Rename",
    ),
    "unknown expectation": (
        "expect_column_values_to_be_between",
        "expect_speed",
        "expect_speed",
        "type",
        "expect_speed",
        "Use one of",
    ),
    "unknown argument": (
        "        min_value: 0",
        "        minimum: 0",
        "column: speed_mps",
        "kwargs",
        "minimum",
        "takes column",
    ),
    "missing argument": ("        column: state\n", "", "value_set", "kwargs", "column missing", "Add"),
    "no such column": ("column: state\n", "column: status\n", "column: status", "kwargs", "'status'", "Correct"),
    "unknown scope": (
        "value: row",
        "value: frame",
        "value: frame",
        "customProperties[0].value",
        "frame",
        "row, drive, table",
    ),
    "no scope": (
        "    - property: scope\n      value: row\n",
        "",
        "name: speed is possible",
        "quality[0]",
        "'scope' is missing",
        "Add",
    ),
    "blocking": (
        "value: true\n  - name: state",
        "value: 1\n  - name: state",
        "value: 1",
        "value",
        "1 is not",
        "true or false",
    ),
    "no reason": (
        "    description: A road vehicle.\n",
        "",
        "name: speed is possible",
        "quality[0]",
        "'description'",
        "Add",
    ),
    "bounds swapped": ("min_value: 0", "min_value: 200", "column: speed_mps", "kwargs", "above max_value", "Swap"),
    "no bound": (
        "        min_value: 0\n        max_value: 150\n",
        "",
        "column: speed_mps",
        "kwargs",
        "no bound",
        "min_value",
    ),
    "bound is text": ("min_value: 0", "min_value: zero", "min_value: zero", "kwargs.min_value", "zero", "number"),
    "bounds on text": ("column: speed_mps", "column: state", "column: state", "kwargs.column", "string", "numbers"),
    "fraction on whole": (
        "column: speed_mps\n        min_value: 0",
        "column: count\n        min_value: 0.5",
        "min_value: 0.5",
        "min_value",
        "0.5",
        "whole",
    ),
    "bound too large": (
        "column: speed_mps\n        min_value: 0\n        max_value: 150",
        "column: count\n        max_value: 9223372036854775808",
        "max_value: 9223372036854775808",
        "max_value",
        "9223372036854775808",
        "64",
    ),
    "empty set": ("['on', 'off']", "[]", "value_set: []", "value_set", "empty", "Name"),
    "wrong value in set": ("['on', 'off']", "['on', 1]", "value_set: [", "value_set[1]", "1 is no string", "Correct"),
    "mostly on a row": (
        "max_value: 150",
        "mostly: 0.5\n        max_value: 150",
        "mostly: 0.5",
        "kwargs.mostly",
        "mostly",
        "drive or table",
    ),
}


@pytest.mark.parametrize("mistake", TABLE_MISTAKES)
def test_mistakes_in_a_table(mistake, table_text, tmp_path):
    old, new, line, place, word, remedy = TABLE_MISTAKES[mistake]
    assert old in table_text
    path = tmp_path / "demo.things.odcs.yaml"
    path.write_text(table_text.replace(old, new, 1))
    with pytest.raises(ContractError) as caught:
        read_table(path)
    error = caught.value
    assert error.path == path
    assert path.name in error.what
    assert word in error.what
    assert remedy in error.remedy
    assert line in path.read_text().splitlines()[error.line - 1], str(error)
    assert place in error.place
    assert f"line {error.line}" in error.where


OTHER_RULES = {
    "regex": ("expect_column_values_to_match_regex", "column: state\n        regex: '['", "no regular expression"),
    "group": ("expect_column_values_to_match_regex", "column: state\n        regex: (on|off)", "capturing group"),
    "regex on number": ("expect_column_values_to_match_regex", "column: count\n        regex: a", "a regex on long"),
    "pair": (
        "expect_column_pair_values_a_to_be_greater_than_b",
        "column_A: count\n        column_B: speed_mps",
        "compares long with double",
    ),
    "unique row": (
        "expect_compound_columns_to_be_unique",
        "column_list: [drive_id, day]",
        "says nothing about one row",
    ),
    "row count of a row": ("expect_table_row_count_to_be_between", "min_value: 1", "says nothing about one row"),
    "set of arrays": ("expect_column_values_to_be_in_set", "column: parts\n        value_set: [a]", "a set of array"),
}


@pytest.mark.parametrize("mistake", OTHER_RULES)
def test_mistakes_in_other_rules(mistake, table_text, table_of):
    expectation, arguments, word = OTHER_RULES[mistake]
    text = table_text.replace("expect_column_values_to_be_between", expectation)
    text = text.replace("column: speed_mps\n        min_value: 0\n        max_value: 150", arguments)
    with pytest.raises(ContractError, match=word.replace("(", "\\(")):
        table_of(text)


STREAM_MISTAKES = {
    "kind": ("value: imu", "value: sonar", "value: sonar", "sonar", "camera"),
    "topic": ("[/demo]", "['/demo[']", "/demo[", "no regular expression", "Correct"),
    "topics": ("[/demo]", "/demo", "value: /demo", "is not a list", "list"),
    "rate": ("value: 100", "value: 0", "value: 0", "not above 0", "above 0"),
    "rate is text": ("value: 100", "value: fast", "value: fast", "fast", "number"),
    "no clock": ("- property: clockDomain\n  value: logger\n", "", "apiVersion", "'clockDomain' is missing", "Add"),
    "column": ("name: gyro_z_radps", "name: gyro_up", "name: gyro_up", "gyro_up", "Correct"),
}


@pytest.mark.parametrize("mistake", STREAM_MISTAKES)
def test_mistakes_in_a_stream(mistake, stream_text, tmp_path):
    old, new, line, word, remedy = STREAM_MISTAKES[mistake]
    path = tmp_path / "demo.odcs.yaml"
    path.write_text(stream_text.replace(old, new, 1))
    with pytest.raises(ContractError) as caught:
        read_stream(path)
    assert word in caught.value.what
    assert remedy in caught.value.remedy
    assert line in path.read_text().splitlines()[caught.value.line - 1], str(caught.value)


@pytest.mark.parametrize("content", [b"", b"a list", b"- 1\n- 2\n", b"\xff\xfe", b"x: \x00", b"x" * (2 << 20)])
def test_files_that_are_no_contract(content, tmp_path):
    path = tmp_path / "demo.things.odcs.yaml"
    path.write_bytes(content)
    with pytest.raises(ContractError) as caught:
        read_table(path)
    assert path.name in str(caught.value)
    assert caught.value.remedy


def test_a_missing_file(tmp_path):
    with pytest.raises(ContractError, match="no such file"):
        read_table(tmp_path / "gone.odcs.yaml")


def test_errors_survive_another_process(tmp_path):
    error = None
    try:
        read_table(Path(tmp_path / "gone.odcs.yaml"))
    except ContractError as caught:
        error = pickle.loads(pickle.dumps(caught))  # noqa: S301 - our own bytes
    assert isinstance(error, ContractError)
    assert "no such file" in str(error)


@pytest.mark.parametrize("source", ["ingest.imu.speed", "ingest.nothing.t_ns", "synchronise.frames.t_ns", "t_ns"])
def test_a_source_that_is_no_column_of_another_table(source):
    path = load_tables()["synchronise.frames"].path
    text = path.read_text().replace("- ingest.imu.gyro_z_radps", f"- {source}", 1)
    document = parse_document(text, path)
    with pytest.raises(ContractError, match=f"'yaw_rate_radps': there is no source '{source}'") as caught:
        check_sources(document, load_tables())
    assert text.splitlines()[caught.value.line - 1].strip() == f"- {source}"

"""Contracts, read and checked.

In: one ODCS v3 file per table (`tables/`) and per sensor stream (`streams/`). Out: TableContract and StreamContract. A
mistake is a ContractError with file, line, YAML path and remedy. Rules that follow from the columns (a required column
is never null) are added here, so that no file repeats them.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet_assets.contracts.document import ContractError, Node, read_document
from fleet_assets.contracts.model import (
    BETWEEN,
    EXPECTATIONS,
    IN_SET,
    KINDS,
    NOT_NULL,
    PAIR,
    REGEX,
    ROW_COUNT,
    SCALARS,
    SCOPES,
    TABLE_OF_KIND,
    Column,
    Rule,
    Scope,
    StreamContract,
    TableContract,
    arrow_type,
    logical_type,
)

__all__ = [
    "Column",
    "ContractError",
    "Rule",
    "Scope",
    "StreamContract",
    "TableContract",
    "arrow_type",
    "load_streams",
    "load_tables",
    "read_stream",
    "read_table",
    "stream_for",
]

FOLDER = Path(__file__).parent
# What may be reworded without a drive being processed again.
_PROSE = {
    "description",
    "usage",
    "purpose",
    "limitations",
    "tags",
    "team",
    "slaProperties",
    "status",
    "apiVersion",
    "id",
}
_NUMBERS = ("long", "double")
# Types of YAML values that a column's values can equal (Arrow would tell too, but imports pandas for it).
_PYTHON: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "long": (int,),
    "double": (int, float),
    "boolean": (bool,),
    "date": (date,),
}


@lru_cache(maxsize=1)
def load_tables() -> dict[str, TableContract]:
    """All table contracts by name, such as ingest.imu."""
    return {contract.name: contract for contract in map(read_table, contract_files("tables"))}


@lru_cache(maxsize=1)
def load_streams() -> dict[str, StreamContract]:
    """All stream contracts by name, such as lidar."""
    return {contract.name: contract for contract in map(read_stream, contract_files("streams"))}


@lru_cache(maxsize=4096)
def stream_for(topic: str, kind: str) -> StreamContract | None:
    """The stream contract that covers a topic of a recording, if one does."""
    for contract in load_streams().values():
        if contract.kind == kind and any(re.fullmatch(pattern, topic) for pattern in contract.topics):
            return contract
    return None


def contract_files(folder: str) -> list[Path]:
    """Contract files of `tables` or `streams`, in order of their names."""
    return sorted((FOLDER / folder).glob("*.odcs.yaml"))


def read_table(path: Path) -> TableContract:
    """Reads and checks one table contract. Raises ContractError."""
    return table_from(read_document(path))


def read_stream(path: Path) -> StreamContract:
    """Reads and checks one stream contract. Raises ContractError."""
    return stream_from(read_document(path))


def table_from(document: Node) -> TableContract:
    """A table contract from a parsed file. Raises ContractError."""
    name = _name(document)
    if not re.fullmatch(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*", name):
        raise document["name"].error(f"{name!r} is no table name", "Call it <stage>.<table>, such as ingest.imu.")
    table = _object(document)
    properties = list(table["properties"])
    columns = tuple(_column(entry) for entry in properties)
    _unique(properties, "column")
    custom = _custom(document)
    known = {column.name: column.type for column in columns}
    return TableContract(
        name=name,
        version=_version(document),
        description=document["description"]["purpose"].text,
        owner=_owner(document, custom),
        columns=columns,
        primary_key=_positioned(properties, "primaryKey", "primaryKeyPosition"),
        partition_by=_positioned(properties, "partitioned", "partitionKeyPosition"),
        rules=(*_present(column.name for column in columns if column.required), *_rules(table, known)),
        per_drive=bool(_entry(document, custom, "perDrive").of(bool)),
        keeps_quarantined=bool(_entry(document, custom, "keepsQuarantined").of(bool)),
        freshness_hours=_agreed(document, "frequency", "h"),
        retention_class=_entry(document, custom, "retentionClass").text,
        usage=_prose(document, "usage"),
        limitations=_prose(document, "limitations"),
        fingerprint=_fingerprint(document),
        path=document.file,
    )


def stream_from(document: Node) -> StreamContract:
    """A stream contract from a parsed file. Raises ContractError."""
    custom = _custom(document)

    def required(key: str) -> Node:
        return _entry(document, custom, key)

    def positive(key: str) -> Any:
        return custom[key].positive if key in custom else None

    topics = list(required("topics"))
    for topic in topics:
        _compiled(topic, topic.text)
    kind = required("kind").one_of(KINDS)
    table = _object(document)
    fields = table.elements("properties")
    _unique(fields, "column")
    known = _columns_of_kind(kind)
    for entry in fields:
        if entry["name"].text not in known:
            raise entry["name"].error(f"a {kind} record has no column {entry['name'].text!r}", "Correct the name.")
    needed = tuple(entry["name"].text for entry in fields if entry.get("required"))
    return StreamContract(
        name=_name(document),
        version=_version(document),
        description=document["description"]["purpose"].text,
        owner=_owner(document, custom),
        kind=kind,
        topics=tuple(topic.text for topic in topics),
        nominal_rate_hz=positive("nominalRateHz"),
        gap_limit_periods=positive("gapLimitPeriods"),
        latency_limit_ms=positive("latencyLimitMs"),
        clock_domain=required("clockDomain").text,
        stamp_point=required("stampPoint").text,
        max_range_m=positive("maxRangeM"),
        scan_period_ns=positive("scanPeriodNs"),
        failure_modes=tuple(mode.text for mode in custom["failureModes"]) if "failureModes" in custom else (),
        retention_class=required("retentionClass").text,
        personal_data=required("personalData").text,
        required_columns=needed,
        rules=(*_present(needed), *_rules(table, known)),
        fingerprint=_fingerprint(document),
        path=document.file,
    )


@lru_cache(maxsize=8)
def _columns_of_kind(kind: str) -> dict[str, str]:
    return {column.name: column.type for column in load_tables()[TABLE_OF_KIND[kind]].columns}


# ---- parts of a file -------------------------------------------------------------------------------------------------


def _name(document: Node) -> str:
    node = document["name"]
    if document.file.name != f"{node.text}.odcs.yaml":
        raise node.error(
            f"the file says it is {node.text!r}", f"Call the file {node.text}.odcs.yaml, or correct the name."
        )
    return node.text


def _version(document: Node) -> str:
    node = document["version"]
    if not re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", str(node.value)):
        raise node.error(f"version {node.value!r}", "Write MAJOR.MINOR.PATCH, such as 1.0.0.")
    return str(node.value)


def _owner(document: Node, custom: dict[str, Node]) -> str:
    node = _entry(document, custom, "owner")
    if not re.fullmatch(r"team:\w+|[^@\s:]+@[^@\s]+\.\w+", node.text):
        raise node.error(f"owner {node.text!r}", "Write team:<name> or an e-mail address.")
    return node.text


def _object(document: Node) -> Node:
    objects = list(document["schema"])
    if len(objects) != 1:
        raise document["schema"].error(f"{len(objects)} schema objects", "A contract describes exactly one.")
    return objects[0]


def _column(entry: Node) -> Column:
    name = entry["name"].text
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise entry["name"].error(f"column {name!r}", "Use lower case letters, digits and underscores.")
    kind = entry["physicalType"]
    try:
        arrow_type(kind.text)
    except ValueError as error:
        known = ", ".join(SCALARS)
        raise kind.error(f"column {name!r}: {error}", f"Use {known}, array<...> or struct<...>.") from error
    if entry["logicalType"].text != logical_type(kind.text):
        remedy = f"Type {kind.text} goes with logicalType {logical_type(kind.text)}."
        raise entry["logicalType"].error(f"column {name!r}: the two types disagree", remedy)
    custom = _custom(entry)
    required = entry.get("required")
    classification = entry.get("classification")
    return Column(
        name=name,
        type=kind.text,
        required=bool(required.of(bool)) if required else False,
        description=entry["description"].text,
        unit=custom["unit"].text if "unit" in custom else None,
        classification=classification.text if classification else None,
    )


def _positioned(properties: list[Node], flag: str, position: str) -> tuple[str, ...]:
    chosen = [(int(entry[position].number), entry["name"].text) for entry in properties if entry.get(flag)]
    return tuple(name for _, name in sorted(chosen))


def _unique(entries: list[Node], what: str) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry["name"].text in seen:
            raise entry["name"].error(f"{what} {entry['name'].text!r} is there twice", "Rename or remove one.")
        seen.add(entry["name"].text)


def _custom(holder: Node) -> dict[str, Node]:
    found: dict[str, Node] = {}
    for entry in holder.elements("customProperties"):
        key = entry["property"].text
        if key in found:
            raise entry.error(f"customProperty {key!r} is there twice", "Remove one.")
        found[key] = entry["value"]
    return found


def _entry(holder: Node, custom: dict[str, Node], key: str) -> Node:
    if key not in custom:
        raise holder.error(f"customProperty {key!r} is missing", f"Add {key!r} to customProperties.")
    return custom[key]


def _agreed(document: Node, key: str, unit: str) -> float | None:
    """A service level, such as how often a table is expected to change."""
    for entry in document.elements("slaProperties"):
        if entry["property"].text == key:
            if entry["unit"].text != unit:
                raise entry["unit"].error(f"{key} in {entry['unit'].text!r}", f"Give it in {unit}.")
            return float(entry["value"].positive)
    return None


def _prose(document: Node, key: str) -> str:
    node = document["description"].get(key)
    return node.text if node else ""


def _fingerprint(document: Node) -> str:
    """sha256 of what the file means: rewording, order of keys and comments do not count."""
    meaning = json.dumps(_without_prose(document.value), sort_keys=True, default=str)
    return hashlib.sha256(meaning.encode()).hexdigest()


def _without_prose(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_prose(item) for key, item in value.items() if key not in _PROSE}
    if isinstance(value, list):
        return [_without_prose(item) for item in value]
    return value


# ---- rules -----------------------------------------------------------------------------------------------------------


def _present(columns: Any) -> tuple[Rule, ...]:
    return tuple(
        Rule(f"{name} is present", "row", True, NOT_NULL, {"column": name}, "The contract requires it.")
        for name in columns
    )


def _rules(holder: Node, columns: dict[str, str]) -> tuple[Rule, ...]:
    entries = holder.elements("quality")
    _unique(entries, "rule")
    return tuple(_rule(entry, columns) for entry in entries)


def _rule(entry: Node, columns: dict[str, str]) -> Rule:
    name = entry["name"].text
    entry["type"].one_of(("custom",))
    entry["engine"].one_of(("greatExpectations",))
    implementation = entry["implementation"]
    expectation = implementation["type"]
    if expectation.value not in EXPECTATIONS:
        known = ", ".join(EXPECTATIONS)
        raise expectation.error(f"rule {name!r}: unknown expectation {expectation.value!r}", f"Use one of {known}.")
    spec = EXPECTATIONS[expectation.text]
    kwargs = implementation["kwargs"]
    custom = _custom(entry)
    scope = _entry(entry, custom, "scope")
    scope.one_of(SCOPES)
    if scope.value not in spec.scopes:
        raise scope.error(
            f"rule {name!r}: {expectation.text} says nothing about one {scope.text}", f"Scope {spec.scopes[-1]}."
        )
    given = set(kwargs.of(dict))
    if unknown := sorted(given - spec.required - spec.optional):
        allowed = ", ".join(sorted(spec.required | spec.optional))
        raise kwargs.error(f"rule {name!r}: no argument {', '.join(unknown)}", f"{expectation.text} takes {allowed}.")
    if missing := sorted(spec.required - given):
        raise kwargs.error(f"rule {name!r}: {', '.join(missing)} missing", "Add it.")
    rule = Rule(
        name,
        scope.value,
        _entry(entry, custom, "blocking").of(bool),
        expectation.text,
        dict(kwargs.value),
        entry["description"].text,
    )
    if absent := [column for column in rule.columns if column not in columns]:
        raise kwargs.error(f"rule {name!r}: there is no column {', '.join(map(repr, absent))}", "Correct the name.")
    _check_arguments(rule, kwargs, [columns[column] for column in rule.columns])
    return rule


def _check_arguments(rule: Rule, kwargs: Node, types: list[str]) -> None:
    """Arguments fit the columns' types; what Great Expectations would only find when it runs, or never."""
    if "mostly" in rule.kwargs:
        share = kwargs["mostly"]
        if rule.scope == "row" or not 0 < share.number <= 1:
            raise share.error(
                f"rule {rule.name!r}: mostly {share.value}", "A share above 0 up to 1, with scope drive or table."
            )
    for flag in ("strict_min", "strict_max", "or_equal"):
        if flag in rule.kwargs:
            kwargs[flag].of(bool)
    if rule.expectation in (BETWEEN, ROW_COUNT):
        _check_bounds(rule, kwargs, types)
    elif rule.expectation == IN_SET:
        if types[0] not in _PYTHON:
            raise kwargs["column"].error(f"rule {rule.name!r}: a set of {types[0]}", "Only plain values form a set.")
        _check_set(rule, kwargs["value_set"], types[0])
    elif rule.expectation == REGEX:
        if types[0] != "string":
            raise kwargs["column"].error(f"rule {rule.name!r}: a regex on {types[0]}", "Only strings have one.")
        if _compiled(kwargs["regex"], kwargs["regex"].text).groups:
            raise kwargs["regex"].error(f"rule {rule.name!r}: a capturing group", "Write (?:...) instead of (...).")
    elif rule.expectation == PAIR and (types[0] != types[1] or types[0] not in (*_NUMBERS, "date")):
        raise kwargs.error(f"rule {rule.name!r}: compares {types[0]} with {types[1]}", "Compare numbers of one type.")


def _check_bounds(rule: Rule, kwargs: Node, types: list[str]) -> None:
    if types and types[0] not in _NUMBERS:
        raise kwargs["column"].error(f"rule {rule.name!r}: bounds on {types[0]}", "Only numbers have bounds.")
    bounds = [kwargs[key] for key in ("min_value", "max_value") if kwargs.get(key)]
    if not bounds:
        raise kwargs.error(f"rule {rule.name!r}: no bound", "Give min_value, max_value or both.")
    for bound in bounds:
        if types != ["double"] and not isinstance(bound.number, int):
            raise bound.error(f"rule {rule.name!r}: bound {bound.value}", "Give a whole number.")
    if len(bounds) == 2 and bounds[0].number > bounds[1].number:
        raise kwargs.error(f"rule {rule.name!r}: min_value is above max_value", "Swap them.")


def _check_set(rule: Rule, values: Node, kind: str) -> None:
    if not values.of(list):
        raise values.error(f"rule {rule.name!r}: an empty set", "Name the values that are allowed.")
    for value in values:
        if type(value.value) not in _PYTHON[kind]:
            raise value.error(f"rule {rule.name!r}: {value.value!r} is no {kind}", "Correct the value.")


def _compiled(node: Node, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise node.error(f"{pattern!r} is no regular expression: {error}", "Correct it.") from error

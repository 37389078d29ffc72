"""Contracts, read and checked.

In: one ODCS v3 file per table (`tables/`), per file of context (`context/`) and per sensor stream (`streams/`).
Out: TableContract and StreamContract. A
mistake is a ContractError with file, line, YAML path and remedy. Rules that follow from the columns (a required column
is never null) are added here, so that no file repeats them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet_assets.contracts.document import ContractError, Node, read_document
from fleet_assets.contracts.model import (
    KINDS,
    NOT_PERSONAL,
    PERSONAL_CLASSES,
    RETENTION_CLASSES,
    SCALARS,
    SWEEP_STAMPS,
    TABLE_OF_KIND,
    Column,
    Rule,
    Scope,
    StreamContract,
    TableContract,
    arrow_type,
    logical_type,
)
from fleet_assets.contracts.rule_reader import (
    compiled,
    custom_properties,
    present,
    property_of,
    read_rules,
    unique_names,
)

__all__ = [
    "Column",
    "ContractError",
    "Rule",
    "Scope",
    "StreamContract",
    "TableContract",
    "arrow_type",
    "load_context",
    "load_streams",
    "load_tables",
    "read_stream",
    "read_table",
    "stream_for",
]

FOLDER = Path(__file__).parent
RESIDENCY = r"[a-z0-9][a-z0-9 _-]{0,39}"
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
    "transformSourceObjects",
}


@lru_cache(maxsize=1)
def load_tables() -> dict[str, TableContract]:
    """All table contracts by name, such as ingest.imu."""
    documents = [read_document(path) for path in contract_files("tables")]
    contracts = {contract.name: contract for contract in map(table_from, documents)}
    for document in documents:
        check_sources(document, contracts)
    return contracts


@lru_cache(maxsize=1)
def load_context() -> dict[str, TableContract]:
    """Contracts of the files that tell of the world around a drive, by name, such as context.weather."""
    return {contract.name: contract for contract in map(read_table, contract_files("context"))}


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
    """Contract files of `tables`, `context` or `streams`, in order of their names."""
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
    unique_names(properties, "column")
    custom = custom_properties(document)
    known = {column.name: column.type for column in columns}
    return TableContract(
        name=name,
        version=_version(document),
        description=document["description"]["purpose"].text,
        owner=_owner(document, custom),
        columns=columns,
        primary_key=_positioned(properties, "primaryKey", "primaryKeyPosition"),
        partition_by=_positioned(properties, "partitioned", "partitionKeyPosition"),
        rules=(
            *present(column.name for column in columns if column.required and not column.payload),
            *read_rules(table, known),
        ),
        per_drive=bool(property_of(document, custom, "perDrive").of(bool)),
        keeps_quarantined=bool(property_of(document, custom, "keepsQuarantined").of(bool)),
        freshness_hours=_agreed(document, "frequency", "h"),
        retention_class=property_of(document, custom, "retentionClass").one_of(RETENTION_CLASSES),
        residency=_residency(document, custom),
        join_limits=_join_limits(custom),
        usage=_prose(document, "usage"),
        limitations=_prose(document, "limitations"),
        fingerprint=_fingerprint(document),
        path=document.file,
    )


def stream_from(document: Node, tables: Mapping[str, TableContract] | None = None) -> StreamContract:
    """A stream contract from a parsed file. tables: those that go with it; default today's. Raises ContractError."""
    custom = custom_properties(document)

    def required(key: str) -> Node:
        return property_of(document, custom, key)

    def positive(key: str) -> Any:
        return custom[key].positive if key in custom else None

    scans = "scanPeriodNs" in custom
    if "phase" in custom and not (scans and 0 <= custom["phase"].number <= 1):
        what = f"phase {custom['phase'].value!r}" if scans else "a phase without scanPeriodNs"
        raise custom["phase"].error(what, "Give the share of a sweep, 0 to 1, of a sensor that scans.")
    topics = list(required("topics"))
    for topic in topics:
        compiled(topic, topic.text)
    kind = required("kind").one_of(KINDS)
    table = _object(document)
    fields = table.elements("properties")
    unique_names(fields, "column")
    goes_to = (load_tables() if tables is None else tables).get(TABLE_OF_KIND[kind])
    if goes_to is None:
        raise required("kind").error(f"{TABLE_OF_KIND[kind]}, where a {kind} goes, cannot be read", "Correct it first.")
    known = {column.name: column.type for column in goes_to.columns}
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
        stamp_point=required("stampPoint").one_of(tuple(SWEEP_STAMPS)) if scans else required("stampPoint").text,
        max_range_m=positive("maxRangeM"),
        scan_period_ns=positive("scanPeriodNs"),
        phase=float(custom["phase"].number) if "phase" in custom else None,
        failure_modes=tuple(mode.text for mode in custom["failureModes"]) if "failureModes" in custom else (),
        retention_class=required("retentionClass").one_of(RETENTION_CLASSES),
        residency=_residency(document, custom),
        personal_data=required("personalData").one_of((NOT_PERSONAL, *PERSONAL_CLASSES)),
        required_columns=needed,
        rules=(*present(needed), *read_rules(table, known)),
        fingerprint=_fingerprint(document),
        path=document.file,
    )


def check_sources(document: Node, contracts: Mapping[str, TableContract]) -> None:
    """Columns say which columns of other tables they are made from. Raises ContractError when there is no such column."""
    for entry in _object(document).elements("properties"):
        for source in entry.elements("transformSourceObjects"):
            table, _, column = source.text.rpartition(".")
            known = table in contracts and table != document["name"].text
            if not known or column not in contracts[table].arrow_schema.names:
                raise source.error(
                    f"column {entry['name'].text!r}: there is no source {source.text!r}",
                    "Name a column of another table, such as ingest.imu.t_host_ns.",
                )


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
    node = property_of(document, custom, "owner")
    if not re.fullmatch(r"team:\w+|[^@\s:]+@[^@\s]+\.\w+", node.text):
        raise node.error(f"owner {node.text!r}", "Write team:<name> or an e-mail address.")
    return node.text


def _residency(document: Node, custom: dict[str, Node]) -> str:
    node = property_of(document, custom, "residency")
    if not re.fullmatch(RESIDENCY, node.text):
        raise node.error(
            f"residency {node.text!r}", "Write a region in lower case, such as fleet region or eu-central."
        )
    return node.text


def _join_limits(custom: dict[str, Node]) -> dict[str, float]:
    node = custom.get("joinLimits")
    return {key: float(node[key].positive) for key in node.of(dict)} if node else {}


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
    custom = custom_properties(entry)
    required = entry.get("required")
    # Said of every column, so that none is taken for harmless because nobody thought of it.
    classification = entry["classification"].one_of((NOT_PERSONAL, *(f"personal: {name}" for name in PERSONAL_CLASSES)))
    return Column(
        name=name,
        type=kind.text,
        required=bool(required.of(bool)) if required else False,
        description=entry["description"].text,
        unit=custom["unit"].text if "unit" in custom else None,
        classification=classification,
        sources=tuple(source.text for source in entry.elements("transformSourceObjects")),
    )


def _positioned(properties: list[Node], flag: str, position: str) -> tuple[str, ...]:
    chosen = [(int(entry[position].number), entry["name"].text) for entry in properties if entry.get(flag)]
    return tuple(name for _, name in sorted(chosen))


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

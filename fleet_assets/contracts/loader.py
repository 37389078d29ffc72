"""Contracts, read and checked.

In: one ODCS v3 file per table (`tables/`) and per sensor stream (`streams/`). Out: TableContract and StreamContract. A
mistake is a ContractError with file, place and remedy.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import yaml

from fleet_assets.errors import FleetError

# The C parser is ten times as fast; a wheel without it still works.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FOLDER = Path(__file__).parent
Scope = Literal["row", "drive", "table"]
KINDS = ("camera", "lidar", "radar", "imu", "gnss", "bus")

_SCALARS: dict[str, pa.DataType] = {
    "string": pa.string(),
    "long": pa.int64(),
    "double": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
}
# Expectations that rules may use, and the arguments of each; the row evaluator and the audit know these and no others.
EXPECTATIONS: dict[str, frozenset[str]] = {
    "expect_column_values_to_not_be_null": frozenset({"column"}),
    "expect_column_values_to_be_between": frozenset({"column", "min_value", "max_value", "strict_min", "strict_max"}),
    "expect_column_values_to_be_in_set": frozenset({"column", "value_set"}),
    "expect_column_values_to_match_regex": frozenset({"column", "regex"}),
    "expect_column_pair_values_a_to_be_greater_than_b": frozenset({"column_A", "column_B", "or_equal"}),
    "expect_compound_columns_to_be_unique": frozenset({"column_list"}),
}


class ContractError(FleetError):
    """A mistake in a contract file."""


@dataclass(frozen=True)
class Rule:
    """scope: what a failure costs. blocking: whether it costs anything. mostly: share of rows that must hold."""

    name: str
    scope: Scope
    blocking: bool
    expectation: str
    kwargs: Mapping[str, Any]
    description: str

    @property
    def columns(self) -> tuple[str, ...]:
        kwargs = self.kwargs
        if "column_list" in kwargs:
            return tuple(kwargs["column_list"])
        return tuple(kwargs[name] for name in ("column", "column_A", "column_B") if name in kwargs)


@dataclass(frozen=True)
class Column:
    """type: string, long, double, boolean, date, or array/struct of these, as Spark writes it."""

    name: str
    type: str
    required: bool
    description: str
    unit: str | None = None
    classification: str | None = None

    @property
    def arrow_type(self) -> pa.DataType:
        return arrow_type(self.type)


@dataclass(frozen=True)
class TableContract:
    """A table. keeps_quarantined: its rows stay when their drive is quarantined."""

    name: str
    version: str
    description: str
    owner: str
    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    partition_by: tuple[str, ...]
    rules: tuple[Rule, ...]
    per_drive: bool
    keeps_quarantined: bool
    freshness_hours: float | None
    fingerprint: str
    path: Path = field(compare=False)

    @property
    def stage(self) -> str:
        return self.name.split(".")[0]

    @property
    def location(self) -> str:
        """Path below a reference of the lake: tables/<stage>/<name>."""
        return "tables/" + self.name.replace(".", "/")

    @cached_property
    def arrow_schema(self) -> pa.Schema:
        return pa.schema(
            [pa.field(column.name, column.arrow_type, nullable=not column.required) for column in self.columns]
        )


@dataclass(frozen=True)
class StreamContract:
    """A sensor stream. Ranges in metres, periods in nanoseconds, gap limit in nominal periods."""

    name: str
    version: str
    description: str
    owner: str
    kind: str
    topics: tuple[str, ...]
    nominal_rate_hz: float | None
    gap_limit_periods: float | None
    latency_limit_ms: float | None
    clock_domain: str
    stamp_point: str
    max_range_m: float | None
    scan_period_ns: int | None
    failure_modes: tuple[str, ...]
    retention_class: str
    personal_data: str
    fingerprint: str
    path: Path = field(compare=False)

    @property
    def nominal_period_ns(self) -> int | None:
        return round(1e9 / self.nominal_rate_hz) if self.nominal_rate_hz else None

    @property
    def gap_limit_ns(self) -> int | None:
        """A step over this is a gap."""
        if not self.nominal_rate_hz or not self.gap_limit_periods:
            return None
        return round(self.gap_limit_periods * 1e9 / self.nominal_rate_hz)


@lru_cache(maxsize=1)
def load_tables() -> dict[str, TableContract]:
    """All table contracts by name, such as ingest.imu."""
    return {contract.name: contract for contract in map(read_table, _files("tables"))}


@lru_cache(maxsize=1)
def load_streams() -> dict[str, StreamContract]:
    """All stream contracts by name, such as lidar."""
    return {contract.name: contract for contract in map(read_stream, _files("streams"))}


@lru_cache(maxsize=4096)
def stream_for(topic: str, kind: str) -> StreamContract | None:
    """The stream contract that covers a topic of a recording, if one does."""
    for contract in load_streams().values():
        if contract.kind == kind and any(re.fullmatch(pattern, topic) for pattern in contract.topics):
            return contract
    return None


def _files(folder: str) -> list[Path]:
    return sorted((FOLDER / folder).glob("*.odcs.yaml"))


def arrow_type(text: str) -> pa.DataType:
    """Spark's spelling of a type -> Arrow. Raises KeyError or ValueError for a type that the lake does not use."""
    if text in _SCALARS:
        return _SCALARS[text]
    if match := re.fullmatch(r"array<(.+)>", text):
        return pa.list_(pa.field("element", arrow_type(match[1])))
    if match := re.fullmatch(r"struct<(.+)>", text):
        members = [member.split(":", 1) for member in match[1].split(",")]
        return pa.struct([pa.field(name, arrow_type(kind)) for name, kind in members])
    raise KeyError(text)


def read_table(path: Path) -> TableContract:
    """Reads and checks one table contract. Raises ContractError."""
    document = _read(path)
    _check(path, len(document.get("schema", [])) == 1, "schema", "A table contract has one schema object.")
    table = document["schema"][0]
    columns = tuple(_column(path, entry) for entry in table["properties"])
    names = [column.name for column in columns]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    _check(path, duplicate is None, f"column {duplicate}", "It is there twice; remove one.")
    keyed = sorted(
        (entry.get("primaryKeyPosition", 0), entry["name"]) for entry in table["properties"] if entry.get("primaryKey")
    )
    custom = _custom(document)
    rules = tuple(_rule(path, entry, names) for entry in table.get("quality", []))
    rule_names = [rule.name for rule in rules]
    repeated = next((name for name in rule_names if rule_names.count(name) > 1), None)
    _check(path, repeated is None, f"rule {repeated!r}", "Two rules have this name; rename one.")
    return TableContract(
        name=_name(path, document),
        version=_version(path, document),
        description=table.get("description", ""),
        owner=_required(path, custom, "owner", "customProperties"),
        columns=columns,
        primary_key=tuple(name for _, name in keyed),
        partition_by=tuple(entry["name"] for entry in table["properties"] if entry.get("partitioned")),
        rules=rules,
        per_drive=bool(custom.get("perDrive", False)),
        keeps_quarantined=bool(custom.get("keepsQuarantined", False)),
        freshness_hours=_freshness_hours(document),
        fingerprint=_fingerprint(document),
        path=path,
    )


def read_stream(path: Path) -> StreamContract:
    """Reads and checks one stream contract. Raises ContractError."""
    document = _read(path)
    custom = _custom(document)

    def required(key: str) -> Any:
        return _required(path, custom, key, "customProperties")

    _check(path, required("kind") in KINDS, "kind", f"Use one of {', '.join(KINDS)}.")
    for pattern in required("topics"):
        try:
            re.compile(pattern)
        except re.error as error:
            raise _error(path, f"topics: {pattern!r}", f"It is no regular expression: {error}.") from error
    rate = custom.get("nominalRateHz")
    _check(path, rate is None or rate > 0, "nominalRateHz", "Give a rate above 0, or leave it out.")
    return StreamContract(
        name=_name(path, document),
        version=_version(path, document),
        description=document.get("description", {}).get("purpose", ""),
        owner=required("owner"),
        kind=required("kind"),
        topics=tuple(required("topics")),
        nominal_rate_hz=rate,
        gap_limit_periods=custom.get("gapLimitPeriods"),
        latency_limit_ms=custom.get("latencyLimitMs"),
        clock_domain=required("clockDomain"),
        stamp_point=required("stampPoint"),
        max_range_m=custom.get("maxRangeM"),
        scan_period_ns=custom.get("scanPeriodNs"),
        failure_modes=tuple(custom.get("failureModes", ())),
        retention_class=required("retentionClass"),
        personal_data=required("personalData"),
        fingerprint=_fingerprint(document),
        path=path,
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        document = yaml.load(path.read_text(), Loader=_LOADER)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}" if mark else "file"
        raise _error(path, place, f"It is no YAML: {getattr(error, 'problem', error)}.") from error
    errors = sorted(_validator().iter_errors(document), key=lambda found: list(map(str, found.absolute_path)))
    if errors:
        place = "/".join(map(str, errors[0].absolute_path)) or "top level"
        raise _error(path, place, f"The standard (ODCS v3) says: {errors[0].message}.")
    return dict(document)


@lru_cache(maxsize=1)
def _validator() -> Any:
    # The package's pydantic model accepts wrong files too; its JSON schema does not.
    from jsonschema.validators import validator_for

    text = (resources.files("open_data_contract_standard") / "schema.json").read_text()
    schema = json.loads(text)
    return validator_for(schema)(schema)


def _column(path: Path, entry: dict[str, Any]) -> Column:
    place = f"column {entry['name']}"
    kind = _required(path, entry, "physicalType", place)
    try:
        arrow_type(kind)
    except (KeyError, ValueError) as error:
        known = ", ".join(_SCALARS)
        raise _error(path, place, f"Type {kind!r} is not one of {known}, array<...>, struct<...>.") from error
    _check(path, bool(entry.get("description")), place, "Give it a description.")
    return Column(
        name=entry["name"],
        type=kind,
        required=bool(entry.get("required", False)),
        description=entry["description"],
        unit=_custom(entry).get("unit"),
        classification=entry.get("classification"),
    )


def _rule(path: Path, entry: dict[str, Any], columns: list[str]) -> Rule:
    name = _required(path, entry, "name", "quality")
    place = f"rule {name!r}"
    _check(path, entry.get("engine") == "greatExpectations", place, "Its engine must be greatExpectations.")
    implementation = entry["implementation"]
    expectation = implementation.get("type") if isinstance(implementation, dict) else None
    _check(
        path,
        expectation in EXPECTATIONS,
        place,
        f"Expectation {expectation!r} is not one of {', '.join(EXPECTATIONS)}.",
    )
    kwargs = dict(implementation.get("kwargs", {}))
    allowed = EXPECTATIONS[str(expectation)]
    custom = _custom(entry)
    scope = custom.get("scope")
    _check(path, scope in ("row", "drive", "table"), place, f"Scope {scope!r} is not one of row, drive, table.")
    unknown = sorted(set(kwargs) - allowed)
    _check(path, not unknown, place, f"{expectation} has no argument {', '.join(unknown)}.")
    _check(path, isinstance(custom.get("blocking"), bool), place, "Say whether it is blocking: true or false.")
    rule = Rule(name, scope, custom["blocking"], str(expectation), kwargs, entry.get("description", ""))
    missing = [column for column in rule.columns if column not in columns]
    _check(path, bool(rule.columns) and not missing, place, f"The table has no column {', '.join(missing) or 'named'}.")
    _check(
        path,
        scope == "table" or expectation != "expect_compound_columns_to_be_unique",
        place,
        "Uniqueness is a property of the table; give it scope table.",
    )
    return rule


def _name(path: Path, document: dict[str, Any]) -> str:
    name = _required(path, document, "name", "top level")
    _check(path, path.name == f"{name}.odcs.yaml", "name", f"The file must be called {name}.odcs.yaml.")
    return str(name)


def _version(path: Path, document: dict[str, Any]) -> str:
    version = str(document["version"])
    _check(path, bool(re.fullmatch(r"\d+\.\d+\.\d+", version)), "version", f"{version!r} is not MAJOR.MINOR.PATCH.")
    return version


def _freshness_hours(document: dict[str, Any]) -> float | None:
    for entry in document.get("slaProperties", []):
        if entry["property"] == "frequency" and entry.get("unit") == "h":
            return float(entry["value"])
    return None


def _fingerprint(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


def _custom(entry: dict[str, Any]) -> dict[str, Any]:
    return {item["property"]: item["value"] for item in entry.get("customProperties", [])}


def _required(path: Path, holder: Mapping[str, Any], key: str, place: str) -> Any:
    _check(path, holder.get(key) is not None, place, f"Add {key!r}.")
    return holder[key]


def _check(path: Path, holds: bool, place: str, remedy: str) -> None:
    if not holds:
        raise _error(path, place, remedy)


def _error(path: Path, place: str, remedy: str) -> ContractError:
    return ContractError(f"Contract {path.name} is wrong", where=place, remedy=remedy)

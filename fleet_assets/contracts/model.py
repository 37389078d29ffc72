"""What a contract says, as plain data.

In: nothing. Out: TableContract, StreamContract and their parts, and the types and expectations that contracts may use.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

Scope = Literal["row", "drive", "table"]
SCOPES = ("row", "drive", "table")
KINDS = ("camera", "lidar", "radar", "imu", "gnss", "bus", "pose", "label")
TABLE_OF_KIND = {
    "camera": "ingest.messages",
    "lidar": "ingest.messages",
    "radar": "ingest.messages",
    "imu": "ingest.imu",
    "gnss": "ingest.gnss",
    "bus": "ingest.bus_signals",
    "pose": "ingest.poses",
    "label": "ingest.labels",
}

# What may be kept, and for how long; the first in this order rules where several meet.
RETENTION_CLASSES = ("raw", "with_recording", "permanent")
# What a value can tell about a person, through the vehicle that they were in or passed by.
PERSONAL_CLASSES = (
    "vehicle",
    "precise location",
    "approximate location",
    "driving behaviour",
    "faces and plates",
    "free text",
)
NOT_PERSONAL = "none"
# Stamp point of a sensor that scans -> share of the sweep that is over by then.
SWEEP_STAMPS = {"start of sweep": 0.0, "middle of sweep": 0.5, "end of sweep": 1.0}

# Type in a contract -> Arrow type, and the ODCS logical type that goes with it.
SCALARS: dict[str, tuple[pa.DataType, str]] = {
    "string": (pa.string(), "string"),
    "long": (pa.int64(), "integer"),
    "double": (pa.float64(), "number"),
    "boolean": (pa.bool_(), "boolean"),
    "date": (pa.date32(), "date"),
    "binary": (pa.binary(), "string"),  # the standard has no logical type for bytes
}


@dataclass(frozen=True)
class Expectation:
    """What a rule may ask. argument names; scopes it makes sense in."""

    required: frozenset[str]
    optional: frozenset[str] = frozenset()
    scopes: tuple[Scope, ...] = ("row", "drive", "table")


NOT_NULL = "expect_column_values_to_not_be_null"
BETWEEN = "expect_column_values_to_be_between"
IN_SET = "expect_column_values_to_be_in_set"
REGEX = "expect_column_values_to_match_regex"
PAIR = "expect_column_pair_values_a_to_be_greater_than_b"
UNIQUE = "expect_column_values_to_be_unique"
UNIQUE_TOGETHER = "expect_compound_columns_to_be_unique"
ROW_COUNT = "expect_table_row_count_to_be_between"
_BOUNDS = frozenset({"min_value", "max_value", "strict_min", "strict_max"})
# Names and arguments are those of Great Expectations; the evaluator and the audit know these and no others.
EXPECTATIONS: dict[str, Expectation] = {
    NOT_NULL: Expectation(frozenset({"column"}), frozenset({"mostly"})),
    BETWEEN: Expectation(frozenset({"column"}), _BOUNDS | {"mostly"}),
    IN_SET: Expectation(frozenset({"column", "value_set"}), frozenset({"mostly"})),
    REGEX: Expectation(frozenset({"column", "regex"}), frozenset({"mostly"})),
    PAIR: Expectation(frozenset({"column_A", "column_B"}), frozenset({"or_equal", "mostly"})),
    UNIQUE: Expectation(frozenset({"column"}), scopes=("table",)),
    UNIQUE_TOGETHER: Expectation(frozenset({"column_list"}), scopes=("table",)),
    ROW_COUNT: Expectation(frozenset(), frozenset({"min_value", "max_value"}), scopes=("drive", "table")),
}


@dataclass(frozen=True)
class Rule:
    """scope: what a failure costs (the row, the drive, the transaction). blocking: whether it costs anything."""

    name: str
    scope: Scope
    blocking: bool
    expectation: str
    kwargs: Mapping[str, Any]
    description: str

    @property
    def columns(self) -> tuple[str, ...]:
        if "column_list" in self.kwargs:
            return tuple(self.kwargs["column_list"])
        return tuple(self.kwargs[name] for name in ("column", "column_A", "column_B") if name in self.kwargs)

    @property
    def mostly(self) -> float:
        """Share of the rows that must hold; 1 unless the rule says less. Rows with a null are not counted."""
        return float(self.kwargs.get("mostly", 1))


@dataclass(frozen=True)
class Column:
    """type: string, long, double, boolean, date, binary, or array/struct of these, as Spark writes it.

    classification: none, or personal: and one of PERSONAL_CLASSES. sources: the columns it is made from, such as
    ingest.imu.gyro_z_radps.
    """

    name: str
    type: str
    required: bool
    description: str
    classification: str
    unit: str | None = None
    sources: tuple[str, ...] = ()

    @property
    def arrow_type(self) -> pa.DataType:
        return arrow_type(self.type)

    @property
    def payload(self) -> bool:
        """Bytes, or made of them: no rule judges them, and nobody reads them who did not ask."""
        return re.search(r"\bbinary\b", self.type) is not None


@dataclass(frozen=True)
class TableContract:
    """A table, or a file of context. keeps_quarantined: its rows stay when their drive is quarantined. join_limits: how far a
    join by likeness or nearness may reach."""

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
    retention_class: str
    residency: str
    join_limits: Mapping[str, float]
    usage: str
    limitations: str
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
    """A sensor stream. Ranges in metres, periods in nanoseconds, gap limit in nominal periods. phase: share of a sweep after
    which the sensor looks ahead, where the cameras look; None when nobody knows, or it does not scan. personal_data: none, or one
    of PERSONAL_CLASSES."""

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
    phase: float | None
    failure_modes: tuple[str, ...]
    retention_class: str
    residency: str
    personal_data: str
    required_columns: tuple[str, ...]
    rules: tuple[Rule, ...]
    fingerprint: str
    path: Path = field(compare=False)

    @property
    def table(self) -> str:
        """The table that its records go to."""
        return TABLE_OF_KIND[self.kind]

    @property
    def nominal_period_ns(self) -> int | None:
        return round(1e9 / self.nominal_rate_hz) if self.nominal_rate_hz else None

    @property
    def ahead_ns(self) -> int:
        """From a record's stamp to the time at which the sensor looks ahead; 0 where the stamp is that time."""
        if self.phase is None or self.scan_period_ns is None:
            return 0
        return round((self.phase - SWEEP_STAMPS[self.stamp_point]) * self.scan_period_ns)

    @property
    def until_end_ns(self) -> int:
        """From a record's stamp to the end of its sweep: no record can arrive before."""
        if self.scan_period_ns is None:
            return 0
        return round((1.0 - SWEEP_STAMPS[self.stamp_point]) * self.scan_period_ns)

    @property
    def gap_limit_ns(self) -> int | None:
        """A step over this is a gap."""
        if not self.nominal_rate_hz or not self.gap_limit_periods:
            return None
        return round(self.gap_limit_periods * 1e9 / self.nominal_rate_hz)


def arrow_type(text: str) -> pa.DataType:
    """A contract's type -> Arrow. Raises ValueError for a type that the lake does not use."""
    if text in SCALARS:
        return SCALARS[text][0]
    if match := re.fullmatch(r"array<(.+)>", text):
        return pa.list_(pa.field("element", arrow_type(match[1])))
    if match := re.fullmatch(r"struct<(.+)>", text):
        return pa.struct([_member(member) for member in _split(match[1])])
    raise ValueError(f"unknown type {text!r}")


def logical_type(text: str) -> str:
    """The ODCS logical type of a contract's type."""
    if text in SCALARS:
        return SCALARS[text][1]
    return "array" if text.startswith("array<") else "object"


def _member(text: str) -> pa.Field:
    name, colon, kind = text.partition(":")
    if not colon or not name.isidentifier():
        raise ValueError(f"{text!r} is not name:type")
    return pa.field(name, arrow_type(kind))


def _split(text: str) -> list[str]:
    """Splits at commas outside of angle brackets."""
    parts, depth, start = [], 0, 0
    for index, letter in enumerate(text):
        depth += (letter == "<") - (letter == ">")
        if letter == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    return [*parts, text[start:]]

"""Rules, evaluated on Arrow tables without Great Expectations: fast enough for every batch of a reading pass.

In: a contract and rows. Out: which rows break which rule. The audit (audit.py) runs the same rules through Great
Expectations on what is left; a property test holds the two together. As there, null passes every rule but not-null and
does not count towards `mostly`; NaN is null.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.contracts import model
from fleet_assets.contracts.model import Rule, Scope

SAMPLE_ROWS = 20


class HasRules(Protocol):
    @property
    def rules(self) -> tuple[Rule, ...]: ...


@dataclass(frozen=True)
class RowFailure:
    """mask: bool per row, True where the row breaks the rule."""

    rule: Rule
    mask: np.ndarray


@dataclass(frozen=True)
class RuleFailure:
    """A rule that a whole table or drive breaks: number of rows, and at most 20 of them.

    For a rule on the number of rows, count is that number and there are no samples.
    """

    rule: Rule
    count: int
    sample_rows: list[dict[str, Any]]


@dataclass
class _Tally:
    rule: Rule
    considered: int = 0
    unexpected: int = 0
    sample_rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        if self.rule.expectation == model.ROW_COUNT:
            low, high = self.rule.kwargs.get("min_value"), self.rule.kwargs.get("max_value")
            return (low is None or self.considered >= low) and (high is None or self.considered <= high)
        if self.considered == 0:
            return True
        return (self.considered - self.unexpected) / self.considered >= self.rule.mostly


class DriveEvaluation:
    """Drive rules over the rows of one drive as they are read, batch by batch; memory does not grow with the drive.

    They judge what a recording holds, so rows that a row rule refuses count too: that is what `mostly` is about. Rules
    on columns that a batch does not carry are left to the audit.
    """

    def __init__(self, contract: HasRules) -> None:
        self._tallies = _tallies(contract, "drive")

    def observe(self, rows: pa.Table) -> None:
        for tally in self._tallies:
            _count(tally, rows)

    def failures(self) -> list[RuleFailure]:
        return [_failure(tally) for tally in self._tallies if not tally.holds]


def evaluate_rows(contract: HasRules, rows: pa.Table) -> list[RowFailure]:
    """Blocking rules of scope row whose columns the rows have; only those that some row breaks."""
    failures = []
    for rule in contract.rules:
        if rule.scope == "row" and rule.blocking and set(rule.columns) <= set(rows.column_names):
            mask = broken(rule, rows)
            if mask.any():
                failures.append(RowFailure(rule, mask))
    return failures


def evaluate_drive(contract: HasRules, rows: pa.Table | Iterable[pa.Table]) -> list[RuleFailure]:
    """Blocking rules of scope drive over all rows of one drive, which may come in pieces (see DriveEvaluation for those that are
    handed in). Nothing is read of an iterable where there is no such rule."""
    return evaluate(contract, rows, "drive")


def evaluate(contract: HasRules, rows: pa.Table | Iterable[pa.Table], scope: Scope) -> list[RuleFailure]:
    """Blocking rules of one scope over a whole table (scope table) or one drive's rows (scope drive)."""
    tallies = _tallies(contract, scope)
    if tallies:
        for piece in [rows] if isinstance(rows, pa.Table) else rows:
            for tally in tallies:
                _count(tally, piece)
    return [_failure(tally) for tally in tallies if not tally.holds]


def sample(rows: pa.Table, mask: np.ndarray, limit: int = SAMPLE_ROWS) -> list[dict[str, Any]]:
    """The first rows of a mask."""
    return list(rows.take(pa.array(np.flatnonzero(mask)[:limit], type=pa.int64())).to_pylist())


def broken(rule: Rule, rows: pa.Table) -> np.ndarray:
    """bool per row: True where the row breaks the rule. A rule on the number of rows breaks no single row."""
    kwargs = rule.kwargs
    match rule.expectation:
        case model.NOT_NULL:
            return ~_valid(rows, rule.columns)
        case model.BETWEEN:
            return _outside(
                rows[kwargs["column"]], **{k: v for k, v in kwargs.items() if k not in ("column", "mostly")}
            )
        case model.IN_SET:
            column = rows[kwargs["column"]]
            allowed = pa.array(kwargs["value_set"], type=column.type)
            if pa.types.is_floating(column.type):
                column = pc.add(column, pa.scalar(0.0, column.type))  # is_in holds -0.0 and 0.0 apart
            return _valid(rows, rule.columns) & ~_bools(pc.is_in(column, value_set=allowed))
        case model.REGEX:
            return _unmatched(rows[kwargs["column"]], kwargs["regex"])
        case model.PAIR:
            holds = pc.greater_equal if kwargs.get("or_equal") else pc.greater
            return _valid(rows, rule.columns) & ~_bools(holds(rows[kwargs["column_A"]], rows[kwargs["column_B"]]))
        case model.UNIQUE | model.UNIQUE_TOGETHER:
            return _repeated(rows, rule.columns)
        case model.ROW_COUNT:
            return np.zeros(rows.num_rows, dtype=bool)
        case other:
            raise ValueError(f"no evaluator for {other}")


def _tallies(contract: HasRules, scope: Scope) -> list[_Tally]:
    return [_Tally(rule) for rule in contract.rules if rule.scope == scope and rule.blocking]


def _count(tally: _Tally, rows: pa.Table) -> None:
    rule = tally.rule
    if not set(rule.columns) <= set(rows.column_names):
        return
    if rule.expectation in (model.ROW_COUNT, model.NOT_NULL):
        tally.considered += rows.num_rows
    else:
        tally.considered += int(_valid(rows, rule.columns).sum())
    mask = broken(rule, rows)
    tally.unexpected += int(mask.sum())
    missing = SAMPLE_ROWS - len(tally.sample_rows)
    if missing > 0 and mask.any():
        tally.sample_rows += sample(rows, mask, missing)


def _failure(tally: _Tally) -> RuleFailure:
    count = tally.considered if tally.rule.expectation == model.ROW_COUNT else tally.unexpected
    return RuleFailure(tally.rule, count, tally.sample_rows)


def _bools(values: pa.ChunkedArray) -> np.ndarray:
    """Null becomes False."""
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)


def _valid(rows: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """True where none of the columns is null or NaN."""
    valid = np.ones(rows.num_rows, dtype=bool)
    for name in columns:
        valid &= ~_bools(pc.is_null(rows[name], nan_is_null=True))
    return valid


def _outside(
    column: pa.ChunkedArray,
    min_value: float | None = None,
    max_value: float | None = None,
    strict_min: bool = False,
    strict_max: bool = False,
) -> np.ndarray:
    outside = np.zeros(len(column), dtype=bool)
    if min_value is not None:
        below = pc.less_equal if strict_min else pc.less
        outside |= _bools(below(column, pa.scalar(min_value, type=column.type)))
    if max_value is not None:
        above = pc.greater_equal if strict_max else pc.greater
        outside |= _bools(above(column, pa.scalar(max_value, type=column.type)))
    return outside


def _unmatched(column: pa.ChunkedArray, regex: str) -> np.ndarray:
    """Python's own expressions, as pandas uses them, once per distinct value (Arrow's differ in `$`)."""
    pattern = _compiled(regex)
    bad = [value for value in pc.unique(column).to_pylist() if value is not None and not pattern.search(value)]
    return _bools(pc.is_in(column, value_set=pa.array(bad, type=column.type)))


@lru_cache(maxsize=256)
def _compiled(regex: str) -> re.Pattern[str]:
    return re.compile(regex)


def _repeated(rows: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """True for every row whose key another row has too; a key with a null is not compared."""
    mask = np.zeros(rows.num_rows, dtype=bool)
    complete = np.flatnonzero(_valid(rows, columns))
    keys = rows.select(list(columns)).take(pa.array(complete)).append_column("_row", pa.array(complete))
    groups = keys.group_by(list(columns)).aggregate([("_row", "count"), ("_row", "list")])
    repeated = groups.filter(pc.greater(groups["_row_count"], 1))
    mask[pc.list_flatten(repeated["_row_list"]).to_numpy()] = True
    return mask

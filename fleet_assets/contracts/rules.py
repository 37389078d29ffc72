"""Rules, evaluated on Arrow tables without Great Expectations: fast enough for every batch of a reading pass.

In: a contract and rows. Out: which rows break which rule. The audit (audit.py) runs the same rules through Great
Expectations on what is left; a property test holds the two together. As there, null passes every rule but not-null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.contracts.loader import Rule, Scope

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
    """A rule that a whole table or drive breaks: number of rows, and at most 20 of them."""

    rule: Rule
    count: int
    sample_rows: list[dict[str, Any]]


def evaluate_rows(contract: HasRules, rows: pa.Table) -> list[RowFailure]:
    """Blocking rules of scope row whose columns the rows have; only those that some row breaks."""
    failures = []
    for rule in contract.rules:
        if rule.scope == "row" and rule.blocking and set(rule.columns) <= set(rows.column_names):
            mask = broken(rule, rows)
            if mask.any():
                failures.append(RowFailure(rule, mask))
    return failures


def evaluate(contract: HasRules, rows: pa.Table, scope: Scope) -> list[RuleFailure]:
    """Blocking rules of one scope over a whole table (scope table) or one drive's rows (scope drive)."""
    failures = []
    for rule in contract.rules:
        if rule.scope == scope and rule.blocking:
            mask = broken(rule, rows)
            if mask.any():
                failures.append(RuleFailure(rule, int(mask.sum()), sample(rows, mask)))
    return failures


def sample(rows: pa.Table, mask: np.ndarray) -> list[dict[str, Any]]:
    """The first rows of a mask, at most SAMPLE_ROWS."""
    return list(rows.take(pa.array(np.flatnonzero(mask)[:SAMPLE_ROWS])).to_pylist())


def broken(rule: Rule, rows: pa.Table) -> np.ndarray:
    """bool per row: True where the row breaks the rule."""
    kwargs = rule.kwargs
    match rule.expectation:
        case "expect_column_values_to_not_be_null":
            return _mask(pc.is_null(rows[kwargs["column"]], nan_is_null=True))
        case "expect_column_values_to_be_between":
            return _mask(_outside(rows[kwargs["column"]], **{k: v for k, v in kwargs.items() if k != "column"}))
        case "expect_column_values_to_be_in_set":
            column = rows[kwargs["column"]]
            allowed = pa.array(kwargs["value_set"], type=column.type)
            return _mask(pc.and_(pc.is_valid(column), pc.invert(pc.is_in(column, value_set=allowed))))
        case "expect_column_values_to_match_regex":
            return _mask(pc.invert(pc.match_substring_regex(rows[kwargs["column"]], kwargs["regex"])))
        case "expect_column_pair_values_a_to_be_greater_than_b":
            compare = pc.less if kwargs.get("or_equal") else pc.less_equal
            return _mask(compare(rows[kwargs["column_A"]], rows[kwargs["column_B"]]))
        case "expect_compound_columns_to_be_unique":
            return _repeated(rows, kwargs["column_list"])
        case other:
            raise ValueError(f"no evaluator for {other}")


def _mask(values: pa.ChunkedArray) -> np.ndarray:
    """Null (the rule says nothing about this row) becomes False."""
    return np.asarray(pc.fill_null(values, False).to_numpy(), dtype=bool)


def _outside(
    column: pa.ChunkedArray,
    min_value: float | None = None,
    max_value: float | None = None,
    strict_min: bool = False,
    strict_max: bool = False,
) -> pa.ChunkedArray:
    below = pc.less_equal if strict_min else pc.less
    above = pc.greater_equal if strict_max else pc.greater
    outside = pa.chunked_array([pa.repeat(False, len(column))])
    if min_value is not None:
        outside = pc.or_kleene(outside, below(column, pa.scalar(min_value, type=column.type)))
    if max_value is not None:
        outside = pc.or_kleene(outside, above(column, pa.scalar(max_value, type=column.type)))
    return outside


def _repeated(rows: pa.Table, columns: Sequence[str]) -> np.ndarray:
    """True for every row whose key another row has too."""
    indexed = rows.select(list(columns)).append_column("_row", pa.array(np.arange(rows.num_rows)))
    groups = indexed.group_by(list(columns)).aggregate([("_row", "count"), ("_row", "list")])
    repeated = groups.filter(pc.greater(groups["_row_count"], 1))
    mask = np.zeros(rows.num_rows, dtype=bool)
    mask[pc.list_flatten(repeated["_row_list"]).to_numpy()] = True
    return mask

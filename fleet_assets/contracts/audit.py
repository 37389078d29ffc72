"""The audit: a contract's rules through Great Expectations.

In: a contract and the rows that are about to be published, as an Arrow table, a pandas frame or a Spark (Connect)
frame. Out: one result per rule, with counts and sample rows. Nothing leaves the machine and nothing is stored.

Great Expectations judges a whole frame. A drive rule on the number of rows is therefore judged on a frame of counts,
one row per drive; a drive rule with `mostly` on all drives together (each drive alone was judged when it was read).
"""

from __future__ import annotations

import logging
import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fleet_assets.contracts import model
from fleet_assets.contracts.model import Rule, TableContract
from fleet_assets.contracts.rules import SAMPLE_ROWS

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql.connect.dataframe import DataFrame

# Great Expectations has no numbers column to judge when it is asked for rows per drive.
_ROWS = "rows_of_drive"
_RESULT = {"result_format": "BASIC", "partial_unexpected_count": SAMPLE_ROWS, "include_unexpected_rows": True}


@dataclass(frozen=True)
class RuleResult:
    """unexpected_count: rows that break the rule. sample_rows: at most 20 of them. detail: an error, or a number."""

    rule: Rule
    success: bool
    unexpected_count: int
    sample_rows: list[dict[str, Any]]
    detail: str = ""

    @property
    def sentence(self) -> str:
        """For people: the rule, how many rows break it, and the first of them."""
        first = f", first {self.sample_rows[0]}" if self.sample_rows else ""
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.rule.name}: {self.unexpected_count} rows{first}{detail}"


@dataclass(frozen=True)
class AuditResult:
    table: str
    rows: int
    results: list[RuleResult]

    @property
    def failures(self) -> list[RuleResult]:
        """Blocking rules that did not hold."""
        return [result for result in self.results if result.rule.blocking and not result.success]

    @property
    def warnings(self) -> list[RuleResult]:
        """Rules that did not hold and do not block."""
        return [result for result in self.results if not result.rule.blocking and not result.success]

    @property
    def ok(self) -> bool:
        return not self.failures


def suite(contract: TableContract) -> Any:
    """The contract's rules as a Great Expectations suite, in the order of the rules."""
    gx = _great_expectations()
    return gx.ExpectationSuite(
        name=f"{contract.name} {contract.version}", expectations=[expectation(rule) for rule in contract.rules]
    )


def expectation(rule: Rule) -> Any:
    """One rule as a Great Expectations expectation."""
    _great_expectations()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    meta = {"rule": rule.name, "scope": rule.scope, "blocking": rule.blocking}
    return ExpectationConfiguration(type=rule.expectation, kwargs=gx_arguments(rule), meta=meta).to_domain_obj()


def gx_arguments(rule: Rule) -> dict[str, Any]:
    """A comparison, and a key, say nothing about a row in which a part is null: as the evaluator sees it."""
    if rule.expectation == model.PAIR:
        return {**rule.kwargs, "ignore_row_if": "either_value_is_missing"}
    if rule.expectation == model.UNIQUE_TOGETHER:
        return {**rule.kwargs, "ignore_row_if": "any_value_is_missing"}
    return dict(rule.kwargs)


def audit(contract: TableContract, frame: pa.Table | pd.DataFrame | DataFrame) -> AuditResult:
    """Runs every rule of the contract on the frame. An error inside a rule is a failure of the rule, with its text."""
    is_spark = hasattr(frame, "sparkSession")
    if is_spark:
        # What pyspark.sql.functions asks before it builds a column: without it, columns are those of a JVM in this
        # process, which there is not. Sessions made through pyspark.sql set it; those made directly do not.
        os.environ.setdefault("SPARK_CONNECT_MODE_ENABLED", "1")
    rows: Any = frame if is_spark else _pandas(frame)
    batch = _batch(rows, is_spark)
    per_drive = [rule for rule in contract.rules if _judged_per_drive(rule) and "drive_id" in rows.columns]
    whole = [rule for rule in contract.rules if rule not in per_drive]
    found = {rule.name: result for rule, result in zip(whole, _validate(batch, whole), strict=True)}
    if per_drive:
        counts = rows.groupby("drive_id")
        counted = counts.count().toPandas() if is_spark else counts.size().rename("count").reset_index()
        drives = counted.rename(columns={"count": _ROWS})
        asked = [_on_counts(rule) for rule in per_drive]
        for rule, result in zip(per_drive, _validate(_batch(drives, False), asked), strict=True):
            found[rule.name] = RuleResult(rule, result.success, result.unexpected_count, result.sample_rows)
    row_count = rows.count() if is_spark else len(rows)
    return AuditResult(contract.name, row_count, [found[rule.name] for rule in contract.rules])


def _judged_per_drive(rule: Rule) -> bool:
    return rule.scope == "drive" and rule.expectation == model.ROW_COUNT


def _on_counts(rule: Rule) -> Rule:
    return Rule(rule.name, rule.scope, rule.blocking, model.BETWEEN, {"column": _ROWS, **rule.kwargs}, rule.description)


def _validate(batch: Any, rules: list[Rule]) -> list[RuleResult]:
    """All rules at once, as one pass where the engine can; counts and rows only of those that do not hold."""
    verdicts = _outcomes(batch, rules, {"result_format": "BOOLEAN_ONLY"})
    broken = [rule for rule in rules if not verdicts[rule.name].success]
    details = _outcomes(batch, broken, _RESULT)
    return [_result(rule, details.get(rule.name, verdicts[rule.name])) for rule in rules]


def _outcomes(batch: Any, rules: list[Rule], result_format: dict[str, Any]) -> dict[str, Any]:
    if not rules:
        return {}
    gx = _great_expectations()
    asked = gx.ExpectationSuite(name="audit", expectations=[expectation(rule) for rule in rules])
    outcomes = batch.validate(asked, result_format=result_format).results
    return {outcome.expectation_config.meta["rule"]: outcome for outcome in outcomes}


def _result(rule: Rule, outcome: Any) -> RuleResult:
    found = outcome.result or {}
    rows = found.get("unexpected_rows")
    samples = [] if outcome.success or rows is None else _records(rows)
    detail = _error(outcome.exception_info or {})
    if rule.expectation == model.ROW_COUNT and not outcome.success and not detail:
        detail = f"{found.get('observed_value')} rows"
    count = int(found.get("unexpected_count") or 0)
    return RuleResult(rule, bool(outcome.success), count, samples, detail)


def _records(rows: Any) -> list[dict[str, Any]]:
    if hasattr(rows, "to_dict"):
        return list(rows.head(SAMPLE_ROWS).to_dict("records"))
    return [dict(row) for row in rows[:SAMPLE_ROWS]]  # Spark rows come as dictionaries


def _error(info: dict[str, Any]) -> str:
    """The first exception, whichever way it is nested: by metric, or flat."""
    if info.get("raised_exception"):
        return str(info.get("exception_message") or "error")
    for nested in info.values():
        if isinstance(nested, dict) and nested.get("raised_exception"):
            return str(nested.get("exception_message") or "error")
    return ""


def _batch(frame: Any, is_spark: bool) -> Any:
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    if is_spark:
        # Persisting is refused over Connect, and one pass per rule over Parquet is cheap.
        source = context.data_sources.add_spark("audit", persist=False)
        frame = _nan_as_null(frame)
    else:
        source = context.data_sources.add_pandas("audit")
    definition = source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all")
    return definition.get_batch({"dataframe": frame})


def _nan_as_null(frame: Any) -> Any:
    from pyspark.sql import functions as f

    doubles = [name for name, kind in frame.dtypes if kind == "double"]
    if not doubles:
        return frame
    return frame.withColumns({name: f.when(~f.isnan(name), f.col(name)) for name in doubles})


def _pandas(frame: pa.Table | pd.DataFrame) -> pd.DataFrame:
    """Columns as Great Expectations compares them fast and exactly: numpy numbers where nothing is null, else pandas'
    own (nanoseconds do not fit a float), and a plain index."""
    import pandas as pd

    if isinstance(frame, pa.Table):
        nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        frame = frame.to_pandas(types_mapper=nullable.get)
    columns = {}
    for name, series in frame.items():
        if isinstance(series.dtype, pd.Int64Dtype) and not series.hasnans:
            series = series.astype("int64")
        columns[name] = series
    return pd.DataFrame(columns, columns=list(frame.columns)).reset_index(drop=True)


def _great_expectations() -> Any:
    # Importing takes seconds, so only here; telemetry is decided at import.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its own imports, not ours to mend
        import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    return gx

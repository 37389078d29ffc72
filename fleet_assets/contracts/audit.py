"""The audit: a contract's rules through Great Expectations.

In: a contract and the rows that are about to be published, as a pandas or Spark frame. Out: one result per rule, with
counts and sample rows. Nothing leaves the machine and nothing is stored.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fleet_assets.contracts.loader import Rule, TableContract
from fleet_assets.contracts.rules import SAMPLE_ROWS

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql.connect.dataframe import DataFrame


@dataclass(frozen=True)
class RuleResult:
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
    def ok(self) -> bool:
        return not self.failures


def suite(contract: TableContract) -> Any:
    """The contract's rules as a Great Expectations suite."""
    gx = _great_expectations()
    from great_expectations.expectations.expectation_configuration import ExpectationConfiguration

    expectations = [
        ExpectationConfiguration(type=rule.expectation, kwargs=_kwargs(rule)).to_domain_obj() for rule in contract.rules
    ]
    return gx.ExpectationSuite(name=f"{contract.name} {contract.version}", expectations=expectations)


def _kwargs(rule: Rule) -> dict[str, Any]:
    # A comparison says nothing about a row in which either side is null.
    either = {"ignore_row_if": "either_value_is_missing"} if "column_A" in rule.kwargs else {}
    return {**rule.kwargs, **either}


def audit(contract: TableContract, frame: pd.DataFrame | DataFrame) -> AuditResult:
    """Runs every rule of the contract on the frame. An error inside a rule is a failure of the rule, with its text."""
    gx = _great_expectations()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    is_pandas = type(frame).__module__.startswith("pandas")
    sources = context.data_sources
    source = sources.add_pandas("audit") if is_pandas else sources.add_spark("audit")
    batch = (
        source.add_dataframe_asset("rows").add_batch_definition_whole_dataframe("all").get_batch({"dataframe": frame})
    )
    expectations = suite(contract).expectations
    results = []
    for rule, expectation in zip(contract.rules, expectations, strict=True):
        outcome = batch.validate(expectation, result_format={"result_format": "COMPLETE" if is_pandas else "SUMMARY"})
        found = outcome.result or {}
        error = (outcome.exception_info or {}).get("exception_message") or ""
        rows: list[dict[str, Any]] = []
        if is_pandas and found.get("unexpected_index_list"):
            rows = frame.loc[found["unexpected_index_list"][:SAMPLE_ROWS]].to_dict("records")
        results.append(
            RuleResult(rule, bool(outcome.success), int(found.get("unexpected_count") or 0), rows, str(error))
        )
    row_count = len(frame) if is_pandas else frame.count()
    return AuditResult(contract.name, row_count, results)


def _great_expectations() -> Any:
    # Importing takes seconds, so only here; telemetry is decided at import.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    return gx

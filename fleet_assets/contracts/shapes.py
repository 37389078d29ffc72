"""The shape of every contract as it was last accepted: a file of the repository, which is there in a clone without tags too.

In: today's contracts, shapes.json. Out: contracts whose version does not tell what changed in their shape since; the file
written anew. A shape is what a change of can break readers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fleet_assets.contracts.compatibility import Contract, version_findings
from fleet_assets.contracts.document import ContractError
from fleet_assets.contracts.loader import FOLDER, load_context, load_streams, load_tables
from fleet_assets.contracts.model import IN_SET, Column, Rule, TableContract

FILE = FOLDER / "shapes.json"
_OF_TABLE = ("primary_key", "partition_by", "per_drive", "keeps_quarantined")
_OF_STREAM = ("kind", "topics", "clock_domain", "stamp_point", "scan_period_ns", "phase", "required_columns")


def contracts() -> dict[str, Contract]:
    """All contracts of today by name."""
    return {**load_tables(), **load_context(), **load_streams()}


def findings(today: Mapping[str, Contract], file: Path = FILE) -> list[ContractError]:
    """Contracts whose version does not tell what changed since the file was written, and contracts that are gone."""
    accepted = json.loads(file.read_text()) if file.exists() else {}
    gone = [
        ContractError(f"{name} {shape['version']} is gone", remedy=f"Restore it, or remove its line from {file.name}.")
        for name, shape in accepted.items()
        if name not in today
    ]
    then = {name: _as_accepted(today[name], shape) for name, shape in accepted.items() if name in today}
    return gone + version_findings(then, today)


def is_current(today: Mapping[str, Contract], file: Path = FILE) -> bool:
    """Whether the file says what the contracts say."""
    return file.exists() and file.read_text() == _text(today)


def accept(today: Mapping[str, Contract], file: Path = FILE) -> bool:
    """Writes the file; says whether it changed. Raises ContractError, and writes nothing, while there are findings."""
    for finding in findings(today, file):
        raise finding
    if is_current(today, file):
        return False
    file.write_text(_text(today))
    return True


def _text(today: Mapping[str, Contract]) -> str:
    """A line for each contract, so that a change of two in two branches is no conflict."""
    lines = [f"{json.dumps(name)}: {json.dumps(_shape(contract))}" for name, contract in sorted(today.items())]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _shape(contract: Contract) -> dict[str, Any]:
    is_table = isinstance(contract, TableContract)
    shape = {label: getattr(contract, label) for label in ("version", *(_OF_TABLE if is_table else _OF_STREAM))}
    if isinstance(contract, TableContract):
        shape["columns"] = [[column.name, column.type, column.required, column.unit] for column in contract.columns]
    allowed = {rule.name: rule.kwargs["value_set"] for rule in contract.rules if rule.expectation == IN_SET}
    return {**shape, "allowed": allowed}


def _as_accepted(today: Contract, shape: Mapping[str, Any]) -> Contract:
    """The contract as it was; what a shape does not hold is as it is today."""
    labels = ("version", *(_OF_TABLE if isinstance(today, TableContract) else _OF_STREAM))
    was: dict[str, Any] = {
        label: tuple(shape[label]) if isinstance(shape[label], list) else shape[label] for label in labels
    }
    rules = tuple(_rule(rule, shape["allowed"]) for rule in today.rules)
    if not isinstance(today, TableContract):
        return replace(today, **was, rules=rules)
    known = {column.name: column for column in today.columns}
    columns = tuple(
        replace(known[name], type=kind, required=required, unit=unit)
        if name in known
        else Column(name, kind, required, "", "none", unit)
        for name, kind, required, unit in shape["columns"]
    )
    return replace(today, **was, rules=rules, columns=columns)


def _rule(rule: Rule, allowed: Mapping[str, Any]) -> Rule:
    if rule.expectation != IN_SET or rule.name not in allowed:
        return rule
    return replace(rule, kwargs={**rule.kwargs, "value_set": allowed[rule.name]})

"""What changed between two versions of a contract, and which version number that asks for.

In: two contracts of one name. Out: changes, each with the semantic version step it needs: major when a reader, or data
that is already published, no longer fits; minor for what is added or judged differently; patch for words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from fleet_assets.contracts.document import ContractError
from fleet_assets.contracts.model import IN_SET, Column, Rule, StreamContract, TableContract

Step = Literal["major", "minor", "patch"]
_STEPS: tuple[Step, ...] = ("major", "minor", "patch")
Contract = TableContract | StreamContract


@dataclass(frozen=True)
class Change:
    """what: one sentence, such as `column speed_mps: removed`."""

    contract: str
    step: Step
    what: str

    @property
    def breaking(self) -> bool:
        return self.step == "major"


def changes(old: Contract, new: Contract) -> list[Change]:
    """Changes from one version of a contract to another, breaking ones first."""
    if isinstance(old, TableContract) and isinstance(new, TableContract):
        found = _table_changes(old, new)
    elif isinstance(old, StreamContract) and isinstance(new, StreamContract):
        found = _stream_changes(old, new)
    else:
        raise TypeError("a table and a stream do not compare")
    unique = dict.fromkeys(Change(new.name, step, what) for step, what in found)
    return sorted(unique, key=lambda change: _STEPS.index(change.step))


def needed_step(found: list[Change]) -> Step | None:
    """The largest step that the changes need; None without changes."""
    return min((change.step for change in found), key=_STEPS.index, default=None)


def needed_version(old: Contract, found: list[Change]) -> str:
    """The lowest version that the changes allow."""
    major, minor, patch = _numbers(old)
    match needed_step(found):
        case "major":
            return f"{major + 1}.0.0"
        case "minor":
            return f"{major}.{minor + 1}.0"
        case "patch":
            return f"{major}.{minor}.{patch + 1}"
        case _:
            return old.version


def version_findings(old: Mapping[str, Contract], new: Mapping[str, Contract]) -> list[ContractError]:
    """Contracts whose version does not tell what changed in them, and contracts that are gone."""
    findings = []
    for name, before in old.items():
        if name not in new:
            what = f"{before.path.name}: {name} {before.version} is gone"
            remedy = "Readers still use it: restore it, with status deprecated, until a major release."
            findings.append(ContractError(what, path=before.path, remedy=remedy))
            continue
        found = changes(before, new[name])
        lowest = needed_version(before, found)
        if _numbers(new[name]) < tuple(int(part) for part in lowest.split(".")):
            findings.append(
                ContractError(
                    f"{new[name].path.name}: version {new[name].version} after {before.version}, but "
                    + "; ".join(change.what for change in found[:5]),
                    where="version",
                    remedy=f"Set version {lowest} or higher, or undo the change.",
                    path=new[name].path,
                    place="version",
                )
            )
    return findings


def _numbers(contract: Contract) -> tuple[int, ...]:
    return tuple(int(part) for part in contract.version.split("."))


def _table_changes(old: TableContract, new: TableContract) -> Iterator[tuple[Step, str]]:
    yield from _column_changes(old.columns, new.columns)
    for label, before, after in (
        ("primary key", old.primary_key, new.primary_key),
        ("partitions", old.partition_by, new.partition_by),
        ("perDrive", old.per_drive, new.per_drive),
        ("keepsQuarantined", old.keeps_quarantined, new.keeps_quarantined),
    ):
        if before != after:
            yield "major", f"{label}: {before} became {after}"
    for label in ("retention_class", "residency", "join_limits"):
        if getattr(old, label) != getattr(new, label):
            yield "minor", f"{label}: {getattr(old, label)} became {getattr(new, label)}"
    yield from _rule_changes(old.rules, new.rules)
    for label in ("description", "usage", "limitations", "owner", "freshness_hours"):
        if getattr(old, label) != getattr(new, label):
            yield "patch", f"{label}: reworded" if isinstance(getattr(new, label), str) else f"{label}: changed"


def _column_changes(old: tuple[Column, ...], new: tuple[Column, ...]) -> Iterator[tuple[Step, str]]:
    before = {column.name: column for column in old}
    after = {column.name: column for column in new}
    added = [column for name, column in after.items() if name not in before]
    for name, column in before.items():
        if name not in after:
            twins = [other.name for other in added if (other.type, other.unit) == (column.type, column.unit)]
            yield "major", f"column {name}: removed" + (f" (renamed to {twins[0]}?)" if len(twins) == 1 else "")
        else:
            yield from _one_column(column, after[name])
    for column in added:
        # Rows that are published already do not have it.
        step: Step = "major" if column.required else "minor"
        yield step, f"column {column.name}: added{', required' if column.required else ''}"
    kept = [name for name in before if name in after]
    if kept != [name for name in after if name in before]:
        yield "minor", "columns: another order"


def _one_column(old: Column, new: Column) -> Iterator[tuple[Step, str]]:
    name = new.name
    if old.type != new.type:
        yield "major", f"column {name}: type {old.type} became {new.type}"
    if old.unit != new.unit:
        yield "major", f"column {name}: unit {old.unit} became {new.unit}"
    if new.required and not old.required:
        yield "major", f"column {name}: required now; published rows may hold null"
    if old.required and not new.required:
        yield "major", f"column {name}: may be null now; readers rely on it"
    if old.classification != new.classification:
        yield "minor", f"column {name}: classification {old.classification} became {new.classification}"
    if old.description != new.description:
        yield "patch", f"column {name}: reworded"


def _rule_changes(old: tuple[Rule, ...], new: tuple[Rule, ...]) -> Iterator[tuple[Step, str]]:
    before = {rule.name: rule for rule in old}
    after = {rule.name: rule for rule in new}
    for name in before.keys() - after.keys():
        yield "minor", f"rule {name!r}: removed"
    for name in after.keys() - before.keys():
        yield "minor", f"rule {name!r}: added"
    for name in before.keys() & after.keys():
        was, now = before[name], after[name]
        narrowed = set()
        if was.expectation == now.expectation == IN_SET:
            narrowed = set(was.kwargs["value_set"]) - set(now.kwargs["value_set"])
        if narrowed:
            yield "major", f"rule {name!r}: no longer allows {', '.join(sorted(map(repr, narrowed)))}"
        elif (was.expectation, dict(was.kwargs)) != (now.expectation, dict(now.kwargs)):
            yield "minor", f"rule {name!r}: asks something else"
        if (was.scope, was.blocking) != (now.scope, now.blocking):
            yield "minor", f"rule {name!r}: scope or blocking changed"
        if was.description != now.description:
            yield "patch", f"rule {name!r}: reworded"


def _stream_changes(old: StreamContract, new: StreamContract) -> Iterator[tuple[Step, str]]:
    # What a stamp means, and which records there are: readers compute with these.
    for label in ("kind", "clock_domain", "stamp_point", "scan_period_ns", "phase"):
        if getattr(old, label) != getattr(new, label):
            yield "major", f"{label}: {getattr(old, label)} became {getattr(new, label)}"
    for topic in old.topics:
        if topic not in new.topics:
            yield "major", f"topic {topic}: no longer taken"
    for topic in new.topics:
        if topic not in old.topics:
            yield "minor", f"topic {topic}: taken now"
    for column in set(new.required_columns) - set(old.required_columns):
        yield "major", f"column {column}: required now; recordings that were accepted may lack it"
    for column in set(old.required_columns) - set(new.required_columns):
        yield "major", f"column {column}: may be null now; readers rely on it"
    for label in (
        "nominal_rate_hz",
        "gap_limit_periods",
        "latency_limit_ms",
        "max_range_m",
        "retention_class",
        "residency",
    ):
        if getattr(old, label) != getattr(new, label):
            yield "minor", f"{label}: {getattr(old, label)} became {getattr(new, label)}"
    if old.personal_data != new.personal_data:
        yield "minor", f"personal_data: {old.personal_data} became {new.personal_data}"
    yield from _rule_changes(old.rules, new.rules)
    for label in ("description", "owner", "failure_modes"):
        if getattr(old, label) != getattr(new, label):
            yield "patch", f"{label}: reworded"

"""A batch of drives through one transaction: what ingest and synchronise have in common.

In: what to make for each drive, from what, and the work of a task. Out: what became of every drive, as plain data that
orchestration, the command line and tests read alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeVar

from fleet_assets.lake.tasks import Work, run_tasks
from fleet_assets.lake.transaction import AuditFailed, Transaction
from fleet_assets.lake.versions import DriveVersion

if TYPE_CHECKING:
    from fleet_assets.lake.lake import Lake
    from fleet_assets.lake.publish import Published
    from fleet_assets.services.home import Home

Item = TypeVar("Item")
DriveStatus = Literal["published", "quarantined", "skipped"]


@dataclass
class DriveOutcome:
    """One drive of a batch. rows: published rows per table; reasons: why it was quarantined, or skipped although it is due; note:
    anything else."""

    drive_id: str
    status: DriveStatus
    rows: dict[str, int] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)
    note: str = ""


@dataclass
class BatchOutcome:
    """A batch. published is None when the audit refused it; the branch then stays for inspection."""

    drives: list[DriveOutcome]
    branch: str
    published: Published | None
    audit_failures: dict[str, list[str]] = field(default_factory=dict)  # table -> sentences

    @property
    def audit_summary(self) -> str:
        return "; ".join(f"{table}: {', '.join(why)}" for table, why in self.audit_failures.items())


def run_batch(
    home: Home,
    lake: Lake,
    *,
    name: str,
    run_id: str,
    drives: Sequence[str],
    tables: Sequence[str],
    items: Callable[[Transaction], Mapping[str, tuple[Item, DriveVersion] | str]],
    weight_bytes: Callable[[Item], int],
    work: Callable[[Transaction], Work],
    missing: str,
    input_tables: Sequence[str] = (),
    parallel: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> BatchOutcome:
    """items: drive -> (item, version) for what can be made at the transaction's base, or why a drive that is due must not be
    made; asked again when a faster run was met. work: the work of a task, which gives the DriveOutcomes of its items as plain
    data. missing: why a drive that items leaves out is skipped.
    """

    def body(tx: Transaction) -> list[DriveOutcome]:
        wanted = items(tx)
        outcomes = [DriveOutcome(drive, "skipped", note=missing) for drive in drives if drive not in wanted]
        todo = []
        for drive, found in wanted.items():
            if isinstance(found, str):
                outcomes.append(DriveOutcome(drive, "skipped", reasons=[found]))
                continue
            item, version = found
            tx.declare(drive, version)
            if tx.is_done(drive):
                tx.forget(drive)
                outcomes.append(DriveOutcome(drive, "skipped", note=DONE))
            else:
                todo.append(item)
        for result in run_tasks(home, todo, weight_bytes, work(tx), parallel=parallel):
            made = [DriveOutcome(**plain) for plain in result.result]
            tx.accept(result.task, {outcome.drive_id: outcome.rows for outcome in made})
            outcomes += made
        tx.withdraw([outcome.drive_id for outcome in outcomes if outcome.status == "quarantined"])
        return sorted(outcomes, key=lambda outcome: outcome.drive_id)

    branch, made = "", []

    def remembered(tx: Transaction) -> list[DriveOutcome]:
        nonlocal branch, made
        branch = tx.branch
        made = body(tx)
        return made

    try:
        tx, _ = lake.run_transaction(
            remembered,
            name=name,
            run_id=run_id,
            drives=drives,
            tables=tables,
            input_tables=input_tables,
            on_step=on_step,
        )
    except AuditFailed as error:
        return BatchOutcome(made, branch, None, error.failures)
    return BatchOutcome(made, branch, tx.published)


DONE = "main has this very version: from this run before it was stopped, or from a run that was faster"

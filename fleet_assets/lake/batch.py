"""What one batch of drives did: the plain result that stages return and orchestration reports.

In: nothing. Out: dataclasses without Dagster or lake types in them, so that tests and the command line read the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from fleet_assets.lake.transaction import Published

DriveStatus = Literal["published", "quarantined", "skipped"]


@dataclass
class DriveOutcome:
    """One drive of a batch. rows: published rows per table; reasons: why it was quarantined; note: anything else."""

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
    plots: dict[str, bytes] = field(default_factory=dict)  # table -> png

    @property
    def audit_summary(self) -> str:
        return "; ".join(f"{table}: {', '.join(why)}" for table, why in self.audit_failures.items())

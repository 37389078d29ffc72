"""Publishing rebases the log, not the data.

In: a transaction's branch. Out: one merge on main, or none. Two branches that append to one Delta table collide in
`_delta_log`, so the branch's own log entries are read, its data files are carried over without their log, and the add
actions are committed anew on top of whatever main holds by then. No new data is copied.

1. Read the branch's own log entries; refuse anything but added files.
2. On a copy of the branch, put everything under `_delta_log/` back, so that only added objects remain.
3. Make a publish branch from the head of main and merge the copy into it, which cannot collide.
4. Compare versions of every drive with the head's; delete the drives' earlier rows; commit the add actions.
5. Merge into main; on a conflict, back to 3.

(The look-up whether this run has published already comes before the work, in transaction.py.)
"""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from fleet_assets.contracts.loader import TableContract, load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.client import MAIN, Change, LakeUnreachable, MergeConflict, Repository
from fleet_assets.lake.tables import VERSIONS, Snapshot, Version, drives_predicate, open_table, quoted

TASK_KEY = "fleet.task"  # commitInfo entry that names the task which wrote a log entry
ACTIONS = "_lakefs_actions/"
_TRIES = 60
# Where a transaction may add objects; anything else on its branch is a fault.
_ADDED = re.compile(
    r"(tables/[a-z_]+/[a-z_]+/(?!_delta_log/).+\.parquet|recordings/[0-9a-f]{64}\.mcap|audits/[\w-]+\.json)"
)


class StaleInputs(FleetError):
    """A drive was published by someone else since this transaction read it."""

    def __init__(self, drives: Sequence[str], tables: Sequence[str]) -> None:
        self.drives = list(drives)
        super().__init__(
            f"Newer rows of {', '.join(self.drives[:3])}{' ...' if len(self.drives) > 3 else ''} were published meanwhile",
            where=", ".join(sorted(set(tables))),
            remedy="The newer rows stay; what is still due is done again from them.",
        )


@dataclass(frozen=True)
class Published:
    """One merge on main. rows: published per table; replaced_drives: had earlier rows; tries: rounds of 3 to 5."""

    commit_id: str
    rows: Mapping[str, int]
    replaced_drives: tuple[str, ...] = ()
    tries: int = 1
    seconds: float = 0.0


@dataclass
class Added:
    """Files that the accepted tasks of a transaction added to one table."""

    contract: TableContract
    actions: list[dict[str, Any]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        return sum(int(json.loads(action["stats"])["numRecords"]) for action in self.actions)

    @property
    def paths(self) -> list[str]:
        """Keys below the reference."""
        return [f"{self.contract.location}/{unquote(action['path'])}" for action in self.actions]


@dataclass
class Plan:
    """What is to be published. withdrawn: drives whose rows leave every table that does not keep quarantined ones."""

    name: str
    branch: str
    base: Snapshot
    drives: Sequence[str]
    input_tables: Sequence[str]
    accepted: frozenset[str]
    versions: Mapping[tuple[str, str], Version]
    version_rows: pa.Table
    withdrawn: Sequence[str]
    metadata: Mapping[str, str]


def added_files(repository: Repository, base: str, branch: str, accepted: frozenset[str]) -> dict[str, Added]:
    """Step 1: the branch's own log entries. Raises FleetError for anything that a transaction may not do."""
    return _added(repository, branch, list(repository.diff(base, branch)), accepted)


def _added(
    repository: Repository, branch: str, changes: Iterable[Change], accepted: frozenset[str]
) -> dict[str, Added]:
    by_location = {contract.location: contract for contract in load_tables().values()}
    found: dict[str, Added] = {}
    for change in changes:
        if change.path.startswith(ACTIONS):
            raise FleetError(
                f"Branch {branch} changes {change.path}",
                remedy="Pre-merge actions are changed by an administrator only.",
            )
        match = re.fullmatch(r"(tables/[a-z_]+/[a-z_]+)/_delta_log/\d{20}\.json", change.path)
        if not match or match[1] not in by_location:
            continue
        if change.kind != "added":
            raise FleetError(f"Branch {branch} rewrites the log entry {change.path}", remedy="Nothing was published.")
        actions = [json.loads(line) for line in repository.get(branch, change.path).splitlines() if line.strip()]
        forbidden = {key for action in actions for key in action} & {"remove", "metaData", "protocol"}
        if forbidden:
            # Rewriting a shared file on a branch would carry other drives' rows along and double them.
            raise FleetError(
                f"Branch {branch} does more than append: {', '.join(sorted(forbidden))} in {change.path}",
                remedy="Append only; drives are replaced by publishing. Nothing was published.",
            )
        info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
        if (info.get(TASK_KEY) or info.get("userMetadata")) in accepted:
            contract = by_location[match[1]]
            added = found.setdefault(contract.name, Added(contract))
            added.actions += [action["add"] for action in actions if "add" in action]
    return found


def publish(repository: Repository, plan: Plan, on_step: Callable[[int], None]) -> Published:
    """All five steps. Raises StaleInputs, and FleetError for a branch that may not be published."""
    started = time.monotonic()
    on_step(1)
    changes = list(repository.diff(plan.base.commit_id, plan.branch))
    added = _added(repository, plan.branch, changes, plan.accepted)
    on_step(2)
    copy = f"{plan.branch}-copy"
    _data_only(repository, plan, copy, changes, added)
    replaced: tuple[str, ...] = ()
    for attempt in range(1, _TRIES + 1):
        target = f"{plan.branch}-pub{attempt}"
        try:
            on_step(3)
            head = Snapshot(repository, repository.commit_id(MAIN))
            repository.create_branch(target, head.commit_id)
            repository.merge(copy, target, f"{plan.name}: data files")
            on_step(4)
            replaced = _rebase(repository, plan, head, target, added)
            repository.commit(target, f"{plan.name}: log")
            on_step(5)
            commit_id = _merge(repository, plan, head, target)
        except MergeConflict:
            repository.delete_branch(target)
            time.sleep(random.uniform(0.01, 0.05 * min(attempt, 8)))
            continue
        except StaleInputs:
            repository.delete_branch(target)
            repository.delete_branch(copy)
            raise
        on_step(6)
        repository.delete_branch(target)
        repository.delete_branch(copy)
        rows = {name: files.rows for name, files in added.items()}
        return Published(commit_id, rows, replaced, attempt, time.monotonic() - started)
    raise FleetError(
        f"main moved during each of {_TRIES} tries to publish {plan.branch}",
        remedy="The work is kept on its branch; run it again when fewer runs publish at once.",
    )


def _data_only(
    repository: Repository, plan: Plan, copy: str, changes: Iterable[Change], added: Mapping[str, Added]
) -> None:
    """Step 2: a copy of the branch whose only differences are objects to be published."""
    wanted = {path for files in added.values() for path in files.paths}
    repository.create_branch(copy, plan.branch)
    to_delete, kept = [], 0
    for change in changes:
        is_log = "/_delta_log/" in change.path
        if change.kind == "added" and (is_log or (change.path.endswith(".parquet") and change.path not in wanted)):
            to_delete.append(change.path)
        elif is_log:
            repository.copy(plan.base.commit_id, change.path, copy)
        elif change.kind != "added" or not _ADDED.fullmatch(change.path):
            raise FleetError(
                f"Branch {plan.branch} {change.kind} {change.path}, which a transaction may not",
                remedy="Nothing was published.",
            )
        else:
            kept += 1
    if to_delete:
        repository.delete(copy, to_delete)
        repository.commit(copy, f"{plan.name}: data files without their log")


def _rebase(
    repository: Repository, plan: Plan, head: Snapshot, target: str, added: Mapping[str, Added]
) -> tuple[str, ...]:
    """Step 4. Gives the drives that had earlier rows."""
    per_drive = [c.name for c in load_tables().values() if c.per_drive and c.name != VERSIONS]
    at_head = head.versions(plan.drives)
    if head.commit_id != plan.base.commit_id:
        _refuse_stale(plan, at_head)
    leaving = [name for name in per_drive if not load_tables()[name].keeps_quarantined]
    withdrawn = set(plan.withdrawn)
    written = {table for _, table in plan.versions}
    old: dict[str, list[str]] = {}  # table -> drives whose earlier rows go
    for (drive, table), version in at_head.items():
        replaced_here = (drive, table) in plan.versions
        if version.rows and (replaced_here or (drive in withdrawn and table in leaving)):
            old.setdefault(table, []).append(drive)
    tables = sorted(set(added) | set(old) | written & set(added))

    def one(name: str) -> None:
        table = open_table(repository, target, load_tables()[name])
        if name in old:
            table.delete(drives_predicate(sorted(old[name])))
        if name in added:
            _commit_adds(table, added[name])

    with ThreadPoolExecutor(max_workers=8) as pool:
        done = [pool.submit(one, name) for name in tables]
        done.append(pool.submit(_write_versions, repository, plan, target, at_head, leaving))
        for future in done:
            future.result()
    return tuple(sorted({drive for drives in old.values() for drive in drives}))


def _refuse_stale(plan: Plan, at_head: Mapping[tuple[str, str], Version]) -> None:
    at_base = plan.base.versions(plan.drives)
    watched = set(plan.input_tables) | {table for _, table in plan.versions}
    stale = [
        key for key in sorted(set(at_head) | set(at_base)) if key[1] in watched and at_head.get(key) != at_base.get(key)
    ]
    if stale:
        raise StaleInputs(sorted({drive for drive, _ in stale}), [table for _, table in stale])


def _commit_adds(table: Any, added: Added) -> None:
    from deltalake.transaction import AddAction

    actions = [
        AddAction(
            path=action["path"],
            size=action["size"],
            partition_values=action["partitionValues"],
            modification_time=action["modificationTime"],
            data_change=True,
            stats=action["stats"],
        )
        for action in added.actions
    ]
    partition_by = list(added.contract.partition_by)
    table.create_write_transaction(actions, mode="append", schema=table.schema(), partition_by=partition_by)


def _write_versions(
    repository: Repository,
    plan: Plan,
    target: str,
    at_head: Mapping[tuple[str, str], Version],
    leaving: Sequence[str],
) -> None:
    """lake.versions of everything that this publication says something about. Every publication writes here, so two of
    them always meet in step 5 and the comparison above cannot be overtaken."""
    from deltalake import write_deltalake

    table = open_table(repository, target, load_tables()[VERSIONS])
    written = {table for _, table in plan.versions}
    conditions = [
        f"{drives_predicate(drives)} AND table_name IN {quoted(names)}"
        for drives, names in (
            (sorted({drive for drive, table in at_head if table in written}), sorted(written)),
            (sorted({drive for drive, table in at_head if drive in set(plan.withdrawn) and table in leaving}), leaving),
        )
        if drives
    ]
    if conditions:
        table.delete(" OR ".join(f"({condition})" for condition in conditions))
    write_deltalake(table, plan.version_rows, mode="append")


def _merge(repository: Repository, plan: Plan, head: Snapshot, target: str) -> str:
    """Step 5. A lost answer is looked up: the merge may have happened."""
    message = f"{plan.name}: {len(plan.drives)} drives"
    try:
        return repository.merge(target, MAIN, message, plan.metadata)
    except LakeUnreachable:
        for commit in repository.log(MAIN, stop_at=head.commit_id):
            if commit.metadata.get("transaction") == plan.metadata["transaction"]:
                return commit.id
        raise

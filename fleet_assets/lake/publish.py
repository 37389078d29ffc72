"""Publishing rebases the log, not the data.

In: a transaction's branch, committed and audited. Out: one merge on main, or none. Two branches that append to one Delta
table collide in `_delta_log`, so the branch's own log entries are read, its data files are carried over without their
log, and the add actions are committed anew on top of whatever main holds by then. No new data is copied.

1. Read the branch's own log entries; refuse anything but added files.
2. On a copy of the branch, put everything under `_delta_log/` back, so that only added objects remain.
3. Make a publish branch from the head of main and merge the copy into it, which cannot collide.
4. Compare versions of every drive with the head's; delete the drives' earlier rows; commit the add actions.
5. Merge into main; on a conflict, back to 3.

(The look-up whether this run has published already comes before the work, in transaction.py.)
"""

from __future__ import annotations

import contextlib
import fcntl
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.client import MAIN, Change, Repository
from fleet_assets.lake.delta_log import THREADS, Added, commit_adds, next_version, read_added, without_log
from fleet_assets.lake.refusals import LakeUnreachable, MergeConflict, NothingToCommit
from fleet_assets.lake.tables import VERSIONS, Snapshot, Version, drives_predicate, engine_errors, open_table, quoted

ACTIONS = "_lakefs_actions/"
_TRIES = 60
_QUEUE_S = 10.0
# What a transaction may add; anything else on its branch is a fault.
_ADDED = re.compile(
    r"tables/[a-z_]+/[a-z_]+/(?!_).+\.parquet|recordings/[0-9a-f]{64}\.mcap|datasets/[0-9a-f]{64}\.(?:parquet|json)"
    r"|context/[0-9a-f]{64}\.csv|audits/[\w-]+\.json"
)

Key = tuple[str, str]  # drive, table


class StaleInputs(FleetError):
    """Drives of which someone else has published newer rows since this transaction read them."""

    def __init__(self, drives: Sequence[str], tables: Sequence[str]) -> None:
        self.drives = list(drives)
        self.tables = sorted(set(tables))
        super().__init__(
            f"Newer rows of {', '.join(self.drives[:3])}{' ...' if len(self.drives) > 3 else ''} were published meanwhile",
            where=", ".join(self.tables),
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
    log_versions: Mapping[str, int] = field(default_factory=dict)  # newest log entry per table that was written


@dataclass(frozen=True)
class Plan:
    """What is to be published.

    commit_id: the branch as it was audited. accepted: tasks whose files count. versions: of what is written, by drive
    and table. withdrawn: drives that are quarantined; see _leaving for the tables that their rows leave.
    queue: lock file that publishers of this machine share.
    """

    name: str
    branch: str
    commit_id: str
    base: Snapshot
    drives: Sequence[str]
    input_tables: Sequence[str]
    accepted: frozenset[str]
    versions: Mapping[Key, Version]
    withdrawn: frozenset[str]
    metadata: Mapping[str, str]
    queue: Path


def publish(repository: Repository, plan: Plan, on_step: Callable[[int], None]) -> Published:
    """All five steps. on_step is called before each of them, and with 6 after the merge.

    Raises StaleInputs; FleetError for a branch that may not be published, or when main moves during every try.
    """
    started = time.monotonic()
    on_step(1)
    changes = list(repository.diff(plan.base.commit_id, plan.commit_id))
    refuse_actions(plan.branch, changes)
    added = read_added(repository, plan.commit_id, changes, plan.accepted)
    on_step(2)
    leftovers = [f"{plan.branch}-copy"]
    try:
        _data_only(repository, plan, leftovers[0], changes, added)
        for attempt in range(1, _TRIES + 1):
            leftovers.append(f"{plan.branch}-pub{attempt}")
            # The first try is free; who has lost one waits for the others on this machine instead of racing them.
            with _queue(plan.queue) if attempt > 1 else contextlib.nullcontext():
                round_ = _Round(repository, plan, added, leftovers[0], leftovers[-1])
                commit_id = round_.run(on_step)
            if commit_id is not None:
                on_step(6)
                return Published(
                    commit_id,
                    {name: files.rows for name, files in sorted(added.items()) if name != VERSIONS},
                    round_.replaced,
                    attempt,
                    time.monotonic() - started,
                    dict(round_.log_versions),
                )
            time.sleep(random.uniform(0.01, 0.05 * min(attempt, 8)))
    finally:
        # The sweeper finds what stays when the server is away.
        with contextlib.suppress(LakeUnreachable):
            for branch in leftovers:
                repository.delete_branch(branch)
    raise FleetError(
        f"main moved during each of {_TRIES} tries to publish {plan.branch}",
        remedy="The work is kept on its branch; run it again when fewer runs publish at once.",
    )


def refuse_actions(branch: str, changes: Sequence[Change]) -> None:
    """lakeFS reads pre-merge actions from the source branch, so a branch that changes them would pass unseen."""
    for change in changes:
        if change.path.startswith(ACTIONS):
            raise FleetError(
                f"Branch {branch} changes {change.path}", remedy="Pre-merge actions are changed by set-up only."
            )


def _data_only(
    repository: Repository, plan: Plan, copy: str, changes: Sequence[Change], added: Mapping[str, Added]
) -> None:
    """Step 2: a copy of the branch that differs from the base by added objects alone."""
    wanted = {path for files in added.values() for path in files.paths}
    unwanted, kept = [], 0
    for change in without_log(changes):
        if change.kind != "added" or not _ADDED.fullmatch(change.path):
            raise FleetError(
                f"Branch {plan.branch} has {change.kind} {change.path}, which a transaction may not",
                remedy="Nothing was published.",
            )
        if change.path.startswith("tables/") and change.path not in wanted:
            unwanted.append(change.path)  # a try that was not accepted
        else:
            kept += 1
    log = [change for change in changes if "/_delta_log/" in change.path]
    repository.create_branch(copy, plan.commit_id)
    repository.delete(copy, unwanted + [change.path for change in log if change.kind == "added"])
    for change in log:
        if change.kind != "added":
            repository.copy(plan.base.commit_id, change.path, copy)
    with contextlib.suppress(NothingToCommit):
        repository.commit(copy, f"{plan.name}: data files without their log")
    remaining = list(repository.diff(plan.base.commit_id, copy))
    if len(remaining) != kept or any(change.kind != "added" or "/_delta_log/" in change.path for change in remaining):
        raise FleetError(f"The copy of {plan.branch} holds more than added files", remedy="Nothing was published.")


@dataclass
class _Round:
    """Steps 3 to 5, once, on a branch of their own."""

    repository: Repository
    plan: Plan
    added: Mapping[str, Added]
    copy: str
    target: str
    replaced: tuple[str, ...] = ()
    log_versions: dict[str, int] = field(default_factory=dict)

    def run(self, on_step: Callable[[int], None]) -> str | None:
        """The merge commit on main; None when main moved meanwhile."""
        repository, plan = self.repository, self.plan
        on_step(3)
        commit_id = repository.commit_id(MAIN)
        head = plan.base if commit_id == plan.base.commit_id else Snapshot(repository, commit_id)
        repository.create_branch(self.target, head.commit_id)
        try:
            repository.merge(self.copy, self.target, f"{plan.name}: data files")
        except LakeUnreachable:
            return None  # whether it happened does not matter: the next round has its own branch
        on_step(4)
        self._rebase(head)
        with contextlib.suppress(NothingToCommit):  # a repeat after a lost answer
            repository.commit(self.target, f"{plan.name}: log")
        on_step(5)
        try:
            return repository.merge(self.target, MAIN, f"{plan.name}: {len(plan.drives)} drives", plan.metadata)
        except MergeConflict:
            return None
        except LakeUnreachable:
            # The merge may have happened. If it happens after this look-up, the next round meets it in step 4.
            return find_transaction(repository, plan.metadata["transaction"], since=plan.base.commit_id)

    def _rebase(self, head: Snapshot) -> None:
        """Step 4."""
        plan = self.plan
        at_head = head.versions(plan.drives)
        if head.commit_id != plan.base.commit_id:
            _refuse_stale(plan, at_head)
        leaving = _leaving(plan)
        outdated = [
            (drive, table)
            for drive, table in at_head
            if (drive, table) in plan.versions or (drive in plan.withdrawn and table in leaving)
        ]
        deletes: dict[str, str] = {}
        by_table: dict[str, list[str]] = {}
        for drive, table in outdated:
            if at_head[drive, table].rows:
                by_table.setdefault(table, []).append(drive)
        for table, drives in by_table.items():
            deletes[table] = drives_predicate(sorted(drives))
        if outdated:
            deletes[VERSIONS] = _versions_predicate(outdated)
        self.replaced = tuple(sorted({drive for drives in by_table.values() for drive in drives}))
        # Every publication writes lake.versions, so two of them always meet in step 5, and the comparison above
        # cannot be overtaken.
        tables = sorted({*self.added, *deletes})
        with ThreadPoolExecutor(THREADS) as pool:
            versions = pool.map(lambda table: self._write(head, table, deletes.get(table)), tables)
            self.log_versions = dict(zip(tables, versions, strict=True))

    def _write(self, head: Snapshot, name: str, delete: str | None) -> int:
        """Deletes and adds in one table; gives its newest log version."""
        contract = load_tables()[name]
        added = self.added.get(name)
        if delete is not None:
            table = open_table(self.repository, self.target, contract)
            with engine_errors(f"Earlier rows of {name} could not be replaced"):
                table.delete(delete)
            version = table.version() + 1
        else:
            version = next_version(self.repository, head.commit_id, contract, added.base_version if added else 0)
        if added is None:
            return version - 1
        info = {"fleet.transaction": self.plan.metadata["transaction"]}
        commit_adds(self.repository, self.target, added, version, info)
        return version


def _leaving(plan: Plan) -> set[str]:
    """Per-drive tables that a quarantined drive leaves: those of the transaction's stage, but for what keeps quarantined drives
    there, and of all stages after it. What it was made from stays."""
    own = {table.partition(".")[0] for _, table in plan.versions}
    before = {table.partition(".")[0] for table in plan.input_tables}
    return {
        name
        for name, contract in load_tables().items()
        if contract.per_drive
        and name != VERSIONS
        and contract.stage not in before - own
        and not (contract.keeps_quarantined and contract.stage in own)
    }


def _refuse_stale(plan: Plan, at_head: Mapping[Key, Version]) -> None:
    at_base = plan.base.versions(plan.drives)
    watched = {*plan.input_tables, *(table for _, table in plan.versions)}
    stale = [key for key in sorted({*at_head, *at_base}) if key[1] in watched and at_head.get(key) != at_base.get(key)]
    if stale:
        raise StaleInputs(sorted({drive for drive, _ in stale}), [table for _, table in stale])


def _versions_predicate(keys: Sequence[Key]) -> str:
    """Rows of lake.versions. Drives that leave the same tables share one condition."""
    tables_of: dict[str, list[str]] = {}
    for drive, table in keys:
        tables_of.setdefault(drive, []).append(table)
    alike: dict[tuple[str, ...], list[str]] = {}
    for drive, tables in tables_of.items():
        alike.setdefault(tuple(sorted(tables)), []).append(drive)
    return " OR ".join(
        f"({drives_predicate(sorted(drives))} AND table_name IN {quoted(tables)})" for tables, drives in alike.items()
    )


def find_transaction(repository: Repository, transaction: str, *, since: str) -> str | None:
    """The commit on main, newer than since, that a transaction has published."""
    for commit in repository.log(MAIN, stop_at=since):
        if commit.metadata.get("transaction") == transaction:
            return commit.id
    return None


@contextlib.contextmanager
def _queue(path: Path) -> Iterator[None]:
    """One at a time on this machine, for a bounded wait: it saves lost rounds and guards nothing."""
    path.parent.mkdir(exist_ok=True, parents=True)
    with open(path, "w") as lock:
        deadline = time.monotonic() + _QUEUE_S
        while time.monotonic() < deadline:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.01)
        yield

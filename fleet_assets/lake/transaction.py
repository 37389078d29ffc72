"""A transaction: a branch from a pinned commit of main on which tables are only appended to.

In: rows, from this process or from Spark tasks, and what they were made from. Out: after the audit, one merge on main, or
nothing, and the branch stays for inspection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fleet_assets.contracts.audit import AuditResult
from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.audit import AuditFailed, Auditor, audit_added, rows_by_drive
from fleet_assets.lake.client import MAIN, Repository
from fleet_assets.lake.delta_log import Added, read_added
from fleet_assets.lake.lease import Lease
from fleet_assets.lake.publish import Plan, Published, publish, refuse_actions
from fleet_assets.lake.refusals import LakeUnreachable, NotFound, NothingToCommit
from fleet_assets.lake.tables import VERSIONS, Snapshot, Version, contract_of, day_of
from fleet_assets.lake.versions import DriveVersion
from fleet_assets.lake.writer import TaskWriter, append, append_frame, upload
from fleet_assets.services.home import Home

if TYPE_CHECKING:
    from pyspark.sql.connect.dataframe import DataFrame

__all__ = ["AuditFailed", "TaskWriter", "Transaction"]

BRANCH_PREFIX = "tx-"
# How far back a run looks for what it has published before it was killed.
_HISTORY = 500
_NAMED_DRIVES = 2000  # more than this are named in the audit report instead of the commit
_DRIVER = "driver"


class Transaction:
    """Use through Lake.run_transaction or Lake.transaction. When the body has returned: audited, then published."""

    def __init__(
        self,
        repository: Repository,
        home: Home,
        *,
        name: str,
        run_id: str,
        drives: Sequence[str],
        tables: Sequence[str],
        input_tables: Sequence[str] = (),
        attempt: int = 1,
        auditor: Auditor | None = None,
    ) -> None:
        if not re.fullmatch(r"[a-z][a-z_]{0,31}", name):
            raise FleetError(f"A transaction cannot be called {name!r}", remedy="Use letters a to z and _.")
        self.repository = repository
        self.home = home
        self.name = name
        self.run_id = run_id
        self.drives = list(drives)
        self.tables = sorted(contract_of(table).name for table in tables)
        self.input_tables = [contract_of(table).name for table in input_tables]
        self.attempt = attempt
        self.id = f"{int(time.time())}-{secrets.token_hex(4)}"
        self.branch = f"{BRANCH_PREFIX}{name}-{re.sub('[^A-Za-z0-9]', '', run_id)[:12] or 'run'}-{self.id}"
        self.base = Snapshot(repository, repository.commit_id(MAIN))
        self.published: Published | None = None
        self._auditor = auditor
        self._versions: dict[str, DriveVersion] = {}
        self._expected: dict[tuple[str, str], int] = {}
        self._accepted: set[str] = {_DRIVER}
        self._withdrawn: set[str] = set()
        self._lease = Lease(home, self.branch)
        repository.create_branch(self.branch, self.base.commit_id)

    # ---- the body's part ----

    def declare(self, drive: str, version: DriveVersion) -> None:
        """What this drive's rows, in all tables of the transaction, are made from."""
        day_of(drive)
        self._versions[drive] = version

    def is_done(self, drive: str) -> bool:
        """True when there is nothing to do for a declared drive: this run has published this very version before it was
        killed; or, in a repeat after StaleInputs, another run was faster with the same version."""
        wanted = self._versions[drive].version
        if self._published_before.get(drive) == wanted:
            return True
        known = [self.base.versions(self.drives).get((drive, table)) for table in self.tables]
        return self.attempt > 1 and all(version is not None and version.version == wanted for version in known)

    def forget(self, drive: str) -> None:
        """Leaves a drive out of what will be published."""
        self._versions.pop(drive, None)

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> int:
        """Adds rows from this process; gives their number."""
        return append(self.repository, self.branch, table, rows, _DRIVER)

    def append_frame(self, table: str, frame: DataFrame) -> None:
        """Adds the rows of a Spark frame, which must have the contract's columns."""
        task = f"frame-{secrets.token_hex(6)}"
        append_frame(self.repository, self.branch, table, frame, task)
        self._accepted.add(task)

    def put_object(self, path: str, file: Path) -> None:
        """An object named by its hash: recordings/<sha256>.mcap, datasets/<sha256>.json."""
        upload(self.repository, self.branch, path, file)

    def writer(self, task: str) -> TaskWriter:
        """For another process. What it writes counts once accept(task) was called."""
        return TaskWriter(str(self.home.root), self.repository.name, self.branch, task)

    def accept(self, task: str, rows: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """A task has succeeded; what other tries of it added is not published. rows: drive -> table -> rows that it says
        to have written; the branch must agree."""
        self._accepted.add(task)
        for drive, by_table in (rows or {}).items():
            self.count(drive, by_table)

    def count(self, drive: str, rows: Mapping[str, int]) -> None:
        """Rows per table that a drive is expected to have; the branch must agree."""
        for table, number in rows.items():
            self._expected[(drive, table)] = number

    def withdraw(self, drives: Iterable[str]) -> None:
        """Quarantined: earlier rows of these drives leave the tables of this stage and the later ones in the same merge."""
        self._withdrawn |= set(drives)

    def added(self) -> dict[str, Added]:
        """The branch's own added files so far, by table."""
        return self._added(self._commit("rows as written"))

    # ---- leaving ----

    def finish(self, on_step: Callable[[int], None]) -> Published:
        """Audits and publishes. Raises AuditFailed, StaleInputs, FleetError."""
        try:
            if not self._versions:
                self.published = self._found_before
                self.repository.delete_branch(self.branch)
                return self.published
            plan = self._plan()
            self.published = publish(self.repository, plan, on_step)
            with contextlib.suppress(LakeUnreachable):  # published all the same; the sweeper takes the branch
                self.repository.delete_branch(self.branch)
            return self.published
        finally:
            self._lease.release()

    def abandon(self) -> None:
        """The body failed: its branch goes, and with it whatever was written."""
        try:
            self.repository.delete_branch(self.branch)
        except (NotFound, LakeUnreachable):
            return  # the sweeper takes it
        finally:
            self._lease.release()

    def _plan(self) -> Plan:
        ref = self._commit("rows as written")
        added = self._added(ref)
        rows = self._count(ref, added)
        results = {
            name: audit_added(self.repository, self.home, ref, files, self._auditor)
            for name, files in sorted(added.items())
        }
        report = self._write_report(results, rows)
        if not all(result.ok for result in results.values()):
            self._commit("refused by the audit")
            raise AuditFailed(self.branch, results)
        versions = {
            (drive, table): Version(version.version, self.run_id, rows[drive, table])
            for drive, version in self._versions.items()
            for table in self.tables
        }
        append(self.repository, self.branch, VERSIONS, self._version_rows(versions), _DRIVER)
        return Plan(
            name=self.name,
            branch=self.branch,
            commit_id=self._commit("audited"),
            base=self.base,
            drives=sorted(self._versions),
            input_tables=self.input_tables,
            accepted=frozenset(self._accepted),
            versions=versions,
            withdrawn=frozenset(self._withdrawn),
            metadata=self._metadata(results, report),
            queue=self.home.run / "publish.lock",
        )

    def _commit(self, what: str) -> str:
        # A difference of references sees what is committed, and nothing else.
        with contextlib.suppress(NothingToCommit):
            return self.repository.commit(self.branch, f"{self.name}: {what}", {"transaction": self.id})
        return self.repository.commit_id(self.branch)

    def _added(self, ref: str) -> dict[str, Added]:
        changes = list(self.repository.diff(self.base.commit_id, ref))
        refuse_actions(self.branch, changes)
        return read_added(self.repository, ref, changes, frozenset(self._accepted))

    def _count(self, ref: str, added: Mapping[str, Added]) -> Counter[tuple[str, str]]:
        """Rows per drive and table, as the files have them. Raises FleetError when they are not what was declared."""
        rows: Counter[tuple[str, str]] = Counter()
        for name, files in added.items():
            if name not in self.tables:
                raise self._undeclared(f"writes {name}", f"it declared {', '.join(self.tables)}")
            for drive, count in rows_by_drive(self.repository, ref, files).items():
                rows[drive, name] = count
                if drive not in self._versions:
                    raise self._undeclared(f"writes rows of {drive} to {name}", "it did not declare that drive")
                if drive in self._withdrawn and not files.contract.keeps_quarantined:
                    raise self._undeclared(f"writes rows of {drive} to {name}", "it withdraws that drive")
        for (drive, name), expected in self._expected.items():
            if rows[drive, name] != expected:
                raise self._undeclared(
                    f"holds {rows[drive, name]} rows of {drive} in {name}", f"{expected} were written"
                )
        return rows

    def _undeclared(self, what: str, where: str) -> FleetError:
        return FleetError(f"Branch {self.branch} {what}", where=where, remedy="Nothing was published.")

    # ---- what this run has published before ----

    @property
    def _identity(self) -> dict[str, str]:
        """What a repeat has in common with what it repeats, beside drives and versions."""
        return {"run_id": self.run_id, "name": self.name, "assets": json.dumps(self.tables)}

    @cached_property
    def _earlier(self) -> list[tuple[str, dict[str, Any]]]:
        """Commits of this run and transaction in main's history, newest first, with their reports."""
        return [
            (commit.id, json.loads(self.repository.get(commit.id, commit.metadata["audit"])))
            for commit in self.repository.log(self.base.commit_id, limit=_HISTORY)
            if all(commit.metadata.get(key) == value for key, value in self._identity.items())
        ]

    @cached_property
    def _published_before(self) -> dict[str, str]:
        """Version of every drive that this run has published."""
        return {drive: version for _, report in reversed(self._earlier) for drive, version in report["drives"].items()}

    @property
    def _found_before(self) -> Published:
        if not self._earlier:
            return Published(self.base.commit_id, {})
        commit_id, report = self._earlier[0]
        return Published(commit_id, {name: table["rows"] for name, table in report["tables"].items()})

    # ---- what is told about it ----

    def _write_report(self, results: Mapping[str, AuditResult], rows: Mapping[tuple[str, str], int]) -> dict[str, str]:
        report = {
            "transaction": self.id,
            "run_id": self.run_id,
            "drives": {drive: version.version for drive, version in sorted(self._versions.items())},
            "withdrawn": sorted(self._withdrawn),
            "tables": {
                name: {
                    "contract_version": load_tables()[name].version,
                    "rows": result.rows,
                    "rows_by_drive": {drive: count for (drive, table), count in sorted(rows.items()) if table == name},
                    "rules": [
                        {
                            "rule": found.rule.name,
                            "scope": found.rule.scope,
                            "blocking": found.rule.blocking,
                            "success": found.success,
                            "unexpected_rows": found.unexpected_count,
                            "sample_rows": found.sample_rows,
                            "detail": found.detail,
                        }
                        for found in result.results
                    ],
                }
                for name, result in results.items()
            },
        }
        data = json.dumps(report, indent=1, default=str).encode()
        path = f"audits/{self.id}.json"
        self.repository.put(self.branch, path, data)
        return {"audit": path, "audit_sha256": hashlib.sha256(data).hexdigest()}

    def _metadata(self, results: Mapping[str, AuditResult], report: Mapping[str, str]) -> dict[str, str]:
        from fleet_assets import __version__

        drives = sorted(self._versions)
        return {
            "transaction": self.id,
            **self._identity,
            "drives": json.dumps(drives[:_NAMED_DRIVES]),
            "drive_count": str(len(drives)),
            "withdrawn": json.dumps(sorted(self._withdrawn)[:_NAMED_DRIVES]),
            "code_version": f"{__version__}/{','.join(sorted({v.code_version for v in self._versions.values()}))}",
            "input_commit": self.base.commit_id,
            "contracts": json.dumps({name: load_tables()[name].version for name in self.tables}),
            "rows": json.dumps({name: result.rows for name, result in results.items()}),
            **report,
        }

    def _version_rows(self, versions: Mapping[tuple[str, str], Version]) -> pa.Table:
        rows = [
            {
                "drive_id": drive,
                "day": day_of(drive),
                "table_name": table,
                "version": version.version,
                "run_id": version.run_id,
                "rows": version.rows,
                "inputs": [{"name": name, "version": text} for name, text in self._versions[drive].inputs.items()],
                "code_version": self._versions[drive].code_version,
                "contract_version": load_tables()[table].version,
            }
            for (drive, table), version in sorted(versions.items())
        ]
        return pa.Table.from_pylist(rows, schema=load_tables()[VERSIONS].arrow_schema)

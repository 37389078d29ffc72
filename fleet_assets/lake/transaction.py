"""A transaction: a branch from a pinned commit of main on which tables are only appended to.

In: rows, from this process or from Spark tasks, and what they were made from. Out: after the audit, one merge on main, or
nothing, and the branch stays for inspection.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from fleet_assets.contracts.audit import AuditResult, audit
from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.client import MAIN, NothingToCommit, NotFound, Repository
from fleet_assets.lake.publish import TASK_KEY, Added, Plan, Published, added_files, publish
from fleet_assets.lake.tables import VERSIONS, Snapshot, Version, contract_of, open_table
from fleet_assets.lake.versions import DriveVersion

if TYPE_CHECKING:
    from fleet_assets.services.home import Home

BRANCH_PREFIX = "tx-"
# Audits of more rows than this run in Spark: pandas would hold them all.
PANDAS_ROWS = 2_000_000
_DRIVER = "driver"


class AuditFailed(FleetError):
    """The audit refused a transaction; main is unchanged. results: what failed, by table."""

    def __init__(self, branch: str, results: Mapping[str, AuditResult]) -> None:
        self.branch = branch
        self.failures = {
            name: [failure.sentence for failure in result.failures] for name, result in results.items() if not result.ok
        }
        said = "; ".join(f"{table}: {'; '.join(why)}" for table, why in self.failures.items())
        super().__init__(
            f"The audit refused {branch}: {said}", remedy="main is unchanged; the branch stays to look at."
        )


@dataclass(frozen=True)
class TaskWriter:
    """Appends to a transaction's branch from any process; only accepted tasks are published. Can be pickled."""

    home_root: str
    branch: str
    task: str

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        append(_repository(Path(self.home_root)), self.branch, table, rows, self.task)

    def upload(self, path: str, file: Path) -> None:
        """An object named by its hash: adding it twice adds it once."""
        _repository(Path(self.home_root)).upload(self.branch, path, file)


def _repository(root: Path) -> Repository:
    from fleet_assets.lake.lake import Lake
    from fleet_assets.services.home import Home

    return Lake.open(Home.open(root)).repository


def append(repository: Repository, branch: str, table: str, rows: pa.Table | pa.RecordBatchReader, task: str) -> None:
    """One Delta append through delta-rs, named after the task that made it."""
    from deltalake import CommitProperties, write_deltalake

    contract = contract_of(table)
    stream = rows if isinstance(rows, pa.RecordBatchReader) else rows.select(contract.arrow_schema.names)
    if stream.schema != contract.arrow_schema and isinstance(stream, pa.Table):
        stream = stream.cast(contract.arrow_schema)
    properties = CommitProperties(custom_metadata={TASK_KEY: task}, max_commit_retries=50)
    write_deltalake(open_table(repository, branch, contract), stream, mode="append", commit_properties=properties)


class Transaction:
    """Use through Lake.run_transaction. After the body has returned: audited, then published."""

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
    ) -> None:
        self.repository = repository
        self.home = home
        self.name = name
        self.run_id = run_id
        self.drives = list(drives)
        self.tables = list(tables)
        self.input_tables = list(input_tables)
        self.attempt = attempt
        self.id = f"{int(time.time())}-{secrets.token_hex(4)}"
        self.branch = f"{BRANCH_PREFIX}{name}-{self.id}"
        self.base = Snapshot(repository, repository.commit_id(MAIN))
        self.published: Published | None = None
        self._versions: dict[str, DriveVersion] = {}
        self._rows: dict[tuple[str, str], int] = {}
        self._accepted: set[str] = {_DRIVER}
        self._withdrawn: list[str] = []
        repository.create_branch(self.branch, self.base.commit_id)

    # ---- the body's part ----

    @cached_property
    def _at_base(self) -> dict[tuple[str, str], Version]:
        return self.base.versions(self.drives)

    def declare(self, drive: str, version: DriveVersion) -> None:
        """What this drive's rows, in all tables of the transaction, are made from."""
        self._versions[drive] = version

    def is_done(self, drive: str) -> bool:
        """True when main already has this very version: from this run before it was killed, or, in a repeat after
        StaleInputs, from the run that was faster."""
        known = [self._at_base.get((drive, table)) for table in self.tables]
        same = all(version is not None and version.version == self._versions[drive].version for version in known)
        return same and (self.attempt > 1 or all(version and version.run_id == self.run_id for version in known))

    def forget(self, drive: str) -> None:
        """Leaves a drive out of what will be published."""
        self._versions.pop(drive, None)

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        append(self.repository, self.branch, table, rows, _DRIVER)

    def writer(self, task: str) -> TaskWriter:
        return TaskWriter(str(self.home.root), self.branch, task)

    def accept(self, task: str, rows: Mapping[str, Mapping[str, int]] | None = None) -> None:
        """A task has succeeded; what other tries of it added is not published. rows: drive -> table -> rows."""
        self._accepted.add(task)
        for drive, by_table in (rows or {}).items():
            self.count(drive, by_table)

    def count(self, drive: str, rows: Mapping[str, int]) -> None:
        for table, number in rows.items():
            self._rows[(drive, table)] = number

    def withdraw(self, drives: Iterable[str]) -> None:
        """Quarantined: earlier rows of these drives leave every per-drive table in the same merge."""
        self._withdrawn += drives

    def added(self) -> dict[str, Added]:
        """The branch's own added files, by table."""
        self._commit("rows as written")
        return added_files(self.repository, self.base.commit_id, self.branch, frozenset(self._accepted))

    # ---- leaving ----

    def finish(self, on_step: Callable[[int], None]) -> Published:
        """Audits and publishes. Raises AuditFailed, StaleInputs."""
        if not self._versions:
            self.repository.delete_branch(self.branch)
            self.published = Published(self._published_before(), {})
            return self.published
        results = {name: self._audit(files) for name, files in sorted(self.added().items())}
        report = self._write_report(results)
        if not all(result.ok for result in results.values()):
            self._commit("refused by the audit")
            raise AuditFailed(self.branch, results)
        metadata = self._metadata(results, report)
        self._commit("audited")
        try:
            self.published = publish(self.repository, self._plan(metadata), on_step)
        finally:
            if self.published is not None:
                self.repository.delete_branch(self.branch)
        return self.published

    def _commit(self, what: str) -> None:
        # A difference of references sees what is committed, and nothing else.
        with contextlib.suppress(NothingToCommit):
            self.repository.commit(self.branch, f"{self.name}: {what}", {"transaction": self.id})

    def _published_before(self) -> str:
        """The commit by which this run has published already, else the base."""
        for commit in self.repository.log(MAIN, limit=500):
            if commit.metadata.get("run_id") == self.run_id and commit.metadata.get("name") == self.name:
                return commit.id
        return self.base.commit_id

    def _audit(self, added: Added) -> AuditResult:
        if added.rows > PANDAS_ROWS:
            return audit(added.contract, self._spark_frame(added))
        # Whole numbers stay whole: pandas' own integers have no null, and nanoseconds do not fit a float.
        import pandas as pd

        nullable = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        return audit(added.contract, self._arrow(added).to_pandas(types_mapper=nullable.get))

    def _arrow(self, added: Added) -> pa.Table:
        import pyarrow.parquet as pq
        from pyarrow.fs import S3FileSystem

        options = self.repository.storage_options
        files = S3FileSystem(
            access_key=options["access_key_id"],
            secret_key=options["secret_access_key"],
            endpoint_override=options["endpoint_url"],
            region=options["region"],
            allow_bucket_creation=False,
        )
        schema = added.contract.arrow_schema
        parts = []
        for action, path in zip(added.actions, added.paths, strict=True):
            rows = pq.read_table(f"{self.repository.name}/{self.branch}/{path}", filesystem=files, partitioning=None)
            for column, value in action["partitionValues"].items():
                constant = pa.scalar(date.fromisoformat(value), type=schema.field(column).type)
                rows = rows.append_column(column, pa.repeat(constant, rows.num_rows))
            parts.append(rows.select(schema.names).cast(schema))
        return pa.concat_tables(parts)

    def _spark_frame(self, added: Added) -> Any:
        from fleet_assets.lake.session import spark_session

        root = self.repository.uri(self.branch, added.contract.location, "s3a")
        paths = [self.repository.uri(self.branch, path, "s3a") for path in added.paths]
        ddl = ", ".join(f"`{column.name}` {column.type}" for column in added.contract.columns)
        return spark_session(self.home).read.schema(ddl).option("basePath", root).parquet(*paths)

    def _write_report(self, results: Mapping[str, AuditResult]) -> dict[str, str]:
        report = {
            name: {
                "version": load_tables()[name].version,
                "rows": result.rows,
                "rules": [
                    {"rule": r.rule.name, "success": r.success, "unexpected": r.unexpected_count, "rows": r.sample_rows}
                    for r in result.results
                ],
            }
            for name, result in results.items()
        }
        data = json.dumps(report, indent=1, default=str).encode()
        path = f"audits/{self.id}.json"
        self.repository.put(self.branch, path, data)
        return {"audit": path, "audit_sha256": hashlib.sha256(data).hexdigest()}

    def _metadata(self, results: Mapping[str, AuditResult], report: Mapping[str, str]) -> dict[str, str]:
        from fleet_assets import __version__

        return {
            "transaction": self.id,
            "name": self.name,
            "run_id": self.run_id,
            "assets": json.dumps(self.tables),
            "drives": json.dumps(sorted(self._versions)),
            "withdrawn": json.dumps(sorted(self._withdrawn)),
            "code_version": f"{__version__}/{next(iter(self._versions.values())).code_version}",
            "input_commit": self.base.commit_id,
            "contracts": json.dumps({name: load_tables()[name].version for name in self.tables}),
            "rows": json.dumps({name: result.rows for name, result in results.items()}),
            **report,
        }

    def _plan(self, metadata: Mapping[str, str]) -> Plan:
        versions = {
            (drive, table): Version(version.version, self.run_id, self._rows.get((drive, table), 0))
            for drive, version in self._versions.items()
            for table in self.tables
        }
        rows = [
            {
                "drive_id": drive,
                "day": date.fromisoformat(drive.rsplit("--", 1)[-1][:8]),
                "table_name": table,
                "version": version.version,
                "run_id": version.run_id,
                "rows": version.rows,
                "inputs": [{"name": name, "version": text} for name, text in self._versions[drive].inputs.items()],
                "code_version": self._versions[drive].code_version,
                "contract_version": load_tables()[table].version,
            }
            for (drive, table), version in versions.items()
        ]
        return Plan(
            name=self.name,
            branch=self.branch,
            base=self.base,
            drives=sorted(self._versions),
            input_tables=self.input_tables,
            accepted=frozenset(self._accepted),
            versions=versions,
            version_rows=pa.Table.from_pylist(rows, schema=load_tables()[VERSIONS].arrow_schema),
            withdrawn=self._withdrawn,
            metadata=metadata,
        )

    def abandon(self) -> None:
        """The body failed: its branch goes, and with it whatever was written."""
        try:
            self.repository.delete_branch(self.branch)
        except NotFound:
            return

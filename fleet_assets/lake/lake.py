"""The lake of an installation: snapshots to read, transactions to write.

In: an installation. Out: Lake. Set-up (repository, protection of main, pre-merge action) is done on first use and again
by nobody.
"""

from __future__ import annotations

import contextlib
import logging
import random
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from fleet_assets.errors import FleetError
from fleet_assets.lake.audit import Auditor
from fleet_assets.lake.client import MAIN, Repository
from fleet_assets.lake.maintenance import CHECKPOINT_EVERY, checkpoint
from fleet_assets.lake.publish import ACTIONS, StaleInputs
from fleet_assets.lake.refusals import MergeConflict, NothingToCommit
from fleet_assets.lake.tables import Snapshot
from fleet_assets.lake.transaction import Transaction
from fleet_assets.services.home import Home

T = TypeVar("T")
REPOSITORY = "fleet"
_ACTIONS = Path(__file__).parent / "actions"
_ATTEMPTS = 8
_log = logging.getLogger(__name__)


class Lake:
    """auditor: judges rows before they are published; Great Expectations, from the contracts, unless given."""

    def __init__(self, home: Home, repository: Repository, *, auditor: Auditor | None = None) -> None:
        self.home = home
        self.repository = repository
        self.auditor = auditor

    @classmethod
    def open(cls, home: Home | None = None, repository: str = REPOSITORY) -> Lake:
        """The lake of an installation, one per process. repository: its name in lakeFS."""
        return _open(home or Home.open(), repository)

    def at(self, ref: str = MAIN) -> Snapshot:
        """The lake as it is at a branch, tag or commit now; later commits do not show."""
        return Snapshot(self.repository, self.repository.commit_id(ref))

    def commit_url(self, commit_id: str) -> str:
        return f"{self.repository.url}/repositories/{self.repository.name}/commits/{commit_id}"

    def ensure(self) -> None:
        """Repository, pre-merge action and protection of main. Several processes may do this at once."""
        repository = self.repository
        if not repository.exists():
            repository.create()
        wanted = {f"{ACTIONS}{path.name}": path.read_bytes() for path in sorted(_ACTIONS.glob("*.yaml"))}
        while not self._has_actions(wanted):
            # main may be protected already (an upgrade of the action), so always by a merge.
            branch = f"maintain-{int(time.time())}-{secrets.token_hex(4)}"
            repository.create_branch(branch, MAIN)
            try:
                for path, data in wanted.items():
                    repository.put(branch, path, data)
                repository.commit(branch, "pre-merge action")
                repository.merge(branch, MAIN, "Set-up: pre-merge action", {"maintenance": "set-up"})
            except (MergeConflict, NothingToCommit):
                time.sleep(random.uniform(0.02, 0.2))  # another process is doing the same
            finally:
                repository.delete_branch(branch)
        if MAIN not in repository.protected():
            repository.protect(MAIN)

    def _has_actions(self, wanted: dict[str, bytes]) -> bool:
        present = {item.path for item in self.repository.list(MAIN, ACTIONS)}
        return all(path in present and self.repository.get(MAIN, path) == data for path, data in wanted.items())

    @contextlib.contextmanager
    def transaction(
        self,
        name: str,
        *,
        run_id: str,
        drives: Sequence[str],
        tables: Sequence[str],
        input_tables: Sequence[str] = (),
        on_step: Callable[[int], None] | None = None,
        attempt: int = 1,
    ) -> Iterator[Transaction]:
        """One try of a transaction: audited and published on leaving. Raises StaleInputs, AuditFailed, FleetError.

        name: of the step, such as ingest. drives, tables: all that it may write. input_tables: what it reads, per drive.
        on_step: called before each numbered step of publishing, and with 6 after the merge.
        """
        tx = Transaction(
            self.repository,
            self.home,
            name=name,
            run_id=run_id,
            drives=drives,
            tables=tables,
            input_tables=input_tables,
            attempt=attempt,
            auditor=self.auditor,
        )
        try:
            yield tx
        except BaseException:
            tx.abandon()
            raise
        try:
            tx.finish(on_step or (lambda step: None))
        except StaleInputs:
            tx.abandon()
            raise
        self._checkpoint(tx)

    def run_transaction(
        self,
        body: Callable[[Transaction], T],
        *,
        name: str,
        run_id: str,
        drives: Sequence[str],
        tables: Sequence[str],
        input_tables: Sequence[str] = (),
        on_step: Callable[[int], None] | None = None,
    ) -> tuple[Transaction, T]:
        """Runs the body on a branch, audits, publishes. When a drive was published by someone else meanwhile, the body
        runs again from the new head; it asks `is_done` for what is still due. Raises AuditFailed, FleetError.
        """
        stale: StaleInputs | None = None
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                with self.transaction(
                    name,
                    run_id=run_id,
                    drives=drives,
                    tables=tables,
                    input_tables=input_tables,
                    on_step=on_step,
                    attempt=attempt,
                ) as tx:
                    result = body(tx)
            except StaleInputs as error:
                stale = error
                _log.warning("%s, run %s: %s", name, run_id, error)
                continue
            return tx, result
        raise FleetError(
            f"Other runs published the drives of {name} during each of {_ATTEMPTS} tries",
            where=str(stale),
            remedy="Run it again when they have ended.",
        )

    def _checkpoint(self, tx: Transaction) -> None:
        """Keeps tables quick to open; outside of the publication, which must stay quick itself."""
        versions = tx.published.log_versions if tx.published else {}
        # A publication writes one or two entries per table.
        due = [table for table, version in versions.items() if version % CHECKPOINT_EVERY < 2 <= version]
        if not due:
            return
        try:
            checkpoint(self.repository, self.home, due, tries=3)
        except FleetError as error:
            _log.warning("no checkpoint this time, the next one will do: %s", error)


@lru_cache(maxsize=8)
def _open(home: Home, repository: str) -> Lake:
    return Lake(home, Repository(home.lakefs_url, home.access_key_id, home.secret_access_key, repository))

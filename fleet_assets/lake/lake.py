"""The lake of an installation: snapshots to read, transactions to write.

In: an installation. Out: Lake. Set-up (repository, protection of main, pre-merge action) is done on first use and again
by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from fleet_assets.lake.client import MAIN, FleetError, MergeConflict, Repository
from fleet_assets.lake.publish import StaleInputs
from fleet_assets.lake.tables import Snapshot
from fleet_assets.lake.transaction import Transaction
from fleet_assets.services.home import Home

T = TypeVar("T")
REPOSITORY = "fleet"
_ACTIONS = Path(__file__).parent / "actions"
_ATTEMPTS = 5


class Lake:
    def __init__(self, home: Home, repository: Repository) -> None:
        self.home = home
        self.repository = repository

    @classmethod
    def open(cls, home: Home | None = None) -> Lake:
        return _open(home or Home.open())

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
        wanted = {f"_lakefs_actions/{path.name}": path.read_bytes() for path in sorted(_ACTIONS.iterdir())}
        present = {item.path for item in repository.list(MAIN, "_lakefs_actions/")}
        if all(path in present and repository.get(MAIN, path) == data for path, data in wanted.items()):
            return
        # main may be protected already (an upgrade of the action), so always by a merge.
        branch = "set-up-actions"
        try:
            repository.create_branch(branch, MAIN)
            for path, data in wanted.items():
                repository.put(branch, path, data)
            repository.commit(branch, "pre-merge action")
            repository.merge(branch, MAIN, "Set-up: pre-merge action", {"maintenance": "set-up"})
        except MergeConflict:
            return  # another process is doing the same
        finally:
            repository.delete_branch(branch)
        repository.protect(MAIN)

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
        runs again from the new head; it asks `is_done` for what is still due.

        on_step: called before each numbered step of publishing, and with 6 after the merge. Raises AuditFailed.
        """
        stale: StaleInputs | None = None
        for attempt in range(1, _ATTEMPTS + 1):
            tx = Transaction(
                self.repository,
                self.home,
                name=name,
                run_id=run_id,
                drives=drives,
                tables=tables,
                input_tables=input_tables,
                attempt=attempt,
            )
            try:
                result = body(tx)
            except BaseException:
                tx.abandon()
                raise
            try:
                tx.finish(on_step or (lambda step: None))
            except StaleInputs as error:
                stale = error
                tx.abandon()
                continue
            return tx, result
        raise FleetError(
            f"Other runs published the drives of {name} during each of {_ATTEMPTS} tries",
            where=str(stale),
            remedy="Run it again when they have ended.",
        )


@lru_cache(maxsize=8)
def _open(home: Home) -> Lake:
    return Lake(home, Repository(home.lakefs_url, home.access_key_id, home.secret_access_key, REPOSITORY))

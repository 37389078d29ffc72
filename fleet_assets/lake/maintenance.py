"""Work that rewrites files or tables: on a branch from the head of main, merged as it is, thrown away and done again on a
conflict. No rows are added or changed by it.

In: a function that works on a branch. Out: the merge commit, or None when it changed nothing.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Callable, Sequence

from fleet_assets.errors import FleetError
from fleet_assets.lake.client import MAIN, Repository
from fleet_assets.lake.delta_log import entries_since_checkpoint
from fleet_assets.lake.lease import Lease
from fleet_assets.lake.publish import refuse_actions
from fleet_assets.lake.refusals import LakeUnreachable, MergeConflict, NothingToCommit
from fleet_assets.lake.tables import contract_of, engine_errors, open_table
from fleet_assets.services.home import Home

BRANCH_PREFIX = "maintain-"
_TRIES = 20
# A reader opens a table by its checkpoint and the entries behind it, one request each.
CHECKPOINT_EVERY = 20


def rewrite(
    repository: Repository, home: Home, what: str, work: Callable[[str], None], *, tries: int = _TRIES
) -> str | None:
    """work gets a branch name and changes tables there. Raises FleetError when main moves every time."""
    for _ in range(tries):
        branch = f"{BRANCH_PREFIX}{int(time.time())}-{secrets.token_hex(4)}"
        lease = Lease(home, branch)
        try:
            head = repository.commit_id(MAIN)
            repository.create_branch(branch, head)
            work(branch)
            with contextlib.suppress(NothingToCommit):
                repository.commit(branch, what)
            changes = list(repository.diff(head, branch))
            if not changes:
                return None
            refuse_actions(branch, changes)
            return repository.merge(branch, MAIN, what, {"maintenance": what})
        except MergeConflict:
            time.sleep(random.uniform(0.05, 0.5))
        finally:
            with contextlib.suppress(LakeUnreachable):  # the sweeper takes it
                repository.delete_branch(branch)
            lease.release()
    raise FleetError(f"main moved during each of {tries} tries to: {what}", remedy="Run it again at a quieter time.")


def checkpoint(repository: Repository, home: Home, tables: Sequence[str], *, tries: int = _TRIES) -> list[str]:
    """Delta checkpoints for tables whose log has grown, in one merge; gives their names. Meets publications in nothing
    but other checkpoints."""
    head = repository.commit_id(MAIN)
    due = [name for name in tables if entries_since_checkpoint(repository, head, contract_of(name)) >= CHECKPOINT_EVERY]
    if not due:
        return []

    def work(branch: str) -> None:
        for name in due:
            with engine_errors(f"No checkpoint of {name}"):
                open_table(repository, branch, contract_of(name)).create_checkpoint()

    rewrite(repository, home, f"checkpoint {', '.join(due)}", work, tries=tries)
    return due

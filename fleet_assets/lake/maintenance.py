"""Work that rewrites files or tables: on a branch from the head of main, merged as it is, thrown away and done again on a
conflict. No rows are added or changed by it.

In: a function that works on a branch. Out: the merge commit, or None when it changed nothing.
"""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Callable

from fleet_assets.errors import FleetError
from fleet_assets.lake.client import MAIN, MergeConflict, NothingToCommit, Repository

BRANCH_PREFIX = "maintain-"
_TRIES = 20


def rewrite(repository: Repository, what: str, work: Callable[[str], None]) -> str | None:
    """work gets a branch name and changes tables there. Raises FleetError when main moves every time."""
    for _ in range(_TRIES):
        branch = f"{BRANCH_PREFIX}{int(time.time())}-{secrets.token_hex(4)}"
        head = repository.commit_id(MAIN)
        repository.create_branch(branch, head)
        try:
            work(branch)
            repository.commit(branch, what)
            return repository.merge(branch, MAIN, what, {"maintenance": what})
        except NothingToCommit:
            return None
        except MergeConflict:
            time.sleep(random.uniform(0.05, 0.5))
        finally:
            repository.delete_branch(branch)
    raise FleetError(f"main moved during each of {_TRIES} tries to: {what}", remedy="Run it again at a quieter time.")

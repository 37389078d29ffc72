"""Leftover branches, found and removed.

In: the branches of the lake. Out: those of transactions and maintenance that are older than any run may be. A branch's
name carries when it was made; a run that is alive has a young one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

from fleet_assets.lake.lake import Lake

# Longer than any run takes; a branch that the audit refused stays this long for inspection.
ABANDONED_AFTER_S = 24 * 3600.0
_OURS = re.compile(r"(?:tx-[a-z_]+|maintain)-(\d{9,11})-[0-9a-f]{8}(?:-copy|-pub\d+)?")


def leftovers(lake: Lake, older_than_s: float = ABANDONED_AFTER_S) -> list[str]:
    """Branches of ours that were made longer ago than that."""
    now_s = time.time()
    found = []
    for prefix in ("tx-", "maintain-"):
        for branch in lake.repository.branches(prefix):
            match = _OURS.fullmatch(branch)
            if match and now_s - int(match[1]) >= older_than_s:
                found.append(branch)
    return found


def sweep(lake: Lake, older_than_s: float = ABANDONED_AFTER_S) -> Iterator[str]:
    """Removes leftovers; yields a line per branch. What was never committed goes with its branch."""
    for branch in leftovers(lake, older_than_s):
        lake.repository.delete_branch(branch)
        yield f"{branch}: removed"

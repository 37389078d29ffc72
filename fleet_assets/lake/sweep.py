"""Leftover branches, found and removed.

In: the branches of the lake. Out: those of transactions and maintenance whose run is not alive, and that are published,
or helpers of a dead run, or old. A branch that the audit refused stays until it is old, for inspection.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from fleet_assets.lake import lease
from fleet_assets.lake.client import MAIN
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.refusals import NotFound

# Longer than any run takes on a machine whose leases are not seen here.
ABANDONED_AFTER_S = 24 * 3600.0
_HISTORY = 2000
_OURS = re.compile(
    r"(?P<base>(?:tx-[a-z_]+-[A-Za-z0-9]+|maintain)-(?P<id>(?P<t_s>\d{9,11})-[0-9a-f]{8}))(?P<helper>-copy|-pub\d+)?"
)


@dataclass(frozen=True)
class Leftover:
    branch: str
    why: str


def leftovers(lake: Lake, older_than_s: float = ABANDONED_AFTER_S) -> list[Leftover]:
    """Branches that nothing needs any more. Never one whose run is alive."""
    repository = lake.repository
    ours = [
        match for prefix in ("tx-", "maintain-") for match in map(_OURS.fullmatch, repository.branches(prefix)) if match
    ]
    if not ours:
        return []
    published = {commit.metadata.get("transaction") for commit in repository.log(MAIN, limit=_HISTORY)}
    states = {base: lease.state(lake.home, base) for base in {match["base"] for match in ours}}
    found = []
    for match in ours:
        state = states[match["base"]]
        if state == "alive":
            continue
        if match["id"] in published:
            found.append(Leftover(match[0], "published"))
        elif state == "dead" and (match["helper"] or match[0].startswith("maintain-")):
            found.append(Leftover(match[0], "helper of a run that died"))
        elif time.time() - max(int(match["t_s"]), _last_commit_s(lake, match[0])) >= older_than_s:
            found.append(Leftover(match[0], "abandoned"))
    return found


def sweep(lake: Lake, older_than_s: float = ABANDONED_AFTER_S) -> Iterator[str]:
    """Removes leftovers; yields a line per branch. What was never committed goes with its branch."""
    for leftover in leftovers(lake, older_than_s):
        lake.repository.delete_branch(leftover.branch)
        lease.forget(lake.home, leftover.branch)
        yield f"{leftover.branch}: removed, {leftover.why}"


def _last_commit_s(lake: Lake, branch: str) -> int:
    """A sign of life on machines whose leases are not seen here. (A new branch shows its base's commit, which is older
    than its name.)"""
    try:
        return next(commit.t_s for commit in lake.repository.log(branch, limit=1))
    except (NotFound, StopIteration):
        return 0

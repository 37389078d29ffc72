"""Delta log entries, read and written as what they are: numbered JSON files.

In: a branch of the lake. Out: the add actions that it made itself; and, elsewhere, a new entry that holds them word for
word. An append needs no knowledge of the table, so its cost does not grow with the table.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from fleet_assets.contracts.loader import TableContract, load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.client import Change, Repository
from fleet_assets.lake.refusals import NotFound

TASK_KEY = "fleet.task"  # commitInfo entry that names the task which wrote a log entry
THREADS = 8
_ENTRY = re.compile(r"(tables/[a-z_]+/[a-z_]+)/_delta_log/(\d{20})\.json")


@dataclass
class Added:
    """Files that the accepted tasks of a transaction added to one table. base_version: of the table before them."""

    contract: TableContract
    base_version: int
    actions: dict[str, dict[str, Any]] = field(default_factory=dict)  # by path: a repeated commit adds it once

    @property
    def rows(self) -> int:
        return sum(int(json.loads(action["stats"])["numRecords"]) for action in self.actions.values())

    @property
    def bytes(self) -> int:
        return sum(int(action["size"]) for action in self.actions.values())

    @property
    def paths(self) -> list[str]:
        """Keys below the reference, in the order of actions."""
        return [f"{self.contract.location}/{unquote(path)}" for path in self.actions]


def read_added(
    repository: Repository, ref: str, changes: Iterable[Change], accepted: frozenset[str]
) -> dict[str, Added]:
    """What a branch's own log entries add, by table. Raises FleetError for anything but appends."""
    by_location = {contract.location: contract for contract in load_tables().values()}
    entries: list[tuple[TableContract, int, str]] = []
    for change in changes:
        match = _ENTRY.fullmatch(change.path)
        if not match:
            continue
        if match[1] not in by_location:
            raise FleetError(
                f"Branch {ref} writes {match[1]}, which no contract covers", remedy="Nothing was published."
            )
        if change.kind != "added":
            raise FleetError(f"Branch {ref} rewrites the log entry {change.path}", remedy="Nothing was published.")
        entries.append((by_location[match[1]], int(match[2]), change.path))
    found: dict[str, Added] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        texts = pool.map(lambda entry: repository.get(ref, entry[2]), entries)
        for (contract, version, path), text in zip(entries, texts, strict=True):
            table = found.setdefault(contract.name, Added(contract, version - 1))
            table.base_version = min(table.base_version, version - 1)
            _take(table, path, text, accepted)
    return {name: table for name, table in found.items() if table.actions}


def _take(table: Added, path: str, text: bytes, accepted: frozenset[str]) -> None:
    actions = [json.loads(line) for line in text.splitlines() if line.strip()]
    forbidden = {kind for action in actions for kind in action} & {"remove", "metaData", "protocol", "cdc"}
    if forbidden:
        # Rewriting a shared file on a branch would carry other drives' rows along and double them.
        raise FleetError(
            f"A branch does more than append: {', '.join(sorted(forbidden))}",
            where=path,
            remedy="Append only; drives are replaced by publishing. Nothing was published.",
        )
    info: dict[str, Any] = next((action["commitInfo"] for action in actions if "commitInfo" in action), {})
    if (info.get(TASK_KEY) or info.get("userMetadata")) not in accepted:
        return
    for action in actions:
        if "add" in action:
            if action["add"].get("deletionVector") or not action["add"].get("stats"):
                raise FleetError(
                    "A branch adds a file without statistics or with a deletion vector",
                    where=path,
                    remedy="Write with the transaction's writer. Nothing was published.",
                )
            table.actions[action["add"]["path"]] = action["add"]


def next_version(repository: Repository, ref: str, contract: TableContract, at_least: int) -> int:
    """The number of the entry that comes next. at_least: a version that the table is known to have."""
    prefix = f"{contract.location}/_delta_log/"
    last = at_least
    for item in repository.list(ref, prefix, after=f"{prefix}{at_least:020d}.json"):
        if match := _ENTRY.fullmatch(item.path):
            last = int(match[2])
        elif not item.path.removeprefix(prefix)[:20].isdigit():
            break  # _last_checkpoint and the like sort behind all entries
    return last + 1


def commit_adds(repository: Repository, branch: str, added: Added, version: int, info: Mapping[str, Any]) -> None:
    """Writes one entry that appends the files, statistics word for word. The branch must be nobody else's."""
    commit_info = {
        "timestamp": round(time.time() * 1000),
        "operation": "WRITE",
        "operationParameters": {"mode": "Append", "partitionBy": json.dumps(list(added.contract.partition_by))},
        "isBlindAppend": True,
        "engineInfo": "fleet-assets",
        **info,
    }
    lines = [
        {"commitInfo": commit_info},
        *({"add": {**action, "dataChange": True}} for action in added.actions.values()),
    ]
    text = "\n".join(json.dumps(line, separators=(",", ":")) for line in lines) + "\n"
    repository.put(branch, f"{added.contract.location}/_delta_log/{version:020d}.json", text.encode())


def entries_since_checkpoint(repository: Repository, ref: str, contract: TableContract) -> int:
    """Entries that a reader of the table has to read one by one."""
    prefix = f"{contract.location}/_delta_log/"
    try:
        checkpoint = int(json.loads(repository.get(ref, f"{prefix}_last_checkpoint"))["version"])
    except NotFound:
        checkpoint = -1
    return next_version(repository, ref, contract, max(checkpoint, 0)) - 1 - checkpoint


def without_log(changes: Sequence[Change]) -> list[Change]:
    """Differences outside of every table's log."""
    return [change for change in changes if "/_delta_log/" not in change.path]

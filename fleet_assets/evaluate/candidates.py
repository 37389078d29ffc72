"""How many candidates were judged on a test set: who tries often enough passes by chance.

In: an installation, the hash of a candidate, the drives that it is judged on. Out: the number of different candidates, this one
among them, that were judged on any of these drives. It is written down before the verdict is: one that nobody liked counts too.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection
from pathlib import Path

from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home, write_private


def candidates_file(home: Home) -> Path:
    return home.data / "candidates.json"


def count_candidate(home: Home, artefact_sha256: str, drives: Collection[str]) -> int:
    """Writes the candidate down and counts. The same candidate on the same drives counts once, however often it is judged.

    Raises FleetError if the file is damaged.
    """
    path = candidates_file(home)
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        judged = _read(path)
        judged[artefact_sha256] = sorted({*judged.get(artefact_sha256, ()), *drives})
        write_private(path, json.dumps(judged, indent=1, sort_keys=True))
    wanted = set(drives)
    return sum(not wanted.isdisjoint(seen) for seen in judged.values())


def _read(path: Path) -> dict[str, list[str]]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes())
        return {str(key): [str(drive) for drive in drives] for key, drives in found.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise FleetError(
            f"{path} is damaged", remedy="Restore it from a backup: without it nobody knows how often was tried."
        ) from error

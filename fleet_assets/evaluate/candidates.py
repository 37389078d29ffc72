"""How many candidates were judged on a test set: who tries often enough passes by chance.

In: an installation, the hash of a candidate, the drives that it is judged on. Out: the number of different candidates, this one
among them, that were judged on any of these drives. It is written down before the verdict is: one that nobody liked counts too.
Candidates stand there in the order in which they came, so that a verdict which counts fewer is found.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection
from pathlib import Path

import numpy as np

from fleet_assets.edge.payload import BOUND_ARTEFACT
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.record import Record
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
        known = set(judged.get(artefact_sha256, ()))
        if not known.issuperset(drives):  # on others than before, it comes after all that were judged on those
            judged.pop(artefact_sha256, None)
            judged[artefact_sha256] = sorted(known.union(drives))
        write_private(path, json.dumps(judged, indent=1))
    wanted = set(drives)
    return sum(not wanted.isdisjoint(seen) for seen in judged.values())


def refuse_fewer(home: Home, record: Record) -> None:
    """Raises FleetError for a verdict that counts fewer candidates than were written down here when its own was, or whose own
    was not."""
    verdict, evidence = record.verdict, record.evidence
    judged, artefact = _read(candidates_file(home)), verdict.bound_to.get(BOUND_ARTEFACT, "")
    if artefact not in judged:
        raise FleetError(f"Nobody wrote down that {artefact[:12]} was judged", remedy="Judge it here.")
    before = list(judged)[: list(judged).index(artefact) + 1]
    wanted = {evidence.drives[number] for number in np.unique(evidence.drive)}
    count = sum(not wanted.isdisjoint(judged[one]) for one in before)
    if verdict.candidates_judged < count:
        raise FleetError(
            f"The verdict counts {verdict.candidates_judged} candidates, and {count} were judged on these drives",
            where=str(candidates_file(home)),
            remedy="Judge the model again.",
        )


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

"""How many candidates were judged on a test set: who tries often enough passes by chance.

In: an installation, the hash of a candidate, the drives that it is judged on. Out: the number of different candidates, this one
among them, that were judged on any of these drives. It is written down before the verdict is: one that nobody liked counts too.
Judgements stand there in the order in which they came, so that a verdict which counts fewer is found.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from fleet_assets.edge.payload import BOUND_ARTEFACT
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.record import Record
from fleet_assets.services.home import Home, write_private

Judged = tuple[str, list[str]]  # a candidate, and drives on which it had not been judged before


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
        new = set(drives).difference(*(seen for one, seen in judged if one == artefact_sha256))
        if new:
            judged.append((artefact_sha256, sorted(new)))
            write_private(path, json.dumps(judged, indent=1))
    return _count(judged, set(drives))


def refuse_fewer(home: Home, record: Record) -> None:
    """Raises FleetError for a verdict that counts fewer candidates than were written down here when its own was, or whose own
    was not."""
    verdict, evidence = record.verdict, record.evidence
    judged, artefact = _read(candidates_file(home)), verdict.bound_to.get(BOUND_ARTEFACT, "")
    wanted = {evidence.drives[number] for number in np.unique(evidence.drive)}
    left, until = set(wanted), 0  # its own judgement is the one by which all of its drives were written down
    while left and until < len(judged):
        left -= set(judged[until][1]) if judged[until][0] == artefact else set()
        until += 1
    if left:
        raise FleetError(f"Nobody wrote down that {artefact[:12]} was judged on these drives", remedy="Judge it here.")
    count = _count(judged[:until], wanted)
    if verdict.candidates_judged < count:
        raise FleetError(
            f"The verdict counts {verdict.candidates_judged} candidates, and {count} were judged on these drives",
            where=str(candidates_file(home)),
            remedy="Judge the model again.",
        )


def _count(judged: Sequence[Judged], drives: set[str]) -> int:
    return len({artefact for artefact, seen in judged if not drives.isdisjoint(seen)})


def _read(path: Path) -> list[Judged]:
    if not path.exists():
        return []
    try:
        found = json.loads(path.read_bytes())
        pairs = found.items() if isinstance(found, dict) else found  # as earlier versions wrote it
        return [(str(artefact), [str(drive) for drive in drives]) for artefact, drives in pairs]
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise FleetError(
            f"{path} is damaged", remedy="Restore it from a backup: without it nobody knows how often was tried."
        ) from error

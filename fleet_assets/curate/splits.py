"""Splits: which drives train, which choose thresholds, which judge.

In: drives with place, time and slices. Out: groups of drives that see the same, and a split for each group; what leaks from one
split into another; which clips of train a cap leaves out. A drive that was given a split once keeps it.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

import numpy as np

from fleet_assets.kernels.perceptual_hash import bits, near_above

BRIDGES = "it belongs to groups of different splits"
# An image that is brighter nearly everywhere to one side has nothing to be told by.
_LEAST_BITS, _MOST_BITS = 8, 56


@dataclass(frozen=True)
class DriveFacts:
    """area: H3 cell of the drive's context, None where it is not known. cells: finer cells that it has been in. slices:
    dimension -> value."""

    drive: str
    t_first_ns: int
    t_last_ns: int
    area: str | None
    cells: frozenset[int] = frozenset()
    slices: Mapping[str, str] = field(default_factory=dict)

    @property
    def day(self) -> str:
        return f"{datetime.fromtimestamp(self.t_first_ns // 10**9, UTC):%Y-%m-%d}"


def groups(drives: Sequence[DriveFacts], together_ns: int) -> list[list[DriveFacts]]:
    """Drives at one place on one day, or within together_ns of each other, and all that are joined through others."""
    parent = {drive.drive: drive.drive for drive in drives}

    def root(name: str) -> str:
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    by_place: dict[str | int, list[DriveFacts]] = defaultdict(list)
    for drive in drives:
        for place in ({drive.area} if drive.area is not None else set()) | drive.cells:
            by_place[place].append(drive)
    for there in by_place.values():
        ordered = sorted(there, key=lambda drive: (drive.t_first_ns, drive.drive))
        until_ns = ordered[0].t_last_ns
        for before, after in pairwise(ordered):
            if before.day == after.day or after.t_first_ns - until_ns < together_ns:
                parent[root(after.drive)] = root(before.drive)
            until_ns = max(until_ns, after.t_last_ns)
    members: dict[str, list[DriveFacts]] = defaultdict(list)
    for drive in sorted(drives, key=lambda drive: drive.drive):
        members[root(drive.drive)].append(drive)
    return list(members.values())


def assign(
    grouped: Sequence[Sequence[DriveFacts]], shares: Mapping[str, float], seed: int, kept: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Split of each drive, and drives that can have none, for they join groups of different splits.

    Each group goes where most is missing, over all and in each of its slices. kept: drives that have a split already. Source:
    Sechidis and others, "On the stratification of multi-label data", 2011.
    """
    wanted: Counter[tuple[str, str]] = Counter(key for group in grouped for drive in group for key in _keys(drive))
    have: dict[str, Counter[tuple[str, str]]] = {split: Counter() for split in shares}
    found: dict[str, str] = {}
    bridges: list[str] = []

    def put(drive: DriveFacts, split: str) -> None:
        found[drive.drive] = split
        have[split].update(_keys(drive))

    open_groups = []
    for group in grouped:
        given = {kept[drive.drive] for drive in group if drive.drive in kept}
        for drive in group:
            if drive.drive in kept:
                put(drive, kept[drive.drive])
            elif len(given) == 1:
                put(drive, next(iter(given)))
            elif given:
                bridges.append(drive.drive)
        if not given:
            open_groups.append(group)
    for group in sorted(open_groups, key=lambda group: digest(seed, group[0].drive)):
        keys = Counter(key for drive in group for key in _keys(drive))

        def missing(split: str, keys: Counter[tuple[str, str]] = keys) -> float:
            return sum(1 - have[split][key] / (shares[split] * wanted[key]) for key in keys)

        split = max((name for name in shares if shares[name] > 0), key=missing)  # of equals the first
        for drive in group:
            put(drive, split)
    return found, bridges


def digest(seed: int, name: str) -> str:
    """An order that has nothing to do with the names."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def _keys(drive: DriveFacts) -> list[tuple[str, str]]:
    return [("all", ""), *sorted(drive.slices.items())]


def leaks(drives: Sequence[DriveFacts], split_of: Mapping[str, str], near_ns: int) -> list[str]:
    """Drives of different splits that were in one cell within near_ns of each other, one sentence each; whatever made the
    splits."""
    by_cell: dict[int, list[DriveFacts]] = defaultdict(list)
    for drive in drives:
        if drive.drive in split_of:
            for cell in drive.cells:
                by_cell[cell].append(drive)
    found = set()
    for there in by_cell.values():
        ordered = sorted(there, key=lambda drive: drive.t_first_ns)
        for at, one in enumerate(ordered):
            for other in ordered[at + 1 :]:
                if other.t_first_ns - one.t_last_ns >= near_ns:
                    break
                if split_of[one.drive] != split_of[other.drive]:
                    found.add(
                        f"{one.drive} ({split_of[one.drive]}) and {other.drive} ({split_of[other.drive]}) were at one place"
                    )
    return sorted(found)


def near_duplicates(hashes: np.ndarray, rank: np.ndarray, most_bits: int) -> dict[int, int]:
    """Rows whose image is a near-duplicate of one of a higher rank -> row of that. hashes: int64; 0 for an image that has none.
    rank: int64, of each row's split; what judges is above what trains."""
    told = np.array([_LEAST_BITS <= bits(value) <= _MOST_BITS for value in hashes], dtype=bool)
    rows = np.flatnonzero(told)
    above = near_above(hashes[rows], rank[rows], most_bits)
    return {int(rows[one]): int(rows[above[one]]) for one in np.flatnonzero(above >= 0)}


def over_caps(clips: Sequence[tuple[str, Sequence[str]]], caps: Mapping[str, float], seed: int) -> dict[int, str]:
    """Clips that a cap leaves out: row -> scenario. clips: drive and scenarios of each clip of train.

    What stays is spread over the drives: first one clip of each, in an order of the seed, then a second.
    """
    rank: Counter[str] = Counter()
    order = []
    for row in sorted(range(len(clips)), key=lambda row: digest(seed, f"{clips[row][0]} {row}")):
        order.append((rank[clips[row][0]], digest(seed, str(row)), row))
        rank[clips[row][0]] += 1
    have: Counter[str] = Counter()
    out: dict[int, str] = {}
    for _, _, row in sorted(order):
        full = [name for name in clips[row][1] if name in caps and have[name] + 1 > caps[name] * len(clips)]
        if full:
            out[row] = full[0]
        else:
            have.update(clips[row][1])
    return out

"""What changes from one release to another, for vehicles that run the first.

In: the archives of two releases. Out: a delta (edge/delta.py), held against the second one. Files that are the same are copied on
the vehicle, and so are rows of features that are the same; the rest travels packed.
"""

from __future__ import annotations

import mmap
import os
import tarfile
from pathlib import Path

import numpy as np

from fleet_assets.edge.bundle import SNAPSHOT, hash_file, write_hashed
from fleet_assets.edge.delta import Steps, patched, write_delta
from fleet_assets.edge.payload import FEATURES
from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.errors import FleetError
from fleet_assets.features.bundle_build import snapshot_steps

_SNAPSHOT = f"{FEATURES}/{SNAPSHOT}"


def release_delta(old: Path, new: Path, file: Path) -> None:
    """Writes the delta between two archives, and applies it once. Raises FleetError if it does not give the second."""
    size, digest = hash_file(new)
    if not file.exists():
        part = file.with_name(f".{file.name}.{os.getpid()}.new")
        with open(new, "rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            write_delta(part, bytes.fromhex(hash_file(old)[1]), content, _steps(old, new))
        os.replace(part, file)
    tried = file.with_name(f".{file.name}.{os.getpid()}.tried")
    try:
        if write_hashed(tried, patched(file, old, size)) != (size, digest):
            raise FleetError(f"{file} does not give {new}", remedy="Remove it: it is made anew.")
    finally:
        tried.unlink(missing_ok=True)


def _steps(old: Path, new: Path) -> list[tuple[int, int]]:
    """By the files in the archives; what lies between them are small headers."""
    found, at = Steps(), 0
    before, after = (np.memmap(path, dtype=np.uint8, mode="r") for path in (old, new))
    with tarfile.open(old, "r:") as first, tarfile.open(new, "r:") as second:
        known = {entry.name: entry for entry in first}
        for entry in second:
            found.add(-1, entry.offset_data - at)
            at = entry.offset_data + entry.size
            same = known.get(entry.name)
            if same is None:
                found.add(-1, entry.size)
                continue
            was, now = before[same.offset_data : same.offset_data + same.size], after[entry.offset_data : at]
            if np.array_equal(was, now):
                found.add(same.offset_data, entry.size)
            elif entry.name == _SNAPSHOT:
                pair = (Snapshot(one.data, entry.name) for one in (was, now))
                for source, length in snapshot_steps(*pair):
                    found.add(same.offset_data + source if source >= 0 else -1, length)
            else:
                found.add(-1, entry.size)
    found.add(-1, after.size - at)
    return found.steps

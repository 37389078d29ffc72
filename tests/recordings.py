"""Small recordings for tests of the whole way: the one place where they call the simulation.

In: a drive key, faults by name. Out: one MCAP file, or a recording in a landing folder. Six seconds are enough for a clock model
of the slowest sensor.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from fleet_assets.capture.deliver import Delivered, deliver
from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.simulate.drives import write_drive


def write(path: Path, drive: str, *, duration_s: float = 6.0, faults: Sequence[str] = ()) -> Path:
    """The recording of a drive; the same arguments give the same bytes."""
    key = DriveKey.parse(drive)
    write_drive(path, seed=7, start=key.start, duration_s=duration_s, vehicle=key.vehicle, faults=tuple(faults))
    return path


def land(landing: Path, drive: str, *, duration_s: float = 6.0, faults: Sequence[str] = ()) -> Delivered:
    """The same, delivered as `fleet ingest` does it."""
    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder, "drive.mcap"), drive, duration_s=duration_s, faults=faults)
        return land_file(landing, drive, path)


def land_file(landing: Path, drive: str, path: Path) -> Delivered:
    """Any file as the recording of a drive."""
    key = DriveKey.parse(drive)
    return deliver(path, landing, vehicle=key.vehicle, start=key.start.isoformat())

"""Simulated drives for tests: short, and with payload of one second, which is repeated."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ingest.decoding import decode

from fleet_assets.ingest.decode import DecodedDrive
from fleet_assets.simulate.drives import write_drive

START = datetime(2026, 3, 4, 11, 6, 7, tzinfo=UTC)
SECONDS = 22.0  # enough GNSS times to tell UTC
# Messages of a drive of SECONDS without faults; of labels one row per object.
SENT = {
    "camera_front": 220, "lidar": 220, "radar_polar": 88, "pose": 440, "imu": 2200, "gnss": 22, "gnss_time": 22,
    "bus_vehicle": 880,
}  # fmt: skip


def write(path: Path, *faults: str, seed: int = 7, seconds: float = SECONDS, **options: Any) -> dict[str, Any]:
    """Gives the truth, as it lies beside the recording."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"unique_s": 1.0, **options}
    write_drive(path, seed=seed, start=START, duration_s=seconds, vehicle="car7", faults=faults, **options)
    return dict(json.loads(path.with_suffix(".truth.json").read_text()))


def decoded_with(tmp_path: Path, *faults: str, **options: Any) -> DecodedDrive:
    write(tmp_path / "made" / "a.mcap", *faults, **options)
    return decode(tmp_path, tmp_path / "made" / "a.mcap", start=START.isoformat())


@pytest.fixture(scope="session")
def clean(tmp_path_factory: pytest.TempPathFactory) -> tuple[DecodedDrive, dict[str, Any]]:
    """A drive without faults, decoded, and its truth."""
    folder = tmp_path_factory.mktemp("clean")
    decoded = decoded_with(folder)
    return decoded, json.loads((folder / "made" / "a.truth.json").read_text())

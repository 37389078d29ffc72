"""Generated drives as far as their scenario hits, without servers."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from features.drives import made, payload_of, synchronised
from ingest.decoding import decode

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.batch import tell
from fleet_assets.ingest.decode import DecodedDrive
from fleet_assets.simulate.drives import write_drive

DAYTIME, NIGHT = "2026-01-02T11:00:00Z", "2026-01-02T20:00:00Z"


def told(folder: Path, *, seed: int, start: str, duration_s: float = 12.0, **conditions: Any) -> dict[str, pa.Table]:
    """All tables of one drive, from ingest to curate. conditions: region, light, weather of the simulation."""
    recording = folder / "drive.mcap"
    when = datetime.fromisoformat(start)
    write_drive(recording, seed=seed, start=when, duration_s=duration_s, vehicle="car7", **conditions)
    return told_of(decode(folder, recording, start=start), **conditions)


def told_of(decoded: DecodedDrive, **conditions: Any) -> dict[str, pa.Table]:
    """The same of a drive that is decoded."""
    found = synchronised(decoded)
    found |= made(decoded, found)
    drive = decoded.item.drive_id
    found["ingest.context"] = context(drive, **conditions)
    return found | tell(found, drive, payload_of(decoded))


def context(drive: str, **known: Any) -> pa.Table:
    """The drive's row of ingest.context."""
    row = {"drive_id": drive, "day": DriveKey.parse(drive).day, "contradictions": 0, **known}
    schema = load_tables()["ingest.context"].arrow_schema
    return pa.Table.from_pylist([{field.name: row.get(field.name) for field in schema}], schema=schema)

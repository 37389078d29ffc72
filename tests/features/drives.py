"""A generated drive as far as its live features, without servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pyarrow as pa
from ingest.decoding import START, decode, tables
from synchronise import drives

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.features.policy import load_live_policy
from fleet_assets.features.replay import replay_drive
from fleet_assets.formats.mcap_scan import decompress
from fleet_assets.ingest.decode import DecodedDrive
from fleet_assets.simulate.drives import write_drive


def generated(
    folder: Path, *, seed: int = 1, duration_s: float = 20.0, unique_s: float | None = None
) -> tuple[DecodedDrive, Path]:
    """A drive decoded, and its recording. unique_s: as write_drive has it."""
    recording = folder / "drive.mcap"
    start = datetime.fromisoformat(START)
    write_drive(recording, seed=seed, start=start, duration_s=duration_s, vehicle="car7", unique_s=unique_s)
    return decode(folder, recording), recording


def synchronised(decoded: DecodedDrive) -> dict[str, pa.Table]:
    """All tables that features are made from."""
    return tables(decoded) | drives.synchronised(decoded)


def payload_of(decoded: DecodedDrive) -> Callable[[pa.Table], Iterator[tuple[int, bytes]]]:
    """What lake.payload.stream_payload gives, from the recordings themselves."""

    def read(rows: pa.Table) -> Iterator[tuple[int, bytes]]:
        content = {key: path.read_bytes() for key, path in decoded.objects.items()}
        for number, row in enumerate(rows.to_pylist()):
            data, at = content[row["object"]], row["message_offset"]
            if row["codec"] != "none":
                begin = row["chunk_offset"]
                data = decompress(row["codec"], data[begin : begin + row["chunk_length"]], row["chunk_size"])
            yield number, data[at : at + row["message_length"]]

    return read


def made(decoded: DecodedDrive, found: dict[str, pa.Table]) -> dict[str, pa.Table]:
    drive_id = decoded.item.drive_id
    return replay_drive(found, drive_id, DriveKey.parse(drive_id).day, load_live_policy(), payload_of(decoded))

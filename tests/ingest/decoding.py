"""Recordings through delivery and decoding, without servers.

In: recordings. Out: what decode_drive made of them, tables read back, and the ledger's sums checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from fleet_assets.capture.deliver import deliver
from fleet_assets.contracts.loader import load_tables
from fleet_assets.ingest.batch import TABLES
from fleet_assets.ingest.decode import DecodedDrive, DriveItem, decode_drive

START = "2026-01-02T03:04:05Z"


def decode(scratch: Path, *recordings: Path, vehicle: str | None = "car7", start: str | None = START) -> DecodedDrive:
    """Delivers the recordings as one drive and decodes it. scratch: an empty folder."""
    landing = scratch / "landing"
    delivered = [deliver(path, landing, vehicle=vehicle, start=start) for path in recordings]
    folders = tuple(dict.fromkeys(each.folder for each in delivered))
    return decode_landed(landing, delivered[0].drive_id, folders, scratch / "decoded")


def decode_landed(landing: Path, drive_id: str, folders: tuple[str, ...], scratch: Path) -> DecodedDrive:
    scratch.mkdir()
    decoded = decode_drive(DriveItem(drive_id, folders, 0), landing, scratch)
    for row in ledger(decoded).values():
        accounted = row["published_rows"] + row["quarantined_rows"] + row["refused_rows"]
        assert row["read_rows"] == accounted, row
        assert row["unaccounted_rows"] == 0
        # Count 0: something is lost, and nobody can say how many records it was.
        assert row["refused_rows"] == sum(reason["count"] for reason in row["reasons"])
        assert row["quarantined_rows" if decoded.accepted else "published_rows"] == 0
    return decoded


def tables(decoded: DecodedDrive) -> dict[str, pa.Table]:
    """Every ingest table; empty where the drive has no rows of it."""
    return {
        name: found
        if (found := decoded.spool.table(name)) is not None
        else load_tables()[name].arrow_schema.empty_table()
        for name in TABLES
    }


def rows_by(decoded: DecodedDrive, table: str, column: str) -> dict[str, dict[str, Any]]:
    return {row[column]: row for row in tables(decoded)[table].to_pylist()}


def ledger(decoded: DecodedDrive) -> dict[str, dict[str, Any]]:
    return rows_by(decoded, "ingest.ledger", "stream")


def streams(decoded: DecodedDrive) -> dict[str, dict[str, Any]]:
    return rows_by(decoded, "ingest.streams", "stream")


def reasons(row: Mapping[str, Any]) -> dict[str, int]:
    """A ledger row's reasons."""
    return {reason["reason"]: reason["count"] for reason in row["reasons"]}


def faults(decoded: DecodedDrive) -> dict[str, str]:
    """Rule -> reason of a quarantined drive."""
    return {fault.rule: fault.reason for fault in decoded.faults}

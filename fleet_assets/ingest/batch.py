"""A batch of drives, from the landing folder to one commit on main.

In: drive keys. Out: a BatchOutcome. Drives are decoded in Spark tasks, many to a task; a task appends the rows of its accepted
drives to the transaction's branch, one append per table. A published drive is made anew only from all that it was made from:
what has left the landing folder must be delivered again, or its rows would leave main.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet_assets.capture.recordings import Found, recordings_of
from fleet_assets.contracts.loader import load_streams, load_tables
from fleet_assets.ingest.decode import DecodedDrive, DriveItem, decode_drive
from fleet_assets.lake.batch import BatchOutcome, DriveOutcome, run_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.spool import write_all
from fleet_assets.lake.tables import Snapshot
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import DriveVersion, version_of
from fleet_assets.lake.writer import TaskWriter
from fleet_assets.services.home import Home

TABLES = tuple(
    name
    for name in sorted(load_tables())
    if name.startswith("ingest.") and name not in ("ingest.context", "ingest.context_claims")  # of context_batch.py
)
CODE_VERSION = "3"
_ACCEPTED = "ingest.drives"


def ingest_batch(
    home: Home,
    lake: Lake,
    drives: Sequence[str],
    *,
    run_id: str,
    parallel: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> BatchOutcome:
    """Decodes the drives' recordings and publishes them in one transaction.

    parallel: in Spark tasks, else in this process. on_step: called before each numbered step of publishing.
    """

    def items(tx: Transaction) -> dict[str, tuple[DriveItem, DriveVersion] | str]:
        landed = {drive: found for drive, found in recordings_of(home.landing, drives).items() if found}
        gone = incomplete(tx.base, landed)
        return {
            drive: gone.get(drive)
            or (
                DriveItem(drive, tuple(f.folder for f in found), sum(f.manifest.bytes for f in found)),
                _version(found),
            )
            for drive, found in landed.items()
        }

    return run_batch(
        home,
        lake,
        name="ingest",
        run_id=run_id,
        drives=drives,
        tables=TABLES,
        items=items,
        weight_bytes=lambda item: item.bytes,
        work=lambda tx: _Work(tx.writer("unnamed")),
        missing="its recordings are no longer in the landing folder",
        parallel=parallel,
        on_step=on_step,
    )


def incomplete(base: Snapshot, landed: Mapping[str, Sequence[Found]]) -> dict[str, str]:
    """Published drives of these that were made from content which is no longer in the landing folder, and what to do about it."""
    known = base.versions(list(landed))
    published = [drive for drive in landed if (made := known.get((drive, _ACCEPTED))) is not None and made.rows]
    columns = ["drive_id", "recording_id", "files", "landing"]
    reasons = {}
    for row in base.scan("ingest.recordings", columns, drives=published).to_pylist():
        there = {file.sha256 for found in landed[row["drive_id"]] for file in found.manifest.files}
        if not {file["sha256"] for file in row["files"]} <= there:
            reasons[row["drive_id"]] = (
                f"published rows come from recording {row['recording_id'][:12]}, which is no longer in the landing folder "
                f"(it was {row['landing']}): deliver it again, and the drive is made from all its recordings"
            )
    return reasons


def _version(found: Sequence[Found]) -> DriveVersion:
    recordings = {item.manifest.recording_id: item.manifest.recording_id[:16] for item in found}
    contracts = [load_tables()[name].fingerprint for name in TABLES]
    contracts += [contract.fingerprint for contract in load_streams().values()]
    return version_of(inputs=recordings, code_version=CODE_VERSION, contracts=contracts)


@dataclass(frozen=True)
class _Work:
    """What a task does; pickled."""

    writer: TaskWriter

    def __call__(self, items: Sequence[DriveItem], task: str) -> list[Mapping[str, Any]]:
        home = Home.open(Path(self.writer.home_root))
        writer = replace(self.writer, task=task)
        with (
            tempfile.TemporaryDirectory(dir=home.scratch, prefix="ingest-") as scratch,
            ThreadPoolExecutor(max_workers=1) as pool,
        ):
            decoded, uploads = [], []
            for number, item in enumerate(sorted(items, key=lambda item: item.drive_id)):
                folder = Path(scratch, str(number))
                folder.mkdir()
                decoded.append(decode_drive(item, home.landing, folder))
                # Beside the next drive and the rows: only of accepted drives, whose hashes were right.
                uploads += [pool.submit(writer.upload, key, path) for key, path in decoded[-1].objects.items()]
            write_all(writer, [drive.spool for drive in decoded])
            for upload in uploads:
                upload.result()
            return [_outcome(drive) for drive in decoded]


def _outcome(drive: DecodedDrive) -> Mapping[str, Any]:
    outcome = DriveOutcome(
        drive.item.drive_id,
        "published" if drive.accepted else "quarantined",
        rows=dict(drive.spool.rows),
        reasons=[f"{fault.rule}: {fault.reason}" for fault in drive.faults],
    )
    return vars(outcome)

"""A batch of drives, from ingested rows at one commit to clock models, frames and matches in one commit.

In: drive keys. Out: a BatchOutcome. A drive takes part when its ingested rows were accepted at the pinned commit. One that is
out of bounds is quarantined from frames and matches; what was ingested of it stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_streams, load_tables
from fleet_assets.lake.batch import BatchOutcome, DriveOutcome, run_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.spool import Spool, write_all
from fleet_assets.lake.tables import Snapshot, Version
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import DriveVersion, version_of
from fleet_assets.lake.writer import TaskWriter
from fleet_assets.services.home import Home
from fleet_assets.synchronise.drive import INPUTS, OUTPUTS, synchronise_drive
from fleet_assets.synchronise.policy import load_alignment

CODE_VERSION = "5"
_ACCEPTED = "ingest.drives"
_ROW_BYTES = 64  # what an input row weighs when drives are packed into tasks


@dataclass(frozen=True)
class DriveItem:
    """rows: ingested rows of the drive."""

    drive_id: str
    rows: int


def synchronise_batch(
    home: Home,
    lake: Lake,
    drives: Sequence[str],
    *,
    run_id: str,
    parallel: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> BatchOutcome:
    """Aligns the drives' streams and publishes them in one transaction; see ingest_batch for the arguments."""

    def items(tx: Transaction) -> dict[str, tuple[DriveItem, DriveVersion]]:
        known = tx.base.versions(drives, (_ACCEPTED, *INPUTS))
        found = {}
        for drive in drives:
            accepted = known.get((drive, _ACCEPTED))
            if accepted is not None and accepted.rows:
                inputs = _inputs(known, drive)
                rows = sum(known[(drive, table)].rows for table in inputs)
                found[drive] = (DriveItem(drive, rows), _version(inputs))
        return found

    return run_batch(
        home,
        lake,
        name="synchronise",
        run_id=run_id,
        drives=drives,
        tables=OUTPUTS,
        input_tables=(_ACCEPTED, *INPUTS),
        items=items,
        weight_bytes=lambda item: item.rows * _ROW_BYTES,
        work=lambda tx: _Work(tx.writer("unnamed"), tx.base.commit_id),
        missing="it was not accepted by ingest",
        parallel=parallel,
        on_step=on_step,
    )


def made_by() -> str:
    """What rows are made by, beside their inputs: other code, contracts or policy give another text, and make all drives due."""
    return f"{CODE_VERSION}-{_version({}).version}"


def outdated(snapshot: Snapshot, drives: Sequence[str]) -> list[str]:
    """Drives that were synchronised from other inputs, or by other code, contracts or policy, than they would be now."""
    known = snapshot.versions(drives)
    found = []
    for drive in drives:
        accepted, made = known.get((drive, _ACCEPTED)), known.get((drive, OUTPUTS[0]))
        if accepted is None or not accepted.rows or made is None:
            continue
        if made.version != _version(_inputs(known, drive)).version:
            found.append(drive)
    return found


def _inputs(known: Mapping[tuple[str, str], Version], drive: str) -> dict[str, str]:
    """Versions of a drive's rows of INPUTS."""
    return {table: known[(drive, table)].version for table in INPUTS if (drive, table) in known}


def _version(inputs: Mapping[str, str]) -> DriveVersion:
    contracts = [load_tables()[name].fingerprint for name in OUTPUTS]
    contracts += [contract.fingerprint for contract in load_streams().values()]
    return version_of(
        inputs=inputs, code_version=CODE_VERSION, contracts=contracts, policy=load_alignment().fingerprint
    )


@dataclass(frozen=True)
class _Work:
    """What a task does; pickled."""

    writer: TaskWriter
    commit_id: str

    def __call__(self, items: Sequence[DriveItem], task: str) -> list[Mapping[str, Any]]:
        home = Home.open(Path(self.writer.home_root))
        snapshot = Lake.open(home, self.writer.repository).at(self.commit_id)
        writer = replace(self.writer, task=task)
        streams, alignment = load_streams(), load_alignment()
        outcomes: list[Mapping[str, Any]] = []
        with tempfile.TemporaryDirectory(dir=home.scratch, prefix="synchronise-") as scratch:
            spools = []
            for number, item in enumerate(sorted(items, key=lambda item: item.drive_id)):
                tables = {name: snapshot.scan(name, drives=[item.drive_id]) for name in INPUTS}
                day = DriveKey.parse(item.drive_id).day
                rows = synchronise_drive(tables, item.drive_id, day, streams, alignment)
                spool = Spool(Path(scratch, str(number)))
                for name, table in rows.items():
                    spool.append(name, table)
                spool.close()
                spools.append(spool)
                faults = [f"{fault['rule']}: {fault['reason']}" for fault in rows["synchronise.quarantine"].to_pylist()]
                outcome = DriveOutcome(
                    item.drive_id, "quarantined" if faults else "published", dict(spool.rows), faults
                )
                outcomes.append(vars(outcome))
            write_all(writer, spools)
        return outcomes

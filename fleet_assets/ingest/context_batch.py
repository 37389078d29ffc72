"""Context of a batch of drives, from ingested rows at one commit and the files of context to one commit on main.

In: drive keys. Out: a BatchOutcome. The files are kept in the lake by their hash, so that it can be told later what a value was
made from. Light work: in this process, not in Spark tasks.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.capture.context_files import ContextFile, read_all
from fleet_assets.contracts.loader import load_context, load_tables
from fleet_assets.contracts.model import NOT_NULL
from fleet_assets.ingest.context import Surroundings, context_rows
from fleet_assets.ingest.places import Weather, places
from fleet_assets.ingest.vehicles import match
from fleet_assets.lake.batch import BatchOutcome, DriveOutcome, run_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.tables import Snapshot
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import DriveVersion, version_of
from fleet_assets.lake.writer import TaskWriter
from fleet_assets.services.home import Home

CONTEXT, CLAIMS = TABLES = ("ingest.context", "ingest.context_claims")
INPUTS = ("ingest.drives", "ingest.gnss", "ingest.recordings")
FILES = ("context.vehicles", "context.weather", "context.zones")
CODE_VERSION = "1"


def context_batch(
    home: Home,
    lake: Lake,
    drives: Sequence[str],
    *,
    run_id: str,
    files: Mapping[str, ContextFile] | None = None,
    on_step: Callable[[int], None] | None = None,
) -> BatchOutcome:
    """Drives that were accepted at the pinned commit, in one transaction. files: as read; default: those of the installation."""
    used = read_all(home.context, FILES) if files is None else files

    def items(tx: Transaction) -> dict[str, tuple[str, DriveVersion]]:
        known = tx.base.versions(drives, INPUTS)
        accepted = [drive for drive in drives if (found := known.get((drive, INPUTS[0]))) and found.rows]
        return {
            drive: (
                drive,
                _version({table: known[drive, table].version for table in INPUTS if (drive, table) in known}, used),
            )
            for drive in accepted
        }

    def work(tx: Transaction) -> _Work:
        _keep(home, tx, used)
        return _Work(tx.writer("unnamed"), tx.base, used)

    return run_batch(
        home,
        lake,
        name="context",
        run_id=run_id,
        drives=drives,
        tables=TABLES,
        input_tables=INPUTS,
        items=items,
        weight_bytes=lambda drive: 1,
        work=work,
        missing="it was not accepted by ingest",
        parallel=False,
        on_step=on_step,
    )


def _version(inputs: Mapping[str, str], files: Mapping[str, ContextFile]) -> DriveVersion:
    made_from = {**inputs, **{name: file.sha256[:16] for name, file in files.items()}}
    contracts = [load_tables()[name].fingerprint for name in TABLES]
    contracts += [load_context()[name].fingerprint for name in FILES]
    return version_of(inputs=made_from, code_version=CODE_VERSION, contracts=contracts)


def _keep(home: Home, tx: Transaction, files: Mapping[str, ContextFile]) -> None:
    """The files as they were used, in the lake. One that is useless was not used."""
    with tempfile.TemporaryDirectory(dir=home.scratch, prefix="context-") as scratch:
        for file in files.values():
            if file.sha256 and file.error is None:
                copy = Path(scratch, file.sha256)
                copy.write_bytes(file.content)
                tx.put_object(f"context/{file.sha256}.csv", copy)


@dataclass(frozen=True)
class _Work:
    writer: TaskWriter
    base: Snapshot
    files: Mapping[str, ContextFile]

    def __call__(self, drives: Sequence[str], task: str) -> list[Mapping[str, Any]]:
        of_drive = {row["drive_id"]: row for row in self.base.scan(INPUTS[0], drives=drives).to_pylist()}
        columns = ["drive_id", "latitude_deg", "longitude_deg", "valid"]
        place = places(self.base.batches("ingest.gnss", columns, drives=drives))
        said = self._said(drives, of_drive)
        vehicles = self.files["context.vehicles"]
        weather = self.files["context.weather"]
        around = Surroundings(
            Weather(weather.rows),
            weather.limits,
            self.files["context.zones"].rows,
            match(
                {row["vehicle"] for row in of_drive.values()},
                vehicles.rows,
                min_probability=vehicles.limits["min_probability"],
                min_margin_bits=vehicles.limits["min_margin_bits"],
            ),
        )
        rows: dict[str, list[dict[str, Any]]] = {CONTEXT: [], CLAIMS: []}
        outcomes: list[Mapping[str, Any]] = []
        for drive in sorted(drives):
            context, claims = context_rows(of_drive[drive], said[drive], place.get(drive), around)
            rows[CONTEXT].append(context)
            rows[CLAIMS] += claims
            outcomes.append(vars(DriveOutcome(drive, "published", {CONTEXT: 1, CLAIMS: len(claims)})))
        writer = replace(self.writer, task=task)
        for table, found in rows.items():
            if found:
                writer.append(table, pa.Table.from_pylist(found, schema=load_tables()[table].arrow_schema))
        return outcomes

    def _said(self, drives: Sequence[str], of_drive: Mapping[str, Any]) -> dict[str, list[Mapping[str, str]]]:
        """What the drive says first; then its recordings, in order of content, where they say something else."""
        said = {drive: list(of_drive[drive]["context"] or ()) for drive in drives}
        recordings = self.base.scan(INPUTS[2], ["drive_id", "recording_id", "context"], drives=drives)
        for row in sorted(recordings.to_pylist(), key=lambda row: str(row["recording_id"])):
            said[row["drive_id"]] += row["context"] or ()
        return said


@dataclass(frozen=True)
class Joined:
    """How much of a column of ingest.context is known. limit: the share that its contract asks for."""

    column: str
    share: float
    limit: float

    @property
    def ok(self) -> bool:
        return self.share >= self.limit


def joined(snapshot: Snapshot) -> list[Joined]:
    """Per column that the contract expects to be mostly there; all drives of the lake count. Nothing without drives."""
    rules = [rule for rule in load_tables()[CONTEXT].rules if rule.expectation == NOT_NULL and not rule.blocking]
    rows = snapshot.scan(CONTEXT, [rule.columns[0] for rule in rules])
    return [
        Joined(rule.columns[0], pc.count(rows[rule.columns[0]]).as_py() / rows.num_rows, rule.mostly)
        for rule in rules
        if rows.num_rows
    ]

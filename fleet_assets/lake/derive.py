"""Rows of drives that are made from the drives' rows in other tables: what stages behind ingest have in common.

In: input tables at one commit, and a function from one drive's rows to rows of other tables. Out: a BatchOutcome.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from fleet_assets.lake.batch import BatchOutcome, DriveOutcome, DriveStatus, run_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.spool import Spool, write_all
from fleet_assets.lake.tables import Snapshot, Version
from fleet_assets.lake.tasks import give_back_memory
from fleet_assets.lake.versions import DriveVersion
from fleet_assets.lake.writer import TaskWriter
from fleet_assets.services.home import Home

_ROW_BYTES = 64  # what an input row weighs when drives are packed into tasks


@dataclass(frozen=True)
class DriveItem:
    """rows: of the drive, in all inputs."""

    drive_id: str
    rows: int

    @property
    def weight_bytes(self) -> int:
        return self.rows * _ROW_BYTES


# Rows of tables, each in pieces, so that those of a long drive are never all there at once.
Made = Mapping[str, Iterable[pa.Table]]


def input_versions(known: Mapping[tuple[str, str], Version], drive: str, inputs: Sequence[str]) -> dict[str, str]:
    """Versions of a drive's rows of the inputs."""
    return {table: known[(drive, table)].version for table in inputs if (drive, table) in known}


def derivable(
    snapshot: Snapshot,
    drives: Sequence[str],
    needed: str,
    inputs: Sequence[str],
    version: Callable[[Mapping[str, str]], DriveVersion],
) -> dict[str, tuple[DriveItem, DriveVersion]]:
    """Drives that have rows in the table that is needed, with what theirs will be made from."""
    known = snapshot.versions(drives, (needed, *inputs))
    found = {}
    for drive in drives:
        needs = known.get((drive, needed))
        if needs is not None and needs.rows:
            versions = input_versions(known, drive, inputs)
            rows = sum(known[(drive, table)].rows for table in versions)
            found[drive] = (DriveItem(drive, rows), version(versions))
    return found


@dataclass(frozen=True)
class DriveRows(Mapping[str, pa.Table]):
    """A drive's rows by table. They are read whenever they are asked for, and not kept: what a drive takes of memory is for
    the function that makes something of it to say. columns: by table; None: all."""

    snapshot: Snapshot
    drive_id: str
    columns: Mapping[str, Sequence[str] | None]

    def __getitem__(self, table: str) -> pa.Table:
        rows = self.snapshot.scan(table, self.columns[table], drives=[self.drive_id])
        give_back_memory()  # reading takes several times what it gives
        return rows

    def read_all(self) -> dict[str, pa.Table]:
        """All of them at once, to be kept."""
        return dict(self)

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


# (snapshot, drive, its rows of the inputs) -> (rows of other tables, why the drive is quarantined; empty when it is not).
# A module's function, for it is pickled.
Make = Callable[[Snapshot, str, DriveRows], tuple[Made, list[str]]]


@dataclass(frozen=True)
class DeriveWork:
    """What a task does; pickled."""

    writer: TaskWriter
    commit_id: str
    inputs: Mapping[str, Sequence[str] | None]  # table -> columns, None: all
    make: Make

    def __call__(self, items: Sequence[DriveItem], task: str) -> list[Mapping[str, Any]]:
        home = Home.open(Path(self.writer.home_root))
        snapshot = Lake.open(home, self.writer.repository).at(self.commit_id)
        outcomes: list[Mapping[str, Any]] = []
        with tempfile.TemporaryDirectory(dir=home.scratch, prefix="derive-") as scratch:
            spools = []
            for number, item in enumerate(sorted(items, key=lambda item: item.drive_id)):
                made, faults = self.make(snapshot, item.drive_id, DriveRows(snapshot, item.drive_id, self.inputs))
                spool = Spool(Path(scratch, str(number)))
                for name, pieces in made.items():
                    for rows in pieces:
                        spool.append(name, rows)
                spool.close()
                spools.append(spool)
                status: DriveStatus = "quarantined" if faults else "published"
                outcomes.append(vars(DriveOutcome(item.drive_id, status, dict(spool.rows), faults)))
            write_all(replace(self.writer, task=task), spools)
        return outcomes


@dataclass(frozen=True)
class Derivation:
    """What a stage derives per drive. needed: a drive takes part when it has rows in that table; missing: what is said of one
    that does not. version: of what a drive's inputs will make. columns: what is read of inputs, all where it says nothing.
    Called, it makes the drives' rows in one transaction."""

    name: str
    tables: tuple[str, ...]
    needed: str
    missing: str
    inputs: tuple[str, ...]
    version: Callable[[Mapping[str, str]], DriveVersion]
    make: Make
    columns: Callable[[], Mapping[str, Sequence[str]]] = dict

    def __call__(
        self,
        home: Home,
        lake: Lake,
        drives: Sequence[str],
        *,
        run_id: str,
        parallel: bool = True,
        on_step: Callable[[int], None] | None = None,
    ) -> BatchOutcome:
        """See ingest_batch for the arguments."""
        columns = self.columns()
        inputs = {name: columns.get(name) for name in self.inputs}
        return run_batch(
            home,
            lake,
            name=self.name,
            run_id=run_id,
            drives=drives,
            tables=self.tables,
            input_tables=tuple(dict.fromkeys((self.needed, *self.inputs))),
            items=lambda tx: derivable(tx.base, drives, self.needed, self.inputs, self.version),
            weight_bytes=lambda item: item.weight_bytes,
            work=lambda tx: DeriveWork(tx.writer("unnamed"), tx.base.commit_id, inputs, self.make),
            missing=self.missing,
            parallel=parallel,
            on_step=on_step,
        )

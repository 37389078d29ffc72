"""A batch of drives, from records and frames at one commit to live features in one commit.

In: drive keys. Out: a BatchOutcome. A drive takes part when it has been synchronised at the pinned commit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_tables
from fleet_assets.features.identity import code_version
from fleet_assets.features.policy import load_live_policy
from fleet_assets.features.replay import INPUTS, LIVE, OUTPUTS, replay_drive
from fleet_assets.lake.batch import BatchOutcome, DriveOutcome, run_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.payload import stream_payload
from fleet_assets.lake.spool import Spool, write_all
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import DriveVersion, version_of
from fleet_assets.lake.writer import TaskWriter
from fleet_assets.services.home import Home

_FRAMES = "synchronise.frames"
_ROW_BYTES = 64  # what an input row weighs when drives are packed into tasks


@dataclass(frozen=True)
class DriveItem:
    """rows: of the drive, in all inputs."""

    drive_id: str
    rows: int


def features_batch(
    home: Home,
    lake: Lake,
    drives: Sequence[str],
    *,
    run_id: str,
    parallel: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> BatchOutcome:
    """Replays the drives and publishes their features in one transaction; see ingest_batch for the arguments."""

    def items(tx: Transaction) -> dict[str, tuple[DriveItem, DriveVersion]]:
        known = tx.base.versions(drives, INPUTS)
        found = {}
        for drive in drives:
            if (drive, _FRAMES) in known and known[(drive, _FRAMES)].rows:
                inputs = {table: known[(drive, table)].version for table in INPUTS if (drive, table) in known}
                rows = sum(known[(drive, table)].rows for table in inputs)
                found[drive] = (DriveItem(drive, rows), _version(inputs))
        return found

    return run_batch(
        home,
        lake,
        name="features",
        run_id=run_id,
        drives=drives,
        tables=OUTPUTS,
        input_tables=INPUTS,
        items=items,
        weight_bytes=lambda item: item.rows * _ROW_BYTES,
        work=lambda tx: _Work(tx.writer("unnamed"), tx.base.commit_id),
        missing="it has no frames",
        parallel=parallel,
        on_step=on_step,
    )


def _version(inputs: Mapping[str, str]) -> DriveVersion:
    contracts = [load_tables()[name].fingerprint for name in OUTPUTS]
    return version_of(
        inputs=inputs, code_version=code_version(LIVE), contracts=contracts, policy=load_live_policy().fingerprint
    )


@dataclass(frozen=True)
class _Work:
    """What a task does; pickled."""

    writer: TaskWriter
    commit_id: str

    def __call__(self, items: Sequence[DriveItem], task: str) -> list[Mapping[str, Any]]:
        home = Home.open(Path(self.writer.home_root))
        lake = Lake.open(home, self.writer.repository)
        snapshot = lake.at(self.commit_id)
        writer = replace(self.writer, task=task)
        outcomes: list[Mapping[str, Any]] = []
        with tempfile.TemporaryDirectory(dir=home.scratch, prefix="features-") as scratch:
            spools = []
            for number, item in enumerate(sorted(items, key=lambda item: item.drive_id)):
                tables = {name: snapshot.scan(name, drives=[item.drive_id]) for name in INPUTS}
                day = DriveKey.parse(item.drive_id).day
                made = replay_drive(
                    tables,
                    item.drive_id,
                    day,
                    load_live_policy(),
                    lambda rows: stream_payload(lake.repository, self.commit_id, rows),
                )
                spool = Spool(Path(scratch, str(number)))
                for name, rows in made.items():
                    if rows.num_rows:
                        spool.append(name, rows)
                spool.close()
                spools.append(spool)
                outcomes.append(vars(DriveOutcome(item.drive_id, "published", dict(spool.rows))))
            write_all(writer, spools)
        return outcomes

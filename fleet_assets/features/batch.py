"""A batch of drives, from records and frames at one commit to live features in one commit.

In: drive keys. Out: a BatchOutcome. A drive takes part when it has been synchronised at the pinned commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_tables
from fleet_assets.features.identity import code_version
from fleet_assets.features.policy import load_live_policy
from fleet_assets.features.replay import INPUTS, LIVE, OUTPUTS, replay_drive
from fleet_assets.lake.batch import BatchOutcome, run_batch
from fleet_assets.lake.derive import DeriveWork, derivable
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.payload import stream_payload
from fleet_assets.lake.tables import Snapshot
from fleet_assets.lake.versions import DriveVersion, version_of
from fleet_assets.services.home import Home

_FRAMES = "synchronise.frames"


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

    return run_batch(
        home,
        lake,
        name="features",
        run_id=run_id,
        drives=drives,
        tables=OUTPUTS,
        input_tables=INPUTS,
        items=lambda tx: derivable(tx.base, drives, _FRAMES, INPUTS, _version),
        weight_bytes=lambda item: item.weight_bytes,
        work=lambda tx: DeriveWork(tx.writer("unnamed"), tx.base.commit_id, INPUTS, _make),
        missing="it has no frames",
        parallel=parallel,
        on_step=on_step,
    )


def _version(inputs: Mapping[str, str]) -> DriveVersion:
    contracts = [load_tables()[name].fingerprint for name in OUTPUTS]
    return version_of(
        inputs=inputs, code_version=code_version(LIVE), contracts=contracts, policy=load_live_policy().fingerprint
    )


def _make(snapshot: Snapshot, drive: str, tables: Mapping[str, pa.Table]) -> tuple[dict[str, pa.Table], list[str]]:
    made = replay_drive(
        tables,
        drive,
        DriveKey.parse(drive).day,
        load_live_policy(),
        lambda rows: stream_payload(snapshot.repository, snapshot.commit_id, rows),
    )
    return {name: rows for name, rows in made.items() if rows.num_rows}, []

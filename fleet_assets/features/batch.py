"""A batch of drives, from records and frames at one commit to live features in one commit.

In: drive keys. Out: a BatchOutcome. A drive takes part when it has been synchronised at the pinned commit.
"""

from __future__ import annotations

from collections.abc import Mapping

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_tables
from fleet_assets.features.identity import code_version_of_drives
from fleet_assets.features.policy import load_live_policy
from fleet_assets.features.replay import INPUTS, OUTPUTS, replay_drive
from fleet_assets.lake.derive import Derivation, DriveRows, Made
from fleet_assets.lake.payload import stream_payload
from fleet_assets.lake.tables import Snapshot
from fleet_assets.lake.versions import DriveVersion, version_of

_FRAMES = "synchronise.frames"


def _version(inputs: Mapping[str, str]) -> DriveVersion:
    contracts = [load_tables()[name].fingerprint for name in OUTPUTS]
    return version_of(
        inputs=inputs,
        code_version=code_version_of_drives(),
        contracts=contracts,
        policy=load_live_policy().fingerprint,
    )


def _make(snapshot: Snapshot, drive: str, rows: DriveRows) -> tuple[Made, list[str]]:
    made = replay_drive(
        rows.read_all(),
        drive,
        DriveKey.parse(drive).day,
        load_live_policy(),
        lambda messages: stream_payload(snapshot.repository, snapshot.commit_id, messages),
    )
    return {name: [table] for name, table in made.items() if table.num_rows}, []


# Replays the drives.
features_batch = Derivation("features", OUTPUTS, _FRAMES, "it has no frames", INPUTS, _version, _make)

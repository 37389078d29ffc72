"""A batch of drives, from ingested rows at one commit to clock models, frames and matches in one commit.

In: drive keys. Out: a BatchOutcome. A drive takes part when its ingested rows were accepted at the pinned commit. One that is
out of bounds is quarantined from frames and matches; what was ingested of it stays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_streams, load_tables
from fleet_assets.lake.derive import Derivation, DriveRows, Made, input_versions
from fleet_assets.lake.tables import Snapshot
from fleet_assets.lake.versions import DriveVersion, version_of
from fleet_assets.synchronise.drive import INPUTS, OUTPUTS, input_columns, synchronise_drive
from fleet_assets.synchronise.policy import load_alignment

CODE_VERSION = "8"
_ACCEPTED = "ingest.drives"


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
        if made.version != _version(input_versions(known, drive, INPUTS)).version:
            found.append(drive)
    return found


def _version(inputs: Mapping[str, str]) -> DriveVersion:
    contracts = [load_tables()[name].fingerprint for name in OUTPUTS]
    contracts += [contract.fingerprint for contract in load_streams().values()]
    return version_of(
        inputs=inputs, code_version=CODE_VERSION, contracts=contracts, policy=load_alignment().fingerprint
    )


def _make(_: Snapshot, drive: str, rows: DriveRows) -> tuple[Made, list[str]]:
    made, faults = synchronise_drive(rows, drive, DriveKey.parse(drive).day, load_streams(), load_alignment())
    return made, [f"{fault.rule}: {fault.reason}" for fault in faults]


# Aligns the drives' streams.
synchronise_batch = Derivation(
    "synchronise",
    OUTPUTS,
    _ACCEPTED,
    "it was not accepted by ingest",
    INPUTS,
    _version,
    _make,
    columns=lambda: input_columns(load_streams(), load_alignment()),
)

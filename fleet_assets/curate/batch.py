"""A batch of drives, from frames, features and labels at one commit to surroundings and scenario hits in one commit.

In: drive keys. Out: a BatchOutcome. A drive takes part when it has live features at the pinned commit.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.frame_view import frame_view
from fleet_assets.curate.scenarios import hits, load_scenarios, scenarios_fingerprint
from fleet_assets.curate.surroundings import TABLE as SURROUNDINGS
from fleet_assets.curate.surroundings import Payload, surroundings
from fleet_assets.features.policy import load_live_policy
from fleet_assets.lake.derive import Derivation, DriveRows, Made
from fleet_assets.lake.payload import stream_payload
from fleet_assets.lake.tables import Snapshot
from fleet_assets.lake.versions import DriveVersion, version_of

CODE_VERSION = "2"
HITS = "curate.scenario_hits"
OUTPUTS = (SURROUNDINGS, HITS)
_NEEDED = "features.ego_motion"
INPUTS = (
    "synchronise.frames", "synchronise.matches", "synchronise.clock_models", "ingest.labels", "ingest.messages",
    "ingest.context", "features.ego_motion", "features.scene_context", "features.sensor_health", "features.position",
)  # fmt: skip


def made_by() -> str:
    """What rows are made by, beside their inputs."""
    return f"{CODE_VERSION}-{_version({}).version}"


def is_current(version: str, inputs: Mapping[str, str]) -> bool:
    """Whether rows of this version, of these inputs, were made by the scenarios that there are, and by this code."""
    return _version(inputs).version == version


def _version(inputs: Mapping[str, str]) -> DriveVersion:
    return version_of(
        inputs=inputs,
        code_version=CODE_VERSION,
        contracts=[load_tables()[name].fingerprint for name in OUTPUTS],
        policy=scenarios_fingerprint() + load_live_policy().fingerprint,
    )


def _make(snapshot: Snapshot, drive: str, rows: DriveRows) -> tuple[Made, list[str]]:
    made = tell(
        rows.read_all(), drive, lambda messages: stream_payload(snapshot.repository, snapshot.commit_id, messages)
    )
    return {name: [table] for name, table in made.items() if table.num_rows}, []


def tell(tables: Mapping[str, pa.Table], drive: str, payload: Payload) -> dict[str, pa.Table]:
    """tables: the drive's rows of INPUTS. Gives rows of OUTPUTS."""
    day = DriveKey.parse(drive).day
    around = surroundings(tables, drive, day, payload)
    scenarios = load_scenarios()
    columns = {column for one in scenarios.values() for column in one.predicate.columns}
    view = frame_view({**tables, SURROUNDINGS: around}, columns)
    frame, t_ns = view["frame"].to_numpy(), view["t_ns"].to_numpy()
    rows = []
    for name, one in scenarios.items():
        found = hits(one, view)
        rows.append(
            {
                "drive_id": drive,
                "day": day,
                "scenario": name,
                "scenario_version": one.version,
                "frames": view.num_rows,
                "hit_frames": found.frames,
                "unknown_frames": found.unknown,
                "hits": [
                    {
                        "first_frame": int(frame[first]),
                        "last_frame": int(frame[last]),
                        "t_first_ns": int(t_ns[first]),
                        "t_last_ns": int(t_ns[last]),
                    }
                    for first, last in zip(found.first, found.last, strict=True)
                ],
            }
        )
    return {SURROUNDINGS: around, HITS: pa.Table.from_pylist(rows, schema=load_tables()[HITS].arrow_schema)}


# Tells the drives' surroundings and scenarios.
scenarios_batch = Derivation("scenarios", OUTPUTS, _NEEDED, "it has no features", INPUTS, _version, _make)

"""The frame view: what is known at each causal frame of a drive, as one row, for predicates.

In: rows of tables that have one row per frame or per drive. Out: one Arrow table with qualified columns, such as
ego_motion.speed_mps; or the same as Spark SQL over the lake at a commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.curate.predicates import Catalogue
from fleet_assets.curate.surroundings import causal
from fleet_assets.features.policy import load_live_policy
from fleet_assets.lake.client import Repository
from fleet_assets.lake.tables import contract_of

FRAMES = "frames"
PER_DRIVE = ("context",)
# Name in predicates -> table.
VIEW: Mapping[str, str] = {
    FRAMES: "synchronise.frames",
    "ego_motion": "features.ego_motion",
    "scene_context": "features.scene_context",
    "sensor_health": "features.sensor_health",
    "position": "features.position",
    "surroundings": "curate.surroundings",
    "context": "ingest.context",
}
CATALOGUE = Catalogue(VIEW)


def frame_view(tables: Mapping[str, pa.Table], columns: Iterable[str]) -> pa.Table:
    """One drive's frames, in order. tables: its rows by table. columns: qualified; a row that a table lacks is null.

    Beside them there are frame and t_ns.
    """
    frames = causal(tables[VIEW[FRAMES]])
    found = {"frame": frames["frame"], "t_ns": frames["t_ns"]}
    places: dict[str, tuple[pa.Table, pa.Array]] = {}
    for qualified in sorted(set(columns)):
        name, column = qualified.split(".")
        if name not in places:
            rows = frames if name == FRAMES else tables[VIEW[name]]
            places[name] = (rows, _places(name, rows, frames))
        rows, place = places[name]
        found[qualified] = rows[column].take(place)
    return pa.table(found)


def _places(name: str, rows: pa.Table, frames: pa.Table) -> pa.Array:
    """Per frame the row that speaks of it, null where there is none."""
    if name in PER_DRIVE:
        return pa.array([0 if rows.num_rows else None] * frames.num_rows, pa.int64())
    return pc.index_in(frames["frame"], value_set=rows["frame"].combine_chunks()).cast(pa.int64()).combine_chunks()


def spark_view(repository: Repository, ref: str, columns: Sequence[str]) -> str:
    """The tables that the columns are in, joined, as the FROM clause of Spark SQL: `frames` and those named beside it."""
    names = sorted({qualified.split(".")[0] for qualified in columns} - {FRAMES})

    def source(name: str) -> str:
        return f"delta.`{repository.uri(ref, contract_of(VIEW[name]).location, 's3a')}` AS `{name}`"

    joined = [f"FROM {source(FRAMES)}"]
    for name in names:
        keys = ["day", "drive_id"] if name in PER_DRIVE else ["day", "drive_id", "frame"]
        on = " AND ".join(f"`{name}`.`{key}` = `{FRAMES}`.`{key}`" for key in keys)
        joined.append(f"LEFT JOIN {source(name)} ON {on}")
    return "\n".join([*joined, f"WHERE `{FRAMES}`.`policy` = '{load_live_policy().alignment}'"])

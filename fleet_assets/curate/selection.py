"""What a recipe selects at one commit, drive by drive.

In: a snapshot, a recipe. Out: drives whose tables agree, each with its clips and what is counted of its frames; and why the
others were left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.curate.batch import HITS, is_current
from fleet_assets.curate.clips import borders_of, cut
from fleet_assets.curate.coverage import CLASSES, DIMENSIONS, UNKNOWN
from fleet_assets.curate.frame_view import FRAMES, PER_DRIVE, VIEW, frame_view
from fleet_assets.curate.predicate_forms import selected
from fleet_assets.curate.recipe import Recipe
from fleet_assets.curate.scenarios import parts_of_slice, slices_held
from fleet_assets.curate.splits import DriveFacts
from fleet_assets.curate.surroundings import TABLE as SURROUNDINGS
from fleet_assets.features.policy import load_live_policy
from fleet_assets.lake.tables import VERSIONS, Snapshot

# What a dataset is made of; a drive that lacks one, or whose versions of these do not agree, is left out.
FEATURES = tuple(f"features.{view}" for view in ("ego_motion", "scene_context", "sensor_health", "position"))
NEEDED = ("synchronise.frames", *FEATURES, SURROUNDINGS, HITS)
PINNED = (
    *NEEDED, "synchronise.matches", "synchronise.clock_models", "ingest.messages", "ingest.labels", "ingest.context",
)  # fmt: skip
_QUARANTINES = ("ingest.quarantine", "synchronise.quarantine")
_CLOCKS = "synchronise.clock_models"
_TOGETHER = 32  # drives that are read at once
_HASH_NS = 1_000_000_000


@dataclass(frozen=True)
class Clip:
    """rows: its frames among the drive's. scenarios: that hold at its last frame. image_hash: 0 where there is none."""

    rows: slice
    scenarios: tuple[str, ...]
    image_hash: int


@dataclass(frozen=True)
class SelectedDrive:
    """tables: version and rows of each of PINNED that it has. objects: int64 [frames] per class, 0 where not labelled. scenarios:
    bool [frames] by slice, such as rain@1.0.0."""

    facts: DriveFacts
    tables: Mapping[str, Mapping[str, Any]]
    simulated: bool
    frame: np.ndarray
    t_ns: np.ndarray
    labelled: np.ndarray
    objects: Mapping[str, np.ndarray]
    scenarios: Mapping[str, np.ndarray]
    clips: tuple[Clip, ...]

    @property
    def drive(self) -> str:
        return self.facts.drive


def select(snapshot: Snapshot, recipe: Recipe) -> tuple[list[SelectedDrive], dict[str, str]]:
    """Drives with clips, in order of their keys, and why each of the others was left out."""
    versions, left_out = agreeing(snapshot)
    found = []
    names = sorted(versions)
    for at in range(0, len(names), _TOGETHER):
        for drive, tables in _tables(snapshot, recipe, names[at : at + _TOGETHER]):
            one = _of_drive(drive, tables, versions[drive], recipe)
            if not one.labelled.any():
                left_out[drive] = "it has no labels"
            elif not one.clips:
                left_out[drive] = "none of its clips is selected"
            else:
                found.append(one)
    return found, left_out


def agreeing(snapshot: Snapshot) -> tuple[dict[str, dict[str, dict[str, Any]]], dict[str, str]]:
    """Drive -> table -> version and rows, of drives whose tables were all made from one another as they are now; and why the
    other drives are left out."""
    rows = snapshot.scan(VERSIONS, ["drive_id", "table_name", "version", "rows", "inputs"])
    rows = rows.filter(pc.is_in(rows["table_name"], value_set=pa.array(PINNED)))
    known: dict[str, dict[str, dict[str, Any]]] = {}
    for row in rows.to_pylist():
        known.setdefault(row["drive_id"], {})[row["table_name"]] = row
    agree: dict[str, dict[str, dict[str, Any]]] = {}
    left_out = {
        drive: f"it is in {table}"
        for table in _QUARANTINES
        for drive in pc.unique(snapshot.scan(table, ["drive_id"])["drive_id"]).to_pylist()
    }
    for drive, tables in sorted(known.items()):
        if drive in left_out:
            continue
        reason = _disagreement(tables)
        if reason:
            left_out[drive] = reason
        else:
            agree[drive] = {name: {"version": row["version"], "rows": row["rows"]} for name, row in tables.items()}
    return agree, left_out


def _disagreement(tables: Mapping[str, Mapping[str, Any]]) -> str | None:
    for name in NEEDED:
        if name not in tables or not tables[name]["rows"]:
            return f"it has no rows in {name}"
    if not is_current(
        tables[HITS]["version"], {source["name"]: source["version"] for source in tables[HITS]["inputs"]}
    ):
        return f"its rows in {HITS} were made by other scenarios, or other code"
    for name, row in sorted(tables.items()):
        for source in row["inputs"]:
            if source["name"] in tables and tables[source["name"]]["version"] != source["version"]:
                return f"its rows in {name} were made from earlier ones of {source['name']}"
    return None


def _tables(snapshot: Snapshot, recipe: Recipe, drives: Sequence[str]) -> Iterator[tuple[str, dict[str, pa.Table]]]:
    """Each drive's rows, of the columns that are needed."""
    columns: dict[str, set[str]] = {
        VIEW[FRAMES]: {"policy", "t_ns", "frame"},
        "features.position": {"frame", "cell"},
        SURROUNDINGS: {"frame", "labelled", "image_hash", *CLASSES.values()},
        "ingest.context": {"h3_cell", *DIMENSIONS},
        HITS: {"scenario", "scenario_version", "hits"},
        _CLOCKS: {"segment", "status", "t_anchor_ns", "offset_ns", "skew_ppm", "t_from_ns"},
        "ingest.drives": {"context"},
    }
    for qualified in recipe.select.columns:
        name, column = qualified.split(".")
        columns.setdefault(VIEW[name], set()).update({column} if name in PER_DRIVE else {column, "frame"})
    policy = f"policy = '{load_live_policy().alignment}'"
    read = {
        table: snapshot.scan(
            table, ["drive_id", *sorted(names)], drives=drives, predicate=policy if table == VIEW[FRAMES] else None
        )
        for table, names in columns.items()
    }
    for drive in drives:
        yield drive, {table: rows.filter(pc.equal(rows["drive_id"], drive)) for table, rows in read.items()}


def _of_drive(
    drive: str, tables: Mapping[str, pa.Table], versions: Mapping[str, Mapping[str, Any]], recipe: Recipe
) -> SelectedDrive:
    counts = [f"surroundings.{name}" for name in ("labelled", "image_hash", *CLASSES.values())]
    view = frame_view(tables, [*recipe.select.columns, *counts])
    frame, t_ns = view["frame"].to_numpy(), view["t_ns"].to_numpy()
    labelled = np.asarray(pc.fill_null(view["surroundings.labelled"], False).to_numpy(), dtype=bool)
    [context] = tables["ingest.context"].to_pylist() or [{"h3_cell": None, **dict.fromkeys(DIMENSIONS)}]
    [about] = tables["ingest.drives"].to_pylist()
    facts = DriveFacts(
        drive,
        int(t_ns[0]),
        int(t_ns[-1]),
        context["h3_cell"],
        frozenset(pc.unique(tables["features.position"]["cell"].drop_null()).to_pylist()),
        {name: context[name] or UNKNOWN for name in DIMENSIONS},
    )
    one = SelectedDrive(
        facts,
        versions,
        any(entry["key"] == "simulator" for entry in about["context"]),
        frame,
        t_ns,
        labelled,
        {
            name: pc.fill_null(view[f"surroundings.{column}"], 0).to_numpy().astype(np.int64)
            for name, column in CLASSES.items()
        },
        slices_held(tables[HITS], "first_frame", "last_frame", frame),
        (),
    )
    first, last = cut(t_ns, selected(recipe.select, view), labelled, borders_of(tables[_CLOCKS]), recipe.clip)
    return replace(one, clips=tuple(_clips(one, first, last, view["surroundings.image_hash"])))


def _clips(one: SelectedDrive, first: np.ndarray, last: np.ndarray, image_hash: pa.ChunkedArray) -> Iterator[Clip]:
    """The image hash is that of the last frame's second."""
    hashed = np.flatnonzero(image_hash.is_valid().to_numpy())
    hash_of = dict(
        zip((one.t_ns[hashed] // _HASH_NS).tolist(), image_hash.take(pa.array(hashed)).to_pylist(), strict=True)
    )
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        holding = {parts_of_slice(slice_)[0] for slice_, holds in one.scenarios.items() if holds[end]}
        yield Clip(slice(begin, end + 1), tuple(sorted(holding)), hash_of.get(int(one.t_ns[end]) // _HASH_NS, 0))

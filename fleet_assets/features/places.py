"""What is known of places: visits of each drive, and publications of their history.

In: live features of drives, and labels. Out: features.place_visits, one row per drive and H3 cell; features.place_context,
one row per publication and cell.

A publication sums up the visits that the lake has when it is made, and is known from then on. It is never changed: a drive that
comes later, or is made anew, counts in the next one. So what was known of a place at any time can be told at any later time.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.contracts.loader import load_tables
from fleet_assets.features.write import publication_key, upsert
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.publish import Published

VERSION = 1  # as that of a kernel: see identity.py
VISITS, CONTEXT = "features.place_visits", "features.place_context"
RESOLUTION = 9  # cells of about 350 m across
PEOPLE = ("pedestrian",)
TRAFFIC = ("vehicle", "cyclist")
SUMS = ("passes", "seconds", "distance_m", "brakings", "pedestrians", "traffic")


def cells_of(latitude_deg: np.ndarray, longitude_deg: np.ndarray) -> pa.Array:
    """H3 cell of each place, int64; null where the place is not known."""
    import h3.api.numpy_int as h3

    known = np.isfinite(latitude_deg) & np.isfinite(longitude_deg)
    cells = np.zeros(latitude_deg.size, dtype=np.int64)
    places = np.stack([latitude_deg[known], longitude_deg[known]], axis=1)
    # A vehicle stays in a cell for many frames, and its fix for several: each place is looked up once.
    once, back = np.unique(places, axis=0, return_inverse=True)
    found = np.array([h3.latlng_to_cell(lat, lon, RESOLUTION) for lat, lon in once], dtype=np.uint64)
    if once.size:
        cells[known] = found.view(np.int64)[back.ravel()]
    return pa.array(cells, mask=~known)


def visits(position: pa.Table, ego_motion: pa.Table, labels: pa.Table, constants: Mapping[str, object]) -> pa.Table:
    """One drive's visits. position, ego_motion: its rows, one per frame each; labels: its rows of ingest.labels."""
    schema = load_tables()[VISITS].arrow_schema
    frames = position.sort_by("frame")
    motion = ego_motion.sort_by("frame")
    cell = frames["cell"].combine_chunks()
    known = cell.is_valid().to_numpy(zero_copy_only=False)
    if not known.any():
        return schema.empty_table()
    of_frame = pc.fill_null(cell, 0).to_numpy()
    t_ns = frames["t_ns"].to_numpy()
    step_s = np.clip(np.diff(t_ns, append=t_ns[-1:]) * 1e-9, 0.0, 1.0)
    speed = np.nan_to_num(motion["speed_mps"].to_numpy())
    braking = np.nan_to_num(motion["braking_events_10s"].to_numpy())
    began = np.clip(np.diff(braking, prepend=braking[:1]), 0.0, None)  # the window's count goes up where one begins
    cells, number = np.unique(of_frame[known], return_inverse=True)
    entered = np.flatnonzero(known & (np.concatenate([[0], of_frame[:-1]]) != of_frame))

    def total(weight: np.ndarray) -> np.ndarray:
        return np.bincount(number, weight[known], minlength=cells.size)

    columns = {
        "cell": cells,
        "t_ns": np.array([t_ns[of_frame == one].max() for one in cells]),
        "passes": np.bincount(np.searchsorted(cells, of_frame[entered]), minlength=cells.size).astype(np.float64),
        "seconds": total(step_s),
        "distance_m": total(speed * step_s),
        "brakings": total(began),
        "pedestrians": _seen(labels, frames, cells, PEOPLE),
        "traffic": _seen(labels, frames, cells, TRAFFIC),
    }
    return pa.table(
        [
            pa.repeat(pa.scalar(constants[f.name], f.type), cells.size)
            if f.name in constants
            else pa.array(columns[f.name], f.type)
            for f in schema
        ],
        schema=schema,
    )


def _seen(labels: pa.Table, frames: pa.Table, cells: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """Different tracks of the classes that were labelled while the vehicle was in each cell."""
    counts = np.zeros(cells.size)
    rows = labels.filter(pc.is_in(labels["class_name"], value_set=pa.array(classes)))
    rows = rows.filter(pc.is_valid(rows["t_host_ns"]))
    timed = frames.filter(pc.and_(pc.is_valid(frames["t_cut_ns"]), pc.is_valid(frames["cell"]))).sort_by("t_cut_ns")
    if not rows.num_rows or not timed.num_rows:
        return counts
    at = np.searchsorted(timed["t_cut_ns"].to_numpy(), rows["t_host_ns"].to_numpy())
    cell = timed["cell"].to_numpy()[np.minimum(at, timed.num_rows - 1)]
    pairs = pa.table({"cell": cell, "track": rows["track_id"]}).group_by(["cell", "track"]).aggregate([])
    for entry in pc.value_counts(pairs["cell"]).to_pylist():
        counts[np.searchsorted(cells, entry["values"])] = entry["counts"]
    return counts


def publish_places(lake: Lake, published: datetime, *, run_id: str | None = None) -> Published | None:
    """Publishes what the lake knows of all places now, as known from `published` on (to the second, UTC).

    A publication that is there already stays as it is: None. Raises FleetError for a time in the future.
    """
    key = publication_key("places", published)
    snapshot = lake.at()
    if snapshot.versions([key], [CONTEXT]):
        return None
    published_ns = int(published.timestamp()) * 10**9
    known = snapshot.scan(VISITS, ["cell", *SUMS], predicate=f"t_ns <= {published_ns}")
    if not known.num_rows:
        return None
    return upsert(lake, CONTEXT, summed(known, key, published_ns), name="places", run_id=run_id)


def summed(known: pa.Table, key: str, published_ns: int) -> pa.Table:
    """Visits as a publication: sums per cell, and rates per pass."""
    by_cell = known.group_by("cell", use_threads=False).aggregate([(name, "sum") for name in SUMS]).sort_by("cell")
    sums = {name: by_cell[f"{name}_sum"].to_numpy() for name in SUMS}
    passes, seconds = sums["passes"], sums["seconds"]
    count = by_cell.num_rows
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = {
            "drive_id": [key] * count,
            "cell": by_cell["cell"],
            "t_ns": np.full(count, published_ns),
            "available_ns": np.full(count, published_ns),
            "place_passes": passes,
            "place_brakings_per_pass": sums["brakings"] / passes,
            "place_pedestrians_per_pass": sums["pedestrians"] / passes,
            "place_traffic_per_pass": sums["traffic"] / passes,
            "place_speed_mps": np.where(seconds > 0, sums["distance_m"] / seconds, np.nan),
        }
    return pa.table({n: pa.array(c, from_pandas=True) if isinstance(c, np.ndarray) else c for n, c in columns.items()})

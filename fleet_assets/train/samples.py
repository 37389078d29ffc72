"""Frames of a dataset: its samples, decoded by the vehicle's code, with their features from Feast, point in time.

In: the name of a dataset, a split. Out: FrameSet, in one order; how many frames were read a second. Features are those that a
vehicle had by then, at the commit of the manifest.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.curate.samples_reader import Samples
from fleet_assets.edge.inputs import CONTEXT, SPEED, YAW_RATE, camera_input, lidar_input, radar_input
from fleet_assets.edge.messages import decode
from fleet_assets.edge.rig import SENSORS
from fleet_assets.errors import FleetError
from fleet_assets.features.policy import load_live_policy
from fleet_assets.lake.lake import Lake
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import SLICES
from fleet_assets.train.truth import labelled_objects

_COLUMNS = (
    *SLICES, "labelled", "labels", "radar_earlier",
    *(f"{sensor}{part}" for sensor in SENSORS for part in ("_age_s", "_schema", "")),
)  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """frames: labelled ones. left_out: frames that nobody labelled. read_per_s: frames a second, decoded."""

    frames: FrameSet
    left_out: int
    read_per_s: float


def frames_of_dataset(lake: Lake, name: str, split: str) -> Loaded:
    """Raises FleetError for a dataset without samples, or a split without labelled frames."""
    samples = Samples.open(lake, name)
    began = time.perf_counter()
    parts, read, left_out = [], 0, 0
    for batch in samples.batches(split, _COLUMNS):
        rows = pa.Table.from_batches([batch])
        read += rows.num_rows
        labelled = rows.filter(rows["labelled"])
        left_out += rows.num_rows - labelled.num_rows
        if labelled.num_rows:
            parts.append(frames_of_rows(labelled, _features(labelled, samples.manifest.commit_id)))
    if not parts:
        raise FleetError(f"Split {split} of dataset {name} has no labelled frame", remedy="Bring labelled drives in.")
    return Loaded(FrameSet.concat(parts), left_out, read / (time.perf_counter() - began))


def _features(rows: pa.Table, commit_id: str) -> np.ndarray:
    """float32 [rows, features] of CONTEXT."""
    import pandas as pd

    from fleet_assets.features.offline_store import pinned
    from fleet_assets.features.registry import feature_store

    known_ns = -(-(rows["t_ns"].to_numpy() + load_live_policy().delay_ns) // 1000) * 1000
    entities = pd.DataFrame({
        "drive_id": rows["drive_id"].to_pylist(),
        "frame": rows["frame"].to_numpy(),
        "event_timestamp": pd.to_datetime(known_ns, utc=True),
    })  # fmt: skip
    with pinned(commit_id):
        found = feature_store().get_historical_features(entities, list(CONTEXT), full_feature_names=True).to_arrow()
    columns = [found[feature.replace(":", "__")].cast(pa.float64()) for feature in CONTEXT]
    return np.stack([pc.fill_null(column, float("nan")).to_numpy() for column in columns], axis=1).astype(np.float32)


def frames_of_rows(rows: pa.Table, context: np.ndarray) -> FrameSet:
    """rows: of curate.samples, in order. context: float32 [rows, features] of CONTEXT."""
    content = {
        sensor: _decoded(sensor, rows[f"{sensor}_schema"].to_pylist(), rows[sensor].to_pylist()) for sensor in SENSORS
    }
    ages_s = {sensor: pc.fill_null(rows[f"{sensor}_age_s"], float("nan")).to_numpy() for sensor in SENSORS}
    for sensor in SENSORS:  # a message that cannot be decoded is none, as in the vehicle
        ages_s[sensor] = np.where([found is None for found in content[sensor]], np.nan, ages_s[sensor])
    sweeps = zip(content["radar"], ages_s["radar"].tolist(), strict=True)
    radar = [
        radar_input([sweep, *earlier], float(context[row, SPEED]), float(context[row, YAW_RATE]))
        for row, (sweep, earlier) in enumerate(zip(sweeps, _earlier_sweeps(rows), strict=True))
    ]
    drive_ids = rows["drive_id"].to_numpy(zero_copy_only=False)
    drives = sorted(set(drive_ids))
    labels = rows["labels"].combine_chunks()
    return FrameSet(
        camera=np.stack([camera_input(found) for found in content["camera"]]),
        lidar=np.stack([lidar_input(found) for found in content["lidar"]]),
        radar=np.stack(radar),
        context=context,
        age_s=np.stack([ages_s[sensor] for sensor in SENSORS], axis=1).astype(np.float32),
        t_ns=rows["t_ns"].to_numpy(),
        drive=np.searchsorted(drives, drive_ids).astype(np.int32),
        drives=tuple(drives),
        slices={
            name: pc.fill_null(rows[name], "unknown").to_numpy(zero_copy_only=False).astype(str) for name in SLICES
        },
        truth=labelled_objects(pc.list_parent_indices(labels).to_numpy(), pa.Table.from_struct_array(labels.flatten())),
    )


def _decoded(sensor: str, schemas: list[str], messages: list[bytes | None]) -> list[np.ndarray | None]:
    return [
        None if message is None else decode(sensor, schema, message).content
        for schema, message in zip(schemas, messages, strict=True)
    ]


def _earlier_sweeps(rows: pa.Table) -> list[list[tuple[np.ndarray | None, float]]]:
    """Per row, what the radar said before, and how old that is [s]."""
    found = []
    for records in rows["radar_earlier"].to_pylist():
        content = _decoded("radar", [one["schema_name"] for one in records], [one["message"] for one in records])
        ages_s = [math.nan if one["age_s"] is None else one["age_s"] for one in records]
        found.append(list(zip(content, ages_s, strict=True)))
    return found

"""Quality on real labelled frames: RADIATE's sample, four seconds in fog, judged by models that know simulated drives alone.

In: opened models by form, the sample's folder. Out: a row that says what was judged, then one per form and class. The frames are
made by the vehicle's own code from messages of LiDAR and left camera, placed as models know them (quality_radiate_rig.py). The
radar stays missing, though its field could be cut to the model's: it tells no velocity, so for a model everybody would stand, and
its scale of power is not known. Car, van, truck, bus and motorbike are vehicles, as the reader says; a group of pedestrians is
one. Sources: the RADIATE SDK and paper (Sheeny et al., 2021); times and tilt are measured on the sample, as the constants say.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from benchmarks.harness import Row
from benchmarks.quality_radiate_rig import Calibration, placed
from fleet_assets.edge.inputs import MOUNT_M
from fleet_assets.edge.model import Model
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.recording import Recording
from fleet_assets.edge.rig import SENSORS, Rig
from fleet_assets.evaluate.metrics import average_precision
from fleet_assets.formats.radiate import LABELS_TOPIC
from fleet_assets.formats.reader import RecordingFiles, open_recording
from fleet_assets.formats.rewrite import rewrite_as_mcap
from fleet_assets.kernels.align import nearest
from fleet_assets.train.calibrate import hits
from fleet_assets.train.export import detections
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames, stacked
from fleet_assets.train.truth import labelled_objects

NAME = "radiate_tiny_foggy"
# A radar sweep begins straight ahead and turns clockwise; its stamp comes so long after its end. Told by the shift at which LiDAR
# returns of the same stamp lie on the radar's echoes, at 9.5 m/s: 3.25 m (0.34 s) ahead on the right, where a sweep begins, 1.0
# to 1.25 m (0.12 s) ahead on the left, where it ends; the LiDAR passes ahead 74 ms before its stamp, of which frames know 50.
RADAR_SWEEP_S, RADAR_LATE_S = 0.246, 0.156
_FRAME_NS = np.uint64(50_000_000)  # a frame is no further from a sweep's beginning: half a LiDAR period
_ABOUT = (
    "LiDAR by its calibration, levelled by the road; the left camera's picture turned to the model's, from half a metre higher; "
    "the radar tells no velocity, and its scale of power is unknown. Boxes are moved to the time of the LiDAR: by bare stamps "
    "they lie a third of a second behind. To be low: the models know simulated sensors alone; fog hides most of what the radar "
    "shows; of a bus of 13 m only the face is seen, 6 m from its centre. One sequence with one bus and one car: no interval, and "
    "of pedestrians and cyclists only what is found without being there."
)


def rows(models: Mapping[str, Model], folder: Path | None = None) -> list[Row]:
    """models: by form, all of one rig. folder: the sample; by default below FLEET_SHARED_DATA. Shares are at the shipped
    thresholds; average precision is None where nothing was labelled, precision where nothing was found."""
    folder = folder or Path(os.environ.get("FLEET_SHARED_DATA") or Path(__file__).parents[2] / "shared" / "data") / NAME
    if not folder.is_dir():
        return [{"work": "RADIATE", "note": f"not judged: {folder} is missing (set FLEET_SHARED_DATA)"}]
    (rig,) = {model.description.rig for model in models.values()}
    real = frames_of_radiate(folder, rig)
    seen = dict(zip(SENSORS, (~np.isnan(real.age_s)).sum(axis=0).tolist(), strict=True))
    given = "given: " + ", ".join(f"{sensor} in {count} of {len(real)} frames" for sensor, count in seen.items())
    made: list[Row] = [
        {"work": "RADIATE", "objects": len(real.truth), "frames": len(real), "note": f"{given}. {_ABOUT}"}
    ]
    for form, model in models.items():
        if seen.get(form) == 0:
            made.append({"work": f"RADIATE, {form}", "note": "not judged: the one sensor of this form is missing"})
        else:
            made += _judged(form, model, real, given)
    return made


def _judged(form: str, model: Model, real: FrameSet, given: str) -> Iterator[Row]:
    """A row per class."""
    found = detections(model, real, every=True)
    hit = hits(found, real.truth)
    counts = found.confidence >= (model.description.thresholds_ppm * 1e-6)[found.class_id]
    for class_id, name in enumerate(CLASSES):
        here, objects = found.class_id == class_id, int((real.truth.class_id == class_id).sum())
        right, told = int((here & hit & counts).sum()), int((here & counts).sum())
        precise = average_precision(found.confidence[here], hit[here], objects)
        yield {
            "work": f"RADIATE {name}, {form}",
            "objects": objects,
            "frames": len(real),
            "average precision": round(precise, 3) if objects else None,
            "recall": round(right / objects, 3) if objects else None,
            "precision": round(right / told, 3) if told else None,
            "found": told,
            "note": given,
        }


def frames_of_radiate(folder: Path, rig: Rig) -> FrameSet:
    """A frame per labelled radar sweep whose beginning a LiDAR sweep is near enough to. folder: as the sample's, with
    labels. Raises FleetError where it is no recording."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    reader = open_recording(RecordingFiles(folder, tuple(names)))
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "placed.mcap")
        rewrite_as_mcap(placed(reader.payloads(), Calibration.read(folder)), path)
        made = list(frames(Recording.open(path), rig))
    labels = pa.concat_tables([batch.table for batch in reader.read([LABELS_TOPIC])])
    chosen, truth = truth_at(labels, np.array([frame.t_ns for frame in made], dtype=np.int64))
    return stacked([made[number] for number in chosen], NAME, {"light": "day", "weather": "fog"}, truth)


def truth_at(labels: pa.Table, t_ns: np.ndarray) -> tuple[np.ndarray, Objects]:
    """Which frames are judged, int64 [m], and what was there inside the grid, frames numbered from 0 to m - 1.

    labels: boxes with t_device_ns of their radar sweep, track_id, class_name, x_m and y_m from the radar. t_ns: int64 [n], of the
    frames, ascending. A box was seen when the beam passed it; to the time of its frame it is moved by the speed of its track.
    """
    labels = labels.sort_by("t_device_ns")
    stamp_ns, x_m, y_m = (labels[name].to_numpy() for name in ("t_device_ns", "x_m", "y_m"))
    sweeps, sweep = np.unique(stamp_ns, return_inverse=True)
    began_ns = sweeps - round((RADAR_SWEEP_S + RADAR_LATE_S) * 1e9)
    index, _ = nearest(began_ns, t_ns, _FRAME_NS, _FRAME_NS)
    number = np.cumsum(index >= 0) - 1
    turned = np.mod(-np.arctan2(y_m, x_m), 2 * np.pi) / (2 * np.pi)
    later_s = (t_ns[index[sweep]] - began_ns[sweep]) * 1e-9 - turned * RADAR_SWEEP_S
    track = labels["track_id"].to_numpy(zero_copy_only=False)
    now_x_m = pa.array(MOUNT_M + x_m + later_s * _speed(track, stamp_ns, x_m))
    now_y_m = pa.array(y_m + later_s * _speed(track, stamp_ns, y_m))
    moved = labels.drop_columns(["x_m", "y_m"]).append_column("x_m", now_x_m).append_column("y_m", now_y_m)
    kept = np.flatnonzero(index[sweep] >= 0)
    return index[index >= 0], labelled_objects(number[sweep[kept]].astype(np.int32), moved.take(pa.array(kept)))


def _speed(track: np.ndarray, stamp_ns: np.ndarray, place_m: np.ndarray) -> np.ndarray:
    """[n], metres a second, along each track; 0 for what was seen once."""
    speed = np.zeros(place_m.size)
    for one in np.unique(track):
        rows = np.flatnonzero(track == one)
        if rows.size > 1:
            speed[rows] = np.gradient(place_m[rows], (stamp_ns[rows] - stamp_ns[rows[0]]) * 1e-9)
    return speed

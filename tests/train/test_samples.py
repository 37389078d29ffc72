"""Samples give the frames that the vehicle would have made of the same messages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fleet_assets.contracts.loader import load_tables
from fleet_assets.edge.inputs import RADAR_SWEEPS
from fleet_assets.edge.messages import stamp_of
from fleet_assets.edge.recording import Recording
from fleet_assets.edge.rig import SENSORS
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig
from fleet_assets.train.samples import frames_of_rows

pytestmark = pytest.mark.slow


def _rows(path: Path, frames: FrameSet) -> pa.Table:
    """Rows of curate.samples as curation would have written them of this recording."""
    opened = Recording.open(path)
    chosen = {
        topic: stream for topic, stream in vehicle_rig().chosen(opened.topics).values() if stream.source in SENSORS
    }
    content = {
        (chosen[topic].source, (stamp_of(data) or 0) + chosen[topic].ahead_ns): (schema_name, data)
        for topic, schema_name, data, _ in opened.messages()
        if topic in chosen
    }
    rows = []
    for number, t_ns in enumerate(frames.t_ns.tolist()):
        here = frames.truth.of_frames(number, number + 1)
        row = {
            "drive_id": "car7--20260304T120000Z", "day": None, "frame": number, "t_ns": t_ns, "light": "day", "weather": None,
            "region": "munich", "labelled": True, "other_sensors": [], "radar_earlier": [],
            "labels": [
                {"class_name": ("vehicle", "pedestrian", "cyclist")[kind], "x_m": float(x), "y_m": float(y), "moving":
                bool(moving),
                 "visible_fraction": float(seen)}
                for kind, x, y, moving, seen in zip(here.class_id, here.x_m, here.y_m, here.moving, here.visible_fraction,
                strict=True)
            ] + [{"class_name": "animal", "x_m": 5.0, "y_m": 0.0}, {"class_name": "vehicle", "x_m": 80.0, "y_m": 0.0}],
        }  # fmt: skip
        for place, sensor in enumerate(SENSORS):
            age_s = float(frames.age_s[number, place])
            if not np.isnan(age_s):
                (stamp,) = [at for source, at in content if source == sensor and abs(t_ns - at - age_s * 1e9) < 1e5]
                row |= {
                    f"{sensor}_age_s": (t_ns - stamp) * 1e-9,
                    f"{sensor}_schema": content[sensor, stamp][0],
                    sensor: content[sensor, stamp][1],
                }
                if sensor == "radar":
                    before = sorted((at for source, at in content if source == sensor and at < stamp), reverse=True)
                    row["radar_earlier"] = [
                        {"age_s": (t_ns - at) * 1e-9, "schema_name": kind, "message": message}
                        for at in before[: RADAR_SWEEPS - 1]
                        for kind, message in [content[sensor, at]]
                    ]
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=load_tables()["curate.samples"].arrow_schema)


def test_samples_are_the_frames_of_the_vehicle(recordings: list[Path]) -> None:
    frames = frames_of_recordings([recordings[0]], every_s=0.5)
    found = frames_of_rows(_rows(recordings[0], frames), frames.context)
    for name in ("camera", "lidar", "radar", "age_s"):
        assert np.array_equal(getattr(found, name), getattr(frames, name), equal_nan=name == "age_s"), name
    assert found.drives == ("car7--20260304T120000Z",)
    assert set(found.slices["weather"]) == {"unknown"}
    assert found.truth.frame.tolist() == frames.truth.frame.tolist()
    assert np.array_equal(found.truth.x_m, frames.truth.x_m)
    assert np.array_equal(found.truth.moving, frames.truth.moving)


def test_a_message_that_cannot_be_decoded_is_none(recordings: list[Path]) -> None:
    frames = frames_of_recordings([recordings[0]], every_s=1.0)
    rows = _rows(recordings[0], frames)
    at = rows.column_names.index("lidar")
    broken = rows.set_column(at, rows.schema.field("lidar"), pa.array([b"\0\1\0\0"] * rows.num_rows, pa.binary()))
    found = frames_of_rows(broken, frames.context)
    assert np.isnan(found.age_s[:, 1]).all()
    assert not found.lidar.any()
    assert np.array_equal(found.camera, frames.camera)

"""Samples give the frames that the vehicle would have made of the same messages."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from fleet_assets.contracts.loader import load_tables
from fleet_assets.edge.assemble import Assembler
from fleet_assets.edge.inputs import RADAR_SWEEPS
from fleet_assets.edge.messages import stamp_of
from fleet_assets.edge.recording import Arrived, Recording
from fleet_assets.edge.rig import SENSORS, Stream
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig
from fleet_assets.train.samples import frames_of_rows

pytestmark = pytest.mark.slow


def _sensors(topics: list[str]) -> dict[str, Stream]:
    return {topic: stream for topic, stream in vehicle_rig().chosen(topics).values() if stream.source in SENSORS}


def _rows(messages: list[Arrived], frames: FrameSet) -> pa.Table:
    """Rows of curate.samples as curation would have written them of these messages."""
    chosen = _sensors([topic for topic, *_ in messages])
    content = {
        (chosen[topic].source, (stamp_of(data) or 0) + chosen[topic].ahead_ns): (schema_name, data)
        for topic, schema_name, data, _ in messages
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
    found = frames_of_rows(_rows(list(Recording.open(recordings[0]).messages()), frames), frames.context)
    for name in ("camera", "lidar", "radar", "age_s"):
        assert np.array_equal(getattr(found, name), getattr(frames, name), equal_nan=name == "age_s"), name
    assert found.drives == ("car7--20260304T120000Z",)
    assert set(found.slices["weather"]) == {"unknown"}
    assert found.truth.frame.tolist() == frames.truth.frame.tolist()
    assert np.array_equal(found.truth.x_m, frames.truth.x_m)
    assert np.array_equal(found.truth.moving, frames.truth.moving)


def test_a_message_that_cannot_be_decoded_is_none_in_lake_and_vehicle(recordings: list[Path]) -> None:
    """Which records belong to a frame follows from their stamps, so neither takes another one in its place."""
    whole, opened = frames_of_recordings([recordings[0]]), Recording.open(recordings[0])
    broken, number, sensors = list[Arrived](), Counter[str](), _sensors(opened.topics)
    for topic, kind, data, t_ns in opened.messages():
        number[topic] += topic in sensors
        broken.append((topic, kind, data[:12] if number[topic] % 5 == 4 else data, t_ns))  # its stamp is left
    assembler = Assembler(vehicle_rig(), opened.topics)
    driven = [frame for message in broken for frame in assembler.push(*message)] + assembler.flush()
    vehicle = {frame.t_ns: frame for frame in driven}
    found = frames_of_rows(_rows(broken, whole), whole.context)
    lost = np.isnan(found.age_s) & ~np.isnan(whole.age_s)
    assert lost.any(axis=0).all()
    assert (found.radar != whole.radar).any(axis=(1, 2, 3))[~lost[:, 2]].any(), "an earlier sweep is lost, too"
    for row, t_ns in enumerate(whole.t_ns.tolist()):
        for name in ("camera", "lidar", "radar", "age_s"):
            np.testing.assert_array_equal(getattr(found, name)[row], getattr(vehicle[t_ns], name), name)

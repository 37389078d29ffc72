"""Labels at frames, and what is told of them."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.labels import labels_at
from fleet_assets.curate.surroundings import surroundings
from fleet_assets.kernels.perceptual_hash import bits, difference_hash, near_above

DRIVE, DAY = "car7--20260102T030405Z", date(2026, 1, 2)
T0_NS, MS = 1_767_323_045_000_000_000, 1_000_000
OFFSET_NS = 7_000_000_123  # of the camera's clock


def rows(table: str, listed: list[dict[str, Any]]) -> pa.Table:
    """Rows of a contract; what is not given is null, 0 or empty."""
    schema = load_tables()[table].arrow_schema
    empty = {pa.string(): "", pa.int64(): 0, pa.bool_(): False, pa.date32(): DAY, pa.float64(): 0.0}
    fixed = {"drive_id": DRIVE, "day": DAY}
    full = [
        {f.name: row.get(f.name, fixed.get(f.name, None if f.nullable else empty[f.type])) for f in schema}
        for row in listed
    ]
    return pa.Table.from_pylist(full, schema=schema)


def drive(labels: list[dict[str, Any]], frames: list[dict[str, Any]], *, stamps_ms: list[int]) -> dict[str, pa.Table]:
    """A drive whose front camera, with stamps_ms on its own clock, was labelled. labels: with ms, frames: with ms."""
    told = [{"stream": "labels", "t_device_ns": T0_NS - OFFSET_NS + row.pop("ms") * MS, **row} for row in labels]
    camera = [
        {"stream": "camera_front", "sequence": at, "t_device_ns": T0_NS - OFFSET_NS + ms * MS, "schema_name": "x"}
        for at, ms in enumerate(stamps_ms)
    ]
    model = {
        "stream": "camera_front", "clock": "device", "segment": 0, "t_from_ns": 0, "t_to_ns": 2**62, "t_anchor_ns": T0_NS,
        "offset_ns": OFFSET_NS, "skew_ppm": 0.0, "status": "ok", "method": "arrival", "confidence": 1.0, "evidence": "-",
    }  # fmt: skip
    made = [
        {"policy": "causal", "frame": at, "t_ns": T0_NS + row.pop("ms") * MS, "complete": True, **row}
        for at, row in enumerate(frames)
    ]
    return {
        "ingest.labels": rows("ingest.labels", told),
        "ingest.messages": rows("ingest.messages", camera),
        "synchronise.clock_models": rows("synchronise.clock_models", [model]),
        "synchronise.frames": rows("synchronise.frames", made),
        "synchronise.matches": rows("synchronise.matches", []),
    }


def told(tables: dict[str, pa.Table]) -> list[dict[str, Any]]:
    found = surroundings(tables, DRIVE, DAY, lambda rows: iter(()))
    assert found.schema.equals(load_tables()["curate.surroundings"].arrow_schema)
    return list(found.to_pylist())


def person(ms: int, x_m: float, y_m: float, **more: Any) -> dict[str, Any]:
    return {"ms": ms, "class_name": "pedestrian", "track_id": "p", "x_m": x_m, "y_m": y_m, **more}


def vehicle(ms: int, x_m: float, y_m: float, **more: Any) -> dict[str, Any]:
    return {"ms": ms, "class_name": "vehicle", "track_id": "v", "x_m": x_m, "y_m": y_m, "length_m": 4.0, **more}


# ---- which labels belong to a frame ---------------------------------------------------------------------------------


def at_frames(tables: dict[str, pa.Table]) -> tuple[list[bool], list[list[float]]]:
    labels = tables["ingest.labels"]
    t_ns = tables["synchronise.frames"]["t_ns"].to_numpy()
    found = labels_at(t_ns, labels, tables["ingest.messages"], tables["synchronise.clock_models"])
    x_m = labels["x_m"].to_numpy()
    parts = [x_m[found.rows[a:b]].tolist() for a, b in zip(found.begin[:-1], found.begin[1:], strict=True)]
    return found.labelled.tolist(), parts


def test_a_frame_has_the_labels_nearest_to_it() -> None:
    labels = [person(0, 1, 0), person(0, 2, 0), person(100, 3, 0), person(200, 4, 0)]
    frames = [{"ms": ms} for ms in (-70, 10, 49, 51, 110, 210, 261)]
    labelled, x_m = at_frames(drive(labels, frames, stamps_ms=[0, 100, 200]))
    assert labelled == [False, True, True, True, True, True, False]
    assert x_m == [[], [1, 2], [1, 2], [3], [3], [4], []]


def test_a_time_with_nothing_in_it_is_labelled() -> None:
    """Nothing was found at 200: there are no rows, but somebody looked."""
    labels = [person(ms, 1, 0) for ms in (0, 100, 300, 400)]
    labelled, x_m = at_frames(drive(labels, [{"ms": 100}, {"ms": 200}, {"ms": 300}], stamps_ms=[0, 100, 200, 300, 400]))
    assert labelled == [True, True, True]
    assert x_m == [[1], [], [1]]


def test_over_a_long_silence_of_the_labels_nobody_looked() -> None:
    stamps = [*range(0, 500, 100), *range(5000, 5500, 100)]
    labels = [person(ms, 1, 0) for ms in stamps]
    labelled, _ = at_frames(drive(labels, [{"ms": ms} for ms in (200, 1000, 4000, 5200)], stamps_ms=stamps))
    assert labelled == [True, False, False, True]


def test_between_labels_that_are_rarer_than_frames_nobody_looked() -> None:
    labels = [person(ms, 1, 0) for ms in (0, 250, 500)]
    labelled, _ = at_frames(drive(labels, [{"ms": 0}, {"ms": 125}, {"ms": 250}], stamps_ms=[0, 250, 500]))
    assert labelled == [True, False, True]


def test_labels_of_no_known_sensor_belong_to_no_frame() -> None:
    tables = drive([person(0, 1, 0)], [{"ms": 0}], stamps_ms=[5, 105])
    assert at_frames(tables) == ([False], [[]])
    [row] = told(tables)
    assert (row["labelled"], row["pedestrians"], row["lead_distance_m"]) == (False, None, None)


# ---- what they tell --------------------------------------------------------------------------------------------------


def test_counts_by_class_place_and_state() -> None:
    labels = [
        person(0, 10, 3, track_id="a", moving=False, visible_fraction=0.4),
        person(0, 40, 0, track_id="b", moving=True, speed_mps=1.2, yaw_rad=0.0),
        person(0, 20, 2, track_id="c", moving=True, speed_mps=1.2, yaw_rad=-np.pi / 2),
        vehicle(0, 12, 0, track_id="d"),
        vehicle(0, 30, -9, track_id="e", moving=True, speed_mps=5.0, yaw_rad=np.pi / 2),
    ]
    [row] = told(drive(labels, [{"ms": 5, "speed_mps": 20.0, "yaw_rate_radps": 0.0}], stamps_ms=[0]))
    assert row["pedestrians"] == 3
    assert row["pedestrians_30m"] == 2
    assert row["standing_pedestrians"] == row["occluded_pedestrians"] == row["crossing_pedestrians"] == 1
    assert row["vehicles"] == 2
    assert row["crossing_traffic"] == 1
    assert row["lead_distance_m"] == 10.0
    assert row["time_gap_s"] == pytest.approx(0.5)


def test_a_lane_bends_with_our_way() -> None:
    """At 10 m/s and 0.2 rad/s to the left, the lane is 4 m to the left after 20 m."""
    moving = {"ms": 0, "speed_mps": 10.0, "yaw_rate_radps": 0.2}
    [row] = told(drive([vehicle(0, 20, 4)], [moving], stamps_ms=[0]))
    assert row["lead_distance_m"] == 18.0
    [row] = told(drive([vehicle(0, 20, 0)], [dict(moving, ms=0)], stamps_ms=[0]))
    assert row["lead_distance_m"] is None


def test_speed_across_from_tracks_where_labels_do_not_tell() -> None:
    labels = [person(ms, 20, 4 - ms / 500, moving=True) for ms in (0, 100, 200)]
    found = told(drive(labels, [{"ms": ms} for ms in (0, 100, 200)], stamps_ms=[0, 100, 200]))
    assert [row["crossing_pedestrians"] for row in found] == [0, 1, 1]
    # The same track in the vehicle's frame, but it is we who turn.
    labels = [person(ms, 20, 4 - ms / 500, moving=True) for ms in (0, 100, 200)]
    turning = [{"ms": ms, "yaw_rate_radps": 0.1, "speed_mps": 5.0} for ms in (0, 100, 200)]
    found = told(drive(labels, turning, stamps_ms=[0, 100, 200]))
    assert [row["crossing_pedestrians"] for row in found] == [0, 0, 0]


def test_cut_ins() -> None:
    stamps = list(range(0, 6000, 500))
    way = [3.5, 3.5, 2.5, 1.2] + [0.0] * 8
    labels = [vehicle(ms, 20, y, moving=True, yaw_rad=0.0) for ms, y in zip(stamps, way, strict=True)]
    labels += [vehicle(ms, 30, 0, track_id="ahead", moving=True, yaw_rad=0.0) for ms in stamps]
    labels += [
        vehicle(ms, 10, y, track_id="oncoming", moving=True, yaw_rad=3.1) for ms, y in zip(stamps, way, strict=True)
    ]
    frames = [{"ms": ms, "speed_mps": 10.0, "yaw_rate_radps": 0.0} for ms in stamps]
    found = [row["cut_ins"] for row in told(drive(labels, frames, stamps_ms=stamps))]
    assert found == [0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0]  # beside us at 1000 ms; in our lane until 3 s later


def test_turns_over_five_seconds() -> None:
    frames = [{"ms": ms, "yaw_rate_radps": 0.1} for ms in range(0, 8000, 100)]
    frames[70]["yaw_rate_radps"] = None
    turned = [row["turned_rad_5s"] for row in told(drive([], frames, stamps_ms=[]))]
    assert turned[50] == pytest.approx(0.5)
    assert turned[69] == pytest.approx(0.5)
    assert turned[70] is None
    assert turned[75] is None


# ---- images that look alike ------------------------------------------------------------------------------------------


def test_hashes_of_like_images_are_near() -> None:
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (9, 16, 3)).repeat(12, axis=0).repeat(16, axis=1).astype(np.uint8)
    noisy = np.clip(image + random.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
    other = random.integers(0, 256, (9, 16, 3)).repeat(12, axis=0).repeat(16, axis=1).astype(np.uint8)
    one, near, far = (difference_hash(pixels) for pixels in (image, noisy, other))
    assert bits(one ^ near) <= 6 < 16 <= bits(one ^ far)
    hashes = np.array([one, far, near, near], dtype=np.int64)
    assert near_above(hashes, np.array([0, 1, 1, 0]), 6).tolist() == [2, -1, -1, 2]

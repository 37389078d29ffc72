"""RADIATE's sample as a model is judged on it: where its boxes and sensors come to lie, and what is told of a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from formats.shared_data import shared
from train.conftest import Tiny

from benchmarks import quality_radiate, quality_radiate_rig
from benchmarks.quality_radiate import RADAR_LATE_S, RADAR_SWEEP_S, frames_of_radiate, truth_at
from benchmarks.quality_radiate_rig import LIDAR_HEIGHT_M, Calibration, in_vehicle, source_px
from fleet_assets.edge.inputs import CELL_M, LIDAR_CELLS
from fleet_assets.edge.model import Model
from fleet_assets.edge.objects import CLASSES
from fleet_assets.errors import FleetError
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.rig import vehicle_rig

T0_NS = 1_700_000_000_000_000_000
CALIBRATION = Calibration(np.array([0.6, -0.1, 0.2]), np.zeros(3), (300.0, 310.0), (340.0, 200.0), (-0.2, 0.05))


@pytest.fixture(scope="module")
def real() -> FrameSet:
    return frames_of_radiate(shared("radiate_tiny_foggy"), vehicle_rig())


def labels(rows: list[tuple[float, str, str, float, float]]) -> pa.Table:
    """Stamp after T0 [s], track, class, x, y from the radar [m]."""
    stamp_s, track, class_name, x_m, y_m = zip(*rows, strict=True)
    return pa.table(
        {
            "t_device_ns": [T0_NS + round(one * 1e9) for one in stamp_s],
            "track_id": track,
            "class_name": class_name,
            "x_m": x_m,
            "y_m": y_m,
            "moving": pa.nulls(len(rows), pa.bool_()),
            "visible_fraction": pa.nulls(len(rows), pa.float64()),
        }
    )


def test_a_box_is_moved_from_when_the_beam_passed_it_to_its_frame() -> None:
    """One comes straight ahead at 20 m/s, which the beam passes first; one stands at 45 degrees to the left, seven eighths of a
    turn later; one drives there at 8 m/s; one is outside the grid."""
    one_s = 0.25
    told = labels(
        [
            (1.0, "a", "vehicle", 30.0, 0.0), (1.0, "b", "pedestrian", 10.0, 10.0), (1.0, "c", "cyclist", 20.0, 20.0),
            (1.0 + one_s, "a", "vehicle", 25.0, 0.0), (1.0 + one_s, "b", "pedestrian", 10.0, 10.0),
            (1.0 + one_s, "c", "cyclist", 22.0, 22.0), (1.0 + one_s, "d", "vehicle", -5.0, 0.0),
        ]
    )  # fmt: skip
    began_s = 1.0 - RADAR_SWEEP_S - RADAR_LATE_S
    frame_s = np.array([-0.5, began_s - 0.06, began_s + 0.03, began_s + one_s])
    chosen, truth = truth_at(told, T0_NS + np.round(frame_s * 1e9).astype(np.int64))
    assert chosen.tolist() == [2, 3]
    assert [(int(frame), CLASSES[one]) for frame, one in zip(truth.frame, truth.class_id, strict=True)] == [
        (0, "vehicle"), (0, "pedestrian"), (0, "cyclist"), (1, "vehicle"), (1, "pedestrian"), (1, "cyclist"),
    ]  # fmt: skip
    early_s = 0.03 - RADAR_SWEEP_S * 7 / 8
    assert truth.x_m.tolist() == pytest.approx(
        [1.3 + 30 - 20 * 0.03, 11.3, 21.3 + 8 * early_s, 26.3, 11.3, 23.3 - 8 * RADAR_SWEEP_S * 7 / 8], abs=1e-4
    )
    assert truth.y_m.tolist() == pytest.approx(
        [0.0, 10.0, 20.0 + 8 * early_s, 0.0, 10.0, 22 - 8 * RADAR_SWEEP_S * 7 / 8], abs=1e-4
    )


def test_no_frame_is_judged_without_a_lidar_sweep_near_it() -> None:
    chosen, truth = truth_at(labels([(1.0, "a", "vehicle", 30.0, 0.0)]), np.array([T0_NS], dtype=np.int64))
    assert chosen.size == len(truth) == 0


def test_lidar_points_lie_in_the_frame_of_the_vehicle(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is behind, beside or on the vehicle is left out."""
    monkeypatch.setattr(quality_radiate_rig, "RISE_RIGHT", -0.05)
    monkeypatch.setattr(quality_radiate_rig, "RISE_AHEAD", 0.02)
    points = np.array([[3.0, 10.0, -1.0, 51.0], [0.0, -10.0, 0.0, 1.0], [10.0, 3.0, 0.0, 1.0], [0.0, 1.3, 0.0, 1.0]])
    assert in_vehicle(points, CALIBRATION).tolist() == [
        pytest.approx([1.3 + 0.2 + 10, -3.6, LIDAR_HEIGHT_M - 1 + 0.05 * 3 - 0.02 * 10, 0.2])
    ]


def test_a_ray_of_the_models_camera_meets_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Straight ahead, and the last column of the model's camera, 45 degrees to the right; then with the real one turned."""
    monkeypatch.setattr(quality_radiate_rig, "RISE_RIGHT", 0.0)
    monkeypatch.setattr(quality_radiate_rig, "RISE_AHEAD", 0.0)
    columns, rows = source_px(CALIBRATION)
    assert columns.shape == rows.shape == (256, 1024)
    assert (columns[103:105, 511:513].mean(), rows[103:105, 511:513].mean()) == pytest.approx((340, 200))
    assert columns[104, 1023] == pytest.approx(340 + 300 * (1 - 0.2 + 0.05), abs=0.5)
    turned = replace(CALIBRATION, camera_deg=np.array([1.5, 0.0, 0.0]))
    assert source_px(turned)[1][103:105, 511:513].mean() == pytest.approx(200 - 310 * np.tan(np.radians(1.5)), abs=0.1)


def test_the_sample_has_frames_of_a_bus_and_a_car(real: FrameSet) -> None:
    """16 of 18 sweeps: the LiDAR starts later than the first two were begun, and the camera later still."""
    assert (len(real), np.bincount(real.truth.class_id, minlength=len(CLASSES)).tolist()) == (16, [18, 0, 0])
    assert np.isnan(real.age_s).sum(axis=0).tolist() == [3, 0, 16]
    assert not real.radar.any()
    assert (real.camera.reshape(16, -1).any(axis=1) == ~np.isnan(real.age_s[:, 0])).all()
    assert np.abs(np.nan_to_num(real.age_s)).max() < 0.05


def test_boxes_lie_on_lidar_returns(real: FrameSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those near enough for returns in fog; by the bare stamps of the radar the car would be where nothing is."""
    with monkeypatch.context() as patched:
        patched.setattr(quality_radiate, "RADAR_LATE_S", -RADAR_SWEEP_S)
        bare = frames_of_radiate(shared("radiate_tiny_foggy"), vehicle_rig())
    assert share_with_returns(real) == 1.0
    assert share_with_returns(bare) < 0.5


def share_with_returns(frames: FrameSet) -> float:
    """Of the objects within 25 m: those with a return at most 2.5 m from their centre, half a car."""
    at_m = (np.arange(LIDAR_CELLS) + 0.5) * 48 * CELL_M / LIDAR_CELLS
    x_m, y_m = np.meshgrid(at_m, at_m - 24, indexing="ij")
    truth = frames.truth.only((frames.truth.distance_m < 25) & (frames.truth.distance_m > 4))
    hit = [
        (frames.lidar[frame, :3].sum(axis=0)[np.hypot(x_m - x, y_m - y) < 2.5] > 0).any()
        for frame, x, y in zip(truth.frame, truth.x_m, truth.y_m, strict=True)
    ]
    assert hit
    return float(np.mean(hit))


@pytest.mark.slow
def test_a_model_is_judged_per_class(tiny: Tiny) -> None:
    """A form that has the radar alone is not, for there is none."""
    model = Model.open(tiny.exported.folder)
    about, *rows, radar = quality_radiate.rows({"late": model, "radar": model}, shared("radiate_tiny_foggy"))
    assert (about["frames"], about["objects"]) == (16, 18)
    assert "camera in 13 of 16 frames, lidar in 16 of 16 frames, radar in 0 of 16 frames" in about["note"]
    assert (radar["work"], "not judged" in radar["note"]) == ("RADIATE, radar", True)
    assert [(row["work"], row["objects"]) for row in rows] == [
        ("RADIATE vehicle, late", 18), ("RADIATE pedestrian, late", 0), ("RADIATE cyclist, late", 0),
    ]  # fmt: skip
    assert 0 <= rows[0]["recall"] <= 1
    assert all(row["recall"] is row["average precision"] is None for row in rows[1:])
    assert all((row["precision"] is None) == (row["found"] == 0) for row in rows)


def test_without_the_sample_it_says_so(tmp_path: Path) -> None:
    (row,) = quality_radiate.rows({}, tmp_path / "nowhere")
    assert "is missing" in row["note"]


@pytest.mark.parametrize("content", ["", "[", "lidar_calib: {T: [1, 2]}", "lidar_calib: 5"])
def test_a_broken_calibration_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "default-calib.yaml").write_text(content)
    with pytest.raises(FleetError, match="no calibration"):
        Calibration.read(tmp_path)

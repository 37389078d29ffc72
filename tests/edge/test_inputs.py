"""What a model is given, from what sensors said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fleet_assets.edge import inputs
from fleet_assets.simulate import scene
from fleet_assets.simulate.parameters import parameters, setup


def echo(range_m: float, azimuth_deg: float, *, velocity: int = 127) -> np.ndarray:
    """A sweep with one strong return."""
    pixels = np.zeros((64, 48, 3), dtype=np.uint8)
    pixels[..., 1] = 127
    row = int(range_m / inputs.RADAR_REACH_M * 64)
    column = int((0.5 - azimuth_deg / inputs.RADAR_FIELD_DEG) * 48)
    pixels[row, column] = 200, velocity, 0
    return pixels


def strongest(polar: np.ndarray) -> tuple[float, float]:
    """Range [m] and azimuth [deg] of the centre of power."""
    power = polar.sum(axis=0) / polar.sum()
    range_m = (power.sum(axis=1) * (np.arange(64) + 0.5)).sum() * inputs.RADAR_REACH_M / 64
    azimuth = (0.5 - (power.sum(axis=0) * (np.arange(48) + 0.5)).sum() / 48) * inputs.RADAR_FIELD_DEG
    return range_m, azimuth


def test_models_take_what_the_simulated_vehicle_has() -> None:
    """The vehicle's code imports nothing of the simulator, so both write their geometry down."""
    ours = setup("default")
    camera, radar = ours.camera, ours.radar
    assert (camera.rows, camera.columns, 3) == inputs.CAMERA_SHAPE
    assert (camera.field_deg, camera.horizon, camera.height_m, scene.MOUNT_M) == (
        inputs.CAMERA_FIELD_DEG, inputs.CAMERA_HORIZON, inputs.CAMERA_HEIGHT_M, inputs.MOUNT_M,
    )  # fmt: skip
    assert (radar.bins, radar.beams) == inputs.RADAR_SHAPE[1:]
    assert (radar.bins * radar.bin_m, radar.beams * radar.beam_deg) == pytest.approx(
        (inputs.RADAR_REACH_M, inputs.RADAR_FIELD_DEG)
    )
    assert parameters()["radar"]["most_mps"] == inputs.RADAR_MOST_MPS


def sweep(pixels: np.ndarray, age_s: float, speed_mps: float, yaw_rate_radps: float) -> np.ndarray:
    """What a model is given of a first sweep."""
    now, before = np.split(inputs.radar_input([(pixels, age_s)], speed_mps, yaw_rate_radps), 2)
    assert not before.any()
    return now


def test_a_fresh_sweep_stays_as_it_is() -> None:
    pixels = echo(20, 10, velocity=255)
    polar = sweep(pixels, 0.0, 10.0, 0.3)
    assert polar[-1].max() == pytest.approx(1.8, abs=1e-4)
    assert np.unravel_index(polar[-1].argmax(), (64, 48)) == np.unravel_index(pixels[..., 0].argmax(), (64, 48))
    assert np.count_nonzero(polar > 1e-3) == 1


@pytest.mark.parametrize(("speed_mps", "yaw_rate", "azimuth_deg"), [(10, 0.0, 0), (0, 0.5, 0), (8, -0.3, 20)])
def test_what_stands_is_brought_to_the_time_of_the_frame(speed_mps: float, yaw_rate: float, azimuth_deg: float) -> None:
    """An echo at a place of the town, seen a quarter of a second ago from where the vehicle was then."""
    age_s = 0.25
    before_m, before_deg = strongest(sweep(echo(20, azimuth_deg), 0.0, 0.0, 0.0))
    x = inputs.MOUNT_M + before_m * math.cos(math.radians(before_deg))
    y = before_m * math.sin(math.radians(before_deg))
    turn, way = yaw_rate * age_s, speed_mps * age_s
    dx, dy = x - way * math.cos(turn / 2), y - way * math.sin(turn / 2)
    now_x, now_y = math.cos(turn) * dx + math.sin(turn) * dy - inputs.MOUNT_M, math.cos(turn) * dy - math.sin(turn) * dx
    range_m, azimuth = strongest(sweep(echo(20, azimuth_deg), age_s, speed_mps, yaw_rate))
    assert range_m == pytest.approx(math.hypot(now_x, now_y), abs=0.15)
    assert azimuth == pytest.approx(math.degrees(math.atan2(now_y, now_x)), abs=0.5)


@pytest.mark.parametrize("velocity", [0, 60, 110, 120, 127, 128, 137, 150, 180, 255])
def test_power_is_shared_between_the_velocities_next_to_an_echos(velocity: int) -> None:
    velocity_mps = (velocity / 127.5 - 1) * 16
    polar = sweep(echo(20, 10, velocity=velocity), 0.0, 0.0, 0.0)
    knots = inputs.RADAR_VELOCITIES_MPS
    expected = [1.8 * np.interp(velocity_mps, knots, one) for one in np.eye(len(knots))]
    assert polar.sum(axis=(1, 2)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("velocity", [40, 100, 127, 200])
def test_what_moves_has_gone_on_along_its_beam(velocity: int) -> None:
    before_m, before_deg = strongest(sweep(echo(20, 10, velocity=velocity), 0.0, 0.0, 0.0))
    range_m, azimuth = strongest(sweep(echo(20, 10, velocity=velocity), 0.25, 0.0, 0.0))
    assert range_m - before_m == pytest.approx(0.25 * (velocity / 127.5 - 1) * 16, abs=0.01)
    assert azimuth == pytest.approx(before_deg, abs=0.01)


def test_earlier_sweeps_are_averaged_where_all_is_now() -> None:
    """An echo that fades in some of them is there in the mean, and one that moves is in one place."""
    sweeps = [(echo(20 + 2 * number, 10, velocity=107), 0.25 * number) for number in range(4)]
    found = inputs.radar_input(sweeps, 0.0, 0.0)
    alone = [sweep(pixels, age_s, 0.0, 0.0) for pixels, age_s in sweeps]
    assert np.array_equal(found[:7], alone[0])
    assert found[7:] == pytest.approx(np.mean(alone[1:], axis=0), abs=1e-6)
    faded: list[tuple[np.ndarray | None, float]] = [sweeps[0], (None, 0.25), sweeps[2]]
    assert np.array_equal(inputs.radar_input(faded, 0.0, 0.0)[7:], alone[2])


def test_motion_that_is_not_known_moves_nothing() -> None:
    pixels = echo(20, 5)
    assert np.array_equal(sweep(pixels, 0.25, 0.0, 0.0), sweep(pixels, 0.25, math.nan, math.nan))
    assert np.array_equal(sweep(pixels, 0.0, 5.0, 0.1), sweep(pixels, math.nan, 5.0, 0.1))


def test_points_fall_into_their_cells() -> None:
    points = np.array([
        [10.1, 0.1, 0.5, 0.2], [10.2, 0.2, 0.6, 0.4], [10.3, 0.3, 1.0, 0.6], [10.4, 0.4, 2.0, 0.0],
        [10.1, 0.1, 0.1, 1.0], [10.1, 0.1, 4.0, 1.0], [48.0, 0, 1, 1], [-0.1, 0, 1, 1], [5, 24.0, 1, 1], [np.nan, 0, 1, 1],
        [1, np.inf, 1, 1],
    ])  # fmt: skip
    grid = inputs.lidar_input(points)
    assert np.argwhere(grid.any(axis=0)).tolist() == [[20, 48]]
    assert grid[:, 20, 48] == pytest.approx([math.log(3), math.log(2), math.log(2), 2.0 / 3.5, 1.2 / 4])


def test_larger_and_grey_pictures_are_taken_too() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (128, 512, 3), dtype=np.uint8)
    means = pixels.reshape(64, 2, 256, 2, 3).astype(np.int64).sum(axis=(1, 3)) // 4
    assert np.array_equal(inputs.camera_input(pixels), means)
    grey = random.integers(0, 256, (30, 100, 1), dtype=np.uint8)
    assert np.array_equal(inputs.camera_input(grey)[0, 0], np.repeat(grey[0, 0], 3))


def test_a_sensor_without_a_record_is_zero() -> None:
    assert not inputs.camera_input(None).any()
    assert not inputs.lidar_input(None).any()
    nothing: list[np.ndarray | None] = [None, np.zeros((0, 48, 3), dtype=np.uint8)]
    for pixels in nothing:
        assert not inputs.radar_input([(pixels, 0.1), (echo(20, 10), 0.3)], 1.0, 0.0).any()
    assert not inputs.radar_input([], 1.0, 0.0).any()

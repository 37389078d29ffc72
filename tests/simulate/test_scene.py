"""What simulated sensors see: one scene for all, labels that fit, conditions that matter, motion that adds up."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from simulate.conftest import START

from fleet_assets.kernels import raycast as rc
from fleet_assets.simulate.conditions import draw, light_at
from fleet_assets.simulate.parameters import parameters, setup
from fleet_assets.simulate.scene import MOUNT_M, Label, Scene, generator
from fleet_assets.simulate.town import ASPHALT, MARKING, OPEN

LIGHTS = ("day", "dusk", "night")


@lru_cache(maxsize=32)
def scene(
    region: str = "munich",
    light: str = "day",
    weather: str = "clear",
    seed: int = 3,
    name: str = "default",
    seconds: float = 60,
) -> Scene:
    conditions = draw(generator(seed, "conditions"), START, region, light, weather)
    return Scene(seed, conditions, setup(name), seconds)


def labelled(of: Scene, numbers: range) -> list[tuple[int, Label]]:
    return [(number, label) for number in numbers for label in of.labels(number)]


# ---- the world -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("region", ["munich", "hamburg"])
def test_a_town_has_all_that_a_street_has(region: str) -> None:
    world = scene(region)
    kinds = Counter((figure.class_name, figure.subtype) for figure in world.things.figures)
    for kind in (
        ("vehicle", "car"), ("cyclist", "bicycle"), ("pedestrian", "adult"), ("pedestrian", "child"),
        ("pedestrian", "wheelchair"), ("", ""),
    ):  # fmt: skip
        assert kinds[kind] > 2, kind
    assert kinds["vehicle", "truck"]  # at least that of the road works
    ground = world.town.ground.classes
    assert set(np.unique(ground)) == set(range(len(world.town.ground.albedo)))
    curvature = world.motion.loop.curvature_pm
    assert curvature.max() > 0.02  # bends to the left, and to the right
    assert curvature.min() < -0.001
    assert world.motion.loop.corners_m.size >= 4


def test_regions_differ() -> None:
    def of(region: str) -> tuple[float, float, float]:
        worlds = [scene(region, seed=seed) for seed in range(4)]
        figures = [figure for world in worlds for figure in world.things.figures]
        length_m = sum(world.motion.loop.length_m for world in worlds)
        people = sum(figure.class_name == "pedestrian" for figure in figures) / length_m
        vehicles = [figure.subtype for figure in figures if figure.class_name == "vehicle"]
        heights = [figure.height_m for figure in figures if figure.section == 3.0]
        return people, 1 - vehicles.count("car") / len(vehicles), float(np.median(heights))

    suburb, centre = of("munich"), of("hamburg")
    assert all(more > 1.3 * less for less, more in zip(suburb, centre, strict=True))


@pytest.mark.parametrize("seed", range(3))
def test_nobody_stands_where_we_drive(seed: int) -> None:
    """No labelled thing comes into the space of our vehicle, in two rounds."""
    world = scene("hamburg", seed=seed, seconds=150)
    labels = np.array([bool(figure.class_name) for figure in world.things.figures])
    half = np.array([[figure.length_m / 2, figure.width_m / 2] for figure in world.things.figures])[labels]
    for t_s in np.arange(0.0, 150.0, 0.5):
        things, (x, y, yaw) = world.traffic.at(t_s)[labels], (float(value) for value in world.motion.pose(t_s))
        # Our middle in the frame of each thing, and how far outside of its box that is.
        dx, dy = x - things[:, rc.OBJECT_X], y - things[:, rc.OBJECT_Y]
        cos, sin = np.cos(things[:, rc.OBJECT_YAW]), np.sin(things[:, rc.OBJECT_YAW])
        ahead, left = np.abs(cos * dx + sin * dy) - half[:, 0], np.abs(cos * dy - sin * dx) - half[:, 1]
        assert np.hypot(np.maximum(ahead, 0), np.maximum(left, 0)).min() > 0.9, (t_s, yaw)


def test_people_stand_and_walk_and_cross() -> None:
    world = scene("hamburg")
    people = np.array([figure.class_name == "pedestrian" for figure in world.things.figures])
    then, now = (world.traffic.at(t_s)[people] for t_s in (10.0, 11.0))
    moved = np.hypot(now[:, rc.OBJECT_X] - then[:, rc.OBJECT_X], now[:, rc.OBJECT_Y] - then[:, rc.OBJECT_Y])
    assert 0.2 < (moved < 0.01).mean() < 0.6
    assert moved.max() < 3.0
    walking = moved > 0.3
    assert np.abs(moved[walking] - then[walking, rc.OBJECT_SPEED]).max() < 0.6
    on_road = 0
    for t_s in range(0, 60, 2):
        places = world.traffic.at(float(t_s))[people]
        on_road += int(
            np.isin(world.town.ground.at(places[:, rc.OBJECT_X], places[:, rc.OBJECT_Y]), (ASPHALT, MARKING)).sum()
        )
    assert on_road > 10


# ---- sensors ---------------------------------------------------------------------------------------------------------


def test_labels_are_near_visible_and_where_the_sensors_see_them() -> None:
    world, wanted = scene(), parameters()["labels"]
    camera = world.setup.camera
    focal_px = camera.columns / 2 / np.tan(np.radians(camera.field_deg) / 2)
    found = labelled(world, range(0, 600, 40))
    assert 3 < len(found) / 15 < 20
    classes = Counter(label.figure.class_name for _, label in found)
    assert set(classes) == {"vehicle", "cyclist", "pedestrian"}
    hit = 0
    for number, label in found:
        assert np.hypot(label.x_m, label.y_m) <= wanted["reach_m"]
        assert wanted["least_visible"] <= label.visible_fraction <= 1.0
        left, top, right, bottom = label.box_px
        assert 0 <= left < right <= camera.columns
        assert 0 <= top < bottom <= camera.rows
        assert (right - left) * (bottom - top) >= label.visible_px >= wanted["least_px"]
        # The middle of the thing, as the camera's geometry has it, is within the box or hidden beside it.
        middle = camera.columns / 2 - focal_px * label.y_m / (label.x_m - MOUNT_M) if label.x_m > MOUNT_M + 3 else None
        if middle is not None and label.visible_fraction > 0.95 and 0 < middle < camera.columns:
            assert left - 2 <= middle <= right + 2
        # LiDAR points lie in its box.
        points = world.points(number)
        dx, dy = points[:, 0] - label.x_m, points[:, 1] - label.y_m
        cos, sin = np.cos(label.yaw_rad), np.sin(label.yaw_rad)
        ahead, across = np.abs(cos * dx + sin * dy), np.abs(cos * dy - sin * dx)
        half_length, half_width = label.figure.length_m / 2 + 0.3, label.figure.width_m / 2 + 0.3
        hit += bool(((ahead < half_length) & (across < half_width) & (points[:, 2] > 0.15)).any())
    assert hit / len(found) > 0.85


def test_labels_do_not_depend_on_light_and_weather() -> None:
    def of(light: str, weather: str) -> list[Any]:
        return [[(label.thing, label.box_px) for label in scene("munich", light, weather).labels(n)] for n in (20, 200)]

    expected = of("day", "clear")
    assert all(of(light, weather) == expected for light in LIGHTS for weather in ("rain", "fog"))


def test_light_and_weather_are_seen() -> None:
    def image(light: str, weather: str) -> np.ndarray:
        return scene("munich", light, weather).image("camera_front", 50).astype(float)

    means = [image(light, "rain").mean() for light in LIGHTS]  # no glare
    assert means[0] > 1.2 * means[1]
    assert means[1] > 1.6 * means[2]
    rows = setup("default").camera.rows
    near, far = slice(int(0.8 * rows), None), slice(int(0.3 * rows), int(0.45 * rows))
    fog, clear = image("day", "fog"), image("day", "clear")
    assert fog[far].std() < 0.5 * clear[far].std()  # contrast is lost, far more than near by
    assert fog[near].std() / clear[near].std() > 1.5 * fog[far].std() / clear[far].std()
    assert np.abs(image("day", "rain") - clear).mean() > 5
    returns = [scene("munich", "day", weather).points(50) for weather in ("clear", "rain", "fog")]
    far_returns = [int((np.hypot(points[:, 0], points[:, 1]) > 50).sum()) for points in returns]
    assert far_returns[0] > far_returns[1] > far_returns[2]
    assert np.array_equal(scene("munich", "day").points(50), scene("munich", "night").points(50))


def test_half_of_dusk_glares() -> None:
    glares = [scene("munich", "dusk", seed=seed).conditions.camera[-2] > 0 for seed in range(12)]
    assert 0 < sum(glares) < 12


def test_a_radar_sees_vehicles_through_fog_and_how_fast_they_are() -> None:
    world = scene("munich", "night", "fog")
    radar = world.setup.radar
    power, speed, expected = [], [], []
    for number in range(0, 240, 8):
        image = world.radar(number)
        for label in world.labels(round(number / radar.rate_hz * world.setup.camera.rate_hz)):
            away, bearing = np.hypot(label.x_m - MOUNT_M, label.y_m), np.arctan2(label.y_m, label.x_m - MOUNT_M)
            beam = radar.beams // 2 - 1 - int(np.floor(np.degrees(bearing) / radar.beam_deg))
            if label.figure.class_name != "vehicle" or not 8 < away < 35 or not 2 <= beam < radar.beams - 2:
                continue
            near = int(max(away - label.figure.length_m / 2, 1) / radar.bin_m)
            part = image[max(near - 3, 0) : near + 4, beam - 2 : beam + 3].reshape(-1, 3)
            best = part[int(part[:, 0].argmax())]
            power.append(int(best[0]) - int(np.median(image[..., 0])))
            if label.visible_fraction > 0.9:
                speed.append((best[1] / 127.5 - 1) * parameters()["radar"]["most_mps"])
                expected.append(label.speed_mps * np.cos(label.yaw_rad - bearing))
    assert len(power) > 20
    assert np.mean(np.array(power) > 40) > 0.9
    assert np.median(np.abs(np.array(speed) - expected)) < 1.0


def test_the_same_measurement_is_the_same_whoever_asks_and_when() -> None:
    one, other = scene(seed=11), Scene(11, scene(seed=11).conditions, setup("default"), 60)
    for number in (5, 3, 5, 40):
        assert np.array_equal(one.image("camera_front", number), other.image("camera_front", number))
    assert np.array_equal(one.radar(4), other.radar(4))
    assert not np.array_equal(one.points(4), one.points(5)[: len(one.points(4))])


def test_finer_and_all_round_setups() -> None:
    fine, ring, dense = (setup(name) for name in ("fine", "surround", "dense"))
    assert scene(name="fine").image("camera_front", 0).shape == (fine.camera.rows, fine.camera.columns, 3)
    around = scene(name="surround", weather="clear")
    images = [around.image(stream, 10) for stream in ring.cameras]
    assert len(images) == 6
    assert len({image.tobytes() for image in images}) == 6
    points = around.points(10)
    assert (points[:, 0] < -5).sum() > 500 < (points[:, 0] > 5).sum()
    assert {label.camera for number in (0, 50, 100) for label in around.labels(number)} > {
        "camera_front",
        "camera_back",
    }
    assert (len(dense.cameras), dense.camera.rate_hz) == (6, 30)
    assert len(scene(name="dense").points(0)) * dense.lidar.rate_hz > 1.9e6


# ---- time of day -----------------------------------------------------------------------------------------------------


def test_light_follows_from_the_time() -> None:
    """Munich on 5 January: the sun rises at 7:04 UTC."""
    day = START.replace(month=1, day=5)
    times = {(3, 0): "night", (6, 45): "dusk", (11, 0): "day", (15, 50): "dusk", (17, 0): "night"}
    assert {at: light_at(day.replace(hour=at[0], minute=at[1]), "munich") for at in times} == times


# ---- motion ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_motion_adds_up(seed: int) -> None:
    """Yaw rate integrates to heading, speed along the heading to the place, acceleration to speed."""
    motion, step_s = scene(seed=seed).motion, 0.01
    t_s = np.arange(0.0, 60.0, step_s)
    x, y, heading = motion.pose(t_s)
    rate, speed = motion.yaw_rate(t_s), motion.speed(t_s)
    assert np.std(rate) > 0.05  # turns enough to be correlated
    assert np.abs(heading - heading[0] - np.cumsum(rate) * step_s).max() < 0.01
    assert np.abs(x - x[0] - np.cumsum(speed * np.cos(heading)) * step_s).max() < 0.3
    assert np.abs(y - y[0] - np.cumsum(speed * np.sin(heading)) * step_s).max() < 0.3
    assert np.abs(speed - speed[0] - np.cumsum(motion.accel(t_s)) * step_s).max() < 0.05
    assert np.abs(motion.accel(t_s)).max() < 4.0
    assert (speed > 1.0).all()


def test_the_road_is_under_the_vehicle() -> None:
    world = scene(seed=2)
    x, y, _ = world.motion.pose(np.arange(0.0, 60.0, 0.1))
    kinds = world.town.ground.at(x, y)
    assert np.isin(kinds, (ASPHALT, MARKING)).all()
    assert world.town.ground.at(np.array([1e6]), np.array([0.0]))[0] == OPEN

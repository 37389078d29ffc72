"""What hides, blinds and blurs: things that the test places, alone before the sensors."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from simulate.conftest import START

from fleet_assets.kernels import camera_image as ci
from fleet_assets.kernels import raycast as rc
from fleet_assets.simulate.conditions import Conditions, draw
from fleet_assets.simulate.parameters import parameters, setup
from fleet_assets.simulate.scene import Label, Scene, generator

NUMBER = 50
Places = dict[int, tuple[float, float, float]]


def conditions(light: str = "day") -> Conditions:
    return draw(generator(3, "conditions"), START, "munich", light, "clear")


def scene(places: Places | None = None, under: Conditions | None = None) -> Scene:
    """places: of things, in metres ahead of us and to the left, and their turn; all others are out of sight."""
    world = Scene(3, under or conditions(), setup("default"), 20)
    if places is not None:
        now = world.traffic.at(0.0)
        now[:, [rc.OBJECT_X, rc.OBJECT_Y]], now[:, rc.OBJECT_SPEED] = 1e6, 0.0
        x, y, yaw = (float(value) for value in world.motion.pose(NUMBER / world.setup.camera.rate_hz))
        for thing, (ahead, left, turn) in places.items():
            now[thing, rc.OBJECT_X] = x + np.cos(yaw) * ahead - np.sin(yaw) * left
            now[thing, rc.OBJECT_Y] = y + np.sin(yaw) * ahead + np.cos(yaw) * left
            now[thing, rc.OBJECT_YAW] = yaw + turn
        world.traffic = SimpleNamespace(at=lambda t_s: now)  # type: ignore[assignment]
    return world


FIGURES = scene().things.figures
PERSON = next(n for n, figure in enumerate(FIGURES) if figure.subtype == "adult")
TRUCK = next(n for n, figure in enumerate(FIGURES) if figure.subtype == "truck")
WALL = next(n for n, figure in enumerate(FIGURES) if figure.section == 3.0)  # of a building


def label_of(world: Scene, thing: int) -> Label | None:
    return next((label for label in world.labels(NUMBER) if label.thing == thing), None)


def returns(world: Scene, ahead: float, left: float) -> int:
    """LiDAR points of what stands there, off the ground."""
    points = world.points(NUMBER)
    near = np.hypot(points[:, 0] - ahead, points[:, 1] - left) < 1.0
    return int((near & (points[:, 2] > 0.15)).sum())


def test_who_is_behind_a_wall_is_seen_by_nobody() -> None:
    wall = {WALL: (9.0 + FIGURES[WALL].width_m / 2, 0.0, np.pi / 2)}
    behind = (12.0 + FIGURES[WALL].width_m, 0.0, 0.0)
    open_road, hidden, nobody = (scene(places) for places in ({PERSON: behind}, {PERSON: behind, **wall}, wall))
    seen = label_of(open_road, PERSON)
    assert seen is not None
    assert seen.visible_fraction == 1.0
    assert returns(open_road, *behind[:2]) > 5
    assert label_of(hidden, PERSON) is None
    assert returns(hidden, *behind[:2]) == 0
    # Nothing of them is in what is measured: it is what a wall with nobody behind it gives.
    assert np.array_equal(hidden.image("camera_front", NUMBER), nobody.image("camera_front", NUMBER))
    assert np.array_equal(hidden.points(NUMBER), nobody.points(NUMBER))
    assert not np.array_equal(open_road.image("camera_front", NUMBER), scene({}).image("camera_front", NUMBER))


def test_who_is_half_behind_a_truck_is_labelled_as_half_seen() -> None:
    """They step out from behind its side: more and more is seen, of the same one, at the same place."""
    far, half_width = 14.0, FIGURES[TRUCK].width_m / 2
    fractions, points, labels = [], [], []
    for left in np.linspace(0.8, 3.2, 13):
        world = scene({PERSON: (far + 6, left, 0.0), TRUCK: (far, 0.0, 0.0)})
        label = label_of(world, PERSON)
        labels += [label] if label else []
        fractions.append(label.visible_fraction if label else 0.0)
        points.append(returns(world, far + 6, left))
    assert half_width > 0.8
    assert fractions[0] == points[0] == 0
    assert fractions[-1] == 1.0
    assert points[-1] > 5
    assert fractions == sorted(fractions)
    assert any(0.25 <= fraction < 0.75 for fraction in fractions)
    for label in labels:  # the box is around what is seen
        left_px, top_px, right_px, bottom_px = label.box_px
        assert label.visible_px <= (right_px - left_px) * (bottom_px - top_px)
    assert labels[0].box_px[2] - labels[0].box_px[0] < labels[-1].box_px[2] - labels[-1].box_px[0]


def test_far_things_are_small_and_beyond_reach_are_not_labelled() -> None:
    wanted = parameters()["labels"]
    pixels, points = [], []
    for ahead in (10.0, 20.0, 40.0):
        world = scene({PERSON: (ahead, 0.0, 0.0)})
        label = label_of(world, PERSON)
        assert label is not None, ahead
        assert label.x_m == pytest.approx(ahead)
        pixels.append(label.visible_px)
        points.append(returns(world, ahead, 0.0))
    # Twice as far, a quarter of the pixels and of the points.
    for many, few in pairwise(pixels):
        assert 2.5 < many / few < 7
    assert pixels[-1] >= wanted["least_px"]
    assert points[0] > 2 * points[1] > 4 * points[2] >= 0
    far = scene({PERSON: (wanted["reach_m"] + 1, 0.0, 0.0)})
    assert label_of(far, PERSON) is None
    assert not np.array_equal(far.image("camera_front", NUMBER), scene({}).image("camera_front", NUMBER))
    child = next(n for n, figure in enumerate(FIGURES) if figure.subtype == "child")
    small = label_of(scene({child: (20.0, 0.0, 0.0)}), child)
    assert small is not None
    assert small.visible_px < 0.8 * pixels[1]


def test_a_low_sun_veils_what_is_before_it() -> None:
    plain = conditions("dusk")
    yaw = float(scene().motion.pose(NUMBER / 10)[2])

    def glaring(strength: float) -> Scene:
        camera = plain.camera.copy()
        camera[ci.GLARE], camera[ci.SUN_AZIMUTH], camera[ci.SUN_TANGENT] = strength, yaw + 0.4, 0.05
        return scene({PERSON: (20.0, 9.0, 0.0)}, replace(plain, camera=camera))

    worlds = [glaring(strength) for strength in (0.0, *parameters()["glare"]["strength"])]
    without, weak, strong = (world.image("camera_front", NUMBER).astype(float) for world in worlds)
    assert without.mean() < weak.mean() < strong.mean()
    sun = setup("default").camera.columns // 2 - round(np.tan(0.4) * setup("default").camera.columns / 2)
    before, aside = slice(sun - 12, sun + 12), slice(-24, None)
    more = strong - without
    assert more[:, before].mean() > 2 * more[:, aside].mean()
    assert np.mean(strong[:, before] >= 250) > np.mean(without[:, before] >= 250) + 0.1  # blind there
    # Nobody who stands before the sun is less there: labels, LiDAR and radar are as they were.
    assert label_of(worlds[0], PERSON) is not None
    assert repr(label_of(worlds[0], PERSON)) == repr(label_of(worlds[2], PERSON))
    assert np.array_equal(worlds[0].points(NUMBER), worlds[2].points(NUMBER))
    assert np.array_equal(worlds[0].radar(20), worlds[2].radar(20))


@pytest.mark.parametrize("light", ["day", "night"])
def test_the_camera_has_shot_and_read_noise(light: str) -> None:
    """Of a linear value, the variance is shot * value + read^2, as the parameters have it."""
    noisy = conditions(light)
    quiet = noisy.camera.copy()
    quiet[[ci.SHOT, ci.READ]] = 0.0
    images = [scene({}, under).image("camera_front", NUMBER) for under in (replace(noisy, camera=quiet), noisy)]
    value, seen = (np.square((image.astype(float) + 0.5) / 256) for image in images)
    known = parameters()["camera_noise"]
    sigma = np.sqrt(known["shot"] * value + known["read"] ** 2)
    whole = (value > 4 * sigma) & (value < 1 - 4 * sigma)  # neither black nor white
    assert whole.sum() > 1000
    off = ((seen - value) / sigma)[whole]
    assert off.std() == pytest.approx(1.0, abs=0.1)
    assert abs(off.mean()) < 0.1


def test_lidar_ranges_scatter_as_the_parameters_say() -> None:
    """On flat ground, a range that is off by so much lies so far above or below it."""
    world = scene({})
    points, height = world.points(NUMBER).astype(float), world.setup.lidar.height_m
    from_unit = np.stack([points[:, 0] - 1.3, points[:, 1], points[:, 2] - height], axis=1)
    slant = np.linalg.norm(from_unit, axis=1)
    off = slant + height * slant / from_unit[:, 2]  # measured minus where the ray meets the ground
    assert len(points) > 1000
    assert off.std() == pytest.approx(parameters()["lidar"]["noise_m"], rel=0.1)
    assert abs(off.mean()) < 0.005
    assert not np.array_equal(points[:500], world.points(NUMBER + 1)[:500])

"""Named, seeded changes of what sensors said."""

from __future__ import annotations

import numpy as np
import pytest

from fleet_assets.curate.augmentations import TRANSFORMS, Sensed, augment
from fleet_assets.edge.rig import SENSORS
from fleet_assets.errors import FleetError

MS = 1_000_000


def clip(frames: int = 8) -> list[Sensed]:
    random = np.random.default_rng(1)
    places = random.uniform(-40, 40, (2000, 3)) * [1, 1, 0.02]
    return [
        Sensed(
            at * 100 * MS,
            random.integers(0, 256, (64, 256, 3), dtype=np.uint8),
            np.concatenate([places, random.random((2000, 1))], axis=1),
            random.integers(0, 200, (64, 48, 3), dtype=np.uint8),
            np.array([0.01, 0.0, 0.2]),
        )
        for at in range(frames)
    ]


def same(one: list[Sensed], other: list[Sensed]) -> bool:
    def equal(a: np.ndarray | None, b: np.ndarray | None) -> bool:
        return (a is None and b is None) or (
            a is not None and b is not None and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
        )

    return all(
        equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one, other, strict=True)
        for name in (*SENSORS, "age_s")
    )


@pytest.mark.parametrize("name", TRANSFORMS)
def test_a_seed_gives_one_result_and_nothing_is_changed_in_place(name: str) -> None:
    given = clip()
    made = augment(given, [name], 7)
    assert same(made, augment(clip(), [name], 7))
    assert any(not same(made, augment(given, [name], seed)) for seed in range(8, 20))
    assert same(given, clip())
    assert not same(made, given)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_what_is_missing_stays_missing(name: str) -> None:
    nothing = [Sensed(at * 100 * MS, None, None, None, np.full(3, np.nan)) for at in range(3)]
    assert same(augment(nothing, [name], 7), nothing)
    assert augment([], [name], 7) == []


def test_weather_takes_contrast_and_far_points() -> None:
    [before], [foggy], [rainy] = ([*clip(1)], augment(clip(1), ["fog"], 7), augment(clip(1), ["rain"], 7))
    assert foggy.camera.std() < 0.6 * before.camera.std()  # type: ignore[union-attr]
    far = {id(one): int((np.linalg.norm(one.lidar[:, :2], axis=1) > 30).sum()) for one in (before, rainy, foggy)}  # type: ignore[index]
    assert far[id(foggy)] < far[id(rainy)] < far[id(before)]
    near = [int((np.linalg.norm(one.lidar[:, :3], axis=1) < 8.1).sum()) for one in (before, foggy)]  # type: ignore[index]
    assert near[1] > near[0]
    assert foggy.radar is not None
    assert np.array_equal(foggy.radar, before.radar)  # radar sees through fog  # type: ignore[arg-type]


def test_a_dropped_sensor_stays_dropped() -> None:
    made = augment(clip(), ["dropped_lidar"], 3)
    gone = [one.lidar is None for one in made]
    assert any(gone)
    assert gone == sorted(gone)
    assert [bool(np.isnan(one.age_s[SENSORS.index("lidar")])) for one in made] == gone
    assert all(one.camera is not None for one in made)


def test_a_late_sensor_says_what_it_said_before() -> None:
    given = clip()
    made = augment(given, ["late_camera"], 5)
    frames = sum(one.camera is None for one in made)
    assert 1 <= frames <= 5
    for at in range(frames, len(made)):
        assert np.array_equal(made[at].camera, given[at - frames].camera)  # type: ignore[arg-type]
        assert made[at].age_s[SENSORS.index("camera")] == pytest.approx(0.01 + 0.1 * frames)
        assert made[at].lidar is given[at].lidar


def test_they_follow_each_other() -> None:
    both = augment(clip(), ["noise", "dropped_radar"], 7)
    assert same(both, augment(augment(clip(), ["noise"], 7), ["dropped_radar"], 7))
    with pytest.raises(FleetError, match="There is no augmentation snow"):
        augment(clip(), ["snow"], 7)

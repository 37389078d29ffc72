"""Augmentations: what weather, noise and faults do to what sensors said.

In: frames of a clip as edge/messages.py decodes them, names of transforms, a seed. Out: the clip, changed. The same seed gives
the same bytes; nothing is changed in place. They are for training alone: a model is judged on what was recorded.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fleet_assets.edge.rig import SENSORS
from fleet_assets.errors import FleetError


@dataclass(frozen=True)
class Sensed:
    """What sensors said for one frame; None: nothing. camera: uint8 [height, width, channels]. lidar: float64 [n, 4], x, y, z
    [m], intensity. radar: uint8 [bins, beams, channels], an image of echoes. age_s: float64 [3], of SENSORS, NaN without a
    record."""

    t_ns: int
    camera: np.ndarray | None
    lidar: np.ndarray | None
    radar: np.ndarray | None
    age_s: np.ndarray


Clip = Sequence[Sensed]
Transform = Callable[[Clip, np.random.Generator], list[Sensed]]


def augment(clip: Clip, names: Sequence[str], seed: int) -> list[Sensed]:
    """One transform after another; each draws from a generator of its own. Raises FleetError for a name that is not known."""
    found = list(clip)
    for name in names:
        if name not in TRANSFORMS:
            raise FleetError(f"There is no augmentation {name}", remedy=f"Use {', '.join(TRANSFORMS)}.")
        found = TRANSFORMS[name](found, np.random.default_rng([seed, zlib.crc32(name.encode())]))
    return found


# ---- weather ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Air:
    """Ranges to draw from, once per clip. veil: share of the light that the air adds. extinction_pm: of LiDAR, per metre and way.
    backscatter: share of points that come back from drops near by. streaks: share of columns with one."""

    veil: tuple[float, float]
    extinction_pm: tuple[float, float]
    backscatter: tuple[float, float]
    streaks: float

    def __call__(self, clip: Clip, random: np.random.Generator) -> list[Sensed]:
        veil, extinction_pm, backscatter = (
            random.uniform(*pair) for pair in (self.veil, self.extinction_pm, self.backscatter)
        )
        return [
            replace(
                one,
                camera=None if one.camera is None else self._camera(one.camera, veil, random),
                lidar=None if one.lidar is None else _in_drops(one.lidar, extinction_pm, backscatter, random),
            )
            for one in clip
        ]

    def _camera(self, pixels: np.ndarray, veil: float, random: np.random.Generator) -> np.ndarray:
        """Contrast is lost to the mean light of the image."""
        values = pixels.astype(np.float64)
        values += veil * (values.mean() - values)
        columns = np.flatnonzero(random.random(pixels.shape[1]) < self.streaks)
        for column, top, length in zip(
            columns, random.integers(0, pixels.shape[0], columns.size), random.integers(2, 9, columns.size), strict=True
        ):
            values[top : top + length, column] += 18.0
        return _as_bytes(values)


def _in_drops(points: np.ndarray, extinction_pm: float, backscatter: float, random: np.random.Generator) -> np.ndarray:
    """Far points are lost, others come back from drops on their way: Beer and Lambert, there and back."""
    range_m = np.linalg.norm(points[:, :3], axis=1)
    reaches = random.random(range_m.size) < np.exp(-2 * extinction_pm * range_m)
    kept = points[reaches].copy()
    kept[:, 3] *= np.exp(-2 * extinction_pm * range_m[reaches])
    drops = points[random.random(range_m.size) < backscatter].copy()
    at_m = random.uniform(0.5, 8.0, drops.shape[0])
    own_m = np.maximum(np.linalg.norm(drops[:, :3], axis=1), 1e-6)
    drops[:, :3] *= np.minimum(at_m / own_m, 1.0)[:, None]
    drops[:, 3] = random.uniform(0.0, 0.1, drops.shape[0])
    return np.concatenate([kept, drops])


def _darkness(clip: Clip, random: np.random.Generator) -> list[Sensed]:
    """Less light, and the noise that a camera has then."""
    gain, noise = random.uniform(0.15, 0.5), random.uniform(2.0, 5.0)
    return [
        replace(one, camera=_as_bytes(one.camera * gain + random.normal(0.0, noise, one.camera.shape)))
        if one.camera is not None
        else one
        for one in clip
    ]


# ---- noise -----------------------------------------------------------------------------------------------------------


def _noise(clip: Clip, random: np.random.Generator) -> list[Sensed]:
    """Of every sensor: pixels, ranges, echoes."""
    pixels, range_m, echoes = random.uniform(1.0, 8.0), random.uniform(0.01, 0.08), random.uniform(1.0, 12.0)
    found = []
    for one in clip:
        camera = one.camera
        if camera is not None:
            camera = _as_bytes(camera + random.normal(0.0, pixels, camera.shape))
        lidar = one.lidar
        if lidar is not None:
            own_m = np.maximum(np.linalg.norm(lidar[:, :3], axis=1), 1e-6)
            lidar = lidar.copy()
            lidar[:, :3] *= (1.0 + random.normal(0.0, range_m, own_m.size) / own_m)[:, None]
        radar = one.radar
        if radar is not None:
            radar = radar.copy()
            radar[..., 0] = _as_bytes(radar[..., 0] + random.normal(0.0, echoes, radar.shape[:2]))
        found.append(replace(one, camera=camera, lidar=lidar, radar=radar))
    return found


# ---- faults ----------------------------------------------------------------------------------------------------------


def _dropped(sensor: str) -> Transform:
    def drop(clip: Clip, random: np.random.Generator) -> list[Sensed]:
        """From some frame of the clip on: a plug that comes loose stays so."""
        first = int(random.integers(0, len(clip))) if clip else 0
        return [_said(one, sensor, None, np.nan) if at >= first else one for at, one in enumerate(clip)]

    return drop


def _late(sensor: str) -> Transform:
    def delay(clip: Clip, random: np.random.Generator) -> list[Sensed]:
        """By one to five frames: what a frame has is what an earlier one had, and older."""
        frames = int(random.integers(1, 6))
        found = []
        for at, one in enumerate(clip):
            before = clip[at - frames] if at >= frames else None
            record = None if before is None else getattr(before, sensor)
            if before is None or record is None:
                found.append(_said(one, sensor, None, np.nan))
            else:
                age_s = before.age_s[SENSORS.index(sensor)] + (one.t_ns - before.t_ns) * 1e-9
                found.append(_said(one, sensor, record, age_s))
        return found

    return delay


def _said(one: Sensed, sensor: str, record: np.ndarray | None, age_s: float) -> Sensed:
    ages = one.age_s.copy()
    ages[SENSORS.index(sensor)] = age_s
    changes: dict[str, Any] = {sensor: record, "age_s": ages}
    return replace(one, **changes)


def _as_bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(np.round(values), 0, 255).astype(np.uint8)


TRANSFORMS: Mapping[str, Transform] = {
    "rain": _Air((0.1, 0.35), (0.008, 0.02), (0.02, 0.06), 0.05),
    "fog": _Air((0.5, 0.85), (0.03, 0.06), (0.05, 0.14), 0.0),
    "darkness": _darkness,
    "noise": _noise,
    **{f"dropped_{sensor}": _dropped(sensor) for sensor in SENSORS},
    **{f"late_{sensor}": _late(sensor) for sensor in SENSORS},
}

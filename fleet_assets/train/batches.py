"""Batches to learn from, each a function of the seed and its number alone, so that a training that was cut off goes on with
them.

In: a FrameSet, a recipe's seed and shares. Out: tensors of the model's inputs, and targets on the grid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from fleet_assets.edge import inputs
from fleet_assets.edge.objects import CLASSES
from fleet_assets.train.frames import FrameSet

_SPREAD_CELLS = np.array([1.0, 0.7, 0.8])  # of a target's bump, per class
_YAW_RATE = inputs.CONTEXT.index("ego_motion:yaw_rate_radps")


@dataclass(frozen=True)
class Batch:
    """heat: [n, 3, 48, 48], 1 at centres and falling off around. offset: [n, 2, 48, 48] where centre [n, 1, 48, 48] is 1."""

    inputs: dict[str, Tensor]
    heat: Tensor
    offset: Tensor
    centre: Tensor


def statistics_of(frames: FrameSet) -> dict[str, np.ndarray]:
    """What edge/inputs.py:normalised needs, of frames that a model is trained on. float32."""
    there = ~np.isnan(frames.age_s)
    pixels = frames.camera[there[:, 0]].reshape(-1, 3)
    count = max(pixels.shape[0], 1)
    total, squares = np.zeros(3), np.zeros(3)
    for start in range(0, pixels.shape[0], 1 << 22):
        part = pixels[start : start + (1 << 22)].astype(np.float64) / 255
        total += part.sum(axis=0)
        squares += (part * part).sum(axis=0)
    mean = total / count
    known = np.isfinite(frames.context)
    seen = np.where(known, frames.context, 0.0).astype(np.float64)
    number = np.maximum(known.sum(axis=0), 1)
    context_mean = seen.sum(axis=0) / number
    spread = np.where(known, seen - context_mean, 0.0)
    found = {
        "camera_mean": mean,
        "camera_std": np.sqrt(np.maximum(squares / count - mean * mean, 1e-4)),
        "lidar_scale": _scale(frames.lidar[there[:, 1]]),
        "radar_scale": _scale(frames.radar[there[:, 2]]),
        "context_mean": context_mean,
        "context_std": np.sqrt(np.maximum((spread * spread).sum(axis=0) / number, 1e-6)),
    }
    return {name: values.astype(np.float32) for name, values in found.items()}


def _scale(grids: np.ndarray) -> np.ndarray:
    """Root mean square per channel, of cells that hold something."""
    values = np.ones(grids.shape[1])
    for channel in range(grids.shape[1]):
        filled = grids[:, channel][grids[:, channel] != 0].astype(np.float64)
        if filled.size:
            values[channel] = np.sqrt((filled * filled).mean())
    return values


def fingerprint(frames: FrameSet) -> str:
    """sha256 of everything that a model learns from."""
    found = hashlib.sha256()
    truth = frames.truth
    for array in (
        frames.camera, frames.lidar, frames.radar, frames.context, frames.age_s, frames.t_ns, frames.drive, truth.frame,
        truth.class_id, truth.x_m, truth.y_m,
    ):  # fmt: skip
        found.update(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def rows_of_step(frames: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Which frames a step learns from: every frame once before any comes again."""
    found = np.empty(batch, dtype=np.int64)
    for place in range(batch):
        round_, at = divmod(step * batch + place, frames)
        if place == 0 or at == 0:
            order = np.random.default_rng([seed, round_]).permutation(frames)
        found[place] = order[at]
    return found


def batch_of(
    frames: FrameSet,
    rows: np.ndarray,
    statistics: Mapping[str, np.ndarray],
    *,
    random: np.random.Generator | None = None,
    dropout: float = 0.0,
) -> Batch:
    """random: mirrors half of the frames, and takes sensors away from a share `dropout` of them; None leaves all as it is."""
    camera, lidar, radar = frames.camera[rows], frames.lidar[rows], frames.radar[rows]
    context, age_s = frames.context[rows], frames.age_s[rows]
    mirrored = np.zeros(rows.size, dtype=np.bool_)
    if random is not None:
        mirrored = random.random(rows.size) < 0.5
        camera[mirrored] = camera[mirrored][:, :, ::-1]
        lidar[mirrored] = lidar[mirrored][..., ::-1]
        radar[mirrored] = radar[mirrored][..., ::-1]
        context[mirrored, _YAW_RATE] *= -1
        _take_away(random, dropout, camera, lidar, radar, age_s)
    made = inputs.normalised(camera, lidar, radar, context, age_s, statistics)
    shape = (rows.size, len(CLASSES), inputs.GRID_CELLS, inputs.GRID_CELLS)
    heat = np.zeros(shape, dtype=np.float32)
    offset = np.zeros((rows.size, 2, *shape[2:]), dtype=np.float32)
    centre = np.zeros((rows.size, 1, *shape[2:]), dtype=np.float32)
    truth = frames.truth
    first = np.searchsorted(truth.frame, rows)
    end = np.searchsorted(truth.frame, rows, side="right")
    _draw(first, end, truth.class_id, truth.x_m, truth.y_m, mirrored, _SPREAD_CELLS, heat, offset, centre)
    tensors = (torch.from_numpy(array) for array in (heat, offset, centre))
    return Batch({name: torch.from_numpy(values) for name, values in made.items()}, *tensors)


def _take_away(
    random: np.random.Generator,
    share: float,
    camera: np.ndarray,
    lidar: np.ndarray,
    radar: np.ndarray,
    age_s: np.ndarray,
) -> None:
    """One sensor, or in a third of the cases two; never the last."""
    count = np.where(random.random(len(age_s)) < share, 1 + (random.random(len(age_s)) < 1 / 3), 0)
    order = random.permuted(np.tile(np.arange(3), (len(age_s), 1)), axis=1)
    for place in range(2):
        for sensor, values in enumerate((camera, lidar, radar)):
            others = np.delete(~np.isnan(age_s), sensor, axis=1).any(axis=1)
            gone = (count > place) & (order[:, place] == sensor) & others
            values[gone] = 0
            age_s[gone, sensor] = np.nan


@njit(cache=True, nogil=True)
def _draw(first, end, class_id, x_m, y_m, mirrored, spread, heat, offset, centre):  # type: ignore[no-untyped-def]
    """Bumps of objects, the highest counts; of two centres in one cell, the later row's place."""
    cells = heat.shape[2]
    for frame in range(first.size):
        for row in range(first[frame], end[frame]):
            x = (x_m[row] - inputs.GRID_X_M[0]) / inputs.CELL_M
            y = ((-y_m[row] if mirrored[frame] else y_m[row]) - inputs.GRID_Y_M[0]) / inputs.CELL_M
            at_x, at_y = int(np.floor(x)), int(np.floor(y))
            if not (0 <= at_x < cells and 0 <= at_y < cells):
                continue
            kind = class_id[row]
            for to_x in range(max(at_x - 3, 0), min(at_x + 4, cells)):
                for to_y in range(max(at_y - 3, 0), min(at_y + 4, cells)):
                    away = (to_x - at_x) ** 2 + (to_y - at_y) ** 2
                    value = np.exp(-0.5 * away / (spread[kind] * spread[kind]))
                    heat[frame, kind, to_x, to_y] = max(heat[frame, kind, to_x, to_y], np.float32(value))
            offset[frame, 0, at_x, at_y] = x - at_x
            offset[frame, 1, at_x, at_y] = y - at_y
            centre[frame, 0, at_x, at_y] = 1.0

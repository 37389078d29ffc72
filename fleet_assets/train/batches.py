"""Batches to learn from, each a function of the seed and its number alone, so that a training that was cut off goes on with
them.

In: a FrameSet, a recipe's seed and shares. Out: tensors of the model's inputs, and targets on the grid.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from torch import Tensor

from fleet_assets.edge import inputs
from fleet_assets.edge.memory import MOTION, Lag, earlier_rows, motion_of
from fleet_assets.edge.objects import CLASSES
from fleet_assets.errors import FleetError
from fleet_assets.train.frames import FrameSet

_SPREAD_CELLS = np.array([1.0, 0.7, 0.8])  # of a target's bump, per class
_MIRRORED_MOTION = np.array([-1 if name in ("y_m", "yaw_rad") else 1 for name in MOTION], dtype=np.float32)
# Shares of frames that must have an earlier one: to learn to remember, and to be judged as the vehicle drives.
LEAST_LEARNING, LEAST_JUDGING = 0.1, 0.5
_FORGOTTEN = 0.15  # share of frames that are learned from without an earlier one


@dataclass(frozen=True)
class Batch:
    """heat: [n, 3, 48, 48], 1 at centres and falling off around. offset: [n, 2, 48, 48] where centre [n, 1, 48, 48] is 1.

    before: for a form that remembers, inputs of the earlier frames, of which it makes its memory; all else is in `inputs`.
    """

    inputs: dict[str, Tensor]
    heat: Tensor
    offset: Tensor
    centre: Tensor
    before: dict[str, Tensor] | None = None

    def to(self, device: torch.device) -> Batch:
        def moved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: values.to(device) for name, values in tensors.items()}

        return Batch(
            moved(self.inputs),
            self.heat.to(device),
            self.offset.to(device),
            self.centre.to(device),
            None if self.before is None else moved(self.before),
        )


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


def normalisation_of(statistics: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
    """Statistics as a document says them."""
    return {name: values.tolist() for name, values in statistics.items()}


def _scale(grids: np.ndarray) -> np.ndarray:
    """Root mean square per channel, of cells that hold something."""
    values = np.ones(grids.shape[1])
    for channel in range(grids.shape[1]):
        filled = grids[:, channel][grids[:, channel] != 0].astype(np.float64)
        if filled.size:
            values[channel] = np.sqrt((filled * filled).mean())
    return values


def fingerprint(frames: FrameSet) -> str:
    """sha256 of everything that a model learns from, and is judged by."""
    found = hashlib.sha256(json.dumps(frames.drives).encode())
    for name, array in frames.arrays.items():
        found.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
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


def earlier_frames(frames: FrameSet, rows: np.ndarray, lag: Lag) -> np.ndarray:
    """int64 [rows]: the row of the earlier frame of the same drive that a frame remembers, -1 where there is none.

    By time alone, as the vehicle does: a silence longer than the lag allows is not bridged, a shorter one is. Where a clock was
    set, times here are those of the drive's reference clock and go on; the vehicle goes by its sensor's, and remembers nothing
    there unless the clock went on by little.
    """
    if not len(frames):
        return np.zeros(0, dtype=np.int64)
    since_ns = frames.t_ns - frames.t_ns[np.searchsorted(frames.drive, frames.drive)]
    apart_ns = (
        int(since_ns.max()) + 2 * lag.most_ns
    )  # drives one behind the other, too far apart to remember each other
    return earlier_rows(frames.drive.astype(np.int64) * apart_ns + since_ns, lag)[rows]


def refuse_without_memory(frames: FrameSet, lag: Lag | None, least_share: float) -> None:
    """Raises FleetError if a form remembers, and fewer of the frames than this have an earlier one."""
    if lag is None or not len(frames):
        return
    share = float((earlier_frames(frames, np.arange(len(frames)), lag) >= 0).mean())
    if share < least_share:
        raise FleetError(
            f"{share:.0%} of {len(frames)} frames have an earlier one to remember; at least {least_share:.0%} must",
            remedy=f"Take frames about {lag.wanted_ns * 1e-9:.1f} s apart: stride_s of the dataset's recipe.",
        )


def motion_between(frames: FrameSet, before: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """float32 [rows, 5] of edge/memory.py:MOTION. before: of earlier_frames; zero where there is none."""
    age_s = (frames.t_ns[rows] - frames.t_ns[before]) * 1e-9
    motion = motion_of(frames.context[before], frames.context[rows], age_s)
    motion[before < 0] = 0
    return motion


def batch_of(
    frames: FrameSet,
    rows: np.ndarray,
    statistics: Mapping[str, np.ndarray],
    *,
    random: np.random.Generator | None = None,
    dropout: float = 0.0,
    lag: Lag | None = None,
) -> Batch:
    """random: mirrors half of the frames, takes sensors away from a share `dropout` of them, and leaves some without memory; None
    leaves all as it is. lag: of a form that remembers: a frame and its earlier one are changed alike."""
    mirrored, gone = np.zeros(rows.size, dtype=np.bool_), np.zeros((rows.size, 3), dtype=np.bool_)
    if random is not None:
        mirrored = random.random(rows.size) < 0.5
        gone = _taken_away(random, dropout, ~np.isnan(frames.age_s[rows]))
    made, before = _inputs(frames, rows, statistics, mirrored, gone), None
    if lag is not None:
        earlier = earlier_frames(frames, rows, lag)
        motion = motion_between(frames, earlier, rows)
        motion[mirrored] *= _MIRRORED_MOTION
        if random is not None:
            motion[random.random(rows.size) < _FORGOTTEN] = 0
        made["motion"] = torch.from_numpy(motion)
        before = _inputs(frames, np.where(earlier < 0, rows, earlier), statistics, mirrored, gone)
    shape = (rows.size, len(CLASSES), inputs.GRID_CELLS, inputs.GRID_CELLS)
    heat = np.zeros(shape, dtype=np.float32)
    offset = np.zeros((rows.size, 2, *shape[2:]), dtype=np.float32)
    centre = np.zeros((rows.size, 1, *shape[2:]), dtype=np.float32)
    truth = frames.truth
    first = np.searchsorted(truth.frame, rows)
    end = np.searchsorted(truth.frame, rows, side="right")
    _draw(first, end, truth.class_id, truth.x_m, truth.y_m, mirrored, _SPREAD_CELLS, heat, offset, centre)
    return Batch(made, torch.from_numpy(heat), torch.from_numpy(offset), torch.from_numpy(centre), before)


def _inputs(
    frames: FrameSet, rows: np.ndarray, statistics: Mapping[str, np.ndarray], mirrored: np.ndarray, gone: np.ndarray
) -> dict[str, Tensor]:
    """mirrored: bool [rows]. gone: bool [rows, 3], sensors that are taken away."""
    camera, lidar, radar = frames.camera[rows], frames.lidar[rows], frames.radar[rows]
    context, age_s = frames.context[rows], frames.age_s[rows]
    camera[mirrored] = camera[mirrored][:, :, ::-1]
    lidar[mirrored] = lidar[mirrored][..., ::-1]
    radar[mirrored] = radar[mirrored][..., ::-1]
    context[mirrored, inputs.YAW_RATE] *= -1
    for sensor, values in enumerate((camera, lidar, radar)):
        values[gone[:, sensor]] = 0
    age_s[gone] = np.nan
    made = inputs.normalised(camera, lidar, radar, context, age_s, statistics)
    return {name: torch.from_numpy(values) for name, values in made.items()}


def _taken_away(random: np.random.Generator, share: float, there: np.ndarray) -> np.ndarray:
    """bool [n, 3]: of a share of frames one sensor, or in a third of the cases two; never the last. there: bool [n, 3]."""
    count = np.where(random.random(len(there)) < share, 1 + (random.random(len(there)) < 1 / 3), 0)
    order = random.permuted(np.tile(np.arange(3), (len(there), 1)), axis=1)
    gone = np.zeros(there.shape, dtype=np.bool_)
    for place in range(2):
        for sensor in range(3):
            others = np.delete(there & ~gone, sensor, axis=1).any(axis=1)
            gone[:, sensor] |= (count > place) & (order[:, place] == sensor) & others
    return gone


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

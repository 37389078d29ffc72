"""Frames of nothing real, and a training of seconds.

As a program: trains the form that remembers, says after each step that it is done, and writes the hash of the weights:
`tiny.py CHECKPOINT HASH`.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from fleet_assets.edge import inputs
from fleet_assets.edge.objects import Objects
from fleet_assets.train.fit import Recipe, fit, weights_hash
from fleet_assets.train.frames import FrameSet

RECIPE = Recipe(form="radar", steps=14, batch=2, seed=5)


def random_frames(seed: int = 0, count: int = 8) -> FrameSet:
    """Noise, with three objects in each frame."""
    random = np.random.default_rng(seed)
    objects = 3 * count
    x_m, y_m = random.uniform(2, 46, objects).astype(np.float32), random.uniform(-22, 22, objects).astype(np.float32)
    truth = Objects(
        np.repeat(np.arange(count, dtype=np.int32), 3), np.tile(np.arange(3, dtype=np.int8), count), x_m, y_m,
        np.ones(objects, dtype=np.float32), np.hypot(x_m, y_m), np.zeros(objects, dtype=np.bool_),
        np.ones(objects, dtype=np.float32),
    )  # fmt: skip
    return FrameSet(
        camera=random.integers(0, 256, (count, *inputs.CAMERA_SHAPE), dtype=np.uint8),
        lidar=random.random((count, *inputs.LIDAR_SHAPE), dtype=np.float32),
        radar=random.random((count, *inputs.RADAR_SHAPE), dtype=np.float32),
        context=random.normal(0, 1, (count, len(inputs.CONTEXT))).astype(np.float32),
        age_s=random.uniform(0, 0.2, (count, 3)).astype(np.float32),
        t_ns=np.arange(count, dtype=np.int64) * 100_000_000,
        drive=np.zeros(count, dtype=np.int32),
        drives=("noise",),
        slices={"light": np.full(count, "day")},
        truth=truth,
    )


if __name__ == "__main__":
    fitted = fit(
        random_frames(), replace(RECIPE, form="temporal"), checkpoint=Path(sys.argv[1]), every=3,
        progress=lambda step, _: print(step, flush=True),
    )  # fmt: skip
    Path(sys.argv[2]).write_text(weights_hash(fitted.model))

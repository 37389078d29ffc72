"""Features that follow from others, computed when they are looked up.

In: the matrix of a look-up, a row per key, and which of its columns a transform takes. Out: the transform's own columns.
A transform is a kernel with declared inputs and outputs; what is NaN in its inputs is NaN in what follows from them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numba import njit

Kernel = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], None]


@dataclass(frozen=True)
class OnDemand:
    """kernel(matrix, column, out, target): input i is matrix[:, column[i]], float64; output j goes to out[:, target[j]]."""

    name: str
    version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    kernel: Kernel


ON_DEMAND: dict[str, OnDemand] = {}


def on_demand(*, version: int, inputs: tuple[str, ...], outputs: tuple[str, ...]) -> Callable[[Kernel], Kernel]:
    """Declares a kernel as a transform, under its own name."""

    def declare(kernel: Kernel) -> Kernel:
        ON_DEMAND[kernel.__name__] = OnDemand(kernel.__name__, version, inputs, outputs, kernel)
        return kernel

    return declare


REACTION_S = 1.2
DECELERATION_MPS2 = 4.0  # what a passenger barely notices as an emergency, on a dry road
LATERAL_MPS2 = 2.5


@on_demand(
    version=1,
    inputs=("speed_mps", "visibility_m"),
    outputs=("stopping_distance_m", "visibility_margin_m"),
)
@njit(cache=True)
def stopping(matrix: np.ndarray, column: np.ndarray, out: np.ndarray, target: np.ndarray) -> None:
    """How far the vehicle rolls until it stands, and how much of its view is then left."""
    for row in range(matrix.shape[0]):
        speed, visibility = matrix[row, column[0]], matrix[row, column[1]]
        distance = speed * REACTION_S + speed * speed / (2.0 * DECELERATION_MPS2)
        out[row, target[0]] = distance
        out[row, target[1]] = visibility - distance


@on_demand(
    version=1,
    inputs=("speed_mps", "path_curvature_per_m", "visibility_margin_m"),
    outputs=("curve_speed_margin_mps", "driving_margin"),
)
@njit(cache=True)
def driving_margin(matrix: np.ndarray, column: np.ndarray, out: np.ndarray, target: np.ndarray) -> None:
    """By how much the vehicle is slower than its curve allows, and the smaller of the two margins as a share, -1 to 1."""
    for row in range(matrix.shape[0]):
        speed, curvature, margin = matrix[row, column[0]], abs(matrix[row, column[1]]), matrix[row, column[2]]
        # Straight on, any speed is slow enough for the curve.
        allowed = np.sqrt(LATERAL_MPS2 / max(curvature, 1e-4)) if not np.isnan(curvature) else np.nan
        spare = allowed - speed
        out[row, target[0]] = spare
        share = min(spare / allowed, margin / (abs(margin) + 20.0))
        # min() keeps one of a number and a NaN, by chance of their order.
        out[row, target[1]] = np.nan if np.isnan(spare) or np.isnan(margin) else min(max(share, -1.0), 1.0)

"""From what a sensor sees to the bird's-eye grid.

In: the geometry of the sensors (edge/inputs.py). Out: for each cell of the grid, where it lies in a camera image or a radar
sweep, as coordinates of torch's grid_sample.
"""

from __future__ import annotations

import math

import numpy as np

from fleet_assets.edge import inputs

# At which the camera's features are looked up: where a thing meets the ground tells how far it is.
HEIGHTS_M = (0.05, 0.8, 1.6)


def cell_centres() -> tuple[np.ndarray, np.ndarray]:
    """x, y [m] of the cells, [48, 48]: rows ahead, columns to the left."""
    at = (np.arange(inputs.GRID_CELLS) + 0.5) * inputs.CELL_M
    x, y = np.meshgrid(at + inputs.GRID_X_M[0], at + inputs.GRID_Y_M[0], indexing="ij")
    return x, y


def of_camera(height_m: float) -> np.ndarray:
    """float32 [48, 48, 2]: column and row, -1 to 1 over the image; outside it for what the camera does not see."""
    x, y = cell_centres()
    rows, columns, _ = inputs.CAMERA_SHAPE
    focal = columns / 2 / math.tan(math.radians(inputs.CAMERA_FIELD_DEG) / 2)
    ahead = np.maximum(x - inputs.MOUNT_M, 0.1)
    column = columns / 2 - focal * y / ahead
    row = round(inputs.CAMERA_HORIZON * rows) + focal * (inputs.CAMERA_HEIGHT_M - height_m) / ahead
    return np.stack([2 * column / columns - 1, 2 * row / rows - 1], axis=-1).astype(np.float32)


def of_radar() -> np.ndarray:
    """As of_camera, for a sweep: beam and range."""
    x, y = cell_centres()
    range_m, azimuth = np.hypot(x - inputs.MOUNT_M, y), np.arctan2(y, x - inputs.MOUNT_M)
    beam = -2 * azimuth / math.radians(inputs.RADAR_FIELD_DEG)
    return np.stack([beam, 2 * range_m / inputs.RADAR_REACH_M - 1], axis=-1).astype(np.float32)

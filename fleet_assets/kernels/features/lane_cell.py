"""The cell of a lane: where a vehicle is, to a few metres, and which way it drives, to a sector of the compass.

In: latitude, longitude and heading. Out: one int64, the key of features.lane_curvature, by the same arithmetic in batch and in
the vehicle. Rows of cells are equally high; a row's cells are as wide as its middle makes them, so that a cell is about square.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fleet_assets.kernels.features.elementary import cos_deg

M_PER_DEG = 111_194.92664455873  # along a meridian of a sphere of 6,371 km
CELL_M = 4.0
SECTORS = 8  # the first is centred on north
NOWHERE = -1
_COLUMN_BITS, _SECTOR_BITS = 24, 4


@njit(cache=True)
def row_of(latitude_deg: float, cell_m: float) -> int:
    """Row of the cells that are cell_m high."""
    return math.floor((latitude_deg + 90.0) * (M_PER_DEG / cell_m))


@njit(cache=True)
def columns_per_deg(row: int, cell_m: float) -> float:
    """Cells of a row per degree of longitude."""
    middle_deg = min(max((row + 0.5) * (cell_m / M_PER_DEG) - 90.0, -90.0), 90.0)
    return M_PER_DEG / cell_m * max(cos_deg(middle_deg), 0.0)


@njit(cache=True)
def lane_cell(latitude_deg: float, longitude_deg: float, heading_deg: float) -> int:
    """NOWHERE when a number is missing or no place on Earth."""
    if not (abs(latitude_deg) <= 90.0 and abs(longitude_deg) <= 180.0 and abs(heading_deg) <= 360.0):
        return NOWHERE
    row = row_of(latitude_deg, CELL_M)
    column = math.floor((longitude_deg + 180.0) * columns_per_deg(row, CELL_M))
    sector = math.floor(heading_deg * (SECTORS / 360.0) + 0.5) % SECTORS
    return packed(row, column, sector)


@njit(cache=True)
def packed(row: int, column: int, sector: int) -> int:
    """One number for a cell."""
    return (row << (_COLUMN_BITS + _SECTOR_BITS)) | (column << _SECTOR_BITS) | sector


@njit(cache=True)
def lane_cells(latitude_deg: np.ndarray, longitude_deg: np.ndarray, heading_deg: np.ndarray) -> np.ndarray:
    """lane_cell of each, int64 [n]."""
    found = np.empty(latitude_deg.size, dtype=np.int64)
    for item in range(found.size):
        found[item] = lane_cell(latitude_deg[item], longitude_deg[item], heading_deg[item])
    return found


@njit(cache=True)
def middle(cell: int) -> tuple[float, float, float]:
    """Latitude, longitude and heading of the middle of a cell."""
    row = cell >> (_COLUMN_BITS + _SECTOR_BITS)
    column = (cell >> _SECTOR_BITS) & ((1 << _COLUMN_BITS) - 1)
    latitude_deg = (row + 0.5) * (CELL_M / M_PER_DEG) - 90.0
    longitude_deg = (column + 0.5) / columns_per_deg(row, CELL_M) - 180.0
    return latitude_deg, longitude_deg, (cell & ((1 << _SECTOR_BITS) - 1)) * (360.0 / SECTORS)

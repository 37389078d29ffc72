"""Curvature of the lane that a vehicle is on: in full, from centre lines; and as it is served, by cell.

In: centre lines of lanes, as points in the order of travel; places with headings. Out: signed curvature (1/m, left positive) of
the nearest centre line that leads where the vehicle heads, interpolated between its points; NaN where there is none within reach.
A cell of the served form has the value of its middle, rounded to a quantum. Distances are on the sphere, flat around a place.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fleet_assets.kernels.features.elementary import compass_deg, cos_deg
from fleet_assets.kernels.features.lane_cell import M_PER_DEG, SECTORS, columns_per_deg, middle, packed, row_of

VERSION = 1
FEATURES = ("lane_curvature_per_m",)
BUCKET_M = 32.0  # of the index over segments
_NO_LANE = -1


@njit(cache=True)
def curvatures(latitude_deg: np.ndarray, longitude_deg: np.ndarray, begin: np.ndarray) -> np.ndarray:
    """At each point of each lane, float64 [n]: of the circle through it and its two neighbours; an end has its neighbour's.

    begin: int64 [lanes + 1], where each lane's points begin. Source: Menger's curvature, with the sign of the turn.
    """
    found = np.zeros(latitude_deg.size)
    for lane in range(begin.size - 1):
        first, end = begin[lane], begin[lane + 1]
        for point in range(first + 1, end - 1):
            wide = M_PER_DEG * cos_deg(latitude_deg[point])
            ax = (longitude_deg[point] - longitude_deg[point - 1]) * wide
            ay = (latitude_deg[point] - latitude_deg[point - 1]) * M_PER_DEG
            bx = (longitude_deg[point + 1] - longitude_deg[point]) * wide
            by = (latitude_deg[point + 1] - latitude_deg[point]) * M_PER_DEG
            cx, cy = ax + bx, ay + by
            sides = math.sqrt((ax * ax + ay * ay) * (bx * bx + by * by) * (cx * cx + cy * cy))
            found[point] = 2.0 * (ax * by - ay * bx) / sides if sides > 0.0 else 0.0
        if end - first > 2:
            found[first], found[end - 1] = found[first + 1], found[end - 2]
    return found


@njit(cache=True)
def segments(latitude_deg: np.ndarray, longitude_deg: np.ndarray, begin: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each piece between two points of one lane that are not the same: its first point, int64 [s], and where it leads."""
    first, heading_deg = np.empty(latitude_deg.size, dtype=np.int64), np.empty(latitude_deg.size)
    count = 0
    for lane in range(begin.size - 1):
        for point in range(begin[lane], begin[lane + 1] - 1):
            north = latitude_deg[point + 1] - latitude_deg[point]
            east = (longitude_deg[point + 1] - longitude_deg[point]) * cos_deg(latitude_deg[point])
            if north != 0.0 or east != 0.0:
                first[count], heading_deg[count] = point, compass_deg(east, north)
                count += 1
    return first[:count], heading_deg[:count]


@njit(cache=True)
def cells_near(
    latitude_deg: np.ndarray, longitude_deg: np.ndarray, first: np.ndarray, reach_m: float, cell_m: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cells (without sector) that lie within reach of a piece, or nearly; and the piece. int64, as many as there are pairs."""
    cells = owner = np.empty(0, dtype=np.int64)
    for filling in (False, True):
        count = 0
        for item in range(first.size):
            a, b = first[item], first[item] + 1
            high = reach_m / M_PER_DEG
            low_row = row_of(min(latitude_deg[a], latitude_deg[b]) - high, cell_m)
            high_row = row_of(max(latitude_deg[a], latitude_deg[b]) + high, cell_m)
            for row in range(low_row, high_row + 1):
                per_deg = columns_per_deg(row, cell_m)
                wide = reach_m / cell_m
                low = math.floor((min(longitude_deg[a], longitude_deg[b]) + 180.0) * per_deg - wide)
                top = math.floor((max(longitude_deg[a], longitude_deg[b]) + 180.0) * per_deg + wide)
                for column in range(max(low, 0), top + 1):
                    if filling:
                        cells[count], owner[count] = packed(row, column, 0), item
                    count += 1
        if not filling:
            cells, owner = np.empty(count, dtype=np.int64), np.empty(count, dtype=np.int64)
    return cells, owner


@njit(cache=True)
def nearest(
    place: np.ndarray,
    latitude_deg: np.ndarray,
    longitude_deg: np.ndarray,
    curvature_per_m: np.ndarray,
    first: np.ndarray,
    heading_deg: np.ndarray,
    cells: np.ndarray,
    owner: np.ndarray,
    reach_m: float,
    turn_deg: float,
) -> np.ndarray:
    """The full form at each place, float64 [p].

    place: [p, 3], latitude, longitude, heading. cells, owner: cells_near of BUCKET_M, in order of cells. A lane fits a heading
    when it leads within turn_deg of it. Of two pieces equally near, the earlier counts.
    """
    found = np.full(place.shape[0], np.nan)
    for item in range(found.size):
        latitude, longitude, heading = place[item]
        row = row_of(latitude, BUCKET_M)
        cell = packed(row, math.floor((longitude + 180.0) * columns_per_deg(row, BUCKET_M)), 0)
        wide = M_PER_DEG * cos_deg(latitude)
        best = reach_m * reach_m
        chosen = _NO_LANE
        for at in range(np.searchsorted(cells, cell), cells.size):
            if cells[at] != cell:
                break
            piece = owner[at]
            apart = abs(heading - heading_deg[piece]) % 360.0
            if min(apart, 360.0 - apart) > turn_deg:
                continue
            a, b = first[piece], first[piece] + 1
            ax, ay = (longitude_deg[a] - longitude) * wide, (latitude_deg[a] - latitude) * M_PER_DEG
            dx, dy = (longitude_deg[b] - longitude) * wide - ax, (latitude_deg[b] - latitude) * M_PER_DEG - ay
            share = min(max(-(ax * dx + ay * dy) / (dx * dx + dy * dy), 0.0), 1.0)
            x, y = ax + share * dx, ay + share * dy
            distance = x * x + y * y
            if distance < best or (distance == best and (chosen == _NO_LANE or piece < chosen)):
                best, chosen = distance, piece
                found[item] = curvature_per_m[a] + share * (curvature_per_m[b] - curvature_per_m[a])
    return found


@njit(cache=True)
def middles(cells: np.ndarray) -> np.ndarray:
    """Of each cell, the places that stand for its sectors: [cells * SECTORS, 3], latitude, longitude, heading."""
    found = np.empty((cells.size * SECTORS, 3))
    for item in range(cells.size):
        for sector in range(SECTORS):
            found[item * SECTORS + sector] = middle(cells[item] | sector)
    return found


@njit(cache=True)
def quantised(values: np.ndarray, quantum: float) -> np.ndarray:
    """To the nearest multiple; halves go up. Exact when the quantum is a power of two."""
    found = np.empty(values.size)
    for item in range(values.size):
        found[item] = math.floor(values[item] / quantum + 0.5) * quantum if not np.isnan(values[item]) else np.nan
    return found

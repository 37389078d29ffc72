"""Maps of lanes as tests want them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from fleet_assets.capture.context_files import ContextFile
from fleet_assets.contracts.loader import load_context
from fleet_assets.features.lane_policy import load_lane_policy
from fleet_assets.features.lanes import CONTRACT, Lanes, lanes_of
from fleet_assets.kernels.features.lane_cell import M_PER_DEG

LATITUDE_DEG, LONGITUDE_DEG = 48.1374, 11.5755


def degrees(x_m: np.ndarray, y_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Latitude and longitude of places east and north of the middle of Munich."""
    wide = M_PER_DEG * np.cos(np.radians(LATITUDE_DEG))
    return LATITUDE_DEG + np.asarray(y_m) / M_PER_DEG, LONGITUDE_DEG + np.asarray(x_m) / wide


def lane_rows(lanes: Mapping[str, tuple[np.ndarray, np.ndarray]], version: str = "1") -> pa.Table:
    """Rows of context.lanes. lanes: x and y [m] of each."""
    parts = []
    for name, (x, y) in lanes.items():
        latitude, longitude = degrees(x, y)
        parts.append(
            pa.table(
                [
                    pa.repeat(name, len(x)),
                    np.arange(len(x), dtype=float),
                    latitude,
                    longitude,
                    pa.repeat(version, len(x)),
                ],
                schema=load_context()[CONTRACT].arrow_schema,
            )
        )
    return pa.concat_tables(parts)


def lanes_in(rows: pa.Table) -> Lanes:
    return lanes_of(ContextFile(CONTRACT, rows), load_lane_policy())

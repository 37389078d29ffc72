"""Position: the last fix that the vehicle had, and where it headed.

In: records of the satellite receiver. Out: FEATURES at a time, NaN when the last fix is older than STALE_NS. Nothing is
extrapolated: fix_age_s says how old it is. The heading is the receiver's own while the vehicle moves; of a receiver that tells
none it is the way from an earlier fix, far enough for the way to mean something and near enough for it to be straight. A vehicle
that stands keeps its heading.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fleet_assets.kernels.features import records as r
from fleet_assets.kernels.features.elementary import compass_deg, cos_deg
from fleet_assets.kernels.features.lane_cell import M_PER_DEG

VERSION = 2
FEATURES = ("latitude_deg", "longitude_deg", "heading_deg", "fix_accuracy_m", "fix_age_s")
_LATITUDE, _LONGITUDE, _HEADING, _ACCURACY, _AGE = range(len(FEATURES))
STALE_NS = 5_000_000_000
LEAST_WAY_M, LONGEST_WAY_M = 5.0, 50.0
MOVING_MPS = 1.0
STATE = np.dtype(
    [
        ("t_ns", "<i8"),
        ("latitude_deg", "<f8"),
        ("longitude_deg", "<f8"),
        ("accuracy_m", "<f8"),
        ("heading_deg", "<f8"),
        ("heading_known", "<i8"),
        ("from_latitude_deg", "<f8"),
        ("from_longitude_deg", "<f8"),
    ]
)


@njit(cache=True)
def _feed(state: np.void, record: np.void) -> None:
    values = record["values"]
    if record["source"] != r.GNSS or not (abs(values[0]) <= 90.0 and abs(values[1]) <= 180.0):
        return
    if state["t_ns"] == 0:
        state["from_latitude_deg"], state["from_longitude_deg"] = values[0], values[1]
    state["latitude_deg"], state["longitude_deg"], state["accuracy_m"] = values[0], values[1], values[4]
    state["t_ns"] = record["t_host_ns"]
    _head(state, values)


@njit(cache=True)
def _head(state: np.void, values: np.ndarray) -> None:
    told = abs(values[3]) <= 360.0
    if told and values[2] < MOVING_MPS:
        return
    north = (values[0] - state["from_latitude_deg"]) * M_PER_DEG
    east = (values[1] - state["from_longitude_deg"]) * M_PER_DEG * cos_deg(values[0])
    way = math.sqrt(north * north + east * east)
    if told:
        state["heading_deg"], state["heading_known"] = values[3] + 360.0 if values[3] < 0.0 else values[3], 1
    elif way < LEAST_WAY_M:
        return
    elif way <= LONGEST_WAY_M:
        state["heading_deg"], state["heading_known"] = compass_deg(east, north), 1
    else:
        state["heading_known"] = 0
    state["from_latitude_deg"], state["from_longitude_deg"] = values[0], values[1]


@njit(cache=True)
def _read(state: np.void, t_ns: int, out: np.ndarray) -> None:
    out[:] = np.nan
    if state["t_ns"] == 0 or t_ns - state["t_ns"] > STALE_NS:
        return
    out[_LATITUDE], out[_LONGITUDE], out[_ACCURACY] = state["latitude_deg"], state["longitude_deg"], state["accuracy_m"]
    if state["heading_known"] == 1:
        out[_HEADING] = state["heading_deg"]
    out[_AGE] = (t_ns - state["t_ns"]) * 1e-9


@njit(cache=True)
def replay(state: np.ndarray, records: np.ndarray, cut_ns: np.ndarray, out: np.ndarray) -> None:
    """As ego_motion.replay."""
    cut = 0
    for row in range(records.size):
        while cut < cut_ns.size and cut_ns[cut] < records[row]["t_host_ns"]:
            _read(state[0], cut_ns[cut], out[cut])
            cut += 1
        _feed(state[0], records[row])
    while cut < cut_ns.size:
        _read(state[0], cut_ns[cut], out[cut])
        cut += 1

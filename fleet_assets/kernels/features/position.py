"""Position: the last fix that the vehicle had.

In: records of the satellite receiver. Out: FEATURES at a time, NaN when the last fix is older than STALE_NS. Nothing is
extrapolated: fix_age_s says how old it is.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fleet_assets.kernels.features import records as r

VERSION = 1
FEATURES = ("latitude_deg", "longitude_deg", "fix_accuracy_m", "fix_age_s")
_LATITUDE, _LONGITUDE, _ACCURACY, _AGE = range(len(FEATURES))
STALE_NS = 5_000_000_000
STATE = np.dtype([("t_ns", "<i8"), ("latitude_deg", "<f8"), ("longitude_deg", "<f8"), ("accuracy_m", "<f8")])


@njit(cache=True)
def _feed(state: np.void, record: np.void) -> None:
    values = record["values"]
    if record["source"] != r.GNSS or np.isnan(values[0]) or np.isnan(values[1]):
        return
    state["latitude_deg"], state["longitude_deg"], state["accuracy_m"] = values[0], values[1], values[4]
    state["t_ns"] = record["t_host_ns"]


@njit(cache=True)
def _read(state: np.void, t_ns: int, out: np.ndarray) -> None:
    out[:] = np.nan
    if state["t_ns"] == 0 or t_ns - state["t_ns"] > STALE_NS:
        return
    out[_LATITUDE], out[_LONGITUDE], out[_ACCURACY] = state["latitude_deg"], state["longitude_deg"], state["accuracy_m"]
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

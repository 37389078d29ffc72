"""Scene context: light, contrast, and how far the sensors see.

In: records of camera, LiDAR and radar with what payload.py sums up of each message. Out: FEATURES at a time, smoothed over a
second; NaN where the sensor has been silent for longer than STALE_NS. Rain, fog and visibility are estimates from how LiDAR and
camera lose sight, on a scale that is the same for all vehicles; they are no measurement.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fleet_assets.kernels.features import payload  # noqa: F401 - it makes the values, so it is part of the identity
from fleet_assets.kernels.features import records as r

VERSION = 1
FEATURES = (
    "ambient_light",
    "image_contrast",
    "image_sharpness",
    "glare_share",
    "lidar_returns",
    "lidar_far_range_m",
    "lidar_near_share",
    "lidar_intensity",
    "radar_returns",
    "radar_clutter_share",
    "visibility_m",
    "rain_estimate",
    "fog_estimate",
)
(
    _LIGHT, _CONTRAST, _SHARPNESS, _GLARE, _RETURNS, _FAR, _NEAR, _INTENSITY, _RADAR_RETURNS, _CLUTTER, _VISIBILITY, _RAIN, _FOG,
) = range(len(FEATURES))  # fmt: skip
STALE_NS = 1_000_000_000
TAU_S = 1.0
MEASURED = 5  # values of each sensor that are smoothed, behind the checksum
CLEAR_RANGE_M = 80.0  # how far a LiDAR sees on a clear day, whatever it could
CLEAR_CONTRAST = 0.20
# Drops close to the sensor give near returns: their share on a dry day, and in heavy rain.
DRY_NEAR_SHARE, WET_NEAR_SHARE = 0.10, 0.40
STATE = np.dtype([("t_ns", "<i8", (r.COUNT,)), ("smooth", "<f8", (r.COUNT, MEASURED))])


@njit(cache=True)
def _feed(state: np.void, record: np.void) -> None:
    source = record["source"]
    if source < r.CAMERA or np.isnan(record["values"][1]):
        return
    first = state["t_ns"][source] == 0
    step_s = (record["t_host_ns"] - state["t_ns"][source]) * 1e-9
    alpha = 1.0 if first or step_s * 1e9 > STALE_NS else step_s / (TAU_S + step_s)
    for index in range(MEASURED):
        value = record["values"][1 + index]
        before = state["smooth"][source, index]
        if alpha == 1.0 or np.isnan(before):
            state["smooth"][source, index] = value
        elif not np.isnan(value):
            state["smooth"][source, index] = before + alpha * (value - before)
    state["t_ns"][source] = record["t_host_ns"]


@njit(cache=True)
def _share(value: float, none: float, full: float) -> float:
    """Where a value lies between none (0) and full (1)."""
    return min(max((value - none) / (full - none), 0.0), 1.0)


@njit(cache=True)
def _read(state: np.void, t_ns: int, out: np.ndarray) -> None:
    out[:] = np.nan
    sees = np.zeros(r.COUNT, dtype=np.bool_)
    for source in range(r.CAMERA, r.COUNT):
        last_ns = state["t_ns"][source]
        sees[source] = last_ns != 0 and t_ns - last_ns <= STALE_NS
    camera, lidar, radar = state["smooth"][r.CAMERA], state["smooth"][r.LIDAR], state["smooth"][r.RADAR]
    if sees[r.CAMERA]:
        out[_LIGHT], out[_CONTRAST], out[_SHARPNESS], out[_GLARE] = camera[0], camera[1], camera[2], camera[3]
    if sees[r.LIDAR]:
        out[_RETURNS], out[_FAR], out[_NEAR], out[_INTENSITY] = lidar[0], lidar[2], lidar[3], lidar[4]
        out[_RAIN] = _share(lidar[3], DRY_NEAR_SHARE, WET_NEAR_SHARE)
    if sees[r.RADAR]:
        out[_RADAR_RETURNS] = radar[0]
        out[_CLUTTER] = radar[3]
    if sees[r.CAMERA] and sees[r.LIDAR]:
        # The sensor that sees further is right: a wall ends the LiDAR's view, darkness the camera's.
        far = _share(lidar[2], 0.0, CLEAR_RANGE_M)
        clear = _share(camera[1], 0.0, CLEAR_CONTRAST)
        out[_VISIBILITY] = CLEAR_RANGE_M * max(far, clear)
        out[_FOG] = (1.0 - far) * (1.0 - clear)


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

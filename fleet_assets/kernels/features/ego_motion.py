"""Ego motion: how the vehicle moves, and how it was braked and steered in the last ten seconds.

In: records of the wheel speed, steering and inertial unit. Out: FEATURES at a time, NaN where the sensor has been silent for
longer than STALE_NS. Filters are of first order, alpha = dt / (tau + dt), over the sensor's own steps where it has a clock that
runs, else over the steps of arrival.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fleet_assets.kernels.features import records as r
from fleet_assets.kernels.features.windows import BUCKETS, enter, inside

VERSION = 2
FEATURES = (
    "speed_mps",
    "accel_mps2",
    "jerk_mps3",
    "yaw_rate_radps",
    "path_curvature_per_m",
    "lateral_accel_mps2",
    "vertical_accel_mps2",
    "steering_deg",
    "steering_rate_degps",
    "stopped_s",
    "braking_events_10s",
    "hardest_braking_mps2_10s",
    "steering_events_10s",
    "yaw_rate_max_radps_10s",
    "speed_max_mps_10s",
    "distance_m_10s",
)
(
    _SPEED, _ACCEL, _JERK, _YAW_RATE, _CURVATURE, _LATERAL, _VERTICAL, _STEERING, _STEERING_RATE, _STOPPED, _BRAKINGS, _HARDEST,
    _STEERINGS, _YAW_RATE_MAX, _SPEED_MAX, _DISTANCE,
) = range(len(FEATURES))  # fmt: skip
STALE_NS = 1_000_000_000
LONGEST_STEP_S = 1.0  # over a longer step nothing is known of what lies between
TAU_ACCEL_S = 0.2
TAU_JERK_S = 0.5
TAU_YAW_S = 0.1
TAU_STEERING_S = 0.2
LEAST_SPEED_MPS = 1.0  # below, curvature says nothing
STANDS_MPS = 0.1
# A braking event begins under the first and ends over the second; so does a steering event, by its rate.
BRAKING_MPS2, BRAKED_MPS2 = -3.0, -1.5
STEERING_DEGPS, STEERED_DEGPS = 30.0, 15.0
STATE = np.dtype(
    [
        ("t_speed_ns", "<i8"),
        ("t_speed_device_ns", "<i8"),
        ("speed_period_s", "<f8"),
        ("speed_mps", "<f8"),
        ("accel_mps2", "<f8"),
        ("jerk_mps3", "<f8"),
        ("t_stopped_ns", "<i8"),
        ("braking", "<i8"),
        ("t_imu_ns", "<i8"),
        ("t_imu_device_ns", "<i8"),
        ("imu_period_s", "<f8"),
        ("yaw_rate_radps", "<f8"),
        ("vertical_accel_mps2", "<f8"),
        ("t_steering_ns", "<i8"),
        ("t_steering_device_ns", "<i8"),
        ("steering_period_s", "<f8"),
        ("steering_deg", "<f8"),
        ("steering_rate_degps", "<f8"),
        ("steering", "<i8"),
        ("bucket", "<i8", (BUCKETS,)),
        ("braking_events", "<f8", (BUCKETS,)),
        ("hardest_mps2", "<f8", (BUCKETS,)),
        ("steering_events", "<f8", (BUCKETS,)),
        ("yaw_rate_max_radps", "<f8", (BUCKETS,)),
        ("speed_max_mps", "<f8", (BUCKETS,)),
        ("distance_m", "<f8", (BUCKETS,)),
    ]
)


@njit(cache=True)
def _step(record: np.void, t_host_ns: int, t_device_ns: int, period_s: float) -> tuple[float, float]:
    """From the last record to this one [s], and the sensor's last step on its own clock [s].

    On the sensor's clock where both have it, else by arrival. A step that is not over 0 tells a record twice, or one that was
    overtaken, unless a whole period of arrival went by: then the clock stands still or was set back, and arrival counts.
    """
    arrived_s = (record["t_host_ns"] - t_host_ns) * 1e-9
    if record["t_device_ns"] == r.NO_TIME or t_device_ns == r.NO_TIME:
        return arrived_s, period_s
    step_s = (record["t_device_ns"] - t_device_ns) * 1e-9
    if step_s > 0.0:
        return step_s, step_s if step_s <= LONGEST_STEP_S else period_s
    return (step_s if arrived_s < period_s else arrived_s), period_s


@njit(cache=True)
def _bucket(state: np.void, t_ns: int) -> int:
    index, fresh = enter(t_ns, state["bucket"])
    if fresh:
        state["braking_events"][index] = 0.0
        state["hardest_mps2"][index] = 0.0
        state["steering_events"][index] = 0.0
        state["yaw_rate_max_radps"][index] = 0.0
        state["speed_max_mps"][index] = 0.0
        state["distance_m"][index] = 0.0
    return index


@njit(cache=True)
def _on_speed(state: np.void, record: np.void) -> None:
    speed = record["values"][0]
    if np.isnan(speed):
        return
    step_s, period_s = _step(record, state["t_speed_ns"], state["t_speed_device_ns"], state["speed_period_s"])
    known = state["t_speed_ns"] != 0 and step_s <= LONGEST_STEP_S
    if known and step_s <= 0.0:
        return  # told twice, or overtaken
    index = _bucket(state, record["t_host_ns"])
    if known:
        accel = (speed - state["speed_mps"]) / step_s
        before = state["accel_mps2"]
        state["accel_mps2"] = before + step_s / (TAU_ACCEL_S + step_s) * (accel - before)
        jerk = (state["accel_mps2"] - before) / step_s
        state["jerk_mps3"] += step_s / (TAU_JERK_S + step_s) * (jerk - state["jerk_mps3"])
        if index >= 0:
            state["distance_m"][index] += 0.5 * (speed + state["speed_mps"]) * step_s
    else:
        state["accel_mps2"] = 0.0
        state["jerk_mps3"] = 0.0
        state["braking"] = 0
    if state["braking"] == 0 and state["accel_mps2"] < BRAKING_MPS2:
        state["braking"] = 1
        if index >= 0:
            state["braking_events"][index] += 1.0
    elif state["braking"] == 1 and state["accel_mps2"] > BRAKED_MPS2:
        state["braking"] = 0
    if speed > STANDS_MPS or speed < -STANDS_MPS:
        state["t_stopped_ns"] = 0
    elif state["t_stopped_ns"] == 0:
        state["t_stopped_ns"] = record["t_host_ns"]
    if index >= 0:
        state["hardest_mps2"][index] = min(state["hardest_mps2"][index], state["accel_mps2"])
        state["speed_max_mps"][index] = max(state["speed_max_mps"][index], speed)
    state["speed_mps"] = speed
    state["t_speed_ns"] = record["t_host_ns"]
    state["t_speed_device_ns"] = record["t_device_ns"]
    state["speed_period_s"] = period_s


@njit(cache=True)
def _on_imu(state: np.void, record: np.void) -> None:
    yaw_rate = record["values"][5]
    if np.isnan(yaw_rate):
        return
    step_s, period_s = _step(record, state["t_imu_ns"], state["t_imu_device_ns"], state["imu_period_s"])
    known = state["t_imu_ns"] != 0 and step_s <= LONGEST_STEP_S
    if known and step_s <= 0.0:
        return
    alpha = step_s / (TAU_YAW_S + step_s) if known else 1.0
    state["yaw_rate_radps"] += alpha * (yaw_rate - state["yaw_rate_radps"])
    vertical = record["values"][2]
    if not np.isnan(vertical):
        state["vertical_accel_mps2"] += alpha * (vertical - state["vertical_accel_mps2"])
    index = _bucket(state, record["t_host_ns"])
    if index >= 0:
        state["yaw_rate_max_radps"][index] = max(state["yaw_rate_max_radps"][index], abs(state["yaw_rate_radps"]))
    state["t_imu_ns"] = record["t_host_ns"]
    state["t_imu_device_ns"] = record["t_device_ns"]
    state["imu_period_s"] = period_s


@njit(cache=True)
def _on_steering(state: np.void, record: np.void) -> None:
    angle = record["values"][0]
    if np.isnan(angle):
        return
    step_s, period_s = _step(record, state["t_steering_ns"], state["t_steering_device_ns"], state["steering_period_s"])
    known = state["t_steering_ns"] != 0 and step_s <= LONGEST_STEP_S
    if known and step_s <= 0.0:
        return
    if known:
        rate = (angle - state["steering_deg"]) / step_s
        alpha = step_s / (TAU_STEERING_S + step_s)
        state["steering_rate_degps"] += alpha * (rate - state["steering_rate_degps"])
    else:
        state["steering_rate_degps"] = 0.0
        state["steering"] = 0
    rate = abs(state["steering_rate_degps"])
    if state["steering"] == 0 and rate > STEERING_DEGPS:
        state["steering"] = 1
        index = _bucket(state, record["t_host_ns"])
        if index >= 0:
            state["steering_events"][index] += 1.0
    elif state["steering"] == 1 and rate < STEERED_DEGPS:
        state["steering"] = 0
    state["steering_deg"] = angle
    state["t_steering_ns"] = record["t_host_ns"]
    state["t_steering_device_ns"] = record["t_device_ns"]
    state["steering_period_s"] = period_s


@njit(cache=True)
def _fresh(t_ns: int, t_last_ns: int) -> bool:
    return t_last_ns != 0 and t_ns - t_last_ns <= STALE_NS


@njit(cache=True)
def _read(state: np.void, t_ns: int, out: np.ndarray) -> None:
    out[:] = np.nan
    moving, turning = _fresh(t_ns, state["t_speed_ns"]), _fresh(t_ns, state["t_imu_ns"])
    speed, yaw_rate = state["speed_mps"], state["yaw_rate_radps"]
    if moving:
        out[_SPEED] = speed
        out[_ACCEL] = state["accel_mps2"]
        out[_JERK] = state["jerk_mps3"]
        out[_STOPPED] = 0.0
        if state["t_stopped_ns"] != 0:
            out[_STOPPED] = (t_ns - state["t_stopped_ns"]) * 1e-9
    if turning:
        out[_YAW_RATE] = yaw_rate
        out[_VERTICAL] = state["vertical_accel_mps2"]
    if moving and turning:
        if speed >= LEAST_SPEED_MPS:
            out[_CURVATURE] = yaw_rate / speed
        out[_LATERAL] = speed * yaw_rate
    if _fresh(t_ns, state["t_steering_ns"]):
        out[_STEERING] = state["steering_deg"]
        out[_STEERING_RATE] = state["steering_rate_degps"]
    if state["t_speed_ns"] != 0:
        out[_BRAKINGS], out[_HARDEST], out[_SPEED_MAX], out[_DISTANCE] = 0.0, 0.0, 0.0, 0.0
    if state["t_steering_ns"] != 0:
        out[_STEERINGS] = 0.0
    if state["t_imu_ns"] != 0:
        out[_YAW_RATE_MAX] = 0.0
    # A sensor that has never spoken stays NaN, whatever is added to it.
    for index in range(BUCKETS):
        if inside(index, t_ns, state["bucket"]):
            out[_BRAKINGS] += state["braking_events"][index]
            out[_HARDEST] = min(out[_HARDEST], state["hardest_mps2"][index])
            out[_STEERINGS] += state["steering_events"][index]
            out[_YAW_RATE_MAX] = max(out[_YAW_RATE_MAX], state["yaw_rate_max_radps"][index])
            out[_SPEED_MAX] = max(out[_SPEED_MAX], state["speed_max_mps"][index])
            out[_DISTANCE] += state["distance_m"][index]


@njit(cache=True)
def _feed(state: np.void, record: np.void) -> None:
    source = record["source"]
    if source == r.SPEED:
        _on_speed(state, record)
    elif source == r.IMU:
        _on_imu(state, record)
    elif source == r.STEERING:
        _on_steering(state, record)


@njit(cache=True)
def replay(state: np.ndarray, records: np.ndarray, cut_ns: np.ndarray, out: np.ndarray) -> None:
    """Feeds all records in their order, and reads the features at each cut: what arrived by then counts.

    state: STATE [1], changed. records: RECORD [n], in order of arrival. cut_ns: int64 [m], ascending. out: float64
    [m, features], filled.
    """
    cut = 0
    for row in range(records.size):
        while cut < cut_ns.size and cut_ns[cut] < records[row]["t_host_ns"]:
            _read(state[0], cut_ns[cut], out[cut])
            cut += 1
        _feed(state[0], records[row])
    while cut < cut_ns.size:
        _read(state[0], cut_ns[cut], out[cut])
        cut += 1

"""Sensor health: whether each sensor speaks, at its rate, in time, and of something new.

In: records of any source. Out: FEATURES at a time: per source its rate and longest silence in the last ten seconds, how much
later than at its best it arrives, how far its clock's steps are off from arrival's, and for how long it has said the same; and
whether camera and LiDAR are blind. NaN for a source that has never spoken.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from fleet_assets.kernels.features import payload  # noqa: F401 - it makes the values, so it is part of the identity
from fleet_assets.kernels.features import records as r
from fleet_assets.kernels.features.windows import BUCKET_NS, BUCKETS, enter, inside

VERSION = 1
MEASURES = ("rate_hz", "silence_s_10s", "delay_ms", "clock_residual_ms", "stuck_s")
FEATURES = (
    *(f"{source}_{measure}" for source in r.SOURCES for measure in MEASURES),
    "camera_blind",
    "lidar_blind",
)
_RATE, _SILENCE, _DELAY, _RESIDUAL, _STUCK = range(len(MEASURES))
_CAMERA_BLIND, _LIDAR_BLIND = len(FEATURES) - 2, len(FEATURES) - 1
TAU_S = 1.0  # of delay and residual
BLIND_CONTRAST = 0.01  # standard deviation of luminance, 0 to 1
BLIND_RETURNS = 20.0  # per sweep
STATE = np.dtype(
    [
        ("t_first_ns", "<i8", (r.COUNT,)),
        ("t_last_ns", "<i8", (r.COUNT,)),
        ("t_last_device_ns", "<i8", (r.COUNT,)),
        ("least_delay_ns", "<i8", (r.COUNT,)),
        ("has_delay", "<i8", (r.COUNT,)),
        ("delay_ms", "<f8", (r.COUNT,)),
        ("residual_ms", "<f8", (r.COUNT,)),
        ("has_residual", "<i8", (r.COUNT,)),
        ("t_changed_ns", "<i8", (r.COUNT,)),
        ("values", "<f8", (r.COUNT, r.VALUES)),
        ("bucket", "<i8", (r.COUNT, BUCKETS)),
        ("count", "<f8", (r.COUNT, BUCKETS)),
        ("silence_s", "<f8", (r.COUNT, BUCKETS)),
    ]
)


@njit(cache=True)
def _on_clocks(state: np.void, record: np.void, step_s: float) -> None:
    source = record["source"]
    device_ns, last_ns = record["t_device_ns"], state["t_last_device_ns"][source]
    if device_ns == r.NO_TIME:
        return
    alpha = step_s / (TAU_S + step_s)
    delay_ns = record["t_host_ns"] - device_ns
    if state["has_delay"][source] == 0:
        state["has_delay"][source] = 1
        state["least_delay_ns"][source] = delay_ns
    state["least_delay_ns"][source] = min(state["least_delay_ns"][source], delay_ns)
    late_ms = (delay_ns - state["least_delay_ns"][source]) * 1e-6
    state["delay_ms"][source] += alpha * (late_ms - state["delay_ms"][source])
    if state["t_last_ns"][source] != 0 and last_ns != r.NO_TIME:
        off_ms = abs(step_s * 1e3 - (device_ns - last_ns) * 1e-6)
        state["has_residual"][source] = 1
        state["residual_ms"][source] += alpha * (off_ms - state["residual_ms"][source])


@njit(cache=True)
def _feed(state: np.void, record: np.void) -> None:
    source, t_ns = record["source"], record["t_host_ns"]
    first = state["t_last_ns"][source] == 0
    step_s = 0.0 if first else (t_ns - state["t_last_ns"][source]) * 1e-9
    _on_clocks(state, record, step_s)
    index, fresh = enter(t_ns, state["bucket"][source])
    if fresh:
        state["count"][source, index] = 0.0
        state["silence_s"][source, index] = 0.0
    if index >= 0:
        state["count"][source, index] += 1.0
        state["silence_s"][source, index] = max(state["silence_s"][source, index], step_s)
    changed = first
    for value in range(r.VALUES):
        now, before = record["values"][value], state["values"][source, value]
        changed = changed or (now != before and not (np.isnan(now) and np.isnan(before)))
        state["values"][source, value] = now
    if changed:
        state["t_changed_ns"][source] = t_ns
    if first:
        state["t_first_ns"][source] = t_ns
    state["t_last_ns"][source] = t_ns
    state["t_last_device_ns"][source] = record["t_device_ns"]


@njit(cache=True)
def _rate_hz(state: np.void, source: int, t_ns: int) -> float:
    """Records in the window over its length; while the window is not full yet, over the time since the first record."""
    count = 0.0
    for index in range(BUCKETS):
        if inside(index, t_ns, state["bucket"][source]):
            count += state["count"][source, index]
    begins_ns = (t_ns // BUCKET_NS - (BUCKETS - 1)) * BUCKET_NS
    span_s = (t_ns - max(begins_ns, state["t_first_ns"][source])) * 1e-9
    return count / span_s if span_s > 0.0 else np.nan


@njit(cache=True)
def _read(state: np.void, t_ns: int, out: np.ndarray) -> None:
    out[:] = np.nan
    for source in range(r.COUNT):
        last_ns = state["t_last_ns"][source]
        if last_ns == 0:
            continue
        at = source * len(MEASURES)
        out[at + _RATE] = _rate_hz(state, source, t_ns)
        silence_s = (t_ns - last_ns) * 1e-9
        for index in range(BUCKETS):
            if inside(index, t_ns, state["bucket"][source]):
                silence_s = max(silence_s, state["silence_s"][source, index])
        out[at + _SILENCE] = silence_s
        if state["has_delay"][source] == 1:
            out[at + _DELAY] = state["delay_ms"][source]
        if state["has_residual"][source] == 1:
            out[at + _RESIDUAL] = state["residual_ms"][source]
        # Without a value nothing can be the same.
        if not np.isnan(state["values"][source, 0]):
            out[at + _STUCK] = (last_ns - state["t_changed_ns"][source]) * 1e-9
    contrast, returns = state["values"][r.CAMERA, 2], state["values"][r.LIDAR, 1]
    if state["t_last_ns"][r.CAMERA] != 0 and not np.isnan(contrast):
        out[_CAMERA_BLIND] = 1.0 if contrast < BLIND_CONTRAST else 0.0
    if state["t_last_ns"][r.LIDAR] != 0 and not np.isnan(returns):
        out[_LIDAR_BLIND] = 1.0 if returns < BLIND_RETURNS else 0.0


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

"""Elementary functions that give the same bits on every machine: sums of powers in a fixed order, and nothing of the system's.

In: finite float64 numbers. Out: float64, within 1e-12 of the true value. Degrees as on a compass: 0 is north, 90 is east.
"""

from __future__ import annotations

from numba import njit

RAD_PER_DEG = 0.017453292519943295
_TAN_22_5 = 0.41421356237309503
_COS_TERMS = 12
_ATAN_TERMS = 16


@njit(cache=True)
def cos_deg(angle_deg: float) -> float:
    """Cosine of an angle within -90 to 90 degrees: its Taylor series."""
    square = (angle_deg * RAD_PER_DEG) * (angle_deg * RAD_PER_DEG)
    found = 1.0
    for term in range(_COS_TERMS, 0, -1):
        found = 1.0 - found * square / ((2.0 * term - 1.0) * (2.0 * term))
    return found


@njit(cache=True)
def _atan(value: float) -> float:
    """Of a value within 0 to 1, in radians: Taylor's series, around 0 or around 45 degrees."""
    turned = value > _TAN_22_5
    x = (value - 1.0) / (value + 1.0) if turned else value
    square, found = x * x, 0.0
    for term in range(_ATAN_TERMS, -1, -1):
        found = 1.0 / (2.0 * term + 1.0) - square * found
    return found * x + 45.0 * RAD_PER_DEG if turned else found * x


@njit(cache=True)
def compass_deg(east: float, north: float) -> float:
    """Where a way leads, 0 to below 360 degrees, 0 for no way at all."""
    wide, high = abs(east), abs(north)
    if wide == 0.0 and high == 0.0:
        return 0.0
    angle = _atan(wide / high) / RAD_PER_DEG if wide <= high else 90.0 - _atan(high / wide) / RAD_PER_DEG
    if north < 0.0:
        angle = 180.0 - angle
    if east < 0.0 and angle > 0.0:
        angle = 360.0 - angle
    return angle if angle < 360.0 else 0.0

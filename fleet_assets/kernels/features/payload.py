"""What a camera image, a LiDAR sweep and a radar sweep come to in a few numbers.

In: pixels and points. Out: the values of a record (records.py). Sums run in order of the pixels and points, so that they are the
same everywhere.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NEAR_M = 5.0
SATURATED = 250
ECHO = 64  # of 255
FAR_SHARE = 0.95  # of the returns are nearer than the far range
_RANGE_STEP_M = 0.5
_RANGE_STEPS = 600
_PRIME, _BASIS = np.uint64(0x100000001B3), np.uint64(0xCBF29CE484222325)
_WHOLE = np.uint64((1 << 53) - 1)


@njit(cache=True)
def checksum(data: np.ndarray) -> float:
    """FNV-1a of uint8 [n], as a whole number that a float holds exactly. Equal content, equal number.

    Source: Fowler, Noll, Vo, "The FNV non-cryptographic hash algorithm".
    """
    found = _BASIS
    for index in range(data.size):
        found = (found ^ np.uint64(data[index])) * _PRIME
    return float((found ^ (found >> np.uint64(32))) & _WHOLE)


@njit(cache=True)
def image_summary(pixels: np.ndarray) -> tuple[float, float, float, float]:
    """uint8 [height, width, channels] -> mean luminance, its standard deviation, mean step to the next pixel of the row
    (all 0 to 1), and the share of saturated pixels. Luminance is the mean of the channels."""
    height, width, channels = pixels.shape
    total, squares, steps, saturated = 0, 0, 0, 0
    for y in range(height):
        before = 0
        for x in range(width):
            value = 0
            for channel in range(channels):
                value += int(pixels[y, x, channel])
            total += value
            squares += value * value
            if x > 0:
                steps += abs(value - before)
            saturated += value >= SATURATED * channels
            before = value
    count, scale = float(height * width), 255.0 * channels
    if count == 0.0:
        return np.nan, np.nan, np.nan, np.nan
    mean = total / count
    variance = max(squares / count - mean * mean, 0.0)
    sharpness = steps / (count - height) / scale if width > 1 else 0.0
    return mean / scale, np.sqrt(variance) / scale, sharpness, saturated / count


@njit(cache=True)
def radar_summary(pixels: np.ndarray) -> tuple[float, float, float, float, float]:
    """uint8 [height, width, channels], an image of echoes -> returns (pixels of at least ECHO), NaN, NaN, share of returns that
    stand alone, mean intensity of the returns (0 to 1). An echo of an object covers several cells; one that stands alone is
    mostly noise."""
    height, width, _ = pixels.shape
    count, alone, total = 0, 0, 0
    for y in range(height):
        for x in range(width):
            if pixels[y, x, 0] < ECHO:
                continue
            count += 1
            total += int(pixels[y, x, 0])
            near = y > 0 and pixels[y - 1, x, 0] >= ECHO
            near = near or (y + 1 < height and pixels[y + 1, x, 0] >= ECHO)
            near = near or (x > 0 and pixels[y, x - 1, 0] >= ECHO)
            near = near or (x + 1 < width and pixels[y, x + 1, 0] >= ECHO)
            alone += not near
    if count == 0:
        return 0.0, np.nan, np.nan, np.nan, np.nan
    return float(count), np.nan, np.nan, alone / count, total / count / 255.0


@njit(cache=True)
def cloud_summary(
    x: np.ndarray, y: np.ndarray, z: np.ndarray, intensity: np.ndarray
) -> tuple[float, float, float, float, float]:
    """Points in the sensor's frame, float64 [n] each [m] -> returns, mean range [m], far range [m], share of returns nearer
    than NEAR_M, mean intensity (NaN without one). Points that are no numbers, or lie in the sensor, are no returns.

    The far range is exact to half a metre.
    """
    histogram = np.zeros(_RANGE_STEPS + 1, dtype=np.int64)
    count, near, total_m, total_intensity = 0, 0, 0.0, 0.0
    for point in range(x.size):
        square = x[point] * x[point] + y[point] * y[point] + z[point] * z[point]
        if not square > 0.0 or square == np.inf:
            continue
        range_m = np.sqrt(square)
        count += 1
        near += range_m < NEAR_M
        total_m += range_m
        if intensity.size > 0:
            total_intensity += intensity[point]
        histogram[int(min(range_m / _RANGE_STEP_M, float(_RANGE_STEPS)))] += 1
    if count == 0:
        return 0.0, np.nan, 0.0, np.nan, np.nan
    far, seen = 0, 0
    while seen < FAR_SHARE * count:
        seen += histogram[far]
        far += 1
    mean_intensity = total_intensity / count if intensity.size > 0 else np.nan
    return float(count), total_m / count, far * _RANGE_STEP_M, near / count, mean_intensity

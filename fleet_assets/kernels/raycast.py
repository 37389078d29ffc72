"""Where the columns of a sensor meet the shapes of a scene.

In: upright boxes and cylinders, fixed to objects; the pose of a sensor; the azimuths of its columns. Out: per column the shapes
it meets, nearest first. A column has one azimuth, so a shape is solved once per column, in the plane; heights are checked by
whoever fills the column (2.5D). Camera, LiDAR and radar all start from here.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

# Columns of `shapes`, float64 [n, SHAPE_COLUMNS]: metres and radians in the frame of the object, heights above ground.
# HALF_LENGTH of a cylinder is its radius. SWING: how far it moves forward and back with the object's phase.
BOX, CYLINDER = 0.0, 1.0
KIND, OBJECT, X, Y, YAW, HALF_LENGTH, HALF_WIDTH, BOTTOM, TOP, RED, GREEN, BLUE, PATTERN, REFLECTIVITY, SWING = range(
    15
)
SHAPE_COLUMNS = 15
# Columns of `objects`, float64 [m, OBJECT_COLUMNS]: where each is, and how fast it goes where it faces.
OBJECT_X, OBJECT_Y, OBJECT_YAW, OBJECT_SPEED, OBJECT_PHASE = range(5)
OBJECT_COLUMNS = 5
# Faces that a ray meets, in the frame of the shape.
FRONT, BACK, LEFT, RIGHT, ROUND = range(5)
MOST_HITS = 40  # per column; what is behind so many shapes is not seen

# Columns of placed shapes, float64 [n, PLACED_COLUMNS], in the frame of the sensor.
_SHAPE, _CX, _CY, _COS, _SIN = range(5)
PLACED_COLUMNS = 5
# Columns of hits, float64 [columns, MOST_HITS, HIT_COLUMNS]: distances in and out [m], shape, face, place along the face [m].
NEAR, FAR, HIT_SHAPE, FACE, ALONG = range(5)
HIT_COLUMNS = 5


@njit(cache=True, nogil=True, error_model="numpy")
def place(shapes, objects, x_m, y_m, yaw_rad, reach_m, placed):  # type: ignore[no-untyped-def]
    """Shapes within reach, in the frame of a sensor at (x, y, yaw). Fills placed, gives their number."""
    cos_s, sin_s = math.cos(yaw_rad), math.sin(yaw_rad)
    count = 0
    for number in range(shapes.shape[0]):
        thing = int(shapes[number, OBJECT])
        dx, dy = objects[thing, OBJECT_X] - x_m, objects[thing, OBJECT_Y] - y_m
        if abs(dx) > reach_m + 30.0 or abs(dy) > reach_m + 30.0:
            continue
        cos_o, sin_o = math.cos(objects[thing, OBJECT_YAW]), math.sin(objects[thing, OBJECT_YAW])
        local_x = shapes[number, X] + shapes[number, SWING] * math.sin(objects[thing, OBJECT_PHASE])
        local_y = shapes[number, Y]
        dx += cos_o * local_x - sin_o * local_y
        dy += sin_o * local_x + cos_o * local_y
        cx, cy = cos_s * dx + sin_s * dy, cos_s * dy - sin_s * dx
        size = math.hypot(shapes[number, HALF_LENGTH], shapes[number, HALF_WIDTH])
        if math.hypot(cx, cy) - size > reach_m:
            continue
        yaw = objects[thing, OBJECT_YAW] + shapes[number, YAW] - yaw_rad
        placed[count, _SHAPE] = number
        placed[count, _CX], placed[count, _CY] = cx, cy
        placed[count, _COS], placed[count, _SIN] = math.cos(yaw), math.sin(yaw)
        count += 1
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def _through_circle(cx, cy, radius, cos_a, sin_a):  # type: ignore[no-untyped-def]
    """Distances in and out, face, place along it; in < 0: missed."""
    along = cx * cos_a + cy * sin_a
    across = cy * cos_a - cx * sin_a
    rest = radius * radius - across * across
    if rest <= 0.0:
        return -1.0, -1.0, ROUND, 0.0
    half = math.sqrt(rest)
    return along - half, along + half, ROUND, across


@njit(cache=True, nogil=True, error_model="numpy")
def _through_box(cx, cy, cos_b, sin_b, half_length, half_width, cos_a, sin_a):  # type: ignore[no-untyped-def]
    """As _through_circle, for an upright box: slabs in its own frame."""
    ox, oy = -(cos_b * cx + sin_b * cy), -(cos_b * cy - sin_b * cx)
    ux, uy = cos_b * cos_a + sin_b * sin_a, cos_b * sin_a - sin_b * cos_a
    near, far, face = -1e9, 1e9, FRONT
    if abs(ux) < 1e-9:
        if abs(ox) > half_length:
            return -1.0, -1.0, FRONT, 0.0
    else:
        first, last = (-half_length - ox) / ux, (half_length - ox) / ux
        if first > last:
            first, last = last, first
        near, far = first, last
        face = BACK if ux > 0.0 else FRONT
    if abs(uy) < 1e-9:
        if abs(oy) > half_width:
            return -1.0, -1.0, FRONT, 0.0
    else:
        first, last = (-half_width - oy) / uy, (half_width - oy) / uy
        if first > last:
            first, last = last, first
        if first > near:
            near = first
            face = RIGHT if uy > 0.0 else LEFT
        far = min(far, last)
    if near > far:
        return -1.0, -1.0, FRONT, 0.0
    along = oy + near * uy if face <= BACK else ox + near * ux
    return near, far, face, along


@njit(cache=True, nogil=True, error_model="numpy")
def cast(shapes, placed, count, azimuth_rad, hits, hit_count):  # type: ignore[no-untyped-def]
    """Fills hits and hit_count per column. azimuth_rad: ascending, left positive, over at most a full turn."""
    columns = azimuth_rad.size
    hit_count[:] = 0
    for number in range(count):
        shape = int(placed[number, _SHAPE])
        cx, cy = placed[number, _CX], placed[number, _CY]
        round_one = shapes[shape, KIND] == CYLINDER
        half_length, half_width = shapes[shape, HALF_LENGTH], shapes[shape, HALF_WIDTH]
        size = half_length if round_one else math.hypot(half_length, half_width)
        centre, distance = math.atan2(cy, cx), math.hypot(cx, cy)
        spread = math.pi if distance <= size else math.asin(size / distance)
        for turn in range(-1, 2):
            middle = centre + turn * 2.0 * math.pi
            if middle + spread < azimuth_rad[0] or middle - spread > azimuth_rad[columns - 1]:
                continue
            first = np.searchsorted(azimuth_rad, middle - spread)
            end = np.searchsorted(azimuth_rad, middle + spread)
            for column in range(first, end):
                cos_a, sin_a = math.cos(azimuth_rad[column]), math.sin(azimuth_rad[column])
                if round_one:
                    near, far, face, along = _through_circle(cx, cy, half_length, cos_a, sin_a)
                else:
                    near, far, face, along = _through_box(
                        cx, cy, placed[number, _COS], placed[number, _SIN], half_length, half_width, cos_a, sin_a
                    )
                if near > 0.1:
                    _insert(hits, hit_count, column, near, far, shape, face, along)


@njit(cache=True, nogil=True, error_model="numpy")
def _insert(hits, hit_count, column, near, far, shape, face, along):  # type: ignore[no-untyped-def]
    """Keeps a column's hits in order of distance; the farthest goes when there are too many."""
    size = hit_count[column]
    if size == MOST_HITS:
        if near >= hits[column, size - 1, NEAR]:
            return
        size -= 1
    at = size
    while at > 0 and hits[column, at - 1, NEAR] > near:
        for item in range(HIT_COLUMNS):
            hits[column, at, item] = hits[column, at - 1, item]
        at -= 1
    hits[column, at, NEAR], hits[column, at, FAR], hits[column, at, HIT_SHAPE] = near, far, shape
    hits[column, at, FACE], hits[column, at, ALONG] = face, along
    hit_count[column] = size + 1


@njit(cache=True, nogil=True, error_model="numpy")
def mixed(a, b):  # type: ignore[no-untyped-def]
    """A well mixed uint64 of two integers (splitmix64 finaliser): noise that depends on nothing but its arguments."""
    z = np.uint64(a) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(b) * np.uint64(0xD1B54A32D192ED03)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@njit(cache=True, nogil=True, error_model="numpy")
def uniform(a, b):  # type: ignore[no-untyped-def]
    """In [0, 1), of two integers."""
    return (mixed(a, b) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True, nogil=True, error_model="numpy")
def normal(a, b):  # type: ignore[no-untyped-def]
    """Standard normal, of two integers: the sum of eight bytes, which ends at 4.9 sigma."""
    bits = mixed(a, b)
    total = 0.0
    for _ in range(8):
        total += bits & np.uint64(255)
        bits >>= np.uint64(8)
    return (total - 1020.0) / 209.0

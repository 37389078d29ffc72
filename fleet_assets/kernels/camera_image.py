"""What a camera sees of a scene.

In: the hits of its columns (raycast.cast), the ground as a raster, light and weather as numbers. Out: an RGB image, and per
labelled object how many pixels it has, how many it would have if nothing were in front of it, and the box around the seen ones.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fleet_assets.kernels.raycast import (
    ALONG,
    BACK,
    BOTTOM,
    FACE,
    FAR,
    FRONT,
    HALF_WIDTH,
    HIT_SHAPE,
    NEAR,
    OBJECT,
    PATTERN,
    RED,
    TOP,
    mixed,
    normal,
    uniform,
)

# Patterns of shapes.
PLAIN, FACADE, BODY, GLASS, STRIPES, FOLIAGE = range(6)
# Numbers in `optics`: focal length and row of the horizon [px], height [m].
FOCAL_PX, HORIZON_PX, HEIGHT_M = range(3)
# Numbers in `light`. Radiance is relative: a white wall in full daylight is about 1. Azimuth of the sun in the world.
(
    AMBIENT, SUN, SUN_AZIMUTH, SUN_TANGENT, HEADLIGHT, LAMPS, LIT_WINDOWS, EXTINCTION, AIRLIGHT, SKY, GAIN, SHOT, READ, GLARE,
    STREAKS,
) = range(15)  # fmt: skip
LIGHT_NUMBERS = 15
_GLASS = np.array([0.16, 0.17, 0.2])
_WARM = np.array([1.0, 0.8, 0.5])
_RED = np.array([1.0, 0.08, 0.05])


@njit(cache=True, nogil=True)
def render(  # type: ignore[no-untyped-def]
    shapes, label_of, hits, hit_count, azimuth_rad, pose, optics, light, ground, ground_place, albedo, seed,
    image, visible_px, nominal_px, box_px,
):  # fmt: skip
    """label_of: int64 per object, -1: none. pose: x, y, yaw. ground: uint8 raster of classes; ground_place: x and y of its
    corner, size of a cell [m]; albedo: [classes, 3]. image: uint8 [rows, columns, 3]; visible_px, nominal_px: int64 per label;
    box_px: float64 [labels, 4], left, top, right, bottom. All of the last four are filled anew."""
    rows, columns = image.shape[0], image.shape[1]
    visible_px[:] = 0
    nominal_px[:] = 0
    box_px[:, 0], box_px[:, 1], box_px[:, 2], box_px[:, 3] = 1e9, 1e9, -1.0, -1.0
    mark = np.full(rows, -1, dtype=np.int64)
    owner = np.empty(rows, dtype=np.int64)
    paint, glow = np.empty(3), np.empty(3)
    for column in range(columns):
        at = columns - 1 - column  # images run to the right, azimuths to the left
        bearing = math.cos(azimuth_rad[column])
        owner[:] = -1
        for number in range(hit_count[column]):
            hit = hits[column, number]
            first, end = _rows_of(shapes[int(hit[HIT_SHAPE])], hit, bearing, optics, rows)
            for row in range(first, end):
                if owner[row] < 0:
                    owner[row] = number
        _count(shapes, label_of, hits[column], hit_count[column], bearing, optics, owner, mark, column, at, visible_px,
               nominal_px, box_px)  # fmt: skip
        for row in range(rows):
            slope = bearing * (optics[HORIZON_PX] - row - 0.5) / optics[FOCAL_PX]
            distance, shade = -1.0, 1.0
            glow[:] = 0.0
            if owner[row] >= 0:
                hit = hits[column, owner[row]]
                distance, shade = _surface(shapes[int(hit[HIT_SHAPE])], hit, slope, light, optics[HEIGHT_M], paint, glow)
            elif slope < 0.0:
                distance = -optics[HEIGHT_M] / slope
                _ground(pose, azimuth_rad[column], distance, ground, ground_place, albedo, paint)
            _expose(distance, shade, azimuth_rad[column], slope, pose, light, optics[HEIGHT_M], paint, glow)
            _develop(paint, light, seed, row * columns + at, image[row, at])
    _rain(light, seed, image)


@njit(cache=True, nogil=True)
def _rows_of(shape, hit, bearing, optics, rows):  # type: ignore[no-untyped-def]
    """Rows that a shape covers in a column: its face, with what is seen of its top or underside."""
    height = optics[HEIGHT_M]
    high = hit[NEAR] if shape[TOP] > height else hit[FAR]
    low = hit[NEAR] if shape[BOTTOM] < height else hit[FAR]
    first = optics[HORIZON_PX] - optics[FOCAL_PX] * (shape[TOP] - height) / (high * bearing)
    end = optics[HORIZON_PX] - optics[FOCAL_PX] * (shape[BOTTOM] - height) / (low * bearing)
    return int(min(max(math.floor(first + 0.5), 0), rows)), int(min(max(math.floor(end + 0.5), 0), rows))


@njit(cache=True, nogil=True)
def _count(  # type: ignore[no-untyped-def]
    shapes, label_of, hits, count, bearing, optics, owner, mark, column, at, visible_px, nominal_px, box_px
):
    """Pixels of labelled objects in one column. mark: per row, who was the last to count it, over all columns."""
    rows = owner.size
    for number in range(count):
        label = label_of[int(shapes[int(hits[number, HIT_SHAPE]), OBJECT])]
        known = label < 0
        for other in range(number):
            known = known or label_of[int(shapes[int(hits[other, HIT_SHAPE]), OBJECT])] == label
        if known:
            continue
        turn = column * visible_px.size + label  # an object's shapes overlap, and a row counts once
        for part in range(number, count):
            shape = int(hits[part, HIT_SHAPE])
            if label_of[int(shapes[shape, OBJECT])] != label:
                continue
            first, end = _rows_of(shapes[shape], hits[part], bearing, optics, rows)
            for row in range(first, end):
                if mark[row] == turn:
                    continue
                mark[row] = turn
                nominal_px[label] += 1
                if label_of[int(shapes[int(hits[owner[row], HIT_SHAPE]), OBJECT])] == label:
                    visible_px[label] += 1
                    box = box_px[label]
                    box[0], box[1] = min(box[0], at), min(box[1], row)
                    box[2], box[3] = max(box[2], at + 1.0), max(box[3], row + 1.0)


@njit(cache=True, nogil=True)
def _surface(shape, hit, slope, light, height, paint, glow):  # type: ignore[no-untyped-def]
    """Albedo and own light of a shape where a ray meets it; gives distance, and share of the light that falls on it."""
    distance, face = hit[NEAR], int(hit[FACE])
    z = height + distance * slope
    shade = 0.75 if face == FRONT or face == BACK else 0.85
    if z > shape[TOP]:
        distance, shade, z = min((shape[TOP] - height) / slope, hit[FAR]), 1.0, shape[TOP]
    elif z < shape[BOTTOM]:
        distance, shade, z = min((shape[BOTTOM] - height) / slope, hit[FAR]), 0.35, shape[BOTTOM]
    along, pattern, number = hit[ALONG], int(shape[PATTERN]), int(hit[HIT_SHAPE])
    for part in range(3):
        paint[part] = shape[RED + part]
    if pattern == FACADE:
        across, up = along - 3.0 * math.floor(along / 3.0), z - 3.0 * math.floor(z / 3.0)
        if 0.8 < across < 2.2 and 1.0 < up < 2.4:
            window = uniform(number * 977 + int(math.floor(along / 3.0)) + 64, int(z / 3.0) * 5 + face)
            for part in range(3):
                paint[part] = _GLASS[part]
                glow[part] = light[LAMPS] * 0.12 * _WARM[part] if window < light[LIT_WINDOWS] else 0.0
    elif pattern == BODY:
        if z < 0.36:
            for part in range(3):
                paint[part] *= 0.15
        elif face <= BACK and 0.5 < z < 0.85 and abs(along) > 0.6 * shape[HALF_WIDTH]:
            for part in range(3):
                paint[part] = 0.6 if face == FRONT else 0.5 * _RED[part]
                glow[part] = light[LAMPS] * (2.5 * _WARM[part] if face == FRONT else 0.5 * _RED[part])
    elif pattern == GLASS:
        if z < shape[TOP] - 0.12:
            for part in range(3):
                paint[part] = _GLASS[part]
    elif pattern == STRIPES:
        if int(math.floor((along + z) * 2.5)) % 2 == 0:
            paint[0], paint[1], paint[2] = 0.85, 0.85, 0.85
    elif pattern == FOLIAGE:
        leaf = 0.5 + uniform(number * 131 + int(math.floor(along * 3.0)) + 99, int(z * 3.0))
        for part in range(3):
            paint[part] *= leaf
    return distance, shade


@njit(cache=True, nogil=True)
def _ground(pose, azimuth_rad, distance, ground, ground_place, albedo, paint):  # type: ignore[no-untyped-def]
    """Albedo of the ground at that distance."""
    x = pose[0] + distance * math.cos(pose[2] + azimuth_rad) - ground_place[0]
    y = pose[1] + distance * math.sin(pose[2] + azimuth_rad) - ground_place[1]
    column, row = int(x / ground_place[2]), int(y / ground_place[2])
    kind = 0
    if 0 <= row < ground.shape[0] and 0 <= column < ground.shape[1]:
        kind = ground[row, column]
    grain = 0.85 + 0.3 * uniform(row, column) if distance < 25.0 else 1.0
    for part in range(3):
        paint[part] = albedo[kind, part] * grain


@njit(cache=True, nogil=True)
def _expose(distance, shade, azimuth_rad, slope, pose, light, height, paint, glow):  # type: ignore[no-untyped-def]
    """Albedo in, radiance out (both in paint): daylight, our headlights, the air between, glare. distance < 0: sky."""
    if distance < 0.0:
        fade = 1.0 / (1.0 + 3.0 * slope)
        paint[0] = light[SKY] * (0.55 + 0.4 * fade)
        paint[1] = light[SKY] * (0.7 + 0.27 * fade)
        paint[2] = light[SKY]
    else:
        lit = light[AMBIENT] * shade + light[SUN] * max(0.0, shade - 0.5)
        if light[HEADLIGHT] > 0.0:
            # Low beams: ahead, and little above the bonnet.
            beam = light[HEADLIGHT] / (1.0 + (distance / 9.0) ** 2) / (1.0 + (azimuth_rad / 0.35) ** 4)
            z = height + distance * slope
            if z > 0.9:
                beam /= 1.0 + ((z - 0.9) * 10.0 / max(distance, 1.0)) ** 2
            lit += beam
        through = math.exp(-light[EXTINCTION] * distance)
        for part in range(3):
            paint[part] = (paint[part] * lit + glow[part]) * through + light[AIRLIGHT] * (1.0 - through)
    if light[GLARE] > 0.0:
        off = pose[2] + azimuth_rad - light[SUN_AZIMUTH]
        off -= 2.0 * math.pi * math.floor(off / (2.0 * math.pi) + 0.5)
        veil = light[GLARE] * (0.02 / (0.004 + off * off + (slope - light[SUN_TANGENT]) ** 2))
        for part in range(3):
            paint[part] += veil * _WARM[part]


@njit(cache=True, nogil=True)
def _develop(radiance, light, seed, pixel, out):  # type: ignore[no-untyped-def]
    """Radiance to 8 bit: gain, shot and read noise, gamma 2."""
    bits = mixed(seed, pixel)
    for part in range(3):
        value = light[GAIN] * radiance[part]
        draw = float(bits & np.uint64(1023)) + float((bits >> np.uint64(10)) & np.uint64(1023)) - 1023.0
        bits >>= np.uint64(20)
        value += draw / 418.0 * math.sqrt(light[SHOT] * value + light[READ] * light[READ])
        out[part] = int(255.0 * math.sqrt(min(max(value, 0.0), 1.0)))


@njit(cache=True, nogil=True)
def _rain(light, seed, image):  # type: ignore[no-untyped-def]
    """Streaks, brighter than what is behind them."""
    rows, columns = image.shape[0], image.shape[1]
    for streak in range(int(light[STREAKS] * columns)):
        column = int(uniform(seed, -1 - 4 * streak) * columns)
        row = int(uniform(seed, -2 - 4 * streak) * rows)
        length = int((0.06 + 0.1 * uniform(seed, -3 - 4 * streak)) * rows)
        gain = 10.0 + 8.0 * abs(normal(seed, -4 - 4 * streak))
        for at in range(row, min(row + length, rows)):
            for part in range(3):
                image[at, column, part] = min(255, int(image[at, column, part] + gain))

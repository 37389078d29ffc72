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
    BLUE,
    BOTTOM,
    FACE,
    FAR,
    FRONT,
    GREEN,
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


@njit(cache=True, nogil=True, error_model="numpy")
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
    # Per row of a column: distance (negative: sky), share of the light, albedo (later radiance), own light.
    distance, shade, paint, glow = np.empty(rows), np.empty(rows), np.empty((rows, 3)), np.empty((rows, 3))
    for column in range(columns):
        at = columns - 1 - column  # images run to the right, azimuths to the left
        bearing = math.cos(azimuth_rad[column])
        owner[:] = -1
        for number in range(hit_count[column]):
            first, end = _rows_of(shapes, hits, column, number, bearing, optics, rows)
            for row in range(first, end):
                if owner[row] < 0:
                    owner[row] = number
        _count(shapes, label_of, hits, hit_count[column], bearing, optics, owner, mark, column, at, visible_px,
               nominal_px, box_px)  # fmt: skip
        glow[:] = 0.0
        first = 0
        while first < rows:
            end = first + 1
            while end < rows and owner[end] == owner[first]:
                end += 1
            if owner[first] >= 0:
                _surface(
                    shapes, hits, column, owner[first], bearing, optics, light, first, end, distance, shade, paint, glow
                )
            else:
                place = (pose, azimuth_rad[column], bearing, optics)
                _ground(*place, ground, ground_place, albedo, first, end, distance, shade, paint)
            first = end
        _expose(distance, shade, azimuth_rad[column], bearing, pose, light, optics, paint, glow)
        _develop(paint, light, seed, image, at)
    _rain(light, seed, image)


@njit(cache=True, nogil=True, error_model="numpy")
def _slope(row, bearing, optics):  # type: ignore[no-untyped-def]
    """Tangent of the elevation of a row's middle; never 0, for the horizon is a whole row."""
    return bearing * (optics[HORIZON_PX] - row - 0.5) / optics[FOCAL_PX]


@njit(cache=True, nogil=True, error_model="numpy")
def _rows_of(shapes, hits, column, number, bearing, optics, rows):  # type: ignore[no-untyped-def]
    """Rows that a shape covers in a column: its face, with what is seen of its top or underside."""
    shape = int(hits[column, number, HIT_SHAPE])
    top, bottom = shapes[shape, TOP] - optics[HEIGHT_M], shapes[shape, BOTTOM] - optics[HEIGHT_M]
    high = hits[column, number, NEAR if top > 0.0 else FAR]
    low = hits[column, number, NEAR if bottom < 0.0 else FAR]
    first = optics[HORIZON_PX] - optics[FOCAL_PX] * top / (high * bearing)
    end = optics[HORIZON_PX] - optics[FOCAL_PX] * bottom / (low * bearing)
    return int(min(max(math.floor(first + 0.5), 0), rows)), int(min(max(math.floor(end + 0.5), 0), rows))


@njit(cache=True, nogil=True, error_model="numpy")
def _count(  # type: ignore[no-untyped-def]
    shapes, label_of, hits, count, bearing, optics, owner, mark, column, at, visible_px, nominal_px, box_px
):
    """Pixels of labelled objects in one column. mark: per row, who was the last to count it, over all columns."""
    rows = owner.size
    for number in range(count):
        label = label_of[int(shapes[int(hits[column, number, HIT_SHAPE]), OBJECT])]
        known = label < 0
        for other in range(number):
            known = known or label_of[int(shapes[int(hits[column, other, HIT_SHAPE]), OBJECT])] == label
        if known:
            continue
        turn = column * visible_px.size + label  # an object's shapes overlap, and a row counts once
        for part in range(number, count):
            shape = int(hits[column, part, HIT_SHAPE])
            if label_of[int(shapes[shape, OBJECT])] != label:
                continue
            first, end = _rows_of(shapes, hits, column, part, bearing, optics, rows)
            for row in range(first, end):
                if mark[row] == turn:
                    continue
                mark[row] = turn
                nominal_px[label] += 1
                if label_of[int(shapes[int(hits[column, owner[row], HIT_SHAPE]), OBJECT])] == label:
                    visible_px[label] += 1
                    box_px[label, 0], box_px[label, 1] = min(box_px[label, 0], at), min(box_px[label, 1], row)
                    box_px[label, 2] = max(box_px[label, 2], at + 1.0)
                    box_px[label, 3] = max(box_px[label, 3], row + 1.0)


@njit(cache=True, nogil=True, error_model="numpy")
def _surface(  # type: ignore[no-untyped-def]
    shapes, hits, column, at, bearing, optics, light, first, end, distance, shade, paint, glow
):
    """A run of rows of one shape: where it is met, its albedo and own light, and the share of the light that falls on it."""
    number, near, face = int(hits[column, at, HIT_SHAPE]), hits[column, at, NEAR], int(hits[column, at, FACE])
    top, bottom, far, height = shapes[number, TOP], shapes[number, BOTTOM], hits[column, at, FAR], optics[HEIGHT_M]
    along, pattern = hits[column, at, ALONG], int(shapes[number, PATTERN])
    red, green, blue = shapes[number, RED], shapes[number, GREEN], shapes[number, BLUE]
    lamp = face <= BACK and abs(along) > 0.6 * shapes[number, HALF_WIDTH]
    pane = math.floor(along / 3.0)
    for row in range(first, end):
        slope = _slope(row, bearing, optics)
        z = height + near * slope
        distance[row], shade[row] = near, 0.75 if face <= BACK else 0.85
        if z > top:
            distance[row], shade[row], z = min((top - height) / slope, far), 1.0, top
        elif z < bottom:
            distance[row], shade[row], z = min((bottom - height) / slope, far), 0.35, bottom
        paint[row, 0], paint[row, 1], paint[row, 2] = red, green, blue
        if pattern == FACADE:
            across, up = along - 3.0 * pane, z - 3.0 * math.floor(z / 3.0)
            if 0.8 < across < 2.2 and 1.0 < up < 2.4:
                lit = uniform(number * 977 + pane + 64, int(z / 3.0) * 5 + face) < light[LIT_WINDOWS]
                for part in range(3):
                    paint[row, part] = _GLASS[part]
                    glow[row, part] = light[LAMPS] * 0.12 * _WARM[part] if lit else 0.0
        elif pattern == BODY:
            if z < 0.36:
                for part in range(3):
                    paint[row, part] *= 0.15
            elif lamp and 0.5 < z < 0.85:
                for part in range(3):
                    paint[row, part] = 0.6 if face == FRONT else 0.5 * _RED[part]
                    glow[row, part] = light[LAMPS] * (2.5 * _WARM[part] if face == FRONT else 0.5 * _RED[part])
        elif pattern == GLASS:
            if z < top - 0.12:
                for part in range(3):
                    paint[row, part] = _GLASS[part]
        elif pattern == STRIPES:
            if math.floor((along + z) * 2.5) % 2 == 0:
                paint[row, 0], paint[row, 1], paint[row, 2] = 0.85, 0.85, 0.85
        elif pattern == FOLIAGE:
            leaf = 0.5 + uniform(number * 131 + math.floor(along * 3.0) + 99, int(z * 3.0))
            for part in range(3):
                paint[row, part] *= leaf


@njit(cache=True, nogil=True, error_model="numpy")
def _ground(  # type: ignore[no-untyped-def]
    pose, azimuth_rad, bearing, optics, ground, ground_place, albedo, first, end, distance, shade, paint
):
    """A run of rows without a shape: sky, and the albedo of the ground."""
    cos_a, sin_a = math.cos(pose[2] + azimuth_rad), math.sin(pose[2] + azimuth_rad)
    for row in range(first, end):
        slope = _slope(row, bearing, optics)
        distance[row], shade[row] = -1.0, 1.0
        if slope > 0.0:
            continue
        away = -optics[HEIGHT_M] / slope
        distance[row] = away
        across = int((pose[0] + away * cos_a - ground_place[0]) / ground_place[2])
        up = int((pose[1] + away * sin_a - ground_place[1]) / ground_place[2])
        kind = 0
        if 0 <= up < ground.shape[0] and 0 <= across < ground.shape[1]:
            kind = ground[up, across]
        grain = 0.85 + 0.3 * uniform(up, across) if away < 25.0 else 1.0
        for part in range(3):
            paint[row, part] = albedo[kind, part] * grain


@njit(cache=True, nogil=True, error_model="numpy")
def _expose(distance, shade, azimuth_rad, bearing, pose, light, optics, paint, glow):  # type: ignore[no-untyped-def]
    """Albedo in, radiance out (both in paint), for a column: daylight, our headlights, the air between, glare."""
    ambient, sun, air, sky = light[AMBIENT], light[SUN], light[AIRLIGHT], light[SKY]
    ahead = light[HEADLIGHT] / (1.0 + (azimuth_rad / 0.35) ** 4)
    off = pose[2] + azimuth_rad - light[SUN_AZIMUTH]
    off -= 2.0 * math.pi * math.floor(off / (2.0 * math.pi) + 0.5)
    for row in range(distance.size):
        slope, away = _slope(row, bearing, optics), distance[row]
        if away < 0.0:
            fade = 1.0 / (1.0 + 3.0 * slope)
            paint[row, 0], paint[row, 1], paint[row, 2] = sky * (0.55 + 0.4 * fade), sky * (0.7 + 0.27 * fade), sky
        else:
            lit = ambient * shade[row] + sun * max(0.0, shade[row] - 0.5)
            if ahead > 0.0:
                # Low beams: little goes above the bonnet.
                high = max(0.0, optics[HEIGHT_M] + away * slope - 0.9) * 10.0 / max(away, 1.0)
                lit += ahead / ((1.0 + away * away / 81.0) * (1.0 + high * high))
            through = math.exp(-light[EXTINCTION] * away)
            for part in range(3):
                paint[row, part] = (paint[row, part] * lit + glow[row, part]) * through + air * (1.0 - through)
        if light[GLARE] > 0.0:
            veil = light[GLARE] * (0.02 / (0.004 + off * off + (slope - light[SUN_TANGENT]) ** 2))
            for part in range(3):
                paint[row, part] += veil * _WARM[part]


@njit(cache=True, nogil=True, error_model="numpy")
def _develop(radiance, light, seed, image, at):  # type: ignore[no-untyped-def]
    """Radiance of a column to 8 bit: gain, shot and read noise, gamma 2."""
    gain, shot, read = light[GAIN], light[SHOT], light[READ] * light[READ]
    for row in range(radiance.shape[0]):
        bits = mixed(seed, row * image.shape[1] + at)
        for part in range(3):
            value = gain * radiance[row, part]
            draw = float(bits & np.uint64(1023)) + float((bits >> np.uint64(10)) & np.uint64(1023)) - 1023.0
            bits >>= np.uint64(20)
            value += draw * (1.0 / 418.0) * math.sqrt(shot * value + read)
            image[row, at, part] = int(255.0 * math.sqrt(min(max(value, 0.0), 1.0)))


@njit(cache=True, nogil=True, error_model="numpy")
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

"""What a LiDAR and a radar measure of a scene.

In: the hits of their columns (raycast.cast), air and electronics as numbers. Out: points of a LiDAR sweep; power and radial
velocity of a radar sweep over range and azimuth.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from fleet_assets.kernels.raycast import (
    BOTTOM,
    FAR,
    HIT_SHAPE,
    NEAR,
    OBJECT,
    OBJECT_SPEED,
    OBJECT_YAW,
    REFLECTIVITY,
    TOP,
    mixed,
    normal,
    uniform,
)

# Numbers in `lidar`: height of the unit and range [m], extinction [1/m], share of rays that come back from the air itself,
# range noise [m], reflectivity of the ground.
HEIGHT_M, REACH_M, EXTINCTION, BACKSCATTER, NOISE_M, GROUND = range(6)
# Numbers in `radar`: size of a range bin [m], received power of a unit cross-section at 20 m over the mean noise, spread of a
# velocity [m/s], ghosts in a sweep, share of them with a false velocity, largest velocity [m/s].
BIN_M, POWER, NOISE_MPS, GHOSTS, FALSE_VELOCITY, MOST_MPS = range(6)
RAYS_PER_BEAM = 3
_BEHIND = 0.35  # share of power that reaches what is behind a shape: round it, under it


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_lidar(shapes, hits, hit_count, azimuth_rad, tangents, lidar, seed, points):  # type: ignore[no-untyped-def]
    """Fills points, float32 [at least columns * beams, 4]: x, y, z in the frame of the vehicle (z from the ground), intensity.
    tangents: of the beams' elevations. A ray without a return gives no point; gives the number of points."""
    height, count = lidar[HEIGHT_M], 0
    for column in range(azimuth_rad.size):
        cos_a, sin_a = math.cos(azimuth_rad[column]), math.sin(azimuth_rad[column])
        for beam in range(tangents.size):
            slope = tangents[beam]
            distance, share = lidar[REACH_M] * 2.0, 0.0
            if slope < 0.0:
                distance, share = -height / slope, lidar[GROUND]
            for number in range(hit_count[column]):
                near = hits[column, number, NEAR]
                if near >= distance:
                    break
                shape = int(hits[column, number, HIT_SHAPE])
                z, top = height + near * slope, shapes[shape, TOP]
                if shapes[shape, BOTTOM] <= z <= top:
                    distance, share = near, shapes[shape, REFLECTIVITY]
                    break
                if z > top > height + hits[column, number, FAR] * slope:
                    distance, share = (top - height) / slope, shapes[shape, REFLECTIVITY]
                    break
            slant = distance * math.sqrt(1.0 + slope * slope)
            ray = column * tangents.size + beam
            luck = uniform(seed, 3 * ray)
            if luck < lidar[BACKSCATTER]:
                air = 1.0 - 7.0 * math.log(1.0 - 0.999 * uniform(seed, 3 * ray + 1))
                if air < slant:
                    slant, share, luck = air, 0.04, 0.0
            if slant > lidar[REACH_M]:
                continue
            power = share * math.exp(-2.0 * lidar[EXTINCTION] * slant) * min(1.0, (30.0 / slant) ** 2)
            if luck > 1.0 - math.exp(-60.0 * power):  # below the threshold of the detector
                continue
            slant += lidar[NOISE_M] * normal(seed, 3 * ray + 2)
            flat = slant / math.sqrt(1.0 + slope * slope)
            points[count, 0], points[count, 1] = flat * cos_a, flat * sin_a
            points[count, 2], points[count, 3] = height + flat * slope, min(power * 2.0, 1.0)
            count += 1
    return count


@njit(cache=True, nogil=True, error_model="numpy")
def sweep_radar(shapes, objects, section, hits, hit_count, azimuth_rad, yaw_rad, radar, seed, image):  # type: ignore[no-untyped-def]
    """Fills image, uint8 [bins, beams, 3]: power as 20 + 24 ln(1 + power / noise), radial velocity over ground as
    127.5 + 127.5 * v / MOST_MPS (away is positive), 0. section: cross-section per object; azimuth_rad: RAYS_PER_BEAM per beam;
    column 0 of the image is the leftmost beam. yaw_rad: of the sensor, in the world."""
    bins, beams = image.shape[0], image.shape[1]
    power, moment = np.zeros((bins, beams)), np.zeros((bins, beams))
    for ray in range(azimuth_rad.size):
        beam, through = ray // RAYS_PER_BEAM, 1.0
        last = -1
        for number in range(hit_count[ray]):
            hit = hits[ray, number]
            bin_at = int(hit[NEAR] / radar[BIN_M])
            if bin_at >= bins or through < 0.01:
                break
            thing = int(shapes[int(hit[HIT_SHAPE]), OBJECT])
            if thing == last or shapes[int(hit[HIT_SHAPE]), BOTTOM] > 2.2:
                continue
            last = thing
            fading = 0.4 - 0.6 * math.log(1.0 - 0.999 * uniform(seed, 7919 * thing + ray))
            echo = radar[POWER] * section[thing] * through * fading * (20.0 / max(hit[NEAR], 2.0)) ** 4 / RAYS_PER_BEAM
            bearing = objects[thing, OBJECT_YAW] - yaw_rad - azimuth_rad[ray]
            speed = objects[thing, OBJECT_SPEED] * math.cos(bearing) + radar[NOISE_MPS] * normal(
                seed, 104729 * thing + ray
            )
            for side in range(-1, 2):
                share = 1.0 if side == 0 else 0.12
                for deep in range(2):
                    at, to = beam + side, bin_at + deep
                    if 0 <= at < beams and to < bins:
                        part = echo * share * (1.0 if deep == 0 else 0.3)
                        power[to, at] += part
                        moment[to, at] += part * speed
            through *= _BEHIND
    _add_ghosts(power, moment, radar, seed)
    for to in range(bins):
        for at in range(beams):
            cell = to * beams + at
            noise = -math.log(1.0 - 0.999999 * uniform(seed, -1 - 2 * cell))
            total = power[to, at] + noise
            wander = radar[MOST_MPS] * (2.0 * uniform(seed, -2 - 2 * cell) - 1.0)
            speed = (moment[to, at] + noise * wander) / total
            column = beams - 1 - at
            image[to, column, 0] = int(min(255.0, 20.0 + 24.0 * math.log(1.0 + total)))
            image[to, column, 1] = int(min(255.0, max(0.0, 127.5 + 127.5 * speed / radar[MOST_MPS])))
            image[to, column, 2] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def _add_ghosts(power, moment, radar, seed):  # type: ignore[no-untyped-def]
    """Echoes of what is not there: multiple paths, interference."""
    bins, beams = power.shape
    for ghost in range(int(radar[GHOSTS])):
        bits = mixed(seed, 1_000_003 + ghost)
        to = int(bits % np.uint64(bins))
        at = int((bits >> np.uint64(20)) % np.uint64(beams))
        strength = 2.0 * math.exp(1.1 * normal(seed, 2_000_003 + ghost))
        speed = 0.0
        if uniform(seed, 3_000_017 + ghost) < radar[FALSE_VELOCITY]:
            speed = 0.6 * radar[MOST_MPS] * (2.0 * uniform(seed, 4_000_037 + ghost) - 1.0)
        power[to, at] += strength * 6.0
        moment[to, at] += strength * 6.0 * speed

"""The one pre-processing: what sensors said for a frame -> what a model is given.

In: pixels and points as edge/messages.py decodes them, how old they are, the vehicle's motion. Out: camera image, bird's-eye grid
of the LiDAR, radar in polar form brought to the time of the frame, and which features go with them. Training, evaluation and the
vehicle call these functions; a sensor without a record is all zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numba import njit

# The grid that models work on: x ahead, y left of the vehicle's origin.
GRID_CELLS, CELL_M = 48, 1.0
GRID_X_M = (0.0, 48.0)
GRID_Y_M = (-24.0, 24.0)
CAMERA_SHAPE = (64, 256, 3)
# Of the camera: horizontal field, share of rows above the horizon, height; where the sensors sit, ahead of the origin.
CAMERA_FIELD_DEG, CAMERA_HORIZON, CAMERA_HEIGHT_M, MOUNT_M = 90.0, 0.4, 1.5, 1.3
# Returns in three layers of height, the highest return, the mean intensity.
LIDAR_CHANNELS = ("low", "middle", "high", "top", "intensity")
LIDAR_CELLS = 96  # of half a metre
LIDAR_SHAPE = (len(LIDAR_CHANNELS), LIDAR_CELLS, LIDAR_CELLS)
_GROUND_M, _LAYERS_M, _CEILING_M = 0.25, (0.7, 1.3), 3.5
# The radial velocity over ground that each channel of the radar's input stands for. Those of noise lie anywhere, most of them
# further out than anybody walks or rides.
RADAR_VELOCITIES_MPS = (-14.0, -6.0, -1.3, 0.0, 1.3, 6.0, 14.0)
# In one sweep a walker's echo fades and a ghost is as strong; in the next, the echo is there and the ghost is elsewhere.
RADAR_SWEEPS = 4
RADAR_LONGEST_NS = 1_300_000_000  # a sweep older than this before the frame's own is not looked at
# Power over range and azimuth, by velocity: of the frame's sweep, and the mean of those before it. Column 0 is the leftmost beam.
RADAR_SHAPE = (2 * len(RADAR_VELOCITIES_MPS), 64, 48)
RADAR_REACH_M, RADAR_FIELD_DEG, RADAR_MOST_MPS = 48.0, 100.8, 16.0
_RADAR_FLOOR, _RADAR_SCALE = 20.0, 100.0  # a sweep tells 20 + 24 ln(1 + power / noise)
_VELOCITIES_MPS = np.array(RADAR_VELOCITIES_MPS)

# view:feature of the context vector, in its order.
CONTEXT = (
    *(f"ego_motion:{name}" for name in ("speed_mps", "yaw_rate_radps")),
    *(
        f"scene_context:{name}"
        for name in (
            "ambient_light", "image_contrast", "image_sharpness", "glare_share", "lidar_returns", "lidar_far_range_m",
            "lidar_near_share", "lidar_intensity", "radar_returns", "radar_clutter_share", "visibility_m", "rain_estimate",
            "fog_estimate",
        )
    ),
    *(f"sensor_health:{name}" for name in ("camera_blind", "lidar_blind", "camera_delay_ms", "lidar_delay_ms", "radar_delay_ms")),
)  # fmt: skip
SPEED, YAW_RATE = CONTEXT.index("ego_motion:speed_mps"), CONTEXT.index("ego_motion:yaw_rate_radps")


def camera_input(pixels: np.ndarray | None) -> np.ndarray:
    """uint8 [64, 256, 3] of any image of the same field: cells of the larger picture are averaged, grey becomes RGB."""
    image = np.zeros(CAMERA_SHAPE, dtype=np.uint8)
    if pixels is not None and pixels.size:
        if pixels.shape == CAMERA_SHAPE:
            return pixels
        _shrink(pixels, image)
    return image


@njit(cache=True, nogil=True)
def _shrink(pixels: np.ndarray, image: np.ndarray) -> None:
    rows, columns, channels = pixels.shape
    for y in range(image.shape[0]):
        top = y * rows // image.shape[0]
        bottom = max((y + 1) * rows // image.shape[0], top + 1)
        for x in range(image.shape[1]):
            left = x * columns // image.shape[1]
            right = max((x + 1) * columns // image.shape[1], left + 1)
            for colour in range(3):
                channel = colour if channels >= 3 else 0
                total = 0
                for row in range(top, bottom):
                    for column in range(left, right):
                        total += int(pixels[row, column, channel])
                image[y, x, colour] = total // ((bottom - top) * (right - left))


def lidar_input(points: np.ndarray | None) -> np.ndarray:
    """float32 [5, 96, 96] of points float64 [n, 4] (x, y, z from the ground [m], intensity); row 0 is nearest, column 0
    is right."""
    grid = np.zeros(LIDAR_SHAPE, dtype=np.float32)
    if points is not None:
        _fill_grid(points, grid)
    return grid


@njit(cache=True, nogil=True)
def _fill_grid(points: np.ndarray, grid: np.ndarray) -> None:
    """Counts are told as ln(1 + n), heights over the ceiling of a lorry are no objects of ours."""
    per_m = grid.shape[1] / (GRID_X_M[1] - GRID_X_M[0])
    for point in range(points.shape[0]):
        x, y, z = points[point, 0], points[point, 1], points[point, 2]
        # Written so that a NaN fails.
        if not (_GROUND_M <= z < _CEILING_M and GRID_X_M[0] <= x < GRID_X_M[1] and GRID_Y_M[0] <= y < GRID_Y_M[1]):
            continue
        row, column = int((x - GRID_X_M[0]) * per_m), int((y - GRID_Y_M[0]) * per_m)
        layer = 0 if z < _LAYERS_M[0] else (1 if z < _LAYERS_M[1] else 2)
        grid[layer, row, column] += 1.0
        grid[3, row, column] = max(grid[3, row, column], np.float32(z / _CEILING_M))
        intensity = points[point, 3]
        if intensity > 0.0:
            grid[4, row, column] += np.float32(min(intensity, 1.0))
    for row in range(grid.shape[1]):
        for column in range(grid.shape[2]):
            count = grid[0, row, column] + grid[1, row, column] + grid[2, row, column]
            if count > 0.0:
                grid[4, row, column] /= count
            for layer in range(3):
                grid[layer, row, column] = math.log(1.0 + grid[layer, row, column])


def radar_input(
    sweeps: Sequence[tuple[np.ndarray | None, float]], speed_mps: float, yaw_rate_radps: float
) -> np.ndarray:
    """float32 [14, 64, 48] of images of echoes and how old each is [s], the frame's own first, then those before it: channel 0
    power, channel 1 radial velocity over ground, 127.5 + 127.5 v / 16, away is positive [m/s].

    Power is shared between the two RADAR_VELOCITIES_MPS next to an echo's velocity, so that a walker's weak echo is not lost in
    what noise has. All is moved to where it is at the time of the frame: an echo has gone on along its beam, the vehicle has
    driven on and turned since the sweep. Motion that is not known (NaN) moves nothing. Without the frame's sweep, all is zero.
    """
    polar = np.zeros(RADAR_SHAPE, dtype=np.float32)
    now, before = np.split(polar, 2)
    earlier = 0
    for number, (pixels, age_s) in enumerate(sweeps):
        if pixels is None or not pixels.size:
            if number == 0:
                break
            continue
        moved_s = age_s if math.isfinite(age_s) else 0.0
        way_m = speed_mps * moved_s if math.isfinite(speed_mps) else 0.0
        turn_rad = yaw_rate_radps * moved_s if math.isfinite(yaw_rate_radps) else 0.0
        echoes = np.zeros((*pixels.shape[:2], len(RADAR_VELOCITIES_MPS)), dtype=np.float32)
        _by_velocity(pixels, moved_s, _VELOCITIES_MPS, echoes)
        _bring_forward(echoes, way_m, turn_rad, before if number else now)
        earlier += number > 0
    before /= max(earlier, 1)
    return polar


@njit(cache=True, nogil=True)
def _by_velocity(pixels: np.ndarray, moved_s: float, velocities_mps: np.ndarray, echoes: np.ndarray) -> None:
    """Fills echoes [bins, beams, velocities], each between the two bins that it has come to."""
    bins, beams, last = echoes.shape[0], echoes.shape[1], velocities_mps.size - 1
    for bin_at in range(bins):
        for beam in range(beams):
            power = max(pixels[bin_at, beam, 0] - _RADAR_FLOOR, 0.0) / _RADAR_SCALE
            velocity_mps = (pixels[bin_at, beam, 1] / 127.5 - 1.0) * RADAR_MOST_MPS
            above = 1
            while above < last and velocity_mps > velocities_mps[above]:
                above += 1
            step_mps = velocities_mps[above] - velocities_mps[above - 1]
            share = min(max((velocity_mps - velocities_mps[above - 1]) / step_mps, 0.0), 1.0)
            row = bin_at + velocity_mps * moved_s * bins / RADAR_REACH_M
            first = math.floor(row)
            for to in range(first, first + 2):
                if 0 <= to < bins:
                    part = power * (1.0 - abs(row - to))
                    echoes[to, beam, above - 1] += np.float32(part * (1.0 - share))
                    echoes[to, beam, above] += np.float32(part * share)


@njit(cache=True, nogil=True)
def _bring_forward(echoes: np.ndarray, way_m: float, turn_rad: float, polar: np.ndarray) -> None:
    bins, beams = echoes.shape[0], echoes.shape[1]
    field = math.radians(RADAR_FIELD_DEG)
    cos_t, sin_t = math.cos(turn_rad), math.sin(turn_rad)
    away_x, away_y = way_m * math.cos(turn_rad / 2.0), way_m * math.sin(turn_rad / 2.0)
    for to in range(polar.shape[1]):
        range_m = (to + 0.5) * RADAR_REACH_M / polar.shape[1]
        for column in range(polar.shape[2]):
            azimuth = field * (0.5 - (column + 0.5) / polar.shape[2])
            x, y = MOUNT_M + range_m * math.cos(azimuth), range_m * math.sin(azimuth)
            then_x = away_x + cos_t * x - sin_t * y - MOUNT_M
            then_y = away_y + sin_t * x + cos_t * y
            row = math.hypot(then_x, then_y) * bins / RADAR_REACH_M - 0.5
            beam = (0.5 - math.atan2(then_y, then_x) / field) * beams - 0.5
            _sample(echoes, row, beam, polar, to, column)


@njit(cache=True, nogil=True)
def _sample(echoes: np.ndarray, row: float, beam: float, polar: np.ndarray, to: int, column: int) -> None:
    """Between four cells of the sweep; outside it there is nothing."""
    first_row, first_beam = math.floor(row), math.floor(beam)
    share_row, share_beam = row - first_row, beam - first_beam
    for down in range(2):
        for right in range(2):
            at_row, at_beam = first_row + down, first_beam + right
            if not (0 <= at_row < echoes.shape[0] and 0 <= at_beam < echoes.shape[1]):
                continue
            weight = (share_row if down else 1.0 - share_row) * (share_beam if right else 1.0 - share_beam)
            for channel in range(echoes.shape[2]):
                polar[channel, to, column] += np.float32(weight * echoes[at_row, at_beam, channel])


def in_grid(x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
    """bool [n]: places that lie in the grid."""
    return (x_m >= GRID_X_M[0]) & (x_m < GRID_X_M[1]) & (y_m >= GRID_Y_M[0]) & (y_m < GRID_Y_M[1])


# ---- what a model is given --------------------------------------------------------------------------------------------

# Names and shapes of a model's inputs, without the frames.
INPUTS = {
    "camera": (CAMERA_SHAPE[2], *CAMERA_SHAPE[:2]),
    "lidar": LIDAR_SHAPE,
    "radar": RADAR_SHAPE,
    "context": (len(CONTEXT),),
    "health": (6,),  # of camera, LiDAR and radar: whether it is there, and how old it is [0.3 s]
}
_AGE_SCALE_S, _MOST_DEVIATIONS = 0.3, 4.0


def normalised(
    camera: np.ndarray,
    lidar: np.ndarray,
    radar: np.ndarray,
    context: np.ndarray,
    age_s: np.ndarray,
    statistics: Mapping[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """float32 arrays of INPUTS, [n, ...] each, of n frames as the functions above and edge/assemble.py make them.

    statistics: camera_mean, camera_std [3] (of pixels, 0 to 1), lidar_scale [5], radar_scale [14], context_mean, context_std
    [features]. What is unknown is as the mean; a sensor without a record is zero.
    """
    there = ~np.isnan(age_s)
    pixels = camera.transpose(0, 3, 1, 2).astype(np.float32) * np.float32(1 / 255)
    image = (pixels - _of_channels(statistics["camera_mean"])) / _of_channels(statistics["camera_std"])
    deviation = (context - statistics["context_mean"]) / statistics["context_std"]
    deviation = np.clip(np.nan_to_num(deviation, nan=0.0), -_MOST_DEVIATIONS, _MOST_DEVIATIONS)
    age = np.clip(np.nan_to_num(age_s / _AGE_SCALE_S, nan=0.0), -1.0, _MOST_DEVIATIONS)
    return {
        "camera": (image * there[:, 0].reshape(-1, 1, 1, 1)).astype(np.float32),
        "lidar": (lidar / _of_channels(statistics["lidar_scale"])).astype(np.float32),
        "radar": (radar / _of_channels(statistics["radar_scale"])).astype(np.float32),
        "context": deviation.astype(np.float32),
        "health": np.concatenate([there, age], axis=1).astype(np.float32),
    }


def _of_channels(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.float32).reshape(1, -1, 1, 1)

"""The road that a vehicle drives, and how it drives it.

In: a random generator, a size. Out: Loop, a closed lane that bends left and right, with corners where streets cross; Motion,
the vehicle's place, speed and turn at any time, from which every sensor tells. A drive that is longer than the loop goes round
again, so that a scene does not grow with a drive.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fleet_assets.kernels.loop import along

_STEP_M = 0.25
_CORNERS = 6
_SMOOTHING_M = 9.0  # standard deviation of what rounds the corners: their radius is about twice that
_TIGHTEST_M = 10.0
_LATERAL_MPS2 = 2.0
_SLOWEST_MPS = 3.0
_TICK_S = 0.01
MARGIN_S = 15.0  # motion is known so long before the start and after the end: others drive ahead and behind


@dataclass(frozen=True)
class Loop:
    """A closed lane, sampled every step_m: place [m], heading [rad, not wrapped], curvature [1/m], left positive.

    corners_m: where streets cross. Distances along it wrap around at length_m.
    """

    x_m: np.ndarray
    y_m: np.ndarray
    heading_rad: np.ndarray
    curvature_pm: np.ndarray
    step_m: float
    corners_m: np.ndarray

    @property
    def length_m(self) -> float:
        return self.step_m * self.x_m.size

    def at(
        self, distance_m: np.ndarray | float, left_m: np.ndarray | float = 0.0
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """x, y and heading at distances along the lane, so far to its left."""
        distance = np.asarray(distance_m, dtype=np.float64)
        left = np.broadcast_to(np.asarray(left_m, dtype=np.float64), distance.shape)
        line = (self.x_m, self.y_m, self.heading_rad, self.step_m)
        found = along(*line, distance.reshape(-1), np.ascontiguousarray(left).reshape(-1)).reshape(*distance.shape, 3)
        return found[..., 0], found[..., 1], found[..., 2]

    def curvature(self, distance_m: np.ndarray) -> np.ndarray:
        place = np.asarray(distance_m, dtype=np.float64) / self.step_m % self.x_m.size
        low = np.minimum(place.astype(np.int64), self.x_m.size - 1)
        here, ahead = self.curvature_pm[low], self.curvature_pm[(low + 1) % self.x_m.size]
        return np.asarray(here + (place - low) * (ahead - here))


def make_loop(random: np.random.Generator, radius_m: float) -> Loop:
    """A polygon round the origin, its edges bent, its corners rounded; anticlockwise."""
    while True:
        loop = _draw_loop(random, radius_m)
        if np.abs(loop.curvature_pm).max() < 1 / _TIGHTEST_M:
            return loop


def _draw_loop(random: np.random.Generator, radius_m: float) -> Loop:
    angle = 2 * np.pi * (np.arange(_CORNERS) + random.uniform(-0.25, 0.25, _CORNERS)) / _CORNERS
    reach = radius_m * random.uniform(0.75, 1.2, _CORNERS)
    corner = np.stack([reach * np.cos(angle), reach * np.sin(angle)], axis=1)
    edges = np.roll(corner, -1, axis=0) - corner
    lengths = np.hypot(*edges.T)
    pieces = []
    for start, edge, length in zip(corner, edges, lengths, strict=True):
        share = np.arange(0.0, 1.0, 0.5 / length)[:, None]
        bend = random.uniform(-0.09, 0.09) * np.sin(2 * np.pi * share) + random.uniform(-0.05, 0.05) * np.sin(
            np.pi * share
        )
        pieces.append(start + edge * share + np.array([-edge[1], edge[0]]) * bend)
    path = _rounded(np.concatenate(pieces), 0.5)
    x, y, step = _even(path)
    dx, dy = (np.roll(x, -1) - np.roll(x, 1)) / (2 * step), (np.roll(y, -1) - np.roll(y, 1)) / (2 * step)
    heading = np.unwrap(np.arctan2(dy, dx))
    heading -= 2 * np.pi * np.floor(heading[0] / (2 * np.pi))
    following = np.append(heading[1:], heading[0] + 2 * np.pi)
    previous = np.insert(heading[:-1], 0, heading[-1] - 2 * np.pi)
    curvature = (following - previous) / (2 * step)
    nearest = np.argmin((x[:, None] - corner[:, 0]) ** 2 + (y[:, None] - corner[:, 1]) ** 2, axis=0)
    return Loop(x, y, heading, curvature, step, np.sort(nearest * step))


def _rounded(path: np.ndarray, step_m: float) -> np.ndarray:
    """A closed path [n, 2], low-pass filtered by a Gaussian."""
    frequency = np.fft.fftfreq(len(path), step_m)
    filtered = np.fft.fft(path, axis=0) * np.exp(-2 * (np.pi * frequency * _SMOOTHING_M) ** 2)[:, None]
    return np.asarray(np.fft.ifft(filtered, axis=0).real)


def _even(path: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """A closed path [n, 2] at even distances of about _STEP_M."""
    closed = np.concatenate([path, path[:1]])
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    count = round(way[-1] / _STEP_M)
    wanted = np.arange(count) * way[-1] / count
    return np.interp(wanted, way, closed[:, 0]), np.interp(wanted, way, closed[:, 1]), float(way[-1] / count)


@dataclass(frozen=True)
class Motion:
    """A vehicle along a loop: distance [m], speed [m/s] and acceleration [m/s^2], every 10 ms from -MARGIN_S on."""

    loop: Loop
    distance_m: np.ndarray
    speed_mps: np.ndarray
    accel_mps2: np.ndarray

    def distance(self, t_s: np.ndarray | float) -> np.ndarray:
        """Along the loop, all rounds counted; t_s since the start."""
        return self._at(self.distance_m, t_s)

    def speed(self, t_s: np.ndarray | float) -> np.ndarray:
        return self._at(self.speed_mps, t_s)

    def accel(self, t_s: np.ndarray | float) -> np.ndarray:
        """Forward."""
        return self._at(self.accel_mps2, t_s)

    def yaw_rate(self, t_s: np.ndarray | float) -> np.ndarray:
        """rad/s, left positive."""
        return self.loop.curvature(self.distance(t_s)) * self.speed(t_s)

    def pose(self, t_s: np.ndarray | float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.loop.at(self.distance(t_s))

    def _at(self, values: np.ndarray, t_s: np.ndarray | float) -> np.ndarray:
        place = np.clip((np.asarray(t_s, dtype=np.float64) + MARGIN_S) / _TICK_S, 0.0, values.size - 1.001)
        low = place.astype(np.int64)
        return np.asarray(values[low] + (place - low) * (values[low + 1] - values[low]))


def drive(random: np.random.Generator, loop: Loop, duration_s: float, speed_mps: float) -> Motion:
    """Slower in bends and for no visible reason (traffic), never standing; smooth, so that it can be differentiated."""
    count = int((duration_s + 2 * MARGIN_S) / _TICK_S) + 2
    t_s = np.arange(count) * _TICK_S
    wish = np.zeros(count)
    for _ in range(4):
        wish += random.uniform(0.05, 0.12) * np.sin(2 * np.pi * t_s / random.uniform(11, 47) + random.uniform(0, 6.3))
    wish = speed_mps * (1 + wish)
    # How fast bends allow, and braking ahead of them at 1.5 m/s^2; twice round, for the loop is closed.
    allowed = np.sqrt(_LATERAL_MPS2 / np.maximum(np.abs(loop.curvature_pm), 1e-3))
    limit = allowed.tolist()
    for place in range(2 * len(limit) - 1, -1, -1):
        here, ahead = place % len(limit), (place + 1) % len(limit)
        limit[here] = min(limit[here], (limit[ahead] ** 2 + 3.0 * loop.step_m) ** 0.5)
    distance, speed = 0.0, min(speed_mps, limit[0])
    speeds = np.empty(count)
    for tick, wanted in enumerate(wish.tolist()):
        target = max(min(wanted, limit[int(distance / loop.step_m) % len(limit)]), _SLOWEST_MPS)
        speed += min(max((target - speed) / 0.6, -3.0), 1.8) * _TICK_S
        distance += speed * _TICK_S
        speeds[tick] = speed
    width = 41
    window = np.hanning(width + 2)[1:-1]
    smooth = np.convolve(np.pad(speeds, width // 2, mode="edge"), window / window.sum(), mode="valid")
    steps = 0.5 * (smooth[1:] + smooth[:-1]) * _TICK_S
    return Motion(loop, np.concatenate([[0.0], np.cumsum(steps)]), smooth, np.gradient(smooth, _TICK_S))

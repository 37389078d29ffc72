"""What stands along a road: buildings, side streets, parked vehicles, trees, road works, and what looks like people.

In: a random generator, a loop, a region of parameters.yaml. Out: things with their places, and the ground as a raster.
Distances to the side are from the middle of our lane, left positive; traffic keeps to the right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fleet_assets.simulate import figures
from fleet_assets.simulate.figures import Things
from fleet_assets.simulate.route import Loop

# Classes of ground, and their albedo; that of OPEN is the region's.
OPEN, ASPHALT, MARKING, PAVEMENT, CYCLE_TRACK, GRAVEL = range(6)
_ALBEDO = (
    (0, 0, 0),
    (0.13, 0.13, 0.14),
    (0.75, 0.75, 0.72),
    (0.38, 0.37, 0.35),
    (0.34, 0.17, 0.14),
    (0.45, 0.38, 0.27),
)
CELL_M = 0.25
ONCOMING_M = 3.5  # the other lane
AXIS_M = 1.75  # the middle of the road
_BORDER_M = 40.0
_STREET_M = 70.0
# How closely ground is painted: closer than a cell, also on the outside of a bend.
_ALONG_M, _ACROSS_M = 0.11, 0.16
_WORKS_M = 26.0


@dataclass(frozen=True)
class Ground:
    """classes: uint8 [rows, columns], rows along y; corner: x and y of [0, 0]; albedo: [classes, 3]."""

    classes: np.ndarray
    corner_m: tuple[float, float]
    albedo: np.ndarray

    def paint(self, x_m: np.ndarray, y_m: np.ndarray, kind: int) -> None:
        rows, columns, inside = self._cells(x_m, y_m)
        self.classes[rows[inside], columns[inside]] = kind

    def at(self, x_m: np.ndarray, y_m: np.ndarray) -> np.ndarray:
        rows, columns, inside = self._cells(x_m, y_m)
        return np.where(inside, self.classes[np.where(inside, rows, 0), np.where(inside, columns, 0)], OPEN)

    def _cells(self, x_m: np.ndarray, y_m: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        columns = np.floor((x_m - self.corner_m[0]) / CELL_M).astype(np.int64)
        rows = np.floor((y_m - self.corner_m[1]) / CELL_M).astype(np.int64)
        inside = (rows >= 0) & (rows < self.classes.shape[0]) & (columns >= 0) & (columns < self.classes.shape[1])
        return rows, columns, inside


@dataclass(frozen=True)
class Bands:
    """How a side of the road is divided, as distances from its middle: where one parks, cycles, walks, and where houses are."""

    road: float
    parking: float
    cycling: float
    walking: tuple[float, float]
    houses: float

    @classmethod
    def of(cls, setback_m: float) -> Bands:
        wide = setback_m > 10.0
        return cls(5.9, 4.85, 6.5, (7.4, 9.6) if wide else (7.2, 8.6), setback_m)

    def left(self, out_m: np.ndarray | float, side: int) -> Any:
        """Distance to the left of our lane, of something so far out; side: 1 left, -1 right."""
        return AXIS_M + side * np.asarray(out_m)


def make_ground(loop: Loop, region: dict[str, Any], bands: Bands) -> Ground:
    low = (float(loop.x_m.min() - _BORDER_M), float(loop.y_m.min() - _BORDER_M))
    size = (loop.x_m.max() + _BORDER_M - low[0], loop.y_m.max() + _BORDER_M - low[1])
    albedo = np.array(_ALBEDO, dtype=np.float64)
    albedo[OPEN] = region["open_ground"]
    ground = Ground(np.zeros((int(size[1] / CELL_M) + 1, int(size[0] / CELL_M) + 1), dtype=np.uint8), low, albedo)
    along = np.arange(0.0, loop.length_m, _ALONG_M)
    edge = bands.walking[1] + 0.3

    def band(first_m: float, last_m: float, kind: int, where: np.ndarray = along) -> None:
        across = np.arange(first_m, last_m, _ACROSS_M)
        x, y, _ = loop.at(np.repeat(where, across.size), np.tile(across, where.size))
        ground.paint(x, y, kind)

    band(AXIS_M - edge, AXIS_M + edge, PAVEMENT)
    for x, y, heading in streets(loop):
        _strip(ground, x, y, heading, 6.0, PAVEMENT)
    for side in (-1, 1):
        middle = bands.left(bands.cycling, side)
        band(middle - 0.7, middle + 0.7, CYCLE_TRACK)
    for x, y, heading in streets(loop):
        _strip(ground, x, y, heading, 3.5, ASPHALT)
    band(AXIS_M - bands.road, AXIS_M + bands.road, ASPHALT)
    band(AXIS_M - 0.1, AXIS_M + 0.1, MARKING, along[(along % 6.0) < 3.0])
    for side in (-1, 1):
        line = bands.left(3.6, side)
        band(line - 0.1, line + 0.1, MARKING)
    for corner in loop.corners_m:
        bars = corner + 13.0 + np.arange(0.0, 3.0, _ALONG_M)
        for bar in np.arange(-bands.road, bands.road, 1.0):
            band(AXIS_M + bar, AXIS_M + bar + 0.5, MARKING, bars)
    return ground


def _strip(ground: Ground, x_m: float, y_m: float, heading: float, half_m: float, kind: int) -> None:
    along, across = np.meshgrid(np.arange(0.0, _STREET_M, _ACROSS_M), np.arange(-half_m, half_m, _ACROSS_M))
    cos, sin = np.cos(heading), np.sin(heading)
    ground.paint(x_m + cos * along - sin * across, y_m + sin * along + cos * across, kind)


def streets(loop: Loop) -> list[tuple[float, float, float]]:
    """Where side streets begin and which way they go: straight on at a corner, and back where the new direction comes from."""
    found = []
    for corner in loop.corners_m:
        x, y, _ = loop.at(corner)
        before, after = loop.at(corner - 24.0)[2], loop.at(corner + 24.0)[2]
        found += [(float(x), float(y), float(before)), (float(x), float(y), float(after + np.pi))]
    return found


def near_corner(loop: Loop, along_m: float, within_m: float) -> bool:
    off = (loop.corners_m - along_m + loop.length_m / 2) % loop.length_m - loop.length_m / 2
    return bool(np.abs(off).min() < within_m)


@dataclass(frozen=True)
class Town:
    ground: Ground
    bands: Bands


def build(random: np.random.Generator, loop: Loop, region: dict[str, Any], things: Things) -> Town:
    """Adds what does not move to things."""
    bands = Bands.of(region["setback_m"])
    ground = make_ground(loop, region, bands)
    works = float(random.uniform(0, loop.length_m))
    _works(random, loop, bands, ground, works, things)
    _buildings(random, loop, region, bands, ground, things)
    _parked(random, loop, region, bands, works, things)
    _street_furniture(random, loop, region, bands, things)
    _waiting(random, loop, region, things)
    return Town(ground, bands)


def _put(things: Things, loop: Loop, figure: figures.Figure, along_m: float, left_m: float, turn: float = 0.0) -> int:
    x, y, heading = loop.at(along_m, left_m)
    return things.add(figure, float(x), float(y), float(heading) + turn)


def _buildings(
    random: np.random.Generator, loop: Loop, region: dict[str, Any], bands: Bands, ground: Ground, things: Things
) -> None:
    for side in (-1, 1):
        along = float(random.uniform(0, 5))
        while along < loop.length_m - 8:
            length, depth = float(random.uniform(9, 20)), float(random.uniform(8, 13))
            middle = along + length / 2
            x, y, heading = loop.at(middle, bands.left(bands.houses + random.uniform(0.3, 1.5) + depth / 2, side))
            share = np.linspace(-0.5, 0.5, 9)
            u, v = (grid.ravel() for grid in np.meshgrid(share * (length + 1), share * (depth + 0.5)))
            cos, sin = np.cos(heading), np.sin(heading)
            height = float(random.uniform(*region["building_height_m"]))
            wall = region["walls"][int(random.integers(len(region["walls"])))]
            if (ground.at(x + cos * u - sin * v, y + sin * u + cos * v) == OPEN).all():
                figure = figures.building(
                    random, length, depth, height, tuple(np.array(wall) * random.uniform(0.85, 1.1))
                )
                things.add(figure, float(x), float(y), float(heading))
                along += length + (float(random.uniform(1, 6)) if random.random() < 0.6 else 0.2)
            else:
                along += 3.0


def subtype_of_vehicle(random: np.random.Generator, region: dict[str, Any]) -> str:
    if random.random() < region["large_vehicles"]:
        return str(random.choice(["van", "truck", "bus"], p=[0.4, 0.4, 0.2]))
    return "car"


def _parked(
    random: np.random.Generator, loop: Loop, region: dict[str, Any], bands: Bands, works: float, things: Things
) -> None:
    for side in (-1, 1):
        for along in np.arange(0.0, loop.length_m - 7.0, 6.6):
            in_works = side < 0 and -8.0 < (along - works) % loop.length_m < _WORKS_M + 6.0
            if random.random() > region["parked"] or near_corner(loop, along, 18.0) or in_works:
                continue
            subtype = "van" if random.random() < region["large_vehicles"] / 2 else "car"
            place = bands.left(bands.parking, side) + random.uniform(-0.1, 0.1)
            _put(things, loop, figures.vehicle(random, subtype), along, place, 0.0 if side < 0 else np.pi)


def _street_furniture(
    random: np.random.Generator, loop: Loop, region: dict[str, Any], bands: Bands, things: Things
) -> None:
    for side in (-1, 1):
        for along in np.arange(random.uniform(0, 8), loop.length_m, 11.0):
            if random.random() < region["trees"] and not near_corner(loop, along, 12.0):
                out = bands.houses - 1.6 if bands.houses > 10 else bands.road + 0.2
                _put(things, loop, figures.tree(random), along, bands.left(out, side))
        for along in np.arange(random.uniform(0, 20), loop.length_m, 30.0):
            _put(things, loop, figures.lamp_post(), along, bands.left(bands.road + 0.15, side), -side * np.pi / 2)
    for along in random.uniform(0, loop.length_m, int(region["distractors_per_m"] * loop.length_m)):
        side = int(random.choice([-1, 1]))
        out = random.uniform(bands.walking[0] - 0.2, bands.walking[1] + 0.5)
        _put(things, loop, figures.distractor(random), along, bands.left(out, side), random.uniform(0, 6.28))


def _waiting(random: np.random.Generator, loop: Loop, region: dict[str, Any], things: Things) -> None:
    """Vehicles that wait in side streets."""
    for x, y, heading in streets(loop):
        if random.random() < 0.6:
            away, right = float(random.uniform(13, 17)), 1.75  # facing us, on its right
            figure = figures.vehicle(random, subtype_of_vehicle(random, region))
            away += figure.length_m / 2
            things.add(
                figure,
                x + np.cos(heading) * away - np.sin(heading) * right,
                y + np.sin(heading) * away + np.cos(heading) * right,
                heading + np.pi,
            )


def _works(random: np.random.Generator, loop: Loop, bands: Bands, ground: Ground, works: float, things: Things) -> None:
    """Road works where one would park on the right: gravel, cones, barriers, a lorry, two workers."""
    middle = bands.left(bands.parking, -1)
    along, across = np.meshgrid(
        works + np.arange(0.0, _WORKS_M, _ALONG_M), np.arange(middle - 1.0, middle + 1.2, _ACROSS_M)
    )
    x, y, _ = loop.at(along, across)
    ground.paint(x, y, GRAVEL)
    for number in range(4):
        _put(things, loop, figures.cone(), works - 7.0 + 1.8 * number, middle - 0.6 + 0.5 * number)
    for number in range(11):
        _put(things, loop, figures.barrier(), works + 1.0 + 2.4 * number, middle + 1.25)
    _put(things, loop, figures.vehicle(random, "truck", (0.85, 0.55, 0.05)), works + 19.0, middle - 0.1)
    for number in range(2):
        worker = figures.pedestrian(random, "adult", figures.ORANGE)
        _put(
            things,
            loop,
            worker,
            works + 4.0 + 5.0 * number,
            middle + random.uniform(-0.7, 0.4),
            random.uniform(0, 6.28),
        )

"""Who moves along a road: vehicles, cyclists, pedestrians.

In: a random generator, our own motion, a town. Out: where everybody is at any time. Nobody drives into us: who goes our way
repeats our motion some seconds ahead or behind, and who crosses does it before we come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from fleet_assets.kernels import raycast as rc
from fleet_assets.simulate import figures
from fleet_assets.simulate.figures import Things
from fleet_assets.simulate.route import MARGIN_S, Loop, Motion
from fleet_assets.simulate.town import AXIS_M, ONCOMING_M, Bands, Town, subtype_of_vehicle

_STRIDE_M = 1.4
_CROSSING_WAY_M = 80.0  # so far we drive while one crosses


@dataclass(frozen=True)
class _Along:
    """Things at a steady speed along the loop: number, start, distance to the left [m], speed [m/s, negative: against us]."""

    thing: np.ndarray
    start_m: np.ndarray
    left_m: np.ndarray
    speed_mps: np.ndarray


@dataclass(frozen=True)
class _Convoy:
    """Vehicles that repeat our motion: ahead_s > 0 is in front."""

    thing: np.ndarray
    ahead_s: np.ndarray


@dataclass(frozen=True)
class _Crossing:
    """Pedestrians who cross at a place, from alternate sides; they begin when we are so far off (first_m)."""

    thing: np.ndarray
    along_m: np.ndarray
    side: np.ndarray
    first_m: np.ndarray
    half_m: float


@dataclass(frozen=True)
class Traffic:
    """places: float64 [things, OBJECT_COLUMNS] of what stands still."""

    motion: Motion
    places: np.ndarray
    along: _Along
    convoy: _Convoy
    crossing: _Crossing

    def at(self, t_s: float) -> np.ndarray:
        """float64 [things, OBJECT_COLUMNS], see kernels/raycast.py; t_s since the start."""
        now = self.places.copy()
        loop = self.motion.loop
        each = self.along
        way = each.speed_mps * t_s
        self._set(now, each.thing, *loop.at(each.start_m + way, each.left_m), each.speed_mps, way)
        ahead = t_s + self.convoy.ahead_s
        way = self.motion.distance(ahead)
        self._set(now, self.convoy.thing, *loop.at(way), self.motion.speed(ahead), way)
        self._cross(now, t_s)
        return now

    def _cross(self, now: np.ndarray, t_s: float) -> None:
        """Their pace follows ours, so that they are over when we come, whatever we do."""
        each, loop = self.crossing, self.motion.loop
        here = float(self.motion.distance(t_s))
        # Rounds are counted from where we have just passed, so that nobody jumps while we look.
        to_go = (each.along_m - here + 12.0) % loop.length_m - 12.0
        round_number = np.round((here + to_go - each.along_m) / loop.length_m).astype(np.int64)
        progress = np.clip((each.first_m - to_go) / _CROSSING_WAY_M, 0.0, 1.0)
        side = each.side * np.where(round_number % 2 == 0, 1, -1)
        x, y, heading = loop.at(each.along_m, AXIS_M + side * each.half_m * (1 - 2 * progress))
        pace = float(self.motion.speed(t_s)) * 2 * each.half_m / _CROSSING_WAY_M
        speed = np.where((progress > 0) & (progress < 1), pace, 0.0)
        self._set(now, each.thing, x, y, heading - side * np.pi / 2, speed, progress * 2 * each.half_m)

    @staticmethod
    def _set(
        now: np.ndarray,
        thing: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        heading: np.ndarray,
        speed: np.ndarray,
        way: np.ndarray,
    ) -> None:
        now[thing, rc.OBJECT_X], now[thing, rc.OBJECT_Y] = x, y
        now[thing, rc.OBJECT_YAW] = heading + np.where(speed < 0, np.pi, 0.0)
        now[thing, rc.OBJECT_SPEED] = np.abs(speed)
        now[thing, rc.OBJECT_PHASE] = 2 * np.pi * way / _STRIDE_M


def populate(
    random: np.random.Generator,
    motion: Motion,
    town: Town,
    region: dict[str, Any],
    traffic: dict[str, Any],
    things: Things,
) -> Traffic:
    """Adds everybody to things."""
    loop, bands = motion.loop, town.bands
    crossing = _crossing(random, loop, bands, region, traffic, things)
    along = _concat([
        _pedestrians(random, loop, bands, region, traffic, things),
        _cyclists(random, loop, bands, traffic, things),
        _oncoming(random, loop, region, traffic, things),
    ])  # fmt: skip
    convoy = _convoy(random, region, traffic, things)
    places = np.zeros((len(things.places), rc.OBJECT_COLUMNS))
    places[:, : rc.OBJECT_YAW + 1] = things.places
    return Traffic(motion, places, along, convoy, crossing)


def _concat(parts: list[list[tuple[int, float, float, float]]]) -> _Along:
    rows = [row for part in parts for row in part]
    thing, start, left, speed = (np.array(column) for column in zip(*rows, strict=True))
    return _Along(thing.astype(np.int64), start, left, speed)


def _person(random: np.random.Generator, traffic: dict[str, Any]) -> figures.Figure:
    names = list(traffic["subtypes"])
    return figures.pedestrian(random, str(random.choice(names, p=[traffic["subtypes"][name] for name in names])))


def _pedestrians(
    random: np.random.Generator,
    loop: Loop,
    bands: Bands,
    region: dict[str, Any],
    traffic: dict[str, Any],
    things: Things,
) -> list[tuple[int, float, float, float]]:
    """Who walks, and who stands, on the pavements."""
    rows = []
    share = 1.0 - traffic["crossing_pedestrians"]
    for start in random.uniform(0, loop.length_m, int(region["pedestrians_per_m"] * share * loop.length_m)):
        figure = _person(random, traffic)
        left = bands.left(random.uniform(*bands.walking), int(random.choice([-1, 1])))
        if random.random() < traffic["standing_pedestrians"]:
            x, y, _ = loop.at(start, left)
            things.add(figure, float(x), float(y), float(random.uniform(0, 6.28)))
            continue
        speed = float(random.uniform(0.7, 1.7) * random.choice([-1, 1]))
        rows.append((things.add(figure), float(start), float(left), speed))
    return rows


def _cyclists(
    random: np.random.Generator, loop: Loop, bands: Bands, traffic: dict[str, Any], things: Things
) -> list[tuple[int, float, float, float]]:
    rows = []
    for start in random.uniform(0, loop.length_m, int(traffic["cyclists_per_m"] * loop.length_m)):
        side = int(random.choice([-1, 1]))
        speed = float(random.uniform(2.5, 6.5)) * -side  # on the right with us, on the left against us
        rows.append((things.add(figures.cyclist(random)), float(start), float(bands.left(bands.cycling, side)), speed))
    return rows


def _oncoming(
    random: np.random.Generator, loop: Loop, region: dict[str, Any], traffic: dict[str, Any], things: Things
) -> list[tuple[int, float, float, float]]:
    """All at one speed, so that none meets another."""
    rows, place, speed = [], 0.0, -float(random.uniform(6.0, 11.0))
    while place < loop.length_m - 25.0:
        figure = figures.vehicle(random, subtype_of_vehicle(random, region))
        rows.append((things.add(figure), place, ONCOMING_M, speed))
        place += float(random.uniform(*traffic["oncoming_gap_m"]))
    return rows


def _convoy(random: np.random.Generator, region: dict[str, Any], traffic: dict[str, Any], things: Things) -> _Convoy:
    thing, ahead = [], []
    for way in (1, -1):
        gap = 0.0
        while True:
            gap += float(random.uniform(*traffic["convoy_gap_s"]))
            if gap > MARGIN_S - 0.5:
                break
            thing.append(things.add(figures.vehicle(random, subtype_of_vehicle(random, region))))
            ahead.append(way * gap)
    return _Convoy(np.array(thing, dtype=np.int64), np.array(ahead))


def _crossing(
    random: np.random.Generator,
    loop: Loop,
    bands: Bands,
    region: dict[str, Any],
    traffic: dict[str, Any],
    things: Things,
) -> _Crossing:
    count = int(region["pedestrians_per_m"] * traffic["crossing_pedestrians"] * loop.length_m)
    # At the crossings behind corners, or anywhere.
    at_marks = random.choice(loop.corners_m, count) + 14.5 + random.uniform(-1.2, 1.2, count)
    along = np.where(random.random(count) < 0.6, at_marks, random.uniform(0, loop.length_m, count)) % loop.length_m
    thing = np.array([things.add(_person(random, traffic)) for _ in range(count)], dtype=np.int64)
    first = _CROSSING_WAY_M + random.uniform(10.0, 22.0, count)  # over when we are 10 m off
    return _Crossing(thing, along, random.choice([-1, 1], count), first, bands.walking[0] + 0.4)

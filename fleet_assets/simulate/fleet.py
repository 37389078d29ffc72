"""A fleet of simulated drives: `fleet simulate`.

In: how many, a seed, and what all of them shall have in common. Out: one recording per drive in a folder, each with its truth
beside it, and lanes.csv, the map of all their lanes; lights, weathers and regions as even as their number allows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import numpy as np

from fleet_assets.errors import FleetError
from fleet_assets.simulate.conditions import light_at
from fleet_assets.simulate.drives import Progress, Truth, write_drive
from fleet_assets.simulate.lanes import LANES, write_lanes
from fleet_assets.simulate.parameters import one_of, parameters

_FIRST_DAY = datetime(2026, 1, 5, tzinfo=UTC)
VEHICLES = 4


@dataclass(frozen=True)
class Plan:
    """One drive to make."""

    seed: int
    vehicle: str
    start: datetime
    region: str
    light: str
    weather: str

    @property
    def file_name(self) -> str:
        return f"{self.vehicle}-{self.start:%Y%m%dT%H%M%SZ}.mcap"


@dataclass(frozen=True)
class Made:
    plan: Plan
    path: Path
    truth: Truth


def plan_fleet(
    drives: int,
    seed: int,
    *,
    vehicle: str | None = None,
    region: str | None = None,
    light: str | None = None,
    weather: str | None = None,
) -> list[Plan]:
    """A drive a day; the same arguments give the same plan, and more drives begin with those of fewer.

    vehicle: of all drives; None: sim1 to sim4 in turn. Raises FleetError for a name that is not known.
    """
    known = parameters()
    kinds = list(
        product(
            [one_of("region", region, known["regions"])] if region else known["regions"],
            [one_of("light", light, known["light"])] if light else known["light"],
            [one_of("weather", weather, known["weather"])] if weather else known["weather"],
        )
    )
    random = np.random.default_rng(seed)
    plans: list[Plan] = []
    while len(plans) < drives:
        for choice in random.permutation(len(kinds)):
            where, when, air = kinds[choice]
            number = len(plans)
            start = _start(random, _FIRST_DAY + timedelta(days=number), where, when)
            plans.append(
                Plan(int(random.integers(2**31)), vehicle or f"sim{1 + number % VEHICLES}", start, where, when, air)
            )
    return plans[:drives]


def _start(random: np.random.Generator, day: datetime, region: str, light: str) -> datetime:
    """A minute of that day with that light."""
    minutes = [day + timedelta(minutes=minute) for minute in range(0, 24 * 60, 5)]
    fitting = [minute for minute in minutes if light_at(minute, region) == light]
    return fitting[int(random.integers(len(fitting)))]


def make_fleet(
    plans: Sequence[Plan],
    folder: Path,
    *,
    duration_s: float,
    setup: str,
    faults: Sequence[str] = (),
    progress: Progress | None = None,
) -> Iterator[Made]:
    """Writes the map, then the drives one by one. progress: messages of the drive that is being written. Raises FleetError."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_lanes(folder / LANES, [(plan.seed, plan.region) for plan in plans])
    for plan in plans:
        path = folder / plan.file_name
        with _writing(path):
            truth = write_drive(
                path,
                seed=plan.seed,
                start=plan.start,
                duration_s=duration_s,
                vehicle=plan.vehicle,
                faults=faults,
                setup=setup,
                region=plan.region,
                light=plan.light,
                weather=plan.weather,
                progress=progress,
            )
        yield Made(plan, path, truth)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise FleetError(
            f"{path} cannot be written: {error.strerror}", remedy="Give another folder with --out, or make room."
        ) from error

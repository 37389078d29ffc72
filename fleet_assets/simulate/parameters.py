"""The figures behind the simulated fleet, read from parameters.yaml.

In: nothing. Out: the file as typed values; names of set-ups, lights, weathers and regions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fleet_assets.errors import FleetError

FILE = Path(__file__).with_name("parameters.yaml")


@dataclass(frozen=True)
class Camera:
    """field_deg: horizontal. horizon: share of the rows above it."""

    rows: int
    columns: int
    field_deg: float
    horizon: float
    height_m: float
    rate_hz: float


@dataclass(frozen=True)
class Lidar:
    beams: int
    azimuths: int
    field_deg: float
    lowest_deg: float
    highest_deg: float
    height_m: float
    rate_hz: float


@dataclass(frozen=True)
class Radar:
    bins: int
    beams: int
    bin_m: float
    beam_deg: float
    rate_hz: float


@dataclass(frozen=True)
class Setup:
    """cameras: stream -> where it looks [degrees, left positive]; all are of one kind."""

    name: str
    cameras: dict[str, float]
    camera: Camera
    lidar: Lidar
    radar: Radar


@lru_cache(maxsize=1)
def parameters() -> dict[str, Any]:
    """The whole file."""
    return dict(yaml.safe_load(FILE.read_text(encoding="utf-8")))


def setup(name: str) -> Setup:
    """Raises FleetError for an unknown name."""
    found = parameters()["setups"][one_of("setup", name, parameters()["setups"])]
    return Setup(name, found["cameras"], Camera(**found["camera"]), Lidar(**found["lidar"]), Radar(**found["radar"]))


def one_of(what: str, name: str, known: Any) -> str:
    """The name, if it is known. Raises FleetError."""
    if name not in known:
        raise FleetError(f"No {what} is called {name}", remedy=f"There are {', '.join(known)}.")
    return name

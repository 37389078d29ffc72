"""Under what conditions a drive takes place: region, light, weather, and the time of day that goes with the light.

In: a start, a random generator, what the caller wants. Out: Conditions with every figure drawn, and the numbers that the
camera's kernel needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from fleet_assets.kernels import camera_image as ci
from fleet_assets.kernels.sun import sun_position
from fleet_assets.simulate.parameters import one_of, parameters

DUSK_DEG = (-6.0, -0.833)  # height of the sun: civil twilight


@dataclass(frozen=True)
class Conditions:
    """light, lidar and backscatter: drawn once per drive. camera: numbers of kernels/camera_image.py."""

    region: str
    light: str
    weather: str
    camera: np.ndarray
    lidar_extinction_pm: float
    lidar_backscatter: float

    @property
    def of_region(self) -> dict[str, Any]:
        return dict(parameters()["regions"][self.region])


def light_at(when: datetime, region: str) -> str:
    """day, dusk (dawn too) or night."""
    t_ns = int(when.timestamp()) * 1_000_000_000
    elevation = sun_position(t_ns, *parameters()["regions"][region]["origin_deg"]).elevation_deg
    return "night" if elevation < DUSK_DEG[0] else "dusk" if elevation < DUSK_DEG[1] else "day"


def draw(
    random: np.random.Generator, when: datetime, region: str | None, light: str | None, weather: str | None
) -> Conditions:
    """What is None is drawn; the light follows from the time. Raises FleetError for an unknown name."""
    known = parameters()
    drawn_region, drawn_weather = str(random.choice(list(known["regions"]))), str(random.choice(list(known["weather"])))
    region = one_of("region", region or drawn_region, known["regions"])
    weather = one_of("weather", weather or drawn_weather, known["weather"])
    light = one_of("light", light or light_at(when, region), known["light"])
    air = known["weather"][weather]
    return Conditions(
        region, light, weather, _camera(random, light, weather), float(random.uniform(*air["lidar"])),
        float(random.uniform(*air["backscatter"])),
    )  # fmt: skip


def _camera(random: np.random.Generator, light: str, weather: str) -> np.ndarray:
    known, of_light, of_air = parameters(), parameters()["light"][light], parameters()["weather"][weather]
    numbers = np.zeros(ci.LIGHT_NUMBERS)
    ambient = float(random.uniform(*of_light["ambient"]))
    numbers[ci.AMBIENT] = ambient
    numbers[ci.SUN] = of_light["sun"] * of_air["sun"]
    numbers[ci.SUN_AZIMUTH] = random.uniform(0, 2 * np.pi)
    numbers[ci.SUN_TANGENT] = random.uniform(0.02, 0.12)
    numbers[ci.HEADLIGHT], numbers[ci.LAMPS] = of_light["headlight"], of_light["lamps"]
    numbers[ci.LIT_WINDOWS] = of_light["lit_windows"]
    numbers[ci.EXTINCTION] = random.uniform(*of_air["camera"])
    # What the air throws back: daylight, and at night a little of our own lamps. Rain and fog hide the sky.
    clear = weather == "clear"
    numbers[ci.AIRLIGHT] = (of_light["sky"] if clear else min(of_light["sky"], 1.3 * ambient)) + 0.02 * of_light[
        "headlight"
    ]
    numbers[ci.SKY] = of_light["sky"] if clear else numbers[ci.AIRLIGHT]
    numbers[ci.GAIN] = of_light["gain"]
    numbers[ci.SHOT], numbers[ci.READ] = known["camera_noise"]["shot"], known["camera_noise"]["read"]
    glares = random.random() < known["glare"]["share_of_dusk_drives"]
    strength = float(random.uniform(*known["glare"]["strength"]))
    if light == "dusk" and weather == "clear" and glares:
        numbers[ci.GLARE] = strength
    numbers[ci.STREAKS] = of_air["streaks"]
    return numbers

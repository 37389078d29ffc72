"""Under what conditions a drive takes place: region, light, weather, and the time of day that goes with the light.

In: a start, a random generator, what the caller wants. Out: Conditions with every figure drawn, and the numbers that the
camera's kernel needs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np

from fleet_assets.kernels import camera_image as ci
from fleet_assets.simulate.parameters import one_of, parameters

DUSK_DEG = (-6.0, 4.0)  # height of the sun: civil twilight, and until it stands over the roofs


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


def sun_elevation_deg(when: datetime, latitude_deg: float, longitude_deg: float) -> float:
    """Height of the sun, within about half a degree. Source: declination and equation of time after Spencer, 1971."""
    when = when.astimezone(UTC)
    hour = when.hour + when.minute / 60 + when.second / 3600
    day = 2 * np.pi * (when.timetuple().tm_yday - 1 + (hour - 12) / 24) / 365
    declination = (
        0.006918 - 0.399912 * np.cos(day) + 0.070257 * np.sin(day) - 0.006758 * np.cos(2 * day) + 0.000907 * np.sin(2 * day)
    )  # fmt: skip
    late_min = 229.18 * (
        0.000075 + 0.001868 * np.cos(day) - 0.032077 * np.sin(day) - 0.014615 * np.cos(2 * day) - 0.040849 * np.sin(2 * day)
    )  # fmt: skip
    angle = np.radians((hour * 60 + late_min + 4 * longitude_deg) / 4 - 180)
    latitude = np.radians(latitude_deg)
    height = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(angle)
    return float(np.degrees(np.arcsin(height)))


def light_at(when: datetime, region: str) -> str:
    """day, dusk (dawn too) or night."""
    elevation = sun_elevation_deg(when, *parameters()["regions"][region]["origin_deg"])
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

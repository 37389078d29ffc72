"""Under what conditions a drive took place, and who says so.

In: what its recordings say, its place, and the files of context. Out: one row of ingest.context, and one row of
ingest.context_claims for each thing that a source says. What was recorded is believed before what was joined or computed; where
they disagree, both are there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fleet_assets.ingest.places import Place, Weather, zone_of
from fleet_assets.ingest.vehicles import Match
from fleet_assets.kernels.sun import sun_position

FIELDS = ("h3_cell", "region", "zone", "time_of_day", "light", "weather", "vehicle_model", "hardware", "firmware")
_SAID = ("region", "zone", "light", "weather", "vehicle_model", "hardware", "firmware")  # by recordings and manifests
RECORDING, MANIFEST = "recording", "manifest"
# Civil twilight ends where the sun's centre stands 6 degrees below the horizon; it rises at 0.833 (refraction, its radius).
_NIGHT_DEG, _DAY_DEG = -6.0, -0.833
# What a recording says of its light contradicts the sun only beyond this: houses, clouds and headlights count too.
_LIGHT_TOLERANCE_DEG = 5.0
_LIGHTS = ("day", "dusk", "night")
_TIMES_OF_DAY = ((6, "morning"), (11, "midday"), (14, "afternoon"), (18, "evening"), (22, "night"))
_MAX_TEXT = 200


@dataclass(frozen=True)
class Claim:
    """What one source says of one field."""

    field: str
    value: str
    source: str
    detail: str | None = None
    weight_bits: float | None = None


@dataclass(frozen=True)
class Surroundings:
    """What the files of context hold. zones: rows of context.zones."""

    weather: Weather
    weather_limits: Mapping[str, float]
    zones: Any
    vehicles: Mapping[str, Match]


def context_rows(
    drive: Mapping[str, Any], said: Sequence[Mapping[str, str]], place: Place | None, around: Surroundings
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """drive: a row of ingest.drives. said: key, value and source as manifests have them, the most trusted first.

    Gives the row of ingest.context and those of ingest.context_claims.
    """
    claims = list(dict.fromkeys([*_said(said), *_told(drive, place, around)]))
    sun = sun_position(drive["t_start_ns"], place.latitude_deg, place.longitude_deg) if place else None
    elevation_deg = float(sun.elevation_deg) if sun else None
    constants = {"drive_id": drive["drive_id"], "day": drive["day"]}
    chosen: dict[str, Claim] = {}
    for claim in claims:
        # A word that no rule knows is somebody's words, and no light.
        if claim.field != "light" or claim.value in _LIGHTS:
            chosen.setdefault(claim.field, claim)
    rows = [
        {
            **constants,
            "field": claim.field,
            "source": claim.source,
            "value": claim.value,
            "chosen": chosen.get(claim.field) == claim,
            "agrees": claim.field not in chosen or _agree(chosen[claim.field], claim, elevation_deg),
            "match_weight": claim.weight_bits,
            "detail": claim.detail,
        }
        for claim in claims
    ]
    matched = around.vehicles.get(drive["vehicle"])
    context = {
        **constants,
        **{field: chosen[field].value if field in chosen else None for field in FIELDS},
        "solar_time_h": float(sun.solar_time_h) if sun else None,
        "sun_elevation_deg": elevation_deg,
        "match_weight": matched.weight_bits if matched else None,
        "contradictions": len({row["field"] for row in rows if not row["agrees"]}),
    }
    return context, _once(rows)


def _said(said: Sequence[Mapping[str, str]]) -> list[Claim]:
    """What recordings and manifests say, in the words of the platform."""
    claims = []
    for entry in said:
        value = entry["value"].strip()[:_MAX_TEXT]
        if entry["key"] not in _SAID or not value:
            continue
        if entry["key"] in ("light", "weather", "region"):
            value = value.lower()
        from_recording = entry["source"] == RECORDING
        detail = None if from_recording else f"by {entry['source'][:_MAX_TEXT]}"
        claims.append(Claim(entry["key"], value, RECORDING if from_recording else MANIFEST, detail))
    return claims


def _told(drive: Mapping[str, Any], place: Place | None, around: Surroundings) -> list[Claim]:
    """What can be told from place, time and vehicle."""
    claims = []
    if place is not None:
        claims.append(Claim("h3_cell", place.cell, "gnss", "most of the positions"))
        if zone := zone_of(place, around.zones):
            detail = f"cell {zone['h3_cell']}"
            claims += [
                Claim(field, value.lower() if field == "region" else value, "map of zones", detail)
                for field in ("region", "zone")
                if (value := zone[field])
            ]
        sun = sun_position(drive["t_start_ns"], place.latitude_deg, place.longitude_deg)
        claims.append(Claim("time_of_day", time_of_day(float(sun.solar_time_h)), "sun", "at the start of the drive"))
        elevation = f"{float(sun.elevation_deg):.1f} degrees high at the start"
        claims.append(Claim("light", light_of(float(sun.elevation_deg)), "sun", elevation))
        limits = around.weather_limits
        seen = around.weather.nearest(
            place, drive["t_start_ns"], max_distance_km=limits["max_distance_km"], max_age_min=limits["max_age_min"]
        )
        if seen:
            detail = f"{seen.station}, {seen.distance_km:.1f} km, {seen.age_min:.0f} min"
            claims.append(Claim("weather", seen.weather, "weather table", detail))
    if matched := around.vehicles.get(drive["vehicle"]):
        for field, column in (("vehicle_model", "model"), ("hardware", "hardware"), ("firmware", "firmware")):
            if value := matched.row[column]:
                entry = f"entry {matched.row['name']}"
                claims.append(Claim(field, value, "vehicle register", entry, matched.weight_bits))
    return claims


def light_of(elevation_deg: float) -> str:
    """day; dusk (dawn too), which is civil twilight; night. elevation_deg: of the sun's centre, without refraction."""
    return "night" if elevation_deg < _NIGHT_DEG else "dusk" if elevation_deg < _DAY_DEG else "day"


def time_of_day(solar_time_h: float) -> str:
    """The part of the day, by apparent solar time."""
    return next((name for hour, name in reversed(_TIMES_OF_DAY) if solar_time_h >= hour), "night")


def _agree(one: Claim, other: Claim, elevation_deg: float | None) -> bool:
    if one.field == "light" and elevation_deg is not None and "sun" in (one.source, other.source):
        said = one.value if other.source == "sun" else other.value
        margin = _LIGHT_TOLERANCE_DEG
        return said in {light_of(elevation_deg - margin), light_of(elevation_deg), light_of(elevation_deg + margin)}
    return _folded(one.value) == _folded(other.value)


def _folded(text: str) -> str:
    return re.sub(r"[\W_]+", "", text.casefold())


def _once(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each thing that a source says once: two manifests may say it for different reasons."""
    known: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in rows:
        known.setdefault((row["field"], row["source"], row["value"]), row)
    return list(known.values())

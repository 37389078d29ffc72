"""What sources say of a drive, which of them is believed, and what contradicts it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import h3
import pyarrow as pa
import pytest

from fleet_assets.contracts.loader import load_context, load_tables
from fleet_assets.ingest.context import Surroundings, context_rows, light_of, time_of_day
from fleet_assets.ingest.places import Place, Weather
from fleet_assets.ingest.vehicles import Match

MUNICH = Place(48.1374, 11.5755)
CELL = h3.latlng_to_cell(48.1374, 11.5755, 6)
NIGHT, NOON, SUNSET = "2026-01-02T23:00:00", "2026-01-02T11:15:00", "2026-01-02T15:40:00"


def rows(name: str, *values: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(values), schema=load_context()[name].arrow_schema)


NOTHING = Surroundings(
    Weather(rows("context.weather")), load_context()["context.weather"].join_limits, rows("context.zones"), {}
)
ALL = Surroundings(
    Weather(
        rows(
            "context.weather",
            {
                "station": "munich",
                "time_utc": "2026-01-02T11:00:00Z",
                "latitude_deg": 48.2,
                "longitude_deg": 11.6,
                "weather": "rain",
            },
        )
    ),
    load_context()["context.weather"].join_limits,
    rows("context.zones", {"h3_cell": CELL, "region": "Munich", "zone": "city"}),
    {"car7": Match({"name": "Car 07", "model": "Van", "hardware": "six cameras", "firmware": "1.2"}, 5.5, 0.98)},
)


def context(
    start: str, *said: tuple[str, str, str], place: Place | None = MUNICH, around: Surroundings = ALL
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    when = datetime.fromisoformat(start).replace(tzinfo=UTC)
    drive = {
        "drive_id": f"car7--{when:%Y%m%dT%H%M%SZ}",
        "day": when.date(),
        "vehicle": "car7",
        "t_start_ns": int(when.timestamp()) * 10**9,
    }
    entries = [dict(zip(("key", "value", "source"), entry, strict=True)) for entry in said]
    found, claims = context_rows(drive, entries, place, around)
    for table, values in (("ingest.context", [found]), ("ingest.context_claims", claims)):
        pa.Table.from_pylist(values, schema=load_tables()[table].arrow_schema)
        assert all(set(value) == set(load_tables()[table].arrow_schema.names) for value in values)
    keys = [(claim["field"], claim["source"], claim["value"]) for claim in claims]
    assert len(set(keys)) == len(keys)
    assert sorted(claim["field"] for claim in claims if claim["chosen"]) == sorted(
        {claim["field"] for claim in claims if claim["chosen"]}
    )
    return found, claims


def test_everything_is_joined_and_says_where_it_is_from() -> None:
    found, claims = context(NOON)
    assert {name: found[name] for name in ("region", "zone", "weather", "light", "time_of_day")} == {
        "region": "munich",
        "zone": "city",
        "weather": "rain",
        "light": "day",
        "time_of_day": "midday",
    }
    assert (found["vehicle_model"], found["hardware"], found["match_weight"]) == ("Van", "six cameras", 5.5)
    assert found["h3_cell"] == MUNICH.cell
    assert found["contradictions"] == 0
    by_field = {claim["field"]: claim for claim in claims}
    assert by_field["weather"]["source"] == "weather table"
    assert by_field["weather"]["detail"] == "munich, 7.2 km, 15 min"
    assert by_field["vehicle_model"]["match_weight"] == 5.5
    assert by_field["region"]["detail"] == f"cell {CELL}"


def test_what_was_recorded_is_believed_and_what_contradicts_it_is_told() -> None:
    found, claims = context(
        NOON,
        ("weather", "Fog", "recording"),
        ("hardware", "SIX-cameras", "recording"),
        ("region", "munich", "operator"),
        ("light", "night", "operator"),
    )
    assert (found["weather"], found["light"], found["hardware"]) == ("fog", "night", "SIX-cameras")
    wrong = {(claim["field"], claim["source"], claim["value"]) for claim in claims if not claim["agrees"]}
    assert wrong == {("weather", "weather table", "rain"), ("light", "sun", "day")}
    assert found["contradictions"] == 2
    (operator,) = [claim for claim in claims if claim["field"] == "light" and claim["chosen"]]
    assert (operator["source"], operator["detail"]) == ("manifest", "by operator")


def test_recordings_of_one_drive_that_disagree() -> None:
    found, claims = context(NOON, ("firmware", "1.2", "recording"), ("firmware", "1.3", "recording"))
    assert found["firmware"] == "1.2"
    assert [(c["value"], c["agrees"]) for c in claims if c["field"] == "firmware" and c["source"] == "recording"] == [
        ("1.2", True),
        ("1.3", False),
    ]


def test_the_sun_leaves_room_for_houses_and_clouds() -> None:
    sunset = context(SUNSET)[0]
    assert sunset["light"] == "dusk"
    assert -4 < sunset["sun_elevation_deg"] < -0.9
    for light, contradictions in (("dusk", 0), ("day", 0), ("night", 0)):
        assert context(SUNSET, ("light", light, "recording"))[0]["contradictions"] == contradictions
    assert context(NIGHT, ("light", "dusk", "recording"))[0]["contradictions"] == 1
    assert context(NIGHT)[0]["light"] == "night"


def test_without_a_place_nothing_is_made_up() -> None:
    found, claims = context(NOON, ("weather", "clear", "recording"), place=None, around=NOTHING)
    known = {name for name, value in found.items() if value is not None}
    assert known == {"drive_id", "day", "weather", "contradictions"}
    assert len(claims) == 1


def test_words_that_nobody_knows_are_kept_and_cost_nothing() -> None:
    found, claims = context(
        NOON,
        ("light", "=1+1", "recording"),
        ("h3_cell", "x", "operator"),
        ("time_of_day", "tea", "operator"),
        ("weather", " ", "recording"),
        ("weather", "frogs" * 300, "operator"),
    )
    assert (found["light"], found["time_of_day"]) == ("day", "midday")
    assert found["h3_cell"] == MUNICH.cell
    assert len(found["weather"]) == 200
    assert [claim["agrees"] for claim in claims if claim["value"] == "=1+1"] == [False]


@pytest.mark.parametrize(
    ("elevation_deg", "light"), [(90, "day"), (-0.8, "day"), (-0.9, "dusk"), (-5.9, "dusk"), (-6.1, "night")]
)
def test_light(elevation_deg: float, light: str) -> None:
    assert light_of(elevation_deg) == light


def test_time_of_day() -> None:
    found = [time_of_day(hour) for hour in (0, 5.9, 6, 11, 14, 18, 22, 23.9)]
    assert found == ["night", "night", "morning", "midday", "afternoon", "evening", "night", "night"]

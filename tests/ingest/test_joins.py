"""Joins without a common key: places, zones, weather stations, and a register with sloppy names."""

from __future__ import annotations

import math

import h3
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.contracts.loader import load_context
from fleet_assets.ingest.places import Place, Weather, places, zone_of
from fleet_assets.ingest.vehicles import match

MUNICH = Place(48.1374, 11.5755)
NOON_NS = 1_767_355_200 * 10**9  # 2026-01-02T12:00:00Z


def positions(drive: str, latitudes: list[float], longitudes: list[float], valid: bool | None = True) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            "drive_id": [drive] * len(latitudes),
            "latitude_deg": pa.array(latitudes, pa.float64()),
            "longitude_deg": pa.array(longitudes, pa.float64()),
            "valid": pa.array([valid] * len(latitudes), pa.bool_()),
        }
    )


def test_a_drive_is_where_most_of_its_positions_are() -> None:
    rest, road = np.full(50, 48.13745), np.linspace(48.2, 48.6, 60)
    batches = [
        positions("a", [*rest, *road], [11.5755] * 110),
        positions("a", [48.13735] * 50, [11.5755] * 50),
        positions("b", [10.0] * 9, [20.0] * 9, valid=False),
        positions("c", [float("nan"), 1.005], [2.005, 2.005], valid=None),
    ]
    found = places(batches)
    assert found["a"].latitude_deg == pytest.approx(48.1374)
    assert found["c"] == Place(1.005, 2.005)
    assert "b" not in found
    assert h3.get_resolution(found["a"].cell) == 7
    # However the positions are cut into batches.
    parted = places([part for batch in batches for part in (batch.slice(0, 5), batch.slice(5))])
    assert parted.keys() == found.keys()
    for drive, place in found.items():
        assert vars(parted[drive]) == pytest.approx(vars(place))


def zones(*rows: tuple[str, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"h3_cell": cell, "region": region, "zone": None} for cell, region in rows],
        schema=load_context()["context.zones"].arrow_schema,
    )


def test_the_finest_zone_that_holds_a_place_counts() -> None:
    def cell(resolution: int) -> str:
        return str(h3.latlng_to_cell(MUNICH.latitude_deg, MUNICH.longitude_deg, resolution))

    found = zone_of(MUNICH, zones((cell(3), "bavaria"), (cell(8), "munich centre"), (cell(5), "munich")))
    assert found is not None
    assert found["region"] == "munich centre"
    assert zone_of(Place(-30.0, 140.0), zones((cell(3), "bavaria"))) is None
    assert zone_of(MUNICH, zones()) is None


def weather(*rows: tuple[str, str, float, float, str]) -> Weather:
    names = load_context()["context.weather"].arrow_schema.names
    return Weather(pa.table(list(map(list, zip(*rows, strict=True))), names=names))


NEAR = {"max_distance_km": 50.0, "max_age_min": 60.0}


def test_the_nearest_station_in_time() -> None:
    known = weather(
        ("far", "2026-01-02T12:00:00Z", 48.4, 11.6, "snow"),
        ("near", "2026-01-02T11:20:00Z", 48.15, 11.6, "rain"),
        ("near", "2026-01-02T12:20:00Z", 48.15, 11.6, "fog"),
        ("near", "2026-01-02T18:00:00Z", 48.15, 11.6, "clear"),
    )
    found = known.nearest(MUNICH, NOON_NS, **NEAR)
    assert found is not None
    assert (found.station, found.weather, found.age_min) == ("near", "fog", 20.0)
    assert found.distance_km == pytest.approx(2.3, abs=0.1)
    assert known.nearest(MUNICH, NOON_NS + 3 * 3600 * 10**9, **NEAR) is None
    assert known.nearest(Place(40.0, 11.0), NOON_NS, **NEAR) is None


def test_a_station_across_the_date_line_is_near() -> None:
    known = weather(("fiji", "2026-01-02T12:00:00Z", -17.0, -179.9, "rain"))
    found = known.nearest(Place(-17.0, 179.9), NOON_NS, **NEAR)
    assert found is not None
    assert found.distance_km == pytest.approx(21.3, abs=0.2)


observation = st.tuples(st.integers(0, 200), st.floats(47.5, 48.5), st.floats(11.0, 12.0))


@given(st.lists(observation, min_size=1, max_size=20), st.integers(0, 200))
@settings(deadline=None)
def test_weather_against_a_search_through_all(rows: list[tuple[int, float, float]], minute: int) -> None:
    day = "2026-01-02T{:02d}:{:02d}:00Z"
    known = weather(*((f"s{n}", day.format(m // 60, m % 60), a, b, "rain") for n, (m, a, b) in enumerate(rows)))
    t_ns = 1_767_312_000 * 10**9 + minute * 60 * 10**9  # 2026-01-02
    found = known.nearest(MUNICH, t_ns, **NEAR)
    in_time = [n for n, (m, _, _) in enumerate(rows) if abs(m - minute) <= 60]

    def distance_km(n: int) -> float:
        return float(h3.great_circle_distance((48.1374, 11.5755), rows[n][1:], unit="km"))

    near = [n for n in in_time if distance_km(n) <= 49.99]
    if found is None:
        assert not near
    else:
        assert found.distance_km == pytest.approx(min(map(distance_km, in_time)), abs=0.01)


def register(*rows: tuple[str, str | None]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"name": name, "serial": serial, "model": f"model of {name}"} for name, serial in rows],
        schema=load_context()["context.vehicles"].arrow_schema,
    )


SURE = {"min_probability": 0.75, "min_margin_bits": 3.0}
FLEET = register(
    *((f"Car-{number:02d}", None) for number in range(1, 21)),
    ("Rädiate van", None),
    ("test mule", "3BA-199E2"),
    ("Shuttle 3 (old)", None),
)


@pytest.mark.parametrize(
    ("vehicle", "name"),
    [
        ("car7", "Car-07"),
        ("car_17", "Car-17"),
        ("cars_7", "Car-07"),
        ("radiate", "Rädiate van"),
        ("3ba199e2", "test mule"),
        ("shuttle_3", "Shuttle 3 (old)"),
    ],
)
def test_sloppy_names_find_their_vehicle(vehicle: str, name: str) -> None:
    found = match([vehicle], FLEET, **SURE)
    assert found[vehicle].row["name"] == name
    assert found[vehicle].weight_bits == pytest.approx(math.log2(1 / (1 / found[vehicle].probability - 1)))


def test_a_vehicle_that_is_not_there_finds_none() -> None:
    assert match(["car99", "truck5", "x"], FLEET, **SURE) == {}
    assert match([], FLEET, **SURE) == match(["car7"], register(), **SURE) == {}


def test_evidence_for_two_entries_is_evidence_for_none() -> None:
    twins = pa.concat_tables([FLEET, register(("CAR 7", None))])
    assert set(match(["car7", "car8"], twins, **SURE)) == {"car8"}


def test_the_order_of_the_register_does_not_matter() -> None:
    backwards = FLEET.take(list(range(FLEET.num_rows))[::-1])
    vehicles = ["car7", "radiate", "3ba199e2"]
    first, second = (match(vehicles, rows, **SURE) for rows in (FLEET, backwards))
    assert {vehicle: (m.row, round(m.weight_bits, 9)) for vehicle, m in first.items()} == {
        vehicle: (m.row, round(m.weight_bits, 9)) for vehicle, m in second.items()
    }

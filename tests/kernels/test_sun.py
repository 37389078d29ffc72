"""The sun against published values."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from fleet_assets.kernels.sun import sun_position


def ns(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000_000


def test_the_worked_example_of_nrel() -> None:
    # I. Reda, A. Andreas, Solar Position Algorithm, NREL/TP-560-34302, table A5.1: Golden, Colorado.
    sun = sun_position(ns("2003-10-17T19:30:30"), 39.742476, -105.1786)
    assert sun.declination_deg == pytest.approx(-9.31434, abs=0.005)
    assert sun.equation_of_time_min == pytest.approx(14.641503, abs=0.02)
    assert sun.elevation_deg == pytest.approx(39.872046, abs=0.01)


@pytest.mark.parametrize(
    ("when", "declination_deg"),
    [
        ("1992-10-13T00:00:00", -7.78507),  # Meeus, example 25.a
        ("2024-03-20T03:06:00", 0.0),  # equinoxes and solstices: U.S. Naval Observatory
        ("2024-06-20T20:51:00", 23.4361),
        ("2024-09-22T12:44:00", 0.0),
        ("2024-12-21T09:20:00", -23.4361),
    ],
)
def test_declination(when: str, declination_deg: float) -> None:
    assert sun_position(ns(when), 0.0, 0.0).declination_deg == pytest.approx(declination_deg, abs=0.01)


def test_equation_of_time_at_its_extremes() -> None:
    # Year 2024, U.S. Naval Observatory: about -14 min 14 s on 11 February, +16 min 26 s on 3 November.
    assert sun_position(ns("2024-02-11T12:00:00"), 0.0, 0.0).equation_of_time_min == pytest.approx(-14.23, abs=0.1)
    assert sun_position(ns("2024-11-03T12:00:00"), 0.0, 0.0).equation_of_time_min == pytest.approx(16.43, abs=0.1)


def test_arrays_and_what_is_no_place() -> None:
    t_ns = np.array([ns("2024-06-20T12:00:00"), ns("2024-06-20T00:00:00"), 0])
    sun = sun_position(t_ns, np.array([51.5, 51.5, np.nan]), np.array([0.0, 0.0, 0.0]))
    assert sun.elevation_deg[0] > 60 > 0 > sun.elevation_deg[1]
    assert np.isnan(sun.elevation_deg[2])
    assert np.all((sun.solar_time_h[:2] >= 0) & (sun.solar_time_h[:2] < 24))
    # Under the midnight sun; in the polar night.
    assert sun_position(ns("2024-06-20T23:00:00"), 78.0, 15.0).elevation_deg > 0
    assert sun_position(ns("2024-12-21T11:00:00"), 78.0, 15.0).elevation_deg < -10

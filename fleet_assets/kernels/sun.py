"""Where the sun stands.

In: UTC and places. Out: the sun's elevation above the horizon. Source: the solar calculator of NOAA's Global Monitoring
Laboratory, whose equations are from J. Meeus, Astronomical Algorithms, 2nd edition, chapters 25 and 28; good to about 0.01
degrees between 1900 and 2100.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_J2000_NS = 946_728_000 * 1_000_000_000  # 2000-01-01 12:00 UTC, in ns since 1970
_CENTURY_NS = 36_525 * 86_400 * 1_000_000_000
_DAY_NS = 86_400 * 1_000_000_000


class Sun(NamedTuple):
    """Arrays of the inputs' common shape. elevation_deg: of its centre, without refraction. solar_time_h: apparent solar
    time, 12 when the sun is due south or north."""

    elevation_deg: np.ndarray
    declination_deg: np.ndarray
    equation_of_time_min: np.ndarray
    solar_time_h: np.ndarray


def sun_position(t_ns: np.ndarray | int, latitude_deg: np.ndarray | float, longitude_deg: np.ndarray | float) -> Sun:
    """t_ns: int64, UTC since 1970. Degrees north and east; NaN gives NaN."""
    t_ns = np.asarray(t_ns, dtype=np.int64)
    century = (t_ns - _J2000_NS) / _CENTURY_NS
    mean_longitude = np.radians((280.46646 + century * (36000.76983 + century * 0.0003032)) % 360.0)
    mean_anomaly = np.radians(357.52911 + century * (35999.05029 - century * 0.0001537))
    eccentricity = 0.016708634 - century * (0.000042037 + century * 0.0000001267)
    centre_deg = (
        np.sin(mean_anomaly) * (1.914602 - century * (0.004817 + century * 0.000014))
        + np.sin(2 * mean_anomaly) * (0.019993 - century * 0.000101)
        + np.sin(3 * mean_anomaly) * 0.000289
    )
    node = np.radians(125.04 - century * 1934.136)
    apparent_longitude = mean_longitude + np.radians(centre_deg - 0.00569 - 0.00478 * np.sin(node))
    mean_obliquity_deg = (
        23.0 + (26.0 + (21.448 - century * (46.815 + century * (0.00059 - century * 0.001813))) / 60) / 60
    )
    obliquity = np.radians(mean_obliquity_deg + 0.00256 * np.cos(node))
    declination = np.arcsin(np.sin(obliquity) * np.sin(apparent_longitude))
    y = np.tan(obliquity / 2) ** 2
    equation_of_time_min = 4 * np.degrees(
        y * np.sin(2 * mean_longitude)
        - 2 * eccentricity * np.sin(mean_anomaly)
        + 4 * eccentricity * y * np.sin(mean_anomaly) * np.cos(2 * mean_longitude)
        - 0.5 * y**2 * np.sin(4 * mean_longitude)
        - 1.25 * eccentricity**2 * np.sin(2 * mean_anomaly)
    )
    utc_h = (t_ns % _DAY_NS) / (3600 * 1_000_000_000)
    solar_time_h = (utc_h + equation_of_time_min / 60 + np.asarray(longitude_deg) / 15) % 24
    hour_angle = np.radians(15 * (solar_time_h - 12))
    latitude = np.radians(latitude_deg)
    sine = np.sin(latitude) * np.sin(declination) + np.cos(latitude) * np.cos(declination) * np.cos(hour_angle)
    elevation_deg = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
    return Sun(elevation_deg, np.degrees(declination), equation_of_time_min, solar_time_h)

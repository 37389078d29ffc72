"""Where a drive took place, and what is near it: the joins by nearness.

In: positions, a map of zones, observations of weather stations. Out: one place per drive, the zone that holds it, and the
nearest station's observation at the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# About 5 square kilometres: enough to tell a place, too coarse to tell an address.
RESOLUTION = 7
_BOX_DEG = 0.01
_EARTH_RADIUS_M = 6_371_008.8


@dataclass(frozen=True)
class Place:
    latitude_deg: float
    longitude_deg: float

    @property
    def cell(self) -> str:
        """H3 cell."""
        import h3

        return str(h3.latlng_to_cell(self.latitude_deg, self.longitude_deg, RESOLUTION))


def places(batches: Iterable[pa.RecordBatch]) -> dict[str, Place]:
    """Drive -> the middle of its positions in the box of 0.01 degrees that has most of them (the first of equals).

    batches: drive_id, latitude_deg, longitude_deg, valid. A drive without a valid position is left out. Memory grows with the
    boxes, not with the positions.
    """
    known: dict[str, dict[tuple[int, int], tuple[int, float, float]]] = {}
    for batch in batches:
        rows = pa.Table.from_batches([batch])
        usable = pc.and_(pc.fill_null(rows["valid"], True), pc.is_finite(rows["latitude_deg"]))
        rows = rows.filter(pc.and_(usable, pc.is_finite(rows["longitude_deg"])))
        for name in ("latitude_deg", "longitude_deg"):
            box = pc.cast(pc.floor(pc.divide(rows[name], _BOX_DEG)), pa.int64())
            rows = rows.append_column(f"{name}_box", box)
        boxes = ["drive_id", "latitude_deg_box", "longitude_deg_box"]
        sums = [("latitude_deg", "count"), ("latitude_deg", "sum"), ("longitude_deg", "sum")]
        for row in rows.group_by(boxes).aggregate(sums).to_pylist():
            of_drive = known.setdefault(row["drive_id"], {})
            key = (row["latitude_deg_box"], row["longitude_deg_box"])
            count, north, east = of_drive.get(key, (0, 0.0, 0.0))
            of_drive[key] = (
                count + row["latitude_deg_count"],
                north + row["latitude_deg_sum"],
                east + row["longitude_deg_sum"],
            )
    found = {}
    for drive, of_drive in known.items():
        _, (count, north, east) = min(of_drive.items(), key=lambda item: (-item[1][0], item[0]))
        found[drive] = Place(north / count, east / count)
    return found


def zone_of(place: Place, zones: pa.Table) -> Mapping[str, str | None] | None:
    """The row of zones whose cell holds the place, of several the one with the finest cell."""
    import h3

    cells = [h3.latlng_to_cell(place.latitude_deg, place.longitude_deg, resolution) for resolution in range(15, -1, -1)]
    at = pc.index_in(pa.array(cells), value_set=zones["h3_cell"].combine_chunks()).drop_null()
    return dict(zones.slice(at[0].as_py(), 1).to_pylist()[0]) if len(at) else None


@dataclass(frozen=True)
class Observation:
    weather: str
    station: str
    distance_km: float
    age_min: float


class Weather:
    """Observations, to be asked for the nearest one. rows: of context.weather."""

    def __init__(self, rows: pa.Table) -> None:
        seconds = pc.cast(pc.strptime(rows["time_utc"], "%Y-%m-%dT%H:%M:%SZ", "s"), pa.int64()).to_numpy()
        order = np.argsort(seconds, kind="stable")
        self._t_s = seconds[order]
        self._latitude, self._longitude = (
            np.radians(rows[name].to_numpy()[order]) for name in ("latitude_deg", "longitude_deg")
        )
        self._rows = rows.take(pa.array(order))

    def nearest(self, place: Place, t_ns: int, *, max_distance_km: float, max_age_min: float) -> Observation | None:
        """Of the nearest station that has one in time, the observation nearest in time; ties go to the earlier one."""
        t_s = t_ns / 1e9
        low = int(np.searchsorted(self._t_s, t_s - max_age_min * 60, side="left"))
        high = int(np.searchsorted(self._t_s, t_s + max_age_min * 60, side="right"))
        if low == high:
            return None
        distance_km = self._distance_m(place, slice(low, high)) / 1000
        age_min = np.abs(self._t_s[low:high] - t_s) / 60
        best = int(np.lexsort((age_min, np.round(distance_km, 6)))[0])
        if distance_km[best] > max_distance_km:
            return None
        row = self._rows.slice(low + best, 1).to_pylist()[0]
        return Observation(row["weather"], row["station"], float(distance_km[best]), float(age_min[best]))

    def _distance_m(self, place: Place, rows: slice) -> np.ndarray:
        """Great circle (haversine)."""
        latitude, longitude = np.radians(place.latitude_deg), np.radians(place.longitude_deg)
        north, east = self._latitude[rows] - latitude, self._longitude[rows] - longitude
        half = np.sin(north / 2) ** 2 + np.cos(latitude) * np.cos(self._latitude[rows]) * np.sin(east / 2) ** 2
        return np.asarray(2 * _EARTH_RADIUS_M * np.arcsin(np.sqrt(np.clip(half, 0, 1))))

"""The map of the towns that simulated drives go through.

In: seed and region of each drive. Out: lanes.csv as a file of context: the lane that the vehicle drives, and the oncoming one.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from fleet_assets.simulate.messages import latitude_longitude, origin_deg
from fleet_assets.simulate.parameters import parameters
from fleet_assets.simulate.scene import loop_of
from fleet_assets.simulate.town import ONCOMING_M

LANES = "lanes.csv"
_SPACING_M = 2.0
_COLUMNS = ("lane_id", "point", "latitude_deg", "longitude_deg", "map_version")


def write_lanes(path: Path, towns: Iterable[tuple[int, str]]) -> None:
    """towns: seed and region of each drive."""
    version = f"simulated {parameters()['version']}"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for seed, region in sorted(set(towns)):
            for lane_id, latitude, longitude in lanes_of(seed, region):
                for point, place in enumerate(zip(latitude.tolist(), longitude.tolist(), strict=True)):
                    # To a hundredth of a millimetre: curvature is a second difference.
                    writer.writerow([lane_id, point, *(f"{degrees:.10f}" for degrees in place), version])


def lanes_of(seed: int, region: str) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Centre lines in the order of travel: id, latitudes, longitudes [deg]. A lane goes once round, and meets itself."""
    loop = loop_of(seed)
    along = np.linspace(0.0, loop.length_m, int(loop.length_m / _SPACING_M) + 1)
    for name, left_m, places in (("ours", 0.0, along), ("oncoming", ONCOMING_M, along[::-1])):
        x, y, _ = loop.at(places, left_m)
        yield f"{region}-{seed}-{name}", *latitude_longitude(origin_deg(region, seed), x, y)

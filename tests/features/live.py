"""Records as a test wants them, and what the live kernels make of them.

As a program: prints the hash of what all kernels make of many random records, which must be the same on every machine.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from fleet_assets.edge.feed import LIVE, Feed, in_order_of_arrival, records_of
from fleet_assets.edge.on_demand import Chain, wanted
from fleet_assets.kernels.features.lane_cell import CELL_M, lane_cells
from fleet_assets.kernels.features.lane_curvature import (
    BUCKET_M,
    cells_near,
    curvatures,
    middles,
    nearest,
    quantised,
    segments,
)
from fleet_assets.kernels.features.on_demand import ON_DEMAND
from fleet_assets.kernels.features.payload import checksum, cloud_summary, image_summary, radar_summary
from fleet_assets.kernels.features.records import NO_TIME, RECORD, SOURCES, VALUES

T0_NS = 1_767_323_045_000_000_000
MS, SECOND = 1_000_000, 1_000_000_000


def stream(source: str, rate_hz: float, values: np.ndarray, *, delay_ms: float = 1.0) -> np.ndarray:
    """Regular records of one source; values [n, k]."""
    device = T0_NS + (np.arange(len(values)) * (1e9 / rate_hz)).astype(np.int64)
    host = device + round(delay_ms * MS)
    return records_of(source, SOURCES.index(source), host, device, np.arange(len(values)), list(values.T))


def features(view: str, records: np.ndarray, cut_ns: list[int] | np.ndarray) -> list[dict[str, float]]:
    """The view's features at each cut, by name."""
    made = Feed([view]).push(in_order_of_arrival([records]), np.asarray(cut_ns, dtype=np.int64))[view]
    return [dict(zip(LIVE[view].FEATURES, row.tolist(), strict=True)) for row in made]


def random_records(seed: int, count: int) -> np.ndarray:
    """Records of all sources as no test would think of them: bursts, silences, device clocks that jump, repeat and run
    backwards, stamps of the sensor that are missing, values that are huge, tiny, repeated or no numbers."""
    random = np.random.default_rng(seed)
    found = np.zeros(count, dtype=RECORD)
    steps = random.choice(
        [0, 1, 10 * MS, 100 * MS, 3 * SECOND, 20 * SECOND], count, p=[0.1, 0.1, 0.6, 0.19, 0.008, 0.002]
    )
    found["t_host_ns"] = T0_NS + np.cumsum(random.integers(0, steps + 1, count))
    found["t_device_ns"] = found["t_host_ns"] - random.integers(-5 * MS, 200 * MS, count)
    found["t_device_ns"][random.random(count) < 0.1] = NO_TIME
    found["sequence"] = np.arange(count)
    found["source"] = found["stream"] = random.integers(0, len(SOURCES), count)
    found["values"] = random.normal(0, 1, (count, VALUES)) * 10.0 ** random.integers(-9, 9, (count, VALUES))
    found["values"][random.random((count, VALUES)) < 0.05] = np.nan
    again = np.flatnonzero(random.random(count) < 0.1)
    found["values"][again] = found["values"][np.maximum(again - 1, 0)]
    return found


def frame_cuts(records: np.ndarray, count: int) -> np.ndarray:
    """Cuts between the first and last record, some on a record, some twice."""
    random = np.random.default_rng(count)
    cuts = random.integers(records["t_host_ns"][0] - SECOND, records["t_host_ns"][-1] + SECOND, count)
    cuts[: count // 4] = random.choice(records["t_host_ns"], count // 4)
    return np.sort(cuts)


def replayed(records: np.ndarray, cut_ns: np.ndarray) -> dict[str, np.ndarray]:
    """All at once, as batch does."""
    return Feed().push(records, cut_ns)


def digest() -> str:
    """sha256 of the bits of what the kernels make of random records, images and clouds."""
    found = hashlib.sha256()
    for seed in range(2):
        records = random_records(seed, 60_000)
        for view, values in sorted(replayed(records, frame_cuts(records, 10_000)).items()):
            found.update(view.encode() + values.tobytes())
    random = np.random.default_rng(0)
    for _ in range(50):
        pixels = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        found.update(np.array([checksum(pixels.ravel()), *image_summary(pixels)]).tobytes())
        found.update(np.array(cloud_summary(*random.normal(0, 30, (4, 500)))).tobytes())
    places = (random.uniform(-90, 90, 100_000), random.uniform(-180, 180, 100_000), random.uniform(0, 360, 100_000))
    found.update(lane_cells(*places).tobytes())
    for _ in range(20):
        echoes = random.integers(0, 256, (40, 50, 1), dtype=np.uint8)
        found.update(np.array(radar_summary(echoes)).tobytes())
    inputs = wanted(list(ON_DEMAND))
    found.update(Chain(inputs).apply(random.normal(0, 30, (100_000, len(inputs)))).tobytes())
    steps = random.normal(0, 1e-5, (2, 10_000)).cumsum(axis=1)
    begin = np.arange(0, 10_001, 100)
    latitude, longitude = 48 + steps[0], 11 + steps[1]
    curvature, (first, heading) = curvatures(latitude, longitude, begin), segments(latitude, longitude, begin)
    cells, owner = cells_near(latitude, longitude, first, 25.0, BUCKET_M)
    order = np.argsort(cells, kind="stable")
    lanes = (latitude, longitude, curvature, first, heading, cells[order], owner[order])
    served = middles(np.unique(cells_near(latitude, longitude, first[:500], 5.0, CELL_M)[0]))
    on_lanes = np.stack([latitude, longitude, random.uniform(0, 360, latitude.size)], axis=1)
    for place in (served, on_lanes):
        full = nearest(place, *lanes, 25.0, 60.0)
        assert np.isfinite(full).any()
        found.update(full.tobytes() + quantised(full, 2.0**-12).tobytes())
    for values in (curvature, first, heading, cells, owner, served):
        found.update(values.tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    sys.stdout.write(digest())

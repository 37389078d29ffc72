"""Lane curvature from a map: in full, as it is served, and how far apart the two are.

In: lanes.csv of the context folder, the policy. Out: rows of features.lane_curvature, by lane cell; and the error of this served
form against the full one, per slice of the map. A map whose error is beyond a bound is not published.

A publication holds one map, and is known from then on; it is never changed. What an earlier map had and this one has not becomes
null, so that a lane that is gone is gone for those who ask now, and still there for those who ask about then.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.capture.context_files import ContextFile, summary
from fleet_assets.errors import FleetError
from fleet_assets.features.identity import code_version
from fleet_assets.features.lane_policy import Fix, LanePolicy
from fleet_assets.features.write import publication_key, upsert
from fleet_assets.kernels.features import lane_curvature as kernel
from fleet_assets.kernels.features.lane_cell import CELL_M, M_PER_DEG, lane_cells
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.publish import Published
from fleet_assets.lake.tables import day_of

CONTRACT, TABLE = "context.lanes", "features.lane_curvature"
VIEW = "lane_curvature"
_SLACK = 1.05  # of the index over what is asked of it
_SEGMENTS_AT_ONCE = 50_000
_CELLS_AT_ONCE = 250_000
_MOST_CELLS = 5_000_000  # 80 square kilometres of lanes
_FIXES = 200_000  # per kind of fix, at which the error is measured


@dataclass(frozen=True)
class Lanes:
    """Centre lines: points [n] in degrees, WGS 84; begin: int64 [lanes + 1], where each lane's points begin. file: what was
    read."""

    map_version: str
    latitude_deg: np.ndarray
    longitude_deg: np.ndarray
    begin: np.ndarray
    policy: LanePolicy
    file: ContextFile

    @cached_property
    def curvature_per_m(self) -> np.ndarray:
        return np.asarray(kernel.curvatures(self.latitude_deg, self.longitude_deg, self.begin))

    @cached_property
    def segments(self) -> tuple[np.ndarray, np.ndarray]:
        """First point and heading of each piece."""
        first, heading_deg = kernel.segments(self.latitude_deg, self.longitude_deg, self.begin)
        return first, heading_deg

    @cached_property
    def _index(self) -> tuple[np.ndarray, np.ndarray]:
        reach_m = self.policy.reach_m * _SLACK
        cells, owner = kernel.cells_near(
            self.latitude_deg, self.longitude_deg, self.segments[0], reach_m, kernel.BUCKET_M
        )
        order = np.argsort(cells, kind="stable")
        return cells[order], owner[order]

    def curvature_at(self, place: np.ndarray) -> np.ndarray:
        """The full form: place float64 [p, 3], latitude, longitude, heading [deg]; gives float64 [p], NaN off the lanes."""
        return np.asarray(
            kernel.nearest(
                place, self.latitude_deg, self.longitude_deg, self.curvature_per_m, *self.segments, *self._index,
                self.policy.reach_m, self.policy.turn_deg,
            )
        )  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """The served form: cells, int64 [n] ascending, and the curvature of each."""

    lane_cell: np.ndarray
    curvature_per_m: np.ndarray

    def curvature_at(self, place: np.ndarray) -> np.ndarray:
        """As Lanes.curvature_at, by the cell alone."""
        cells = lane_cells(*np.ascontiguousarray(place.T))
        at = np.minimum(np.searchsorted(self.lane_cell, cells), self.lane_cell.size - 1)
        return np.where(self.lane_cell[at] == cells, self.curvature_per_m[at], np.nan)


@dataclass(frozen=True)
class Measured:
    """The served form against the full one in one slice. fixes: where the full form has a value."""

    curve: str
    fix: str
    fixes: int
    found_ppm: int
    error_p95_per_m: float
    error_max_per_m: float
    bound_p95_per_m: float
    bound_found_ppm: int

    @property
    def holds(self) -> bool:
        return self.error_p95_per_m <= self.bound_p95_per_m and self.found_ppm >= self.bound_found_ppm

    def __str__(self) -> str:
        return (
            f"{self.curve} lanes, {self.fix} fixes: error {self.error_p95_per_m:.5f} per m (bound {self.bound_p95_per_m:g}), "
            f"{self.found_ppm / 1e4:.2f} % found (bound {self.bound_found_ppm / 1e4:g} %)"
        )


def lanes_of(file: ContextFile, policy: LanePolicy) -> Lanes:
    """Rows of context.lanes as lanes: parted where numbers of points are missing, and where points are too far apart.

    Raises FleetError for a file that is not right as a whole, one without lanes, and several versions of a map.
    """
    if file.error is not None:
        raise file.error
    if file.refused:
        raise FleetError(
            "lanes.csv is not right as a whole", where=summary(file), remedy="Give a map without wrong rows."
        )
    rows = file.rows.sort_by([("lane_id", "ascending"), ("point", "ascending")])
    versions = pc.unique(rows["map_version"]).to_pylist()
    if len(versions) != 1:
        raise FleetError(
            f"lanes.csv holds {len(versions)} versions of maps",
            where=", ".join(sorted(versions)[:5]),
            remedy="Give one map, of one version.",
        )
    lane = rows["lane_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    point, latitude, longitude = (rows[name].to_numpy() for name in ("point", "latitude_deg", "longitude_deg"))
    north = np.diff(latitude) * M_PER_DEG
    east = np.diff(longitude) * M_PER_DEG * np.cos(np.radians(latitude[1:]))
    parted = (np.diff(lane) != 0) | (np.diff(point) != 1.0) | (np.hypot(north, east) > policy.gap_m)
    begin = np.concatenate([[0], np.flatnonzero(parted) + 1, [len(lane)]]).astype(np.int64)
    lanes = Lanes(versions[0], latitude, longitude, begin, policy, file)
    if not lanes.segments[0].size:
        raise FleetError("lanes.csv has no lane", where=summary(file), remedy="Give each lane at least two points.")
    return lanes


def tile_of(lanes: Lanes) -> Tile:
    """Every cell whose middle is within reach of a lane that leads that way. Raises FleetError for more than a region's."""
    first = lanes.segments[0]
    near = np.empty(0, dtype=np.int64)
    for begin in range(0, first.size, _SEGMENTS_AT_ONCE):
        part = first[begin : begin + _SEGMENTS_AT_ONCE]
        cells, _ = kernel.cells_near(lanes.latitude_deg, lanes.longitude_deg, part, lanes.policy.reach_m, CELL_M)
        near = np.union1d(near, cells)
        if near.size > _MOST_CELLS:
            raise FleetError(
                f"The lanes lie in more than {_MOST_CELLS:,} cells",
                where=f"point {part[-1]} of {lanes.latitude_deg.size}",
                remedy="Give the map of a smaller region.",
            )
    made = [_served(lanes, near[begin : begin + _CELLS_AT_ONCE]) for begin in range(0, near.size, _CELLS_AT_ONCE)]
    cell, curvature = (np.concatenate(parts) for parts in zip(*made, strict=True))
    order = np.argsort(cell)
    return Tile(cell[order], curvature[order])


def _served(lanes: Lanes, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of cells without sector: those with a sector that has a lane, and its curvature."""
    place = kernel.middles(cells)
    curvature = kernel.quantised(lanes.curvature_at(place), lanes.policy.quantum_per_m)
    known = np.flatnonzero(np.isfinite(curvature))
    return lane_cells(*np.ascontiguousarray(place[known].T)), curvature[known]


def measured(lanes: Lanes, tile: Tile) -> list[Measured]:
    """The error of the served form at fixes along all lanes, per curve and kind of fix; the same for the same map."""
    found = []
    for name, fix in lanes.policy.fixes.items():
        place = _fixes(lanes, fix)
        full, served = lanes.curvature_at(place), tile.curvature_at(place)
        known = np.isfinite(full)
        curve = np.searchsorted(list(lanes.policy.curves.values()), np.abs(full))
        for number, curve_name in enumerate(lanes.policy.curves):
            chosen = known & (curve == number)
            error = np.abs(full - served)[chosen & np.isfinite(served)]
            fixes = int(chosen.sum())
            bound = lanes.policy.bounds[curve_name, name]
            if fixes:
                found.append(
                    Measured(
                        curve=curve_name,
                        fix=name,
                        fixes=fixes,
                        found_ppm=error.size * 1_000_000 // fixes,
                        error_p95_per_m=float(np.quantile(error, 0.95)) if error.size else float("inf"),
                        error_max_per_m=float(error.max()) if error.size else float("inf"),
                        bound_p95_per_m=bound.error_p95_per_m,
                        bound_found_ppm=bound.found_ppm,
                    )
                )
    return found


def _fixes(lanes: Lanes, fix: Fix) -> np.ndarray:
    """Places beside the middles of pieces, on either side in turn, with noise: float64 [p, 3]."""
    first, heading = lanes.segments
    chosen = np.unique(np.linspace(0, first.size - 1, min(first.size, _FIXES)).astype(np.int64))
    at, heading = first[chosen], heading[chosen]
    random = np.random.default_rng(0)
    side = np.where(np.arange(at.size) % 2, fix.beside_m, -fix.beside_m)
    across = np.radians(heading - 90.0)
    east, north = random.normal(0.0, fix.noise_m, (2, at.size)) + side * np.stack([np.sin(across), np.cos(across)])
    latitude = (lanes.latitude_deg[at] + lanes.latitude_deg[at + 1]) / 2
    longitude = (lanes.longitude_deg[at] + lanes.longitude_deg[at + 1]) / 2
    turned = (heading + random.normal(0.0, fix.heading_noise_deg, at.size)) % 360.0
    wide = M_PER_DEG * np.cos(np.radians(latitude))
    return np.stack([latitude + north / M_PER_DEG, longitude + east / wide, turned], axis=1)


def publish_lanes(
    lake: Lake, lanes: Lanes, tile: Tile, published: datetime, *, run_id: str | None = None
) -> Published | None:
    """Publishes a map as known from `published` on (to the second, UTC). None: it is what the lake has last.

    Raises FleetError for a time in the future, and for one before a publication that is there.
    """
    key = publication_key("lanes", published)
    snapshot = lake.at()
    published_ns = int(published.timestamp()) * 10**9
    last_ns = pc.max(snapshot.scan(TABLE, ["t_ns"])["t_ns"]).as_py()
    if last_ns is not None and published_ns <= last_ns:
        if snapshot.versions([key], [TABLE]):
            return None
        last = f"{datetime.fromtimestamp(last_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S}"
        raise FleetError(f"A map was published at {last} already", remedy="Publish what is known now, as of now.")
    columns = ["lane_cell", "lane_curvature_per_m", "lane_map_version"]
    before = snapshot.scan(TABLE, columns, predicate=f"t_ns = {last_ns}" if last_ns is not None else "false")
    before = before.filter(pc.is_valid(before["lane_curvature_per_m"])).sort_by("lane_cell")
    now = _rows(tile.lane_cell, tile.curvature_per_m, lanes.map_version)
    if now.cast(before.schema).combine_chunks().equals(before.combine_chunks()):
        return None
    gone = np.setdiff1d(before["lane_cell"].to_numpy(), tile.lane_cell)
    rows = pa.concat_tables([now, _rows(gone, np.full(gone.size, np.nan), lanes.map_version)])
    times = [("t_ns", published_ns), ("available_ns", published_ns)]
    for name, values in (("drive_id", key), ("day", day_of(key)), *times):
        rows = rows.append_column(name, pa.repeat(values, rows.num_rows))
    policy = lanes.policy
    made_by = f"{code_version([VIEW])} policy@v{policy.version}:{policy.fingerprint[:16]}"
    with tempfile.TemporaryDirectory(prefix="lanes-") as scratch:
        copy = Path(scratch, "lanes.csv")
        copy.write_bytes(lanes.file.content)
        kept = {f"context/{lanes.file.sha256}.csv": copy}  # as files of context are kept
        return upsert(lake, TABLE, rows, name="lanes", run_id=run_id, objects=kept, code_version=made_by)


def _rows(cell: np.ndarray, curvature: np.ndarray, map_version: str) -> pa.Table:
    return pa.table(
        {
            "lane_cell": pa.array(cell, pa.int64()),
            "lane_curvature_per_m": pa.array(curvature, pa.float64(), from_pandas=True),
            "lane_map_version": pa.repeat(pa.scalar(map_version), cell.size),
        }
    )

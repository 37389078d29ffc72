"""Curvature of lanes: the full form beside brute force, the served form beside the full one, and the declared bounds."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from features.drives import generated, made, synchronised
from features.lanes import degrees, lane_rows, lanes_in
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest.decoding import START

from fleet_assets.capture.context_files import read
from fleet_assets.contracts.document import ContractError
from fleet_assets.errors import FleetError
from fleet_assets.features import lane_policy
from fleet_assets.features import lanes as features_lanes
from fleet_assets.features.lane_policy import load_lane_policy
from fleet_assets.features.lanes import CONTRACT, Lanes, Tile, lanes_of, measured, tile_of
from fleet_assets.kernels.features.elementary import compass_deg, cos_deg
from fleet_assets.kernels.features.lane_cell import CELL_M, M_PER_DEG, NOWHERE, SECTORS, lane_cell, middle
from fleet_assets.simulate.conditions import draw
from fleet_assets.simulate.lanes import LANES, write_lanes
from fleet_assets.simulate.messages import latitude_longitude, origin_deg
from fleet_assets.simulate.scene import generator, loop_of

# ---- cells -----------------------------------------------------------------------------------------------------------


def test_elementary_functions_beside_the_systems() -> None:
    random = np.random.default_rng(0)
    for angle in [0.0, 45.0, 90.0, -90.0, *random.uniform(-90, 90, 500).tolist()]:
        assert cos_deg(angle) == pytest.approx(math.cos(math.radians(angle)), abs=1e-12)
    ways = [*random.normal(0, 1, (500, 2)).tolist(), [0, 1], [1, 0], [0, -1], [-1, 0], [1, 1], [-1, -1e-300]]
    for east, north in ways:
        wanted = math.degrees(math.atan2(east, north)) % 360.0
        found = compass_deg(east, north)
        assert 0 <= found < 360
        assert abs((found - wanted + 180.0) % 360.0 - 180.0) < 1e-10
    assert compass_deg(0.0, 0.0) == 0.0


@settings(max_examples=500, deadline=None)
@given(st.floats(-85, 85), st.floats(-179.9, 179.9), st.floats(0, 360))
def test_a_cell_is_a_few_metres_around_its_middle(latitude: float, longitude: float, heading: float) -> None:
    cell = lane_cell(latitude, longitude, heading)
    north, east, turned = middle(cell)
    assert lane_cell(north, east, turned) == cell
    assert abs(latitude - north) * M_PER_DEG <= CELL_M / 2 * 1.001
    assert abs(longitude - east) * M_PER_DEG * math.cos(math.radians(north)) <= CELL_M / 2 * 1.001
    assert abs((heading - turned + 180) % 360 - 180) <= 180 / SECTORS * 1.001


@pytest.mark.parametrize(
    "place",
    [(math.nan, 0, 0), (0, math.nan, 0), (0, 0, math.nan), (91, 0, 0), (0, 181, 0), (math.inf, 0, 0), (0, 0, 1e300)],
)
def test_no_place_has_no_cell(place: tuple[float, float, float]) -> None:
    assert lane_cell(*map(float, place)) == NOWHERE


# ---- the full form ---------------------------------------------------------------------------------------------------


def brute_force(lanes: Lanes, latitude: float, longitude: float, heading: float) -> float:
    """Every piece of every lane, with the system's own functions."""
    best, found = lanes.policy.reach_m, math.nan
    for first, last in zip(lanes.begin, lanes.begin[1:], strict=False):
        for a in range(first, last - 1):
            wide = M_PER_DEG * math.cos(math.radians(latitude))
            ends = [
                np.array([(lanes.longitude_deg[p] - longitude) * wide, (lanes.latitude_deg[p] - latitude) * M_PER_DEG])
                for p in (a, a + 1)
            ]
            way = ends[1] - ends[0]
            if not way.any():
                continue
            turn = abs(heading - math.degrees(math.atan2(way[0], way[1]))) % 360
            if min(turn, 360 - turn) > lanes.policy.turn_deg:
                continue
            share = min(max(-float(ends[0] @ way) / float(way @ way), 0), 1)
            distance = float(np.hypot(*(ends[0] + share * way)))
            if distance < best:
                ours, next_one = lanes.curvature_per_m[a : a + 2]
                best, found = distance, ours + share * (next_one - ours)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_the_nearest_lane_that_leads_there_as_brute_force(seed: int) -> None:
    """Crooked lanes that cross, side by side and against each other; places around them."""
    random = np.random.default_rng(seed)
    lanes = {}
    for number in range(4):
        steps = random.normal(0, 4, (2, 20)) + random.normal(0, 4, (2, 1))
        x, y = np.cumsum(steps, axis=1)
        lanes[f"lane {number}"] = (x, y)
    found = lanes_in(lane_rows(lanes))
    x, y = random.uniform(-60, 60, (2, 60))
    near = random.integers(0, found.latitude_deg.size, 60)
    latitude, longitude = degrees(x, y)
    latitude[:40] = found.latitude_deg[near[:40]] + random.normal(0, 3, 40) / M_PER_DEG
    longitude[:40] = found.longitude_deg[near[:40]] + random.normal(0, 3, 40) / M_PER_DEG
    place = np.stack([latitude, longitude, random.uniform(0, 360, 60)], axis=1)
    wanted = [brute_force(found, *row) for row in place.tolist()]
    assert found.curvature_at(place) == pytest.approx(wanted, abs=1e-9, nan_ok=True)


def test_curvature_of_a_circle_has_the_sign_of_the_turn() -> None:
    angle = np.linspace(0, 2 * np.pi, 100)
    circle = (20 * np.cos(angle), 20 * np.sin(angle))
    left, right = lanes_in(lane_rows({"a": circle})), lanes_in(lane_rows({"a": (circle[0][::-1], circle[1][::-1])}))
    assert left.curvature_per_m == pytest.approx(1 / 20, rel=1e-3)
    assert right.curvature_per_m == pytest.approx(-1 / 20, rel=1e-3)
    assert lanes_in(lane_rows({"a": (np.arange(9.0), np.arange(9.0))})).curvature_per_m == pytest.approx(0, abs=1e-5)


def test_the_heading_says_which_of_two_lanes() -> None:
    """Ours bends left; the oncoming one, beside it, is the same bend and turns right."""
    angle = np.linspace(0, np.pi, 50)
    ours = (30 * np.cos(angle), 30 * np.sin(angle))
    other = (26.5 * np.cos(angle[::-1]), 26.5 * np.sin(angle[::-1]))
    lanes = lanes_in(lane_rows({"ours": ours, "oncoming": other}))
    latitude, longitude = degrees(np.array([0.0]), np.array([28.5]))  # nearer to ours, where it leads west
    places = np.array([[latitude[0], longitude[0], heading] for heading in (270.0, 90.0, 0.0)])
    full = lanes.curvature_at(places)
    assert full[:2] == pytest.approx([1 / 30, -1 / 26.5], rel=0.01)
    assert np.isnan(full[2])
    served = tile_of(lanes).curvature_at(places)
    assert served[:2] == pytest.approx(full[:2], abs=0.002)
    assert np.isnan(served[2])


def test_a_lane_is_parted_where_points_are_missing_or_far() -> None:
    x = np.concatenate([np.arange(20.0), 500 + np.arange(20.0)])
    rows = lane_rows({"a": (x, np.zeros(40))})
    whole = lanes_in(rows)
    assert whole.begin.tolist() == [0, 20, 40]
    without = lanes_in(rows.filter(rows["point"].to_numpy() != 7.0))
    assert without.begin.tolist() == [0, 7, 19, 39]
    latitude, longitude = degrees(np.array([250.0]), np.array([0.0]))
    assert np.isnan(whole.curvature_at(np.array([[latitude[0], longitude[0], 90.0]]))).all()


def test_maps_that_say_nothing_are_refused() -> None:
    for points in (np.zeros(1), np.zeros(5)):
        with pytest.raises(FleetError, match="has no lane"):
            lanes_in(lane_rows({"a": (points, points)}))


def test_a_map_with_a_wrong_row_is_refused_as_a_whole(tmp_path: Path) -> None:
    write_lanes(tmp_path / LANES, [(0, "munich")])
    whole = (tmp_path / LANES).read_text()
    (tmp_path / LANES).write_text(whole[: len(whole) // 2].rsplit(",", 2)[0] + "\n")  # cut off
    with pytest.raises(FleetError, match="not right as a whole"):
        lanes_of(read(tmp_path, CONTRACT), load_lane_policy())
    (tmp_path / LANES).write_text("")
    with pytest.raises(FleetError, match=r"lanes\.csv"):
        lanes_of(read(tmp_path, CONTRACT), load_lane_policy())


def test_a_map_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_lanes, "_MOST_CELLS", 100)
    with pytest.raises(FleetError, match="more than 100 cells"):
        tile_of(lanes_in(lane_rows({"a": (np.arange(500.0), np.zeros(500))})))


def test_parts_of_a_map_are_the_whole(town: Lanes, tile: Tile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features_lanes, "_CELLS_AT_ONCE", 700)
    monkeypatch.setattr(features_lanes, "_SEGMENTS_AT_ONCE", 300)
    again = tile_of(town)
    assert np.array_equal(again.lane_cell, tile.lane_cell)
    assert again.curvature_per_m.tobytes() == tile.curvature_per_m.tobytes()


def test_several_versions_are_no_map() -> None:
    one, other = (lane_rows({version: (np.arange(5.0), np.arange(5.0))}, version) for version in ("1", "2"))
    with pytest.raises(FleetError, match="holds 2 versions"):
        lanes_in(pa.concat_tables([one, other]))


# ---- the served form -------------------------------------------------------------------------------------------------

TOWNS = [(seed, region) for seed in range(3) for region in ("munich", "hamburg")]


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Lanes:
    """The roads of simulated drives."""
    folder = tmp_path_factory.mktemp("map")
    write_lanes(folder / LANES, TOWNS)
    file = read(folder, CONTRACT)
    assert (file.error, file.refused) == (None, {})
    return lanes_of(file, load_lane_policy())


@pytest.fixture(scope="module")
def tile(town: Lanes) -> Tile:
    return tile_of(town)


def test_the_served_form_keeps_its_bounds_in_every_slice(town: Lanes, tile: Tile) -> None:
    slices = measured(town, tile)
    assert [str(one) for one in slices if not one.holds] == []
    policy = load_lane_policy()
    assert {(one.curve, one.fix) for one in slices} == {(c, f) for c in policy.curves for f in policy.fixes}
    assert measured(town, tile) == slices
    # It is an approximation, and told as one.
    assert all(0 < one.error_p95_per_m <= one.error_max_per_m for one in slices)


def test_a_cell_has_the_full_form_of_its_middle_to_a_quantum(town: Lanes, tile: Tile) -> None:
    place = np.array([middle(cell) for cell in tile.lane_cell.tolist()])
    quantum = load_lane_policy().quantum_per_m
    assert np.abs(town.curvature_at(place) - tile.curvature_per_m).max() <= quantum / 2
    assert np.array_equal(tile.curvature_per_m / quantum, np.round(tile.curvature_per_m / quantum))
    assert np.array_equal(tile.curvature_at(place), tile.curvature_per_m)


@pytest.mark.parametrize("harm", ["another sign", "missing cells", "a coarse quantum"])
def test_a_wrong_tile_is_found(town: Lanes, tile: Tile, harm: str) -> None:
    wrong = {
        "another sign": Tile(tile.lane_cell, -tile.curvature_per_m),
        "missing cells": Tile(tile.lane_cell[::2], tile.curvature_per_m[::2]),
        "a coarse quantum": Tile(tile.lane_cell, np.round(tile.curvature_per_m * 20) / 20),
    }[harm]
    assert any(not one.holds for one in measured(town, wrong))


@pytest.mark.slow
def test_a_drive_looks_up_the_curvature_of_its_own_road(tmp_path: Path) -> None:
    """From the fixes of a recording to the served value, beside the truth of the simulator at the fix."""
    decoded, _ = generated(tmp_path, seed=1, duration_s=30.0, unique_s=1.0)
    position = made(decoded, synchronised(decoded))["features.position"]
    conditions = draw(generator(1, "conditions"), datetime.fromisoformat(START), None, None, None)
    write_lanes(tmp_path / LANES, [(1, conditions.region)])
    tile = tile_of(lanes_of(read(tmp_path, CONTRACT), load_lane_policy()))
    rows = position.filter(pc.is_valid(position["lane_cell"]))
    assert rows.num_rows > 0.85 * position.num_rows  # a heading needs two fixes
    place = np.stack([rows[name].to_numpy() for name in ("latitude_deg", "longitude_deg", "heading_deg")], axis=1)
    cells = [lane_cell(*row) for row in place.tolist()]  # as a vehicle asks, one at a time
    assert cells == rows["lane_cell"].to_pylist()
    served = tile.curvature_at(place)
    assert np.isfinite(served).mean() > 0.9
    loop = loop_of(1)
    latitude, longitude = latitude_longitude(origin_deg(conditions.region, 1), loop.x_m, loop.y_m)
    wide = np.cos(np.radians(latitude[0]))
    apart = (latitude - place[:, :1]) ** 2 + ((longitude - place[:, 1:2]) * wide) ** 2
    true = loop.curvature_pm[np.argmin(apart, axis=1)]
    known = np.isfinite(served)
    assert np.quantile(np.abs(served - true)[known], 0.95) < 0.02
    assert np.abs(true[known]).max() > 0.02  # it went round a corner


# ---- the policy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (("cell_m: 4", "cell_m: 8"), "the kernel has 4"),
        (("sectors: 8", "sectors: 16"), "the kernel has 8"),
        (("0.000244140625", "0.0003"), "no power of two"),
        (("gentle: 0.02", "gentle: 0.0002"), "do not ascend"),
        (("sharp: .inf", "sharp: 1"), "do not ascend"),
        (("exact: [0.02, 999000]", "exact: [0.02]"), "is no bound"),
        (("exact: [0.02, 999000]", "exact: [0.02, 2000000]"), "is no bound"),
        (("reach_m: 6", "reach_m: 600"), "out of range"),
        (("  sharp: {exact", "  blunt: {exact"), "is not known here"),
    ],
)
def test_a_policy_that_cannot_be_kept_is_refused(wrong: tuple[str, str], message: str, tmp_path: Path) -> None:
    text = lane_policy.PATH.read_text()
    assert wrong[0] in text
    path = tmp_path / "policy.yaml"
    path.write_text(text.replace(*wrong))
    with pytest.raises(ContractError, match=message):
        load_lane_policy(path)

"""A join on Spark gives the bytes of the join in this process."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from lake.publisher import judge

from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.features import large_join
from fleet_assets.features.large_join import LargeJoin
from fleet_assets.features.offline_store import _view
from fleet_assets.features.registry import definitions
from fleet_assets.features.retrieval import Question, View, answer
from fleet_assets.features.write import upsert
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.schema import apply
from fleet_assets.lake.tables import VERSIONS, Snapshot
from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]
T0_NS = 1_767_323_045_000_000_000
DRIVES = [f"car{n}--20260102T0{n}0405Z" for n in range(3)]
PUBLISHED = [f"lanes--2026010{day}T000000Z" for day in range(1, 6)]
FRAMES, CELLS = 400, 50


def frames(drive: str) -> pa.Table:
    random = np.random.default_rng(len(drive))
    t_ns = T0_NS + np.arange(FRAMES) * 100_000_000
    speed = pa.array(random.normal(size=FRAMES), mask=random.random(FRAMES) < 0.2)
    return pa.table(
        {
            "drive_id": [drive] * FRAMES, "frame": np.arange(FRAMES), "vehicle": ["car"] * FRAMES, "t_ns": t_ns,
            "available_ns": t_ns + 200_000_000, "speed_mps": speed, "jerk_mps3": np.full(FRAMES, -0.0),
        }
    )  # fmt: skip


def lanes(key: str, published_ns: int) -> pa.Table:
    random = np.random.default_rng(published_ns % 1000)
    known = random.permutation(CELLS)[: CELLS - 10]
    curvature = pa.array(random.normal(size=known.size), mask=random.random(known.size) < 0.1)
    times = np.full(known.size, published_ns)
    return pa.table(
        {
            "drive_id": [key] * known.size, "lane_cell": known, "t_ns": times, "available_ns": times + 5,
            "lane_curvature_per_m": curvature, "lane_map_version": [f"kärt {key}"] * known.size,
        }
    )  # fmt: skip


@pytest.fixture(scope="module")
def snapshot(spark_home: Home) -> Snapshot:
    lake = Lake.open(spark_home, "test-large-join")
    lake.auditor = judge
    names = ("features.ego_motion", "features.lane_curvature", VERSIONS)
    apply(lake, [load_tables()[name] for name in names])
    for drive in DRIVES:
        upsert(lake, "features.ego_motion", frames(drive), name="test")
    for day, key in enumerate(PUBLISHED):
        upsert(lake, "features.lane_curvature", lanes(key, T0_NS + day * 10**12), name="test")
    return lake.at()


def view(name: str, features: list[str], **more: object) -> View:
    (found,) = (one for one in definitions().feature_views if one.name == name)
    made = _view(found, features, False, available_only=True)
    return View(**{**vars(made), **more})


def questions() -> Question:
    """Keys that are there and that are not, nulls and repeats, at all times, in no order."""
    random = np.random.default_rng(1)
    count = 3_000
    none = random.random((3, count)) < 0.02
    rows = {
        "mine": random.random(count),
        "drive_id": pa.array(random.choice([*DRIVES, "car9--20260102T090405Z"], count).tolist(), mask=none[0]),
        "frame": pa.array(random.integers(0, FRAMES + 5, count), mask=none[1]),
        "lane_cell": pa.array(random.integers(0, CELLS + 3, count), mask=none[2]),
        "event_timestamp": T0_NS + random.integers(-(10**10), 5 * 10**12, count),
    }
    return Question(pa.table(rows), "event_timestamp")


def test_the_same_bytes(snapshot: Snapshot, spark_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(large_join, "_PART_ROWS", 300)  # several parts
    views = [
        view("ego_motion", ["speed_mps", "jerk_mps3", "accel_mps2"]),
        view("lane_curvature", ["lane_curvature_per_m", "lane_map_version"], ttl_ns=2 * 10**12),
    ]
    asked, taken = questions(), []
    values = LargeJoin.values
    monkeypatch.setattr(LargeJoin, "values", lambda *given: taken.append(given[2].name) or values(*given))
    here = answer(snapshot, asked, views, LargeJoin(spark_home, 10**9))
    assert taken == []
    there = answer(snapshot, asked, views, LargeJoin(spark_home, 100))
    assert taken == ["ego_motion", "lane_curvature"]
    assert there.schema == here.schema
    assert there.combine_chunks().equals(here.combine_chunks())
    for name in ("speed_mps", "lane_curvature_per_m", "lane_map_version"):
        assert 0 < here[name].null_count < len(here)
    assert np.signbit(there["jerk_mps3"].drop_null().to_numpy()).all()  # bits, and not only values


def test_rows_that_spark_cannot_order_are_refused(snapshot: Snapshot, spark_home: Home) -> None:
    """Two publications at one moment: in this process their order in the table decides."""
    lake = Lake.open(spark_home, "test-large-join")
    upsert(lake, "features.lane_curvature", lanes("other--20260101T000000Z", T0_NS), name="test")
    with pytest.raises(FleetError, match="rows of one key and time, and nothing says which counts"):
        LargeJoin(spark_home, 0).values(lake.at(), view("lane_curvature", ["lane_curvature_per_m"]), questions())


def test_a_question_that_is_too_small_or_empty_stays_here(snapshot: Snapshot, spark_home: Home) -> None:
    frames_view, asked = view("ego_motion", ["speed_mps"]), questions()
    empty = Question(asked.rows.slice(0, 0), "event_timestamp")
    assert not LargeJoin(spark_home, 0).takes(snapshot, frames_view, empty)
    one = Question(
        asked.rows.filter(pa.compute.equal(asked.rows["drive_id"], DRIVES[0])).slice(0, 1), "event_timestamp"
    )
    # Of the drives that are asked for alone: 400 rows and 1.
    assert LargeJoin(spark_home, FRAMES).takes(snapshot, frames_view, one)
    assert not LargeJoin(spark_home, FRAMES + 1).takes(snapshot, frames_view, one)

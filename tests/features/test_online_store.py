"""One suite for online stores: what Feast's own sqlite store answers, ours answers too, value by value and status by status."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    PushSource,
    RepoConfig,
    RequestSource,
)
from feast.data_source import PushMode
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType
from features.tables import VERSION_FEATURES, write_version
from features.writers import fold_version, folded_view, publish_version, push_version, writers

from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.errors import FleetError
from fleet_assets.features.online_files import OnlineFiles
from fleet_assets.features.online_rows import Source, pack_key
from fleet_assets.features.online_store import SnapshotOnlineStore
from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot

# Feast's own: on-demand views and some of its files' formats are called experimental or old.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
T0 = datetime(2026, 1, 1, tzinfo=UTC)
T0_NS = int(T0.timestamp()) * 1_000_000_000
ROWS = 40
OURS = "fleet_assets.features.online_store.SnapshotOnlineStore"
PLACE = ["speed", "share", "count", "lane", "wet", "seen", "road"]


def place_rows(rows: int = ROWS) -> pd.DataFrame:
    """One row per cell, one value of each type in ten null."""
    random = np.random.default_rng(0)
    columns = {
        "speed": pa.array(random.normal(size=rows), mask=random.random(rows) < 0.1),
        "share": pa.array(random.random(rows).astype(np.float32), mask=random.random(rows) < 0.1),
        "count": pa.array(random.integers(0, 2**53, rows), mask=random.random(rows) < 0.1),
        "lane": pa.array(random.integers(0, 9, rows).astype(np.int32), mask=random.random(rows) < 0.1),
        "wet": pa.array(random.random(rows) < 0.5, mask=random.random(rows) < 0.1),
        "seen": pa.array([T0 + timedelta(hours=index) for index in range(rows)], pa.timestamp("us", "UTC")),
        "road": pa.array(random.choice(["motorway", "日本"], rows), mask=random.random(rows) < 0.1),
    }
    times = pa.array([T0 + timedelta(minutes=index) for index in range(rows)], pa.timestamp("us", "UTC"))
    return pa.table({"cell": pa.array(range(rows), pa.int64()), "event_timestamp": times, **columns})


def place_fields() -> list[Field]:
    types = [Float64, Float32, Int64, Int32, Bool, UnixTimestamp, String]
    return [Field(name=name, dtype=kind) for name, kind in zip(PLACE, types, strict=True)]


def objects(folder: Path) -> list[Any]:
    """Views of every kind, over Parquet files in folder."""
    places = place_rows()
    pq.write_table(places, folder / "place.parquet")
    drives = pa.table(
        {
            "vehicle": [f"car{index % 5}" for index in range(20)],
            "frame": pa.array(range(20), pa.int64()),
            "event_timestamp": pa.array([T0] * 20, pa.timestamp("us", "UTC")),
            "jerk": [index / 7 for index in range(20)],
            "track": [[float(index), 1.0] for index in range(20)],
        }
    )
    pq.write_table(drives, folder / "drive.parquet")
    cell, vehicle = Entity(name="cell", value_type=ValueType.INT64), Entity(name="vehicle", value_type=ValueType.STRING)
    frame = Entity(name="frame", value_type=ValueType.INT64)
    place_source = FileSource(name="places", path=str(folder / "place.parquet"), timestamp_field="event_timestamp")
    drive_source = FileSource(name="drives", path=str(folder / "drive.parquet"), timestamp_field="event_timestamp")
    push = PushSource(name="pushed", batch_source=place_source)
    place = FeatureView(name="place", entities=[cell], schema=place_fields(), source=push)
    drive = FeatureView(
        name="drive", entities=[vehicle, frame], source=drive_source, schema=[Field(name="jerk", dtype=Float64)]
    )
    track = FeatureView(
        name="track", entities=[vehicle, frame], source=drive_source, schema=[Field(name="track", dtype=Array(Float64))]
    )

    asked = RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])

    @on_demand_feature_view(sources=[place, asked], schema=[Field(name="scaled", dtype=Float64)], mode="pandas")
    def scaled(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"scaled": inputs["speed"] * inputs["factor"]})

    service = FeatureService(name="all", features=[place, drive])
    aliased = FeatureService(
        name="aliased", features=[place.with_name("before").with_join_key_map({"cell": "cell_before"})]
    )
    return [cell, vehicle, frame, place, drive, track, scaled, service, aliased]


def store_of(folder: Path, kind: str, *, versions: bool = False, **options: Any) -> FeatureStore:
    folder.mkdir(parents=True, exist_ok=True)
    online = (
        {"type": "sqlite", "path": "online.db"} if kind == "sqlite" else {"type": OURS, "path": "online", **options}
    )
    config = RepoConfig(
        project="fleet",
        provider="local",
        registry={
            "path": str(folder / "registry.db"),
            "cache_ttl_seconds": 600,
            "enable_online_feature_view_versioning": versions,
        },
        online_store=online,
        offline_store={"type": "dask"},
        entity_key_serialization_version=3,
        repo_path=folder,
    )
    return FeatureStore(config=config)


def made(folder: Path, kind: str, **options: Any) -> FeatureStore:
    store = store_of(folder / kind, kind, **options)
    store.apply(objects(folder))
    store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=2), feature_views=["place", "drive", "track"])
    return store


@pytest.fixture(scope="module", params=["log", "folded"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FeatureStore]]:
    """Feast's store and ours, with the same rows; ours with them in the log, and in snapshot files."""
    folder = tmp_path_factory.mktemp(request.param)
    stores = [made(folder, "sqlite"), made(folder, "ours", fold_rows=1 if request.param == "folded" else 1000)]
    yield stores
    for store in stores:
        store.teardown()


def answer(store: FeatureStore, features: Any, rows: Any, **options: Any) -> Any:
    """All that an answer says, or the kind of its error."""
    try:
        response = store.get_online_features(features=features, entity_rows=rows, **options)
    except Exception as error:
        return type(error)
    proto = response.proto
    said = {
        name: (
            list(map(str, result.values)),
            list(result.statuses),
            [t.ToMicroseconds() for t in result.event_timestamps],
        )
        for name, result in zip(proto.metadata.feature_names.val, proto.results, strict=True)
    }
    return said, plain(response.to_dict()), plain(response.to_dict(include_event_timestamps=True)), response.to_arrow()


def plain(found: dict[str, Any]) -> list[Any]:
    """In order, and with NaN equal to itself."""
    same = lambda v: "nan" if isinstance(v, float) and math.isnan(v) else (type(v).__name__, v)  # noqa: E731
    return [(name, [same(value) for value in values]) for name, values in found.items()]


REFS = [f"place:{name}" for name in PLACE]
DRIVE = [{"vehicle": f"car{index % 6}", "frame": index} for index in range(12)]
REQUESTS: dict[str, Callable[[FeatureStore], Any]] = {
    "one": lambda s: answer(s, REFS, [{"cell": 3}]),
    "every one": lambda s: [answer(s, REFS, [{"cell": cell}]) for cell in range(ROWS)],
    "many": lambda s: answer(s, REFS, [{"cell": cell} for cell in range(ROWS)]),
    "missing": lambda s: answer(s, REFS, [{"cell": cell} for cell in (3, 10**6, -1)]),
    "many missing": lambda s: answer(s, REFS, [{"cell": cell} for cell in range(-20, 20)]),
    "twice": lambda s: answer(s, REFS, [{"cell": 3}, {"cell": 3}, {"cell": 1}]),
    "columns": lambda s: answer(s, REFS, {"cell": [5, 4]}),
    "full names": lambda s: answer(s, REFS, [{"cell": 3}], full_feature_names=True),
    "some": lambda s: answer(s, ["place:road", "place:speed"], [{"cell": 3}]),
    "single": lambda s: answer(s, ["place:speed"], [{"cell": 3}]),
    "two keys": lambda s: answer(s, ["drive:jerk"], DRIVE),
    "two keys, other order": lambda s: answer(
        s, ["drive:jerk"], [{"frame": r["frame"], "vehicle": r["vehicle"]} for r in DRIVE]
    ),
    "lists": lambda s: answer(s, ["track:track", "drive:jerk"], DRIVE),
    "two views": lambda s: answer(
        s, [*REFS, "drive:jerk"], [{**row, "cell": index} for index, row in enumerate(DRIVE)]
    ),
    "service": lambda s: answer(s, s.get_feature_service("all"), [{**DRIVE[1], "cell": 2}]),
    "alias": lambda s: answer(s, s.get_feature_service("aliased"), [{"cell_before": 2}], full_feature_names=True),
    "on demand": lambda s: answer(s, ["scaled:scaled", "place:speed"], [{"cell": 2, "factor": 2.0}]),
    "version metadata": lambda s: answer(s, REFS, [{"cell": 3}], include_feature_view_version_metadata=True),
    "more than asked": lambda s: answer(s, REFS, [{"cell": 3, "weather": "wet"}]),
    "no key": lambda s: answer(s, REFS, [{"weather": "wet"}]),
    "null key": lambda s: answer(s, REFS, [{"cell": None}]),
    "wrong type": lambda s: answer(s, REFS, [{"cell": "three"}]),
    "too large": lambda s: answer(s, REFS, [{"cell": 2**63}]),
    "rows that differ": lambda s: answer(s, REFS, [{"cell": 3}, {"cell": 3, "frame": 1}]),
    "no rows": lambda s: answer(s, REFS, []),
    "numpy": lambda s: answer(s, REFS, {"cell": np.arange(3)}),
    "unknown feature": lambda s: answer(s, ["place:nothing"], [{"cell": 3}]),
    "unknown view": lambda s: answer(s, ["nothing:nothing"], [{"cell": 3}]),
    "version that is not served": lambda s: answer(s, ["place@v1:speed"], [{"cell": 3}]),
    "same name twice": lambda s: answer(s, ["place:speed", "place:speed"], [{"cell": 3}]),
}


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS.keys())
def test_answers_are_those_of_sqlite(pair: list[FeatureStore], request_: Callable[[FeatureStore], Any]) -> None:
    theirs, ours = map(request_, pair)
    assert ours == theirs


def test_the_fast_way_is_taken(pair: list[FeatureStore]) -> None:
    _, ours = pair
    kinds = {
        name: type(ours.get_online_features(features=refs, entity_rows=rows)).__name__
        for name, refs, rows in (
            ("plain", REFS, [{"cell": 3}]),
            ("on demand", ["scaled:scaled"], [{"cell": 2, "factor": 2.0}]),
        )
    }
    assert kinds == {"plain": "SnapshotResponse", "on demand": "OnlineResponse"}


def test_frames_tables_and_async_agree(pair: list[FeatureStore]) -> None:
    rows = [{"cell": cell} for cell in (1, 2, 99)]
    theirs, ours = (store.get_online_features(features=REFS, entity_rows=rows) for store in pair)
    pd.testing.assert_frame_equal(theirs.to_df(), ours.to_df())
    assert theirs.to_arrow(True).equals(ours.to_arrow(True))
    later = asyncio.run(pair[1].get_online_features_async(features=REFS, entity_rows=rows))
    assert later.to_dict() == ours.to_dict()


# ---- writing -----------------------------------------------------------------------------------------------------------


def pushed(cell: int, minutes: int, **values: Any) -> pd.DataFrame:
    row = place_rows(1).to_pandas().iloc[0].to_dict()
    return pd.DataFrame([{**row, "cell": cell, "event_timestamp": T0 + timedelta(minutes=minutes), **values}])


@pytest.fixture(params=[1000, 1])
def fresh(request: pytest.FixtureRequest, tmp_path: Path) -> list[FeatureStore]:
    return [made(tmp_path, "sqlite"), made(tmp_path, "ours", fold_rows=request.param)]


def test_what_is_pushed_last_counts(fresh: list[FeatureStore], tmp_path: Path) -> None:
    asked = [{"cell": cell} for cell in (0, 3, 77)]
    for cell, minutes, speed in ((3, 90, 1.5), (3, -90, 2.5), (77, 5, 3.5), (77, 5, 4.5)):
        for store in fresh:
            store.push("pushed", pushed(cell, minutes, speed=speed), to=PushMode.ONLINE)
        theirs, ours = (answer(store, REFS, asked) for store in fresh)
        assert ours == theirs
    again = store_of(tmp_path / "ours", "ours")  # as another process would
    assert answer(again, REFS, asked) == theirs


def test_a_push_reaches_other_processes_at_once(fresh: list[FeatureStore], tmp_path: Path) -> None:
    other = store_of(tmp_path / "ours", "ours")
    answer(other, REFS, [{"cell": 3}])
    fresh[1].push("pushed", pushed(3, 90, speed=1.5), to=PushMode.ONLINE)
    assert other.get_online_features(features=["place:speed"], entity_rows=[{"cell": 3}]).to_dict()["speed"] == [1.5]


def test_writes_that_are_awaited_count_as_others_do(fresh: list[FeatureStore], tmp_path: Path) -> None:
    theirs, ours = fresh
    rows = [(3, 90, 1.5), (77, 5, 3.5), (78, 5, 4.5), (0, -90, 2.5)]
    for cell, minutes, speed in rows:
        theirs.push("pushed", pushed(cell, minutes, speed=speed), to=PushMode.ONLINE)

    async def at_once() -> None:
        rows_ = [pushed(cell, minutes, speed=speed) for cell, minutes, speed in rows]
        await asyncio.gather(
            *(ours.push_async("pushed", row, to=PushMode.ONLINE) for row in rows_[:3]),
            ours.write_to_online_store_async("place", df=rows_[3]),
        )

    asyncio.run(at_once())
    asked = [{"cell": cell} for cell in (0, 3, 77, 78, 99)]
    expected = answer(theirs, REFS, asked)
    for store in (ours, store_of(tmp_path / "ours", "ours")):
        assert answer(store, REFS, asked) == expected
        assert (
            asyncio.run(store.get_online_features_async(features=REFS, entity_rows=asked)).to_dict()["speed"][1] == 1.5
        )


def test_views_and_stores_are_deleted(fresh: list[FeatureStore], tmp_path: Path) -> None:
    for store in fresh:
        gone = [store.get_feature_service("all"), store.get_feature_view("drive")]
        store.apply([], objects_to_delete=gone, partial=False)
    theirs, ours = (answer(store, ["drive:jerk"], DRIVE) for store in fresh)
    assert ours == theirs
    assert isinstance(ours, type)
    for store in fresh:
        store.teardown()
    assert not (tmp_path / "ours" / "online" / "fleet").exists()


def test_versions_of_a_view_are_kept_apart(tmp_path: Path) -> None:
    answers = []
    for kind in ("sqlite", "ours"):
        store = store_of(tmp_path / kind, kind, versions=True)
        cell, vehicle, frame, place, *_ = objects(tmp_path)
        for features in (PLACE[:1], PLACE[:2]):
            place = FeatureView(
                name="place",
                entities=[cell],
                source=place.stream_source or place.batch_source,
                schema=[field for field in place_fields() if field.name in features],
            )
            store.apply([cell, vehicle, frame, place])
            store.materialize(T0 - timedelta(days=1), T0 + timedelta(days=2), feature_views=["place"])
        rows = [{"cell": 3}, {"cell": 10**6}]
        answers.append(
            [
                answer(store, refs, rows, full_feature_names=full)
                for refs in (
                    ["place@v0:speed"],
                    ["place@v1:speed", "place@v1:share"],
                    ["place:share"],
                    ["place@v7:speed"],
                )
                for full in (False, True)
            ]
        )
    assert answers[1] == answers[0]
    assert not isinstance(answers[0][0], type)


# ---- published snapshots -------------------------------------------------------------------------------------------------


def published(
    store: FeatureStore, folder: Path, speed: float, minutes: int = 0, *others: SnapshotView, **changes: Any
) -> None:
    rows = pa.table(
        {
            "cell": pa.array(range(4), pa.int64()),
            EVENT_TIME: pa.array([T0_NS + minutes * 60_000_000_000] * 4),
            "speed": pa.array([speed] * 4),
            **{name: place_rows(4)[name] for name in PLACE[1:]},
        }
    )
    view = SnapshotView(**{"name": "place", "version": 1, "entity_columns": ["cell"], "feature_columns": PLACE,
                              "rows": rows, "ttl_ns": 0, "identity": "x", **changes})  # fmt: skip
    build_snapshot(folder / "new", [view, *others], service="all", lakefs_commit="c", delta_versions={})
    files_of(store).publish(folder / "new", "all")


def files_of(store: FeatureStore) -> OnlineFiles:
    online = store._get_provider().online_store
    assert isinstance(online, SnapshotOnlineStore)
    return online.files(store.config)


def speeds(store: FeatureStore, *cells: int) -> list[Any]:
    found = store.get_online_features(features=["place:speed"], entity_rows=[{"cell": cell} for cell in cells])
    return found.to_dict()["speed"]


def drives_of(jerk: float) -> SnapshotView:
    rows = pa.table({"vehicle": ["car0"], "frame": [0], EVENT_TIME: [T0_NS], "jerk": [jerk]})
    return SnapshotView("drive", 1, ["vehicle", "frame"], ["jerk"], rows, 0, "x")


@pytest.mark.parametrize("way", ["at once", "async"])
def test_an_answer_on_demand_is_of_one_version(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast reads view by view: after the first, another process publishes."""
    store, other = store_of(tmp_path / "ours", "ours"), store_of(tmp_path / "ours", "ours")
    store.apply(objects(tmp_path))
    published(other, tmp_path, 1.0, 0, drives_of(1.0))
    online = store._get_provider().online_store
    read, versions = online.online_read, iter([2.0])

    def then_published(*args: Any, **kwargs: Any) -> Any:
        found = read(*args, **kwargs)
        for version in versions:
            published(other, tmp_path, version, 0, drives_of(version))
        return found

    monkeypatch.setattr(online, "online_read", then_published)
    asked = {
        "features": ["place:speed", "drive:jerk", "scaled:scaled"],
        "entity_rows": [{"cell": 0, "vehicle": "car0", "frame": 0, "factor": 10.0}],
    }
    for version in (1.0, 2.0):
        if way == "async":
            found = asyncio.run(store.get_online_features_async(**asked)).to_dict()
        else:
            found = store.get_online_features(**asked).to_dict()
        assert (found["speed"], found["jerk"], found["scaled"]) == ([version], [version], [10 * version])


@pytest.mark.parametrize("fold_rows", [1000, 1])
def test_published_rows_count_unless_what_was_written_is_newer(tmp_path: Path, fold_rows: int) -> None:
    store = store_of(tmp_path / "ours", "ours", fold_rows=fold_rows)
    store.apply(objects(tmp_path))
    published(store, tmp_path, 1.0)
    assert speeds(store, 0, 1, 9) == [1.0, 1.0, None]
    store.push("pushed", pushed(0, -5, speed=2.0), to=PushMode.ONLINE)  # late, and written after
    store.push("pushed", pushed(1, 20, speed=3.0), to=PushMode.ONLINE)
    assert speeds(store, 0, 1, 2) == [2.0, 3.0, 1.0]
    published(store, tmp_path, 4.0, minutes=10)
    assert speeds(store, 0, 1, 2) == [4.0, 3.0, 4.0]
    store.push("pushed", pushed(2, 1, speed=5.0), to=PushMode.ONLINE)
    assert speeds(store, 0, 1, 2) == [4.0, 3.0, 5.0]
    assert speeds(store_of(tmp_path / "ours", "ours"), 0, 1, 2) == [4.0, 3.0, 5.0]


def test_a_snapshot_that_does_not_fit_the_registry_is_named(tmp_path: Path) -> None:
    store = store_of(tmp_path / "ours", "ours")
    store.apply(objects(tmp_path))
    published(store, tmp_path, 1.0, feature_columns=PLACE[:3])
    with pytest.raises(FleetError, match="the snapshot lacks it"):
        store.get_online_features(features=["place:road"], entity_rows=[{"cell": 1}])


def test_stale_rows_say_so(tmp_path: Path) -> None:
    store = store_of(tmp_path / "ours", "ours")
    known = objects(tmp_path)
    known[3].ttl = timedelta(days=1)
    store.apply(known)
    published(store, tmp_path, 1.0)
    store.push("pushed", pushed(1, int((datetime.now(UTC) - T0).total_seconds() / 60), speed=3.0), to=PushMode.ONLINE)
    response = store.get_online_features(features=["place:speed"], entity_rows=[{"cell": cell} for cell in (0, 1, 9)])
    from feast.protos.feast.serving.ServingService_pb2 import FieldStatus

    assert list(response.proto.results[1].statuses) == [
        FieldStatus.OUTSIDE_MAX_AGE,
        FieldStatus.PRESENT,
        FieldStatus.NOT_FOUND,
    ]
    assert response.to_dict()["speed"] == [1.0, 3.0, None]


# ---- the log -------------------------------------------------------------------------------------------------------------


def test_a_log_that_was_cut_off_anywhere_loses_only_the_last_write(tmp_path: Path) -> None:
    files = OnlineFiles(tmp_path / "a")
    ends = []
    for index in range(3):
        files.write("t", [(bytes([index]), index, {"f": b"value"})])
        ends.append((tmp_path / "a" / "log").stat().st_size)
    whole = (tmp_path / "a" / "log").read_bytes()
    for length in range(ends[0], ends[2] + 1):
        folder = tmp_path / "b"
        OnlineFiles(folder).remove()
        folder.mkdir()
        (folder / "log").write_bytes(whole[:length])
        cut = OnlineFiles(folder)
        cut.refresh()
        kept = sum(length >= end for end in ends)
        assert len(cut.table("t").rows) == kept
        cut.write("t", [(b"new", 9, {"f": b"value"})])
        again = OnlineFiles(folder)
        again.refresh()
        cut.refresh()
        assert len(again.table("t").rows) == len(cut.table("t").rows) == kept + 1


def test_a_foreign_log_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(b"something else, and long")
    with pytest.raises(FleetError, match="no log of an online store"):
        OnlineFiles(tmp_path).refresh()


@pytest.mark.parametrize("begun", [b"", b"FLT"])
def test_a_log_whose_first_record_is_on_its_way_is_none_yet(tmp_path: Path, begun: bytes) -> None:
    (tmp_path / "log").write_bytes(begun)
    reader = OnlineFiles(tmp_path)
    assert version_of(reader, "push") == 0
    push_version(tmp_path, 7)
    assert version_of(reader, "push") == version_of(OnlineFiles(tmp_path), "push") == 7


@pytest.mark.slow
@pytest.mark.parametrize("work", ["push", "publish", "fold"])
def test_writers_killed_at_fifty_moments_leave_whole_writes(tmp_path: Path, work: str) -> None:
    folder = tmp_path / "online"
    reader, moments, last = OnlineFiles(folder), random.Random(0), 0
    with writers(folder, work) as start:
        for _ in range(50):
            writer = start(last + 1)
            until = time.monotonic() + 60
            while last == version_of(reader, work) and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(moments.random() * 0.02)
            os.kill(writer, signal.SIGKILL)
            seen = version_of(reader, work)
            assert seen > last
            assert version_of(OnlineFiles(folder), work) >= seen
            last = seen
    write_version(tmp_path / "whole", last)
    OnlineFiles(folder).publish(tmp_path / "whole", "s")
    assert [path.name for path in folder.glob(".new-*")] == []  # nor does anything of the killed ones stay


def version_of(files: OnlineFiles, work: str) -> int:
    """The version of the rows, after looking that all are of one write; 0 for none."""
    with files.moment():
        if work == "publish":
            views = [base.view for base in files.table("place").bases]
            values = [view.rows[str(index)] for view in views for index in range(len(view.features))]
        elif work == "push":
            values = [float(row.values["f"]) for row in files.table("t").rows.values()]
        else:
            source = Source(files.table("t"), folded_view(), ["f"])
            found = [source.one(pack_key([cell]), [cell]) for cell in range(5)]
            values = [row.values[0] for row in found if row is not None]
    seen = np.unique(values)
    assert len(values) == {"publish": VERSION_FEATURES, "push": 5, "fold": 5}[work] or not len(values)
    assert seen.size <= 1
    return int(seen[0]) if seen.size else 0


@pytest.mark.parametrize("work", ["publish", "fold"])
def test_what_is_published_while_a_reader_opens_files_is_taken_up(
    tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the opening of the files and of the log, another process goes on."""
    change = {"publish": publish_version, "fold": fold_version}[work]
    change(tmp_path, 1)
    honest = Snapshot.open

    def opened(path: Path) -> Snapshot:
        found = honest(path)
        if path.is_relative_to(tmp_path):
            monkeypatch.setattr(Snapshot, "open", honest)
            change(tmp_path, 2)
        return found

    monkeypatch.setattr(Snapshot, "open", opened)
    reader = OnlineFiles(tmp_path)
    assert version_of(reader, work) == 2
    change(tmp_path, 3)
    assert version_of(reader, work) == 3

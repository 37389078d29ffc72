"""Snapshots that are published to the online store, beside what is written: which counts, and what is said of them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from feast import FeatureStore
from feast.data_source import PushMode
from features.online import PLACE, T0, T0_NS, objects, place_rows, pushed, store_of

from fleet_assets.errors import FleetError
from fleet_assets.features.online_files import OnlineFiles
from fleet_assets.features.online_store import SnapshotOnlineStore
from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot

# Feast's own: on-demand views and some of its files' formats are called experimental or old.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


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

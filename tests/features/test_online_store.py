"""One suite for online stores: what Feast's own sqlite store answers, ours answers too, value by value and status by status."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import FeatureStore, FeatureView
from feast.data_source import PushMode
from features.online import PLACE, REFS, ROWS, T0, answer, made, objects, place_fields, pushed, store_of

# Feast's own: on-demand views and some of its files' formats are called experimental or old.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module", params=["log", "folded"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FeatureStore]]:
    """Feast's store and ours, with the same rows; ours with them in the log, and in snapshot files."""
    folder = tmp_path_factory.mktemp(request.param)
    stores = [made(folder, "sqlite"), made(folder, "ours", fold_rows=1 if request.param == "folded" else 1000)]
    yield stores
    for store in stores:
        store.teardown()


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

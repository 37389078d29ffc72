"""Online stores under test: Feast's own and ours, with views of every kind, their rows, and all that an answer says.

In: a folder. Out: a FeatureStore in it.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String, UnixTimestamp
from feast.value_type import ValueType

T0 = datetime(2026, 1, 1, tzinfo=UTC)
T0_NS = int(T0.timestamp()) * 1_000_000_000
ROWS = 40
OURS = "fleet_assets.features.online_store.SnapshotOnlineStore"
PLACE = ["speed", "share", "count", "lane", "wet", "seen", "road"]
REFS = [f"place:{name}" for name in PLACE]


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


def pushed(cell: int, minutes: int, **values: Any) -> pd.DataFrame:
    row = place_rows(1).to_pandas().iloc[0].to_dict()
    return pd.DataFrame([{**row, "cell": cell, "event_timestamp": T0 + timedelta(minutes=minutes), **values}])


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

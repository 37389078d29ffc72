"""Feast over a real lake: what is retrieved, at which commit, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from feast import FeatureService, FeatureStore, RepoConfig
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.online_stores.sqlite import SqliteOnlineStoreConfig
from feast.repo_config import RegistryConfig
from lake.publisher import judge

from fleet_assets.contracts.loader import load_tables
from fleet_assets.edge.feed import LIVE
from fleet_assets.errors import FleetError
from fleet_assets.features.datasets import DatasetLogs, SavedDatasetDelta
from fleet_assets.features.offline_store import DeltaOfflineStoreConfig, DeltaRetrievalJob, commit_of, pinned
from fleet_assets.features.registry import definitions
from fleet_assets.features.write import conform, upsert
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.schema import apply
from fleet_assets.lake.tables import VERSIONS
from fleet_assets.services.home import Home

pytestmark = [
    pytest.mark.services,
    pytest.mark.slow,
    # Feast says of its own parts that they are new.
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
]
DRIVES = ("car7--20260102T030405Z", "car8--20260102T040000Z")
T0_NS = 1_767_323_045_000_000_000
MS = 1_000_000
FRAMES = 50
TABLES = ("features.ego_motion", "features.sensor_health", "features.scene_context", "features.datasets")


def rows_of(drive: str, *, shift: float = 0.0, frames: int = FRAMES) -> pa.Table:
    """Ego motion of a drive: speed is the frame's number; known 200 ms after the frame."""
    t_ns = T0_NS + np.arange(frames) * 100 * MS
    made = {
        "drive_id": [drive] * frames,
        "frame": np.arange(frames),
        "vehicle": [drive.split("--")[0]] * frames,
        "t_ns": t_ns,
        "available_ns": t_ns + 200 * MS,
        "speed_mps": np.arange(frames) + shift,
        "accel_mps2": pa.array([None if n % 5 == 0 else float(n) for n in range(frames)]),
    }
    return pa.table(made)


def at(frame: int, late_ms: float = 200.0) -> pd.Timestamp:
    """When the vehicle had the features of a frame."""
    return pd.Timestamp(T0_NS + frame * 100 * MS + round(late_ms * MS), unit="ns", tz="UTC")


def entities(*rows: tuple[Any, Any, pd.Timestamp]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["drive_id", "frame", "event_timestamp"])


@pytest.fixture(scope="module")
def lake(lakefs_home: Home) -> Lake:
    opened = Lake.open(lakefs_home, "test-features")
    opened.auditor = judge
    apply(opened, [load_tables()[name] for name in (*TABLES, VERSIONS)])
    for drive in DRIVES:
        upsert(opened, "features.ego_motion", rows_of(drive), name="test")
    return opened


@pytest.fixture(scope="module")
def store(lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The definitions of feature_repo/ over that lake."""
    folder = tmp_path_factory.mktemp("feast")
    config = RepoConfig(
        project="fleet",
        provider="local",
        registry=RegistryConfig(path=str(folder / "registry.db")),
        online_store=SqliteOnlineStoreConfig(path=str(folder / "online.db")),
        offline_store=DeltaOfflineStoreConfig(repository=lake.repository.name),
        entity_key_serialization_version=3,
    )
    config.repo_path = folder
    found = FeatureStore(config=config)
    repo = definitions()
    found.apply([*repo.data_sources, *repo.entities, *repo.feature_views, *repo.on_demand_feature_views])
    found.apply(repo.feature_services)
    return found


def speeds(store: FeatureStore, asked: pd.DataFrame | str | None, **more: Any) -> list[float | None]:
    table = store.get_historical_features(asked, ["ego_motion:speed_mps"], **more).to_arrow()
    return table["speed_mps"].to_pylist()


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_one_row_out_per_row_in_in_their_order(store: FeatureStore) -> None:
    asked = entities(*((DRIVES[n % 2], n % FRAMES, at(n % FRAMES)) for n in range(3 * FRAMES)))
    asked = pd.concat([asked.sample(frac=1, random_state=1), asked[:7]])  # duplicates, and an index that repeats
    asked["mine"] = np.arange(len(asked))
    found = store.get_historical_features(asked, ["ego_motion:speed_mps", "ego_motion:accel_mps2"]).to_df()
    assert found["mine"].tolist() == list(range(len(asked)))
    assert found["speed_mps"].tolist() == [float(frame) for frame in asked["frame"]]
    assert found["accel_mps2"].isna().tolist() == [frame % 5 == 0 for frame in asked["frame"]]
    assert (found["event_timestamp"].astype("int64") == asked["event_timestamp"].astype("int64").to_numpy()).all()


def test_missing_keys_are_null_with_a_status_per_view(store: FeatureStore) -> None:
    asked = entities(
        (DRIVES[0], 3, at(3)), (DRIVES[0], 999, at(3)), ("car7--20250101T000000Z", 3, at(3)), ("no drive", 3, at(3)),
        (None, 3, at(3)), (DRIVES[0], 3, at(3, 199.999)),
    )  # fmt: skip
    assert speeds(store, asked) == [3.0, None, None, None, None, None]
    job = store.get_historical_features(asked, ["ego_motion:speed_mps", "scene_context:visibility_m"])
    assert isinstance(job, DeltaRetrievalJob)
    told = job.statuses().to_pydict()
    assert told["ego_motion"] == ["found", *["no such key"] * 4, "not yet known"]
    assert told["scene_context"] == ["no such key"] * 6  # the other view has no rows


def test_nothing_is_known_before_it_was_available(store: FeatureStore) -> None:
    just_before = entities(*((DRIVES[0], n, at(n, 199.999)) for n in range(FRAMES)))
    assert speeds(store, just_before) == [None] * FRAMES


def test_without_the_cut_off_a_row_counts_from_its_event(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.config.offline_store, "available_only", False)
    asked = entities((DRIVES[0], 3, at(3, 0)), (DRIVES[0], 3, at(3, -1)))
    assert speeds(store, asked) == [3.0, None]
    assert speeds(store, asked, filter_by_created_timestamp=True) == [None, None]


def test_a_backfill_changes_no_retrieval_at_an_old_time(store: FeatureStore, lake: Lake) -> None:
    """Rows are written anew, much later; what counts is when they were available."""
    asked = entities(*((DRIVES[1], n, at(n, late)) for n in range(FRAMES) for late in (100, 200, 300)))
    before, commit = speeds(store, asked), lake.at().commit_id
    rows = rows_of(DRIVES[1])
    rows = rows.set_column(rows.column_names.index("accel_mps2"), "accel_mps2", pa.array([0.25] * rows.num_rows))
    upsert(lake, "features.ego_motion", rows, name="backfill", run_id="today")
    now = lake.at()
    assert now.commit_id != commit
    assert set(now.scan("features.ego_motion", drives=[DRIVES[1]])["accel_mps2"].to_pylist()) == {0.25}
    assert speeds(store, asked) == before
    assert None in before
    assert 7.0 in before
    upsert(lake, "features.ego_motion", rows_of(DRIVES[1]), name="restored")


def test_ttl_and_names(store: FeatureStore) -> None:
    view = store.get_feature_view("ego_motion")
    view.ttl = timedelta(milliseconds=500)
    view.name = "short_lived"
    view.projection.name = "short_lived"
    store.apply([view])
    asked = entities((DRIVES[0], 3, at(3, 500)), (DRIVES[0], 3, at(3, 500.001)))
    table = store.get_historical_features(asked, ["short_lived:speed_mps"], full_feature_names=True).to_arrow()
    assert table["short_lived__speed_mps"].to_pylist() == [3.0, None]


def test_times_keep_their_nanoseconds(store: FeatureStore) -> None:
    stamps = [at(3).to_pydatetime(), at(3)]
    for column in (
        pd.Series(stamps, dtype=object),
        pd.Series([at(3).tz_localize(None)] * 2),
        pd.Series([at(3).value] * 2),
    ):
        asked = pd.DataFrame({"drive_id": DRIVES[0], "frame": 3, "event_timestamp": column})
        assert speeds(store, asked) == [3.0, 3.0]


# ---- commits ---------------------------------------------------------------------------------------------------------


def test_every_retrieval_names_its_commit(store: FeatureStore, lake: Lake) -> None:
    before = lake.at().commit_id
    asked = entities((DRIVES[0], 3, at(3)))
    job = store.get_historical_features(asked, ["ego_motion:speed_mps"])
    upsert(lake, "features.ego_motion", rows_of(DRIVES[0], shift=0.5), name="newer")
    # The job was pinned when it was made, and is evaluated later.
    assert job.commit_id == before == commit_of(job.to_arrow()) == job.to_df().attrs["commit_id"]
    assert job.to_df()["speed_mps"].tolist() == [3.0]
    assert speeds(store, asked) == [3.5]
    with pinned(before, lake.repository.name) as commit_id:
        assert commit_id == before
        assert speeds(store, asked) == [3.0]
    upsert(lake, "features.ego_motion", rows_of(DRIVES[0]), name="older")


# ---- other ways to ask -----------------------------------------------------------------------------------------------


def test_by_a_query(store: FeatureStore) -> None:
    sql = "SELECT drive_id, frame, available_ns AS event_timestamp FROM features.ego_motion WHERE frame < 4"
    assert sorted(filter(None, speeds(store, sql))) == [1.0, 1.0, 2.0, 2.0, 3.0, 3.0]


def test_every_key_at_a_time(store: FeatureStore) -> None:
    end = at(9).to_pydatetime()
    found = store.get_historical_features(None, ["ego_motion:speed_mps"], end_date=end).to_df()
    # Frames up to the eleventh have happened by then; those up to the ninth were available.
    assert found["speed_mps"].dropna().tolist() == [float(n) for _ in DRIVES for n in range(10)]
    assert len(found) == 2 * 12


def test_the_whole_service(store: FeatureStore) -> None:
    service = store.get_feature_service("perception_context_v1")
    found = store.get_historical_features(entities((DRIVES[0], 3, at(3))), service).to_arrow()
    views = ("ego_motion", "scene_context", "sensor_health")
    assert {name for view in views for name in LIVE[view].FEATURES} <= set(found.column_names)
    assert found["stopping_distance_m"].to_pylist() == [3.0 * 1.2 + 9.0 / 8.0]
    assert len(found.column_names) >= 3 + 30


def test_materialise_and_look_up(store: FeatureStore) -> None:
    start, end = at(0, -1000).to_pydatetime(), at(FRAMES + 10).to_pydatetime()
    store.materialize(start, end, feature_views=["ego_motion"])
    asked = [{"drive_id": drive, "frame": frame} for drive in DRIVES for frame in (0, 7)]
    found = store.get_online_features(["ego_motion:speed_mps"], asked).to_dict()
    assert found["speed_mps"] == [0.0, 7.0, 0.0, 7.0]


def test_pull_latest_and_all(store: FeatureStore) -> None:
    view = store.get_feature_view("ego_motion")
    common = (["drive_id", "frame"], ["speed_mps"], "t_ns", "available_ns")
    provider = store._get_provider().offline_store
    job = provider.pull_latest_from_table_or_query(
        store.config,
        view.batch_source,
        ["drive_id"],
        ["speed_mps"],
        *common[2:],
        at(0, 0).to_pydatetime(),
        at(9).to_pydatetime(),
    )
    with pytest.raises(FleetError, match="no entity rows"):
        job.statuses()
    latest = job.to_arrow()
    assert latest["speed_mps"].to_pylist() == [9.0, 9.0]
    assert pa.types.is_timestamp(latest.schema.field("t_ns").type)
    everything = provider.pull_all_from_table_or_query(
        store.config, view.batch_source, *common, at(3, 0).to_pydatetime(), at(5, 0).to_pydatetime()
    ).to_arrow()
    assert sorted(everything["speed_mps"].to_pylist()) == [3.0, 3.0, 4.0, 4.0, 5.0, 5.0]


# ---- writing ---------------------------------------------------------------------------------------------------------


def test_writing_a_batch_replaces_rows_of_the_same_key(store: FeatureStore, lake: Lake) -> None:
    drive = "car9--20260102T050000Z"
    upsert(lake, "features.ego_motion", rows_of(drive), name="test")
    newer = conform("features.ego_motion", rows_of(drive, shift=100, frames=2))
    store.write_to_offline_store("ego_motion", newer.to_pandas())
    asked = entities(*((drive, n, at(n)) for n in range(4)))
    assert speeds(store, asked) == [100.0, 101.0, 2.0, 3.0]
    assert lake.at().scan("features.ego_motion", drives=[drive]).num_rows == FRAMES


def test_saved_datasets(store: FeatureStore) -> None:
    asked = entities(*((DRIVES[0], n, at(n)) for n in range(5)))
    job = store.get_historical_features(asked, ["ego_motion:speed_mps"])
    saved = store.create_saved_dataset(job, "first_frames", SavedDatasetDelta("first_frames"))
    assert saved.to_df()["speed_mps"].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    again = store.get_saved_dataset("first_frames").to_df()
    pd.testing.assert_frame_equal(again, saved.to_df())
    with pytest.raises(SavedDatasetLocationAlreadyExists):
        job.persist(SavedDatasetDelta("first_frames"))
    job.persist(SavedDatasetDelta("first_frames"), allow_overwrite=True)


def test_logged_features(store: FeatureStore) -> None:
    from feast.feature_logging import LoggingConfig

    view = store.get_feature_view("ego_motion")
    logging = LoggingConfig(destination=DatasetLogs("logged"))
    service = FeatureService(name="logged", features=[view[["speed_mps"]]], logging_config=logging)
    store.apply([service])
    moment = datetime(2026, 1, 2, 4, tzinfo=UTC)

    def part(first: int) -> pa.Table:
        return pa.table(
            {
                "drive_id": [DRIVES[0]] * 3,
                "frame": pa.array(range(first, first + 3), pa.int64()),
                "ego_motion__speed_mps": [float(n) for n in range(first, first + 3)],
                "ego_motion__speed_mps__timestamp": pa.array([moment] * 3, pa.timestamp("us", "UTC")),
                "ego_motion__speed_mps__status": pa.array([2] * 3, pa.int32()),
                "__log_timestamp": pa.array([moment] * 3, pa.timestamp("us", "UTC")),
                "__log_date": pa.array([moment.date()] * 3, pa.date32()),
                "__request_id": ["r"] * 3,
            }
        )

    for first in (0, 3, 3):  # the same part again changes nothing
        store.write_logged_features(part(first), service)
    logs = store._get_provider().retrieve_feature_service_logs(
        service, moment - timedelta(hours=1), moment + timedelta(hours=1), store.config, store.registry
    )
    assert sorted(logs.to_df()["ego_motion__speed_mps"]) == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (pd.DataFrame({"drive_id": [DRIVES[0]], "event_timestamp": [at(3)]}), "no column frame"),
        (pd.DataFrame({"drive_id": [DRIVES[0]], "frame": [3]}), "no column event_timestamp"),
        (pd.DataFrame({"drive_id": [DRIVES[0]], "frame": [3], "event_timestamp": [pd.NaT]}), "has no time"),
        (pd.DataFrame({"drive_id": [DRIVES[0]], "frame": ["x"], "event_timestamp": [at(3)]}), "does not fit"),
        (pd.DataFrame({"drive_id": [DRIVES[0]], "frame": [3], "event_timestamp": ["today"]}), "is no time"),
        (entities((DRIVES[0], 3, at(3))).assign(speed_mps=1.0), "is there already"),
        ("DROP TABLE features.ego_motion", "SELECT"),
    ],
)
def test_what_cannot_be_done_is_refused(store: FeatureStore, asked: pd.DataFrame | str, why: str) -> None:
    with pytest.raises(FleetError, match=why):
        speeds(store, asked)


def test_other_sources_are_refused(store: FeatureStore, tmp_path: Path) -> None:
    from feast import FileSource

    view = store.get_feature_view("ego_motion")
    view.batch_source = FileSource(name="file", path=str(tmp_path / "x.parquet"), timestamp_field="t_ns")
    with pytest.raises(FleetError, match="reads contract tables, not FileSource"):
        store._get_provider().offline_store.get_historical_features(
            store.config, [view], ["ego_motion:speed_mps"], entities((DRIVES[0], 3, at(3))), store.registry, "fleet"
        )

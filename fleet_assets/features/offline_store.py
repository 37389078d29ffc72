"""Feast's offline store over the lake: exact at one commit.

In: Feast's requests. Out: retrieval jobs, each pinned to a commit of lakeFS, which it names (`job.commit_id`, the Arrow schema's
metadata, `df.attrs`). One row out per row in, in their order. A row counts from when it was available on, never from when it was
written. What cannot be done exactly is refused.

Which commit: `with pinned("REF"):`, else `ref` of the offline store in feature_store.yaml, else main as it is now.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from feast.data_source import DataSource
from feast.feature_logging import LoggingConfig, LoggingSource
from feast.feature_view import FeatureView
from feast.infra.offline_stores.offline_store import OfflineStore, RetrievalJob, RetrievalMetadata
from feast.infra.registry.base_registry import BaseRegistry
from feast.on_demand_feature_view import OnDemandFeatureView
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.utils import _get_requested_feature_views_to_features_dict, _get_requested_on_demand_feature_views
from pydantic import StrictInt

from fleet_assets.errors import FleetError
from fleet_assets.features.large_join import LargeJoin
from fleet_assets.features.point_in_time import as_ns
from fleet_assets.features.retrieval import Question, View, answer, statuses
from fleet_assets.features.source import DeltaSource
from fleet_assets.lake.client import MAIN
from fleet_assets.lake.lake import REPOSITORY, Lake
from fleet_assets.lake.tables import Snapshot
from fleet_assets.services.home import Home

COMMIT_KEY = b"fleet.commit"
EVENT_TIMESTAMP = "event_timestamp"
_pinned: ContextVar[str | None] = ContextVar("pinned", default=None)


@contextlib.contextmanager
def pinned(ref: str, repository: str = REPOSITORY) -> Iterator[str]:
    """All retrievals inside are at the commit that ref stands for now; gives its id. repository: its name in lakeFS."""
    commit_id = Lake.open(Home.open(), repository).at(ref).commit_id
    token = _pinned.set(commit_id)
    try:
        yield commit_id
    finally:
        _pinned.reset(token)


class DeltaOfflineStoreConfig(FeastConfigBaseModel):
    """repository: its name in lakeFS. ref: branch, tag or commit. available_only: a row counts from when it was available on;
    without, from its event time on. spark_rows: a join of more rows, those of a view and entity rows together, runs on Spark."""

    type: Literal["fleet_assets.features.offline_store.DeltaOfflineStore"] = (
        "fleet_assets.features.offline_store.DeltaOfflineStore"
    )
    repository: str = REPOSITORY
    ref: str = MAIN
    available_only: bool = True
    spark_rows: StrictInt = 20_000_000


class DeltaRetrievalJob(RetrievalJob):
    """Evaluated when it is asked for; at its commit whenever that is."""

    def __init__(
        self,
        lake: Lake,
        commit_id: str,
        evaluate: Callable[[], pa.Table],
        *,
        statuses: Callable[[], pa.Table] | None = None,
        full_feature_names: bool = False,
        on_demand_feature_views: Sequence[OnDemandFeatureView] = (),
        metadata: RetrievalMetadata | None = None,
    ) -> None:
        """evaluate: the rows. statuses: what each view knew of each of them; None where nobody asked for keys."""
        self.lake = lake
        self.commit_id = commit_id
        self._evaluate = evaluate
        self._statuses = statuses
        self._full_feature_names = full_feature_names
        self._on_demand_feature_views = list(on_demand_feature_views)
        self._metadata = metadata

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[OnDemandFeatureView]:
        return self._on_demand_feature_views

    @property
    def metadata(self) -> RetrievalMetadata | None:
        return self._metadata

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        table = self._evaluate()
        return table.replace_schema_metadata({**(table.schema.metadata or {}), COMMIT_KEY: self.commit_id.encode()})

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    def statuses(self) -> pa.Table:
        """Per view a column, per entity row in their order: found, no such key, not yet known, or expired. At the same commit.

        Raises FleetError for a job without entity rows, such as the latest row of every key."""
        if self._statuses is None:
            raise FleetError("There are no entity rows that had a status", remedy="Ask for historical features.")
        return self._statuses()

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        frame = super().to_df(validation_reference, timeout)
        frame.attrs["commit_id"] = self.commit_id
        return frame

    def persist(self, storage: SavedDatasetStorage, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """Keeps the result in the lake, beside the commit that it was read at."""
        from fleet_assets.features.datasets import SavedDatasetDelta, save

        if not isinstance(storage, SavedDatasetDelta):
            raise FleetError(
                f"A dataset cannot be saved as {type(storage).__name__}",
                remedy="Give SavedDatasetDelta(name=...) of fleet_assets.features.datasets.",
            )
        rows = self.to_arrow(timeout=timeout)
        save(self.lake, storage.dataset, rows, commit_id=self.commit_id, overwrite=allow_overwrite)


class DeltaOfflineStore(OfflineStore):
    """See the module. Sources are DeltaSource, or datasets and logs that this store has written."""

    supports_filter_by_created_timestamp = True

    @staticmethod
    def get_historical_features(
        config: RepoConfig,
        feature_views: list[FeatureView],
        feature_refs: list[str],
        entity_df: pd.DataFrame | str | None,
        registry: BaseRegistry,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """entity_df: rows with join keys and event_timestamp; or one SELECT over contract tables, run at the same commit; or
        None: every key that the views have, as known at end_date."""
        lake, snapshot = _opened(config)
        available_only = filter_by_created_timestamp or _settings(config).available_only
        on_demand = _get_requested_on_demand_feature_views(feature_refs, project, registry)
        by_view, _ = _get_requested_feature_views_to_features_dict(feature_refs, feature_views, on_demand)
        views = [
            _view(view, list(dict.fromkeys(features)), full_feature_names, available_only=available_only)
            for view, features in by_view.items()
        ]
        question = _question(snapshot, entity_df, views, start_date, end_date)
        asked_ns = question.t_ns
        return DeltaRetrievalJob(
            lake,
            snapshot.commit_id,
            lambda: answer(snapshot, question, views, LargeJoin(lake.home, _settings(config).spark_rows)),
            statuses=lambda: statuses(snapshot, question, views),
            full_feature_names=full_feature_names,
            on_demand_feature_views=on_demand,
            metadata=RetrievalMetadata(
                features=list(feature_refs),
                keys=[name for name in question.rows.column_names if name != question.time_column],
                min_event_timestamp=_utc(int(asked_ns.min())) if asked_ns.size else None,
                max_event_timestamp=_utc(int(asked_ns.max())) if asked_ns.size else None,
            ),
        )

    @staticmethod
    def pull_latest_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None,
        start_date: datetime,
        end_date: datetime,
    ) -> RetrievalJob:
        """The latest row of each key in the range, as known at its end."""
        from fleet_assets.features.retrieval import latest

        source = _delta(data_source)
        lake, snapshot = _opened(config)
        columns = _columns(join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)
        until_ns, available = _ns(end_date), created_timestamp_column if _settings(config).available_only else None

        def evaluate() -> pa.Table:
            rows = snapshot.scan(
                source.table, columns, predicate=_between(timestamp_field, start_date, end_date, available)
            )
            kept = latest(rows, join_key_columns, timestamp_field, available, until_ns)
            return _with_timestamps(kept, timestamp_field, created_timestamp_column)

        return DeltaRetrievalJob(lake, snapshot.commit_id, evaluate)

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> RetrievalJob:
        """Every row in the range, both ends included."""
        from fleet_assets.features.datasets import DatasetSource, load

        lake, snapshot = _opened(config)
        if isinstance(data_source, DatasetSource):
            wanted = [*join_key_columns, *feature_name_columns, timestamp_field]
            dataset = data_source
            return DeltaRetrievalJob(
                lake,
                snapshot.commit_id,
                lambda: load(snapshot, dataset, wanted, timestamp_field, start_date, end_date),
            )
        source = _delta(data_source)
        columns = _columns(join_key_columns, feature_name_columns, timestamp_field, created_timestamp_column)

        def evaluate() -> pa.Table:
            rows = snapshot.scan(source.table, columns, predicate=_between(timestamp_field, start_date, end_date, None))
            return _with_timestamps(rows, timestamp_field, created_timestamp_column)

        return DeltaRetrievalJob(lake, snapshot.commit_id, evaluate)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Rows with the contract's columns replace those of the same key, in one audited transaction."""
        from fleet_assets.features.write import upsert

        source = _delta(feature_view.batch_source)
        upsert(_opened(config)[0], source.table, table, name="feature_write")
        if progress is not None:
            progress(table.num_rows)

    @staticmethod
    def write_logged_features(
        config: RepoConfig,
        data: pa.Table | Path,
        source: LoggingSource,
        logging_config: LoggingConfig,
        registry: BaseRegistry,
    ) -> None:
        """Keeps a part of a service's log in the lake; parts of one destination are read together."""
        from fleet_assets.features.datasets import DatasetLogs, append_log

        if not isinstance(logging_config.destination, DatasetLogs):
            raise FleetError(
                f"Logs cannot be written to {type(logging_config.destination).__name__}",
                remedy="Give DatasetLogs(name=...) of fleet_assets.features.datasets.",
            )
        append_log(_opened(config)[0], logging_config.destination.dataset, data)


def _settings(config: RepoConfig) -> DeltaOfflineStoreConfig:
    settings = config.offline_store
    if not isinstance(settings, DeltaOfflineStoreConfig):
        raise FleetError(
            f"The offline store is configured as {type(settings).__name__}", remedy="See docs/features.md."
        )
    return settings


def _opened(config: RepoConfig) -> tuple[Lake, Snapshot]:
    settings = _settings(config)
    lake = Lake.open(Home.open(), settings.repository)
    return lake, lake.at(_pinned.get() or settings.ref)


def _delta(source: DataSource | None) -> DeltaSource:
    if not isinstance(source, DeltaSource):
        raise FleetError(
            f"This store reads contract tables, not {type(source).__name__}",
            remedy="Give the feature view a DeltaSource.",
        )
    return source


def _view(view: FeatureView, features: Sequence[str], full_names: bool, *, available_only: bool) -> View:
    source = _delta(view.batch_source)
    column_of = {name: column for column, name in source.field_mapping.items()}
    alias = view.projection.join_key_map
    name = view.projection.name_to_use()
    return View(
        name=name,
        table=source.table,
        keys={alias.get(c.name, c.name): column_of.get(c.name, c.name) for c in view.entity_columns},
        features={f"{name}__{f}" if full_names else f: column_of.get(f, f) for f in features},
        time_column=source.timestamp_field,
        available_column=(source.created_timestamp_column or None) if available_only else None,
        ttl_ns=round(view.ttl.total_seconds() * 1e9) if view.ttl else 0,
    )


def _question(
    snapshot: Snapshot,
    entity_df: pd.DataFrame | str | None,
    views: Sequence[View],
    start_date: datetime | None,
    end_date: datetime | None,
) -> Question:
    from fleet_assets.features.retrieval import every_key

    if entity_df is None:
        end_ns = _ns(end_date or datetime.now(UTC))
        return every_key(snapshot, views, EVENT_TIMESTAMP, None if start_date is None else _ns(start_date), end_ns)
    if isinstance(entity_df, str):
        most = 1_000_000
        rows = snapshot.query(entity_df, limit=most)
        if rows.num_rows == most:
            raise FleetError(f"The query gives {most:,} rows or more", remedy="Ask for fewer, or give a DataFrame.")
        return Question(rows, _time_column(rows))
    # Arrow would cut Timestamps in a column of objects down to microseconds.
    times: list[Any] = [name for name in entity_df if entity_df[name].dtype == object and _is_times(entity_df[name])]
    exact = entity_df.copy()
    for name in times:
        exact[name] = pd.to_datetime(exact[name], utc=True)
    rows = pa.Table.from_pandas(exact, preserve_index=False)
    return Question(rows, _time_column(rows))


def _is_times(column: pd.Series) -> bool:
    first = column.first_valid_index()
    return first is not None and isinstance(column.loc[first], datetime)


def _time_column(rows: pa.Table) -> str:
    if EVENT_TIMESTAMP in rows.column_names:
        return EVENT_TIMESTAMP
    times: list[Any] = [field.name for field in rows.schema if pa.types.is_timestamp(field.type)]
    if len(times) != 1:
        raise FleetError(
            f"The entity rows have no column {EVENT_TIMESTAMP}, and {len(times) or 'no'} other columns of times",
            where=", ".join(rows.column_names),
            remedy=f"Call the column {EVENT_TIMESTAMP}.",
        )
    return times[0]


def _columns(keys: Sequence[str], features: Sequence[str], time: str, available: str | None) -> list[str]:
    return list(dict.fromkeys([*keys, *features, time, *([available] if available else [])]))


def _between(time: str, start: datetime | None, end: datetime | None, available: str | None) -> str | None:
    parts = []
    if start is not None:
        parts.append(f"{time} >= {_ns(start)}")
    if end is not None:
        parts.append(f"{time} <= {_ns(end)}")
        if available is not None:
            parts.append(f"{available} <= {_ns(end)}")
    return " AND ".join(parts) or None


def _with_timestamps(rows: pa.Table, *columns: str | None) -> pa.Table:
    """Nanoseconds as timestamps of microseconds, UTC: Feast's own precision."""
    for column in filter(None, columns):
        at = rows.column_names.index(column)
        rows = rows.set_column(at, column, pc.divide(rows[column], 1000).cast(pa.timestamp("us", "UTC")))
    return rows


def _ns(moment: datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(as_ns(pa.array([moment], pa.timestamp("us", "UTC")), "a bound")[0])


def _utc(t_ns: int) -> datetime:
    return datetime.fromtimestamp(t_ns // 10**9, UTC)


def commit_of(table: pa.Table) -> str:
    """The commit that a retrieved table was read at."""
    found: Mapping[bytes, bytes] = table.schema.metadata or {}
    return found[COMMIT_KEY].decode()

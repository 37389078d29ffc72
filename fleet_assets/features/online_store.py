"""Feast's online store over snapshot files.

In: feature_store.yaml with `online_store: {type: fleet_assets.features.online_store.SnapshotOnlineStore, path: ...}`. Out: what
any Feast store gives; requests for plain features by integer or text keys are answered from the mapped rows, without protobuf
until someone asks for it. All others (on-demand views, odd keys, wrong requests) go Feast's own way, over `online_read`.
Values of a row that is older than its view's TTL are given, with the status OUTSIDE_MAX_AGE.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from feast import Entity, FeatureService, FeatureView
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.supported_async_methods import SupportedAsyncMethods
from feast.online_response import OnlineResponse
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from feast.repo_config import FeastConfigBaseModel, RepoConfig
from feast.utils import _get_cached_request_context
from feast.value_type import ValueType
from pydantic import StrictInt, StrictStr

from fleet_assets.features.online_files import OnlineFiles
from fleet_assets.features.online_response import Part, Request, SnapshotResponse, to_proto
from fleet_assets.features.online_rows import ABSENT, STORED, Source, key_of, values_of


class SnapshotOnlineStoreConfig(FeastConfigBaseModel):
    """In feature_store.yaml."""

    type: Literal["fleet_assets.features.online_store.SnapshotOnlineStore"] = (
        "fleet_assets.features.online_store.SnapshotOnlineStore"
    )
    path: StrictStr = "data/online"
    """Folder, relative to the repository."""
    fold_rows: StrictInt = 20_000
    """From so many written rows of a table on, they become a snapshot file of their own."""


class SnapshotOnlineStore(OnlineStore):
    """See the module."""

    def __init__(self) -> None:
        self._files: OnlineFiles | None = None
        self._plans: dict[Any, _Plan] = {}
        self._plans_of: Any = None

    def files(self, config: RepoConfig) -> OnlineFiles:
        """The folder of this configuration's project."""
        if self._files is None:
            folder = Path(config.online_store.path)
            root = folder if folder.is_absolute() else Path(config.repo_path or ".") / folder
            self._files = OnlineFiles(root / config.project)
        return self._files

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        return SupportedAsyncMethods(read=True, write=True)

    def _is_versioned_read_supported(self) -> bool:
        return True

    # ---- writing -------------------------------------------------------------------------------------------------------

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        """The last write of a feature of an entity counts, whatever its event time: Feast's own rule."""
        files, name = self.files(config), table_name(config, table)
        rows = [
            (key_of(key), _ns(at), {feature: value.SerializeToString() for feature, value in values.items()})
            for key, values, at, _ in data
        ]
        if rows:
            files.write(name, rows)
            with files.lock:
                files.refresh()
                many = len(files.table(name).rows) >= config.online_store.fold_rows
            if many:
                from fleet_assets.features.online_fold import folded  # loads Numba, which reading does without

                files.fold(name, lambda known, path: folded(table, known, path))
        if progress:
            progress(len(data))

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[tuple[EntityKey, dict[str, Value], datetime, datetime | None]],
        progress: Callable[[int], Any] | None,
    ) -> None:
        await asyncio.to_thread(self.online_write_batch, config, table, data, progress)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        for table in tables_to_delete:
            self.files(config).drop(table_name(config, table))

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        self.files(config).remove()

    # ---- reading, Feast's way ------------------------------------------------------------------------------------------

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        files = self.files(config)
        wanted = [field for field in table.features if requested_features is None or field.name in requested_features]
        found: list[tuple[datetime | None, dict[str, Value] | None]] = []
        with files.moment():
            source = Source(files.table(table_name(config, table)), table, [field.name for field in wanted])
            for key in entity_keys:
                row = source.one(key_of(key), values_of(key))
                if row is None:
                    found.append((None, None))
                    continue
                values = {
                    name: to_proto(value, member)
                    for name, value, member in zip(source.features, row.values, source.members, strict=True)
                    if value is not ABSENT
                }
                found.append((datetime.fromtimestamp(row.event_ns // 1000 / 1e6, tz=UTC), values))
        return found

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKey],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, Value] | None]]:
        return self.online_read(config, table, entity_keys, requested_features)

    # ---- reading, fast -------------------------------------------------------------------------------------------------

    def get_online_features(
        self,
        config: RepoConfig,
        features: list[str] | FeatureService,
        entity_rows: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        include_feature_view_version_metadata: bool = False,
    ) -> OnlineResponse:
        plan = None
        if not include_feature_view_version_metadata:
            plan = self._plan(config, features, registry, project, full_feature_names)
        request = plan.request(entity_rows) if plan is not None and plan.fast else None
        files = self.files(config)
        if plan is None or request is None:
            # Feast reads view by view; a version that is published in between is for the next answer.
            with files.moment():
                return super().get_online_features(
                    config=config,
                    features=features,
                    entity_rows=entity_rows,
                    registry=registry,
                    project=project,
                    full_feature_names=full_feature_names,
                    include_feature_view_version_metadata=include_feature_view_version_metadata,
                )
        with files.lock:
            files.refresh()
            return plan.answer(files, request)

    async def get_online_features_async(self, *args: Any, **kwargs: Any) -> OnlineResponse:
        return self.get_online_features(*args, **kwargs)  # it never waits

    def _plan(self, config: RepoConfig, features: Any, registry: Any, project: str, full_names: bool) -> _Plan | None:
        """What a request needs of the registry, kept until the registry's cache is read anew."""
        created = getattr(registry, "cached_registry_proto_created", None)
        if created is None or not registry.is_cache_valid():
            self._plans.clear()
            return self._planned(config, features, registry, project, full_names)
        if created is not self._plans_of:
            self._plans.clear()
            self._plans_of = created
        by = (features.name if isinstance(features, FeatureService) else tuple(features), full_names, project)
        plan = self._plans.get(by)
        if plan is None or (plan.service is not None and plan.service is not features):
            plan = self._plans[by] = self._planned(config, features, registry, project, full_names)
        return plan

    def _planned(self, config: RepoConfig, features: Any, registry: Any, project: str, full_names: bool) -> _Plan:
        context = _get_cached_request_context(registry, project, features, full_names)
        _, on_demand, _, entity_types, join_keys, grouped, names, request_data, entityless = context
        service = features if isinstance(features, FeatureService) else None
        plain = not (on_demand or request_data or entityless or getattr(service, "precompute_online", False))
        sources = [_Wanted(table_name(config, view), view, list(wanted), full_names) for view, wanted in grouped]
        fast = plain and all(source.covers(names) for source in sources)
        needed = {key: entity_types.get(key) for source in sources for key in source.join_keys}
        return _Plan(fast, service, sources, needed, frozenset(join_keys))


class _Wanted:
    """Features that a request wants of one view."""

    def __init__(self, table: str, view: FeatureView, features: list[str], full_names: bool) -> None:
        self.table, self.view, self.features = table, view, features
        prefix = view.projection.name_to_use()
        self.names = [f"{prefix}__{name}" if full_names else name for name in features]
        aliases = view.projection.join_key_map or {}
        # By name of the join key: the order of keys in the log.
        self.join_keys = [
            aliases.get(column.name, column.name) for column in sorted(view.entity_columns, key=lambda c: c.name)
        ]
        self.ttl_ns = int(view.ttl.total_seconds() * 1e9) if view.ttl else 0
        self.types = {field.name: field.dtype.to_value_type() for field in view.features}
        self._source: Source | None = None
        self._epoch = -1

    def covers(self, names: frozenset[str]) -> bool:
        """Whether the fast way can answer: each feature is of a type that it knows, and each is asked for."""
        return all(self.types.get(name) in STORED for name in self.features) and set(self.names) <= names

    def source(self, files: OnlineFiles) -> Source:
        if self._epoch != files.epoch or self._source is None:
            self._source, self._epoch = Source(files.table(self.table), self.view, self.features), files.epoch
        return self._source


@dataclass(frozen=True)
class _Plan:
    fast: bool
    service: FeatureService | None
    wanted: list[_Wanted]
    join_keys: dict[str, ValueType | None]  # that the views need
    known: frozenset[str]  # all join keys of the project, which Feast's answers repeat

    def request(self, entity_rows: Any) -> Request | None:
        """Entity values as columns; None for what Feast itself is to check, convert or refuse."""
        if isinstance(entity_rows, list):
            if not entity_rows:
                return None
            first = entity_rows[0]
            if len(entity_rows) > 1 and any(row.keys() != first.keys() for row in entity_rows):
                return None
            columns = {key: [row[key] for row in entity_rows] for key in first if key in self.known}
        elif isinstance(entity_rows, Mapping) and all(isinstance(v, list) for v in entity_rows.values()):
            columns = {key: values for key, values in entity_rows.items() if key in self.known}
        else:
            return None
        if columns.keys() != self.join_keys.keys():
            return None
        count = -1
        for key, values in columns.items():
            if not values or count not in (-1, len(values)) or not _plain(values, self.join_keys[key]):
                return None
            count = len(values)
        return Request(columns, count)

    def answer(self, files: OnlineFiles, request: Request) -> OnlineResponse:
        now_ns = time.time_ns()
        parts = []
        for wanted in self.wanted:
            source = wanted.source(files)
            columns = source.many([request.columns[key] for key in wanted.join_keys], request.count)
            parts.append(Part(wanted.names, source.types, source.members, wanted.ttl_ns, columns))
        return SnapshotResponse(request, parts, now_ns)


def _plain(values: list[Any], kind: ValueType | None) -> bool:
    """Whether these are values of a key as they are; Feast converts some others, and refuses the rest."""
    if kind == ValueType.STRING:
        return set(map(type, values)) == {str}
    if kind not in (ValueType.INT64, ValueType.INT32) or set(map(type, values)) != {int}:
        return False
    most = 1 << (63 if kind == ValueType.INT64 else 31)
    return -most <= min(values) and max(values) < most


def table_name(config: RepoConfig, view: FeatureView) -> str:
    """As all Feast stores name it: with its version from the second on, where the registry serves versions."""
    return str(compute_versioned_name(view, config.registry.enable_online_feature_view_versioning))


def _ns(at: datetime) -> int:
    """Exact, unlike timestamp(); without a zone it is UTC, as everywhere in Feast."""
    since = (at if at.tzinfo else at.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1_000

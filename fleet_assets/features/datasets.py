"""Saved datasets and logs of feature services: Parquet objects in the lake, listed in a table under contract.

In: Arrow tables of any columns, and a name. Out: one object per part, named by its hash, and its row in features.datasets,
both in one audited transaction. Reading needs the name and a snapshot, and gives the rows as they were written.
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from feast.data_source import DataSource
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.feature_logging import LoggingDestination
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.protos.feast.core.FeatureService_pb2 import LoggingConfig as LoggingConfigProto
from feast.protos.feast.core.SavedDataset_pb2 import SavedDatasetStorage as SavedDatasetStorageProto
from feast.repo_config import RepoConfig
from feast.saved_dataset import SavedDatasetStorage
from feast.value_type import ValueType

from fleet_assets.errors import FleetError
from fleet_assets.features.write import upsert
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.tables import Snapshot

TABLE = "features.datasets"
SAVED, LOG = "saved", "log"


def save(lake: Lake, name: str, rows: pa.Table, *, commit_id: str, overwrite: bool = False) -> None:
    """Saves a dataset under a name. Raises SavedDatasetLocationAlreadyExists."""
    if not overwrite and _parts(lake.at(), SAVED, name).num_rows:
        raise SavedDatasetLocationAlreadyExists(location=name)
    _write(lake, SAVED, name, 0, rows, commit_id)


def append_log(lake: Lake, name: str, data: pa.Table | Path) -> None:
    """Adds a part to a log: a table, or a folder of Parquet files. The same part again changes nothing."""
    rows = data if isinstance(data, pa.Table) else pq.read_table(data)
    parts = _parts(lake.at(), LOG, name)
    path, _ = _encoded(rows)
    if path not in parts["object"].to_pylist():
        _write(lake, LOG, name, pc.max(parts["part"]).as_py() + 1 if parts.num_rows else 0, rows, lake.at().commit_id)


def load(
    snapshot: Snapshot,
    source: DatasetSource,
    columns: Sequence[str],
    time_column: str,
    start: datetime | None,
    end: datetime | None,
) -> pa.Table:
    """The rows of all parts with start <= time <= end. Raises FleetError for an unknown name or column."""
    parts = _parts(snapshot, source.kind, source.dataset).sort_by("part")
    if not parts.num_rows:
        raise FleetError(
            f"There is no {source.kind} dataset {source.dataset} at {snapshot.commit_id[:12]}",
            remedy='`fleet query "SELECT kind, name, rows FROM features.datasets"` lists them.',
        )
    tables = [
        pq.read_table(io.BytesIO(snapshot.repository.get(snapshot.commit_id, path)))
        for path in parts["object"].to_pylist()
    ]
    rows = pa.concat_tables(tables, promote_options="default")
    missing = [name for name in columns if name not in rows.column_names]
    if missing:
        raise FleetError(
            f"Dataset {source.dataset} has no column {', '.join(missing)}", where=", ".join(rows.column_names)
        )
    for bound, holds in ((start, pc.greater_equal), (end, pc.less_equal)):
        if bound is not None:
            limit = pa.scalar(bound if bound.tzinfo else bound.replace(tzinfo=UTC), pa.timestamp("us", "UTC"))
            rows = rows.filter(holds(rows[time_column].cast(pa.timestamp("us", "UTC"), safe=False), limit))
    return rows.select(list(dict.fromkeys(columns)))


def _key(kind: str, name: str) -> str:
    """What the rows of a dataset are filed under: a drive's key in form, with its name as a hash."""
    return f"{kind}_{hashlib.sha256(name.encode()).hexdigest()[:16]}--19700101T000000Z"


def _parts(snapshot: Snapshot, kind: str, name: str) -> pa.Table:
    return snapshot.scan(TABLE, drives=[_key(kind, name)])


def _encoded(rows: pa.Table) -> tuple[str, bytes]:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    data = sink.getvalue()
    return f"datasets/{hashlib.sha256(data).hexdigest()}.parquet", data


def _write(lake: Lake, kind: str, name: str, part: int, rows: pa.Table, commit_id: str) -> None:
    path, data = _encoded(rows)
    entry = {
        "drive_id": _key(kind, name),
        "part": part,
        "kind": kind,
        "name": name,
        "object": path,
        "rows": rows.num_rows,
        "commit_id": commit_id,
    }
    with tempfile.TemporaryDirectory(dir=lake.home.scratch, prefix="dataset-") as scratch:
        file = Path(scratch, "part.parquet")
        file.write_bytes(data)
        upsert(lake, TABLE, pa.Table.from_pylist([entry]), name="dataset", objects={path: file})


class DatasetSource(DataSource):
    """A saved dataset, or a log, as something that can be read again."""

    def __init__(self, *, kind: str, dataset: str) -> None:
        self.kind = kind
        self.dataset = dataset
        super().__init__(name=f"{kind}:{dataset}", timestamp_field="event_timestamp")

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> DatasetSource:
        return DatasetSource(**json.loads(data_source.custom_options.configuration))

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{__name__}.DatasetSource",
            timestamp_field=self.timestamp_field,
            custom_options=_options(self.kind, self.dataset),
        )

    def validate(self, config: RepoConfig) -> None:
        """Nothing to check: it may not be written yet."""

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        return lambda kind: ValueType.UNKNOWN

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        return DataSourceProto.CUSTOM_SOURCE


class SavedDatasetDelta(SavedDatasetStorage):
    """Where a saved dataset goes: into the lake, under this name."""

    _proto_attr_name = "custom_storage"

    def __init__(self, name: str) -> None:
        self.dataset = name

    @staticmethod
    def from_proto(storage_proto: SavedDatasetStorageProto) -> SavedDatasetDelta:
        return SavedDatasetDelta(json.loads(storage_proto.custom_storage.configuration)["dataset"])

    def to_proto(self) -> SavedDatasetStorageProto:
        return self._custom_storage_proto(_options(SAVED, self.dataset))

    def to_data_source(self) -> DataSource:
        return DatasetSource(kind=SAVED, dataset=self.dataset)


class DatasetLogs(LoggingDestination):
    """Where the log of a feature service goes: into the lake, under this name."""

    _proto_kind = "fleet_dataset"

    def __init__(self, name: str) -> None:
        self.dataset = name

    @classmethod
    def from_proto(cls, config_proto: LoggingConfigProto) -> DatasetLogs:
        return cls(config_proto.custom_destination.config["dataset"])

    def to_proto(self) -> LoggingConfigProto:
        custom = LoggingConfigProto.CustomDestination(kind=self._proto_kind, config={"dataset": self.dataset})
        return LoggingConfigProto(custom_destination=custom)

    def to_data_source(self) -> DataSource:
        return DatasetSource(kind=LOG, dataset=self.dataset)


def _options(kind: str, dataset: str) -> DataSourceProto.CustomSourceOptions:
    return DataSourceProto.CustomSourceOptions(configuration=json.dumps({"kind": kind, "dataset": dataset}).encode())

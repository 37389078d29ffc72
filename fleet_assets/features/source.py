"""Contract tables as Feast sources.

In: the name of a table. Out: a DataSource whose columns and types are the contract's. Times are int64 nanoseconds in the lake,
and timestamps for Feast.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from feast.data_source import DataSource
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import RepoConfig
from feast.value_type import ValueType

from fleet_assets.contracts.model import TableContract
from fleet_assets.lake.tables import contract_of

EVENT_TIME, AVAILABLE = "t_ns", "available_ns"
_VALUE_TYPES = {
    "string": ValueType.STRING,
    "long": ValueType.INT64,
    "double": ValueType.DOUBLE,
    "boolean": ValueType.BOOL,
    "date": ValueType.UNIX_TIMESTAMP,
    "timestamp": ValueType.UNIX_TIMESTAMP,
}


class DeltaSource(DataSource):
    """A contract table on lakeFS. Rows speak of `timestamp_field`, and were available from `created_timestamp_column` on."""

    def __init__(
        self,
        *,
        table: str,
        name: str | None = None,
        timestamp_field: str = EVENT_TIME,
        created_timestamp_column: str = AVAILABLE,
        field_mapping: dict[str, str] | None = None,
        description: str = "",
        tags: dict[str, str] | None = None,
        owner: str = "",
    ) -> None:
        contract = contract_of(table)
        self.table = table
        super().__init__(
            name=name or table,
            timestamp_field=timestamp_field,
            created_timestamp_column=created_timestamp_column,
            field_mapping=field_mapping,
            description=description or contract.description,
            tags=tags,
            owner=owner or contract.owner,
        )

    @property
    def contract(self) -> TableContract:
        return contract_of(self.table)

    def __hash__(self) -> int:
        return hash((self.name, self.table))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DeltaSource) and bool(super().__eq__(other)) and self.table == other.table

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> DeltaSource:
        options: dict[str, Any] = json.loads(data_source.custom_options.configuration)
        return DeltaSource(
            table=options["table"],
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
            field_mapping=dict(data_source.field_mapping),
            description=data_source.description,
            tags=dict(data_source.tags),
            owner=data_source.owner,
        )

    def _to_proto_impl(self) -> DataSourceProto:
        options = DataSourceProto.CustomSourceOptions(configuration=json.dumps({"table": self.table}).encode())
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{__name__}.DeltaSource",
            field_mapping=self.field_mapping,
            custom_options=options,
            description=self.description,
            tags=self.tags,
            owner=self.owner,
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
        )

    def validate(self, config: RepoConfig) -> None:
        """Raises FleetError when the contract has no such table or time column."""
        names = self.contract.arrow_schema.names
        for column in filter(None, (self.timestamp_field, self.created_timestamp_column)):
            if column not in names:
                from fleet_assets.errors import FleetError

                raise FleetError(f"{self.table} has no column {column}", remedy=f"It has {', '.join(names)}.")

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        return lambda kind: _VALUE_TYPES[kind]

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        times = (self.timestamp_field, self.created_timestamp_column)
        return [
            (column.name, "timestamp" if column.name in times else column.type)
            for column in self.contract.columns
            if column.type in _VALUE_TYPES
        ]

    def get_table_query_string(self) -> str:
        return self.table

    def source_type(self) -> DataSourceProto.SourceType.ValueType:
        return DataSourceProto.CUSTOM_SOURCE

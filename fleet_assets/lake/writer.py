"""Appends to a transaction's branch, from any process.

In: rows of one table and the name of the task that made them. Out: files and a log entry on the branch that carries the
task's name, so that only what accepted tasks wrote is published.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from fleet_assets.contracts.model import TableContract
from fleet_assets.errors import FleetError
from fleet_assets.lake.client import Repository
from fleet_assets.lake.delta_log import TASK_KEY
from fleet_assets.lake.tables import contract_of, engine_errors, open_table

if TYPE_CHECKING:
    from deltalake import WriterProperties
    from pyspark.sql.connect.dataframe import DataFrame

# Bins append to one table at once; each lost race costs one more try.
_COMMIT_TRIES = 50
ROW_GROUP_BYTES = 12 * 1024 * 1024


@dataclass(frozen=True)
class TaskWriter:
    """Can be pickled into a Spark task. home_root: folder of the installation; repository: its name in lakeFS; task: a
    name that is never used twice."""

    home_root: str
    repository: str
    branch: str
    task: str

    def append(self, table: str, rows: pa.Table | pa.RecordBatchReader, *, row_bytes: int = 0) -> int:
        """Adds rows, which must have the contract's columns; gives their number. row_bytes: about how large one is, of a table
        with payload. Raises FleetError."""
        return append(self._opened, self.branch, table, rows, self.task, row_bytes=row_bytes)

    def upload(self, path: str, file: Path) -> None:
        """An object named by its hash (recordings/<sha256>.mcap, context/<sha256>.csv): what is there already is the same."""
        upload(self._opened, self.branch, path, file)

    @property
    def _opened(self) -> Repository:
        from fleet_assets.lake.lake import Lake
        from fleet_assets.services.home import Home

        return Lake.open(Home.open(Path(self.home_root)), self.repository).repository


def append(
    repository: Repository,
    branch: str,
    table: str,
    rows: pa.Table | pa.RecordBatchReader,
    task: str,
    *,
    row_bytes: int = 0,
) -> int:
    """One Delta append. A reader is streamed: memory does not grow with it."""
    from deltalake import CommitProperties, write_deltalake

    contract = contract_of(table)
    counted = _Counted(contract, rows)
    properties = CommitProperties(custom_metadata={TASK_KEY: task}, max_commit_retries=_COMMIT_TRIES)
    target = open_table(repository, branch, contract)
    _refuse_other_columns(contract, {column.name for column in target.schema().fields})
    with engine_errors(f"Rows of {table} could not be written to {branch}"):
        write_deltalake(
            target,
            counted.reader,
            mode="append",
            commit_properties=properties,
            writer_properties=_layout(contract, row_bytes),
        )
    return counted.rows


def _layout(contract: TableContract, row_bytes: int) -> WriterProperties:
    """Of a table with payload: row groups that are read at once, no dictionaries or statistics of bytes. Messages are compressed
    as they are; of the rest, little is left to gain."""
    from deltalake import ColumnProperties, WriterProperties

    if not any(column.payload for column in contract.columns):
        return WriterProperties()
    told = ColumnProperties(dictionary_enabled=True, statistics_enabled="CHUNK")
    return WriterProperties(
        max_row_group_size=max(1, ROW_GROUP_BYTES // max(row_bytes, 1)),
        write_batch_size=16,
        compression="ZSTD",
        compression_level=1,
        default_column_properties=ColumnProperties(dictionary_enabled=False, statistics_enabled="NONE"),
        column_properties={
            column.name: told for column in contract.columns if "<" not in column.type and not column.payload
        },
    )


def _refuse_other_columns(contract: TableContract, present: set[str]) -> None:
    """Contracts are read once by a process, and the table may have been evolved since."""
    read = set(contract.arrow_schema.names)
    if present - read:
        raise FleetError(
            f"Table {contract.name} has columns that this process's contracts do not have",
            where=", ".join(sorted(present - read)),
            remedy="The contracts have changed since the servers were started: `fleet down`, then `fleet up`.",
        )
    if read - present:
        raise FleetError(
            f"Table {contract.name} lacks columns of its contract",
            where=", ".join(sorted(read - present)),
            remedy="`fleet contracts apply` adds them.",
        )


def upload(repository: Repository, branch: str, path: str, file: Path) -> None:
    if not repository.has(branch, path):
        repository.upload(branch, path, file)


def append_frame(repository: Repository, branch: str, table: str, frame: DataFrame, task: str) -> None:
    """One Delta append by Spark."""
    location = repository.uri(branch, contract_of(table).location, "s3a")
    frame.write.format("delta").mode("append").option("userMetadata", task).save(location)


class _Counted:
    """The rows in the contract's columns, order and types, counted as they pass."""

    def __init__(self, contract: TableContract, rows: pa.Table | pa.RecordBatchReader) -> None:
        self.rows = 0
        self._schema = contract.arrow_schema
        missing = [name for name in self._schema.names if name not in rows.schema.names]
        unknown = [name for name in rows.schema.names if name not in self._schema.names]
        if missing or unknown:
            raise FleetError(
                f"Rows do not fit {contract.name} {contract.version}",
                where="; ".join(
                    f"{what} {', '.join(names)}"
                    for what, names in (("missing", missing), ("unknown", unknown))
                    if names
                ),
                remedy="Give every column of the contract, null where there is no value.",
            )
        self.reader = pa.RecordBatchReader.from_batches(self._schema, self._batches(rows))

    def _batches(self, rows: pa.Table | pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
        for batch in rows.to_batches() if isinstance(rows, pa.Table) else rows:
            ordered = batch.select(self._schema.names)
            if ordered.schema != self._schema:
                ordered = ordered.cast(self._schema)
            self.rows += batch.num_rows
            yield ordered

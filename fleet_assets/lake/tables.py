"""Tables at one commit, read through delta-rs.

In: a reference. Out: Snapshot, pinned to the commit that the reference stood for; everything read from it agrees.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa

from fleet_assets.contracts.loader import TableContract, load_tables
from fleet_assets.errors import FleetError

if TYPE_CHECKING:
    from deltalake import DeltaTable

    from fleet_assets.lake.client import Repository

VERSIONS = "lake.versions"


@dataclass(frozen=True)
class Version:
    """What one drive's rows in one table were made from."""

    version: str
    run_id: str
    rows: int


def quoted(values: Iterable[str]) -> str:
    """A SQL list of strings: ('a', 'b')."""
    return "(" + ", ".join("'" + value.replace("'", "''") + "'" for value in values) + ")"


def day_of(drive: str) -> date:
    """UTC day of a drive's start, which is the day that its rows are filed under."""
    start = drive.rsplit("--", 1)[-1]
    try:
        return date(int(start[:4]), int(start[4:6]), int(start[6:8]))
    except ValueError as error:
        raise FleetError(
            f"{drive!r} is no drive", remedy="A drive is <vehicle>--<YYYYMMDDTHHMMSSZ>, such as car7--20260102T030405Z."
        ) from error


def drives_predicate(drives: Sequence[str]) -> str:
    """Rows of these drives; the day, which the key carries, lets readers skip partitions."""
    by_day = ", ".join(f"CAST('{day}' AS DATE)" for day in sorted({day_of(drive) for drive in drives}))
    return f"day IN ({by_day}) AND drive_id IN {quoted(drives)}"


class Snapshot:
    """The lake at one commit."""

    def __init__(self, repository: Repository, commit_id: str) -> None:
        self.repository = repository
        self.commit_id = commit_id
        self._open: dict[str, DeltaTable] = {}
        self._versions: dict[tuple[str, ...], dict[tuple[str, str], Version]] = {}

    def table(self, name: str) -> DeltaTable:
        """The Delta table. Raises FleetError when the contract has not been applied at this commit."""
        if name not in self._open:
            self._open[name] = open_table(self.repository, self.commit_id, contract_of(name))
        return self._open[name]

    def batches(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        *,
        drives: Sequence[str] | None = None,
        predicate: str | None = None,
    ) -> pa.RecordBatchReader:
        """Rows as a stream of batches, columns and predicate pushed down; memory does not grow with the table. A column that the
        table got after this commit is null."""
        conditions = [predicate] if predicate else []
        if drives is not None:
            conditions.append(drives_predicate(drives) if drives else "false")
        schema = contract_of(name).arrow_schema
        wanted = list(columns) if columns is not None else schema.names
        where = " AND ".join(f"({condition})" for condition in conditions)
        target = pa.schema([schema.field(column) for column in wanted])
        table = self.table(name)
        known = {field.name for field in table.schema().fields}
        stored = [field.name for field in target if field.name in known or not field.nullable]

        def rows() -> Iterator[pa.RecordBatch]:
            with engine_errors(f"Rows of {name} at {self.commit_id[:12]} could not be read"):
                for batch in pa.RecordBatchReader.from_stream(table.scan(columns=stored, predicate=where or None)):
                    # The engine reads strings as views; the contract's types are what callers know.
                    yield pa.RecordBatch.from_arrays(_cast(batch, target), schema=target)

        return pa.RecordBatchReader.from_batches(target, rows())

    def scan(
        self,
        name: str,
        columns: Sequence[str] | None = None,
        *,
        drives: Sequence[str] | None = None,
        predicate: str | None = None,
    ) -> pa.Table:
        """Rows as a table with the contract's types. Give drives or a predicate when the table is large."""
        return self.batches(name, columns, drives=drives, predicate=predicate).read_all()

    def row_count(self, name: str) -> int:
        """Rows of the table, from the log's statistics alone."""
        return int(self.table(name).count())

    def versions(self, drives: Sequence[str], tables: Sequence[str] | None = None) -> dict[tuple[str, str], Version]:
        """What the drives' rows were made from, by (drive, table). Rows 0: the drive was taken and gave none."""
        if not drives:
            return {}
        wanted = tuple(sorted(drives))
        if wanted not in self._versions:
            columns = ["drive_id", "table_name", "version", "run_id", "rows"]
            self._versions[wanted] = {
                (row["drive_id"], row["table_name"]): Version(row["version"], row["run_id"], row["rows"])
                for row in self.scan(VERSIONS, columns, drives=wanted).to_pylist()
            }
        found = self._versions[wanted]
        return {key: version for key, version in found.items() if tables is None or key[1] in tables}

    def query(self, sql: str, *, limit: int) -> pa.Table:
        """One SELECT over contract tables; see query.py."""
        from fleet_assets.lake.query import run_query

        return run_query(self, sql, limit=limit)

    @cached_property
    def applied(self) -> Mapping[str, TableContract]:
        """Contract tables that exist at this commit."""
        from deltalake import DeltaTable

        return {
            name: contract
            for name, contract in load_tables().items()
            if DeltaTable.is_deltatable(
                self.repository.uri(self.commit_id, contract.location), self.repository.storage_options
            )
        }


def contract_of(name: str) -> TableContract:
    """The contract of a table. Raises FleetError for an unknown name."""
    contract = load_tables().get(name)
    if contract is None:
        import difflib

        near = difflib.get_close_matches(name, load_tables(), 1)
        remedy = f"Did you mean {near[0]}?" if near else f"Tables: {', '.join(load_tables())}."
        raise FleetError(f"There is no table {name}", remedy=remedy)
    return contract


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """The engine's errors as FleetErrors that say what was being done."""
    from deltalake.exceptions import DeltaError

    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise FleetError(
            what, where=str(error).splitlines()[0], remedy="`fleet status` shows whether the servers answer."
        ) from error


def open_table(repository: Repository, ref: str, contract: TableContract) -> DeltaTable:
    """A table at any reference, a branch too."""
    from deltalake import DeltaTable
    from deltalake.exceptions import TableNotFoundError

    with engine_errors(f"Table {contract.name} at {ref[:12]} could not be read"):
        try:
            return DeltaTable(repository.uri(ref, contract.location), storage_options=repository.storage_options)
        except TableNotFoundError as error:
            raise FleetError(
                f"Table {contract.name} does not exist at {ref[:12]}", remedy="`fleet contracts apply` creates tables."
            ) from error


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> list[pa.Array]:
    present = set(batch.schema.names)
    return [
        batch.column(field.name).cast(field.type) if field.name in present else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]

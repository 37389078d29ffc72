"""The audit of a transaction: its own added files, never the whole table.

In: the files that accepted tasks added. Out: rows per drive, counted in the files themselves, and the contract's rules,
judged by Great Expectations: in this process, or by Spark when there are many rows.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fleet_assets.contracts.audit import AuditResult, audit
from fleet_assets.contracts.model import TableContract
from fleet_assets.errors import FleetError
from fleet_assets.lake.client import Repository
from fleet_assets.lake.delta_log import THREADS, Added
from fleet_assets.lake.tables import day_of
from fleet_assets.services.home import Home

# Audits of more rows than this run in Spark: here, Great Expectations takes some 0.6 GB of memory for a million.
LOCAL_ROWS = 500_000
# Judges the rows of one table by its contract; `contracts.audit.audit` unless a caller has another.
Auditor = Callable[[TableContract, Any], AuditResult]


class AuditFailed(FleetError):
    """The audit refused a transaction; main is unchanged. failures: by table, one sentence per rule."""

    def __init__(self, branch: str, results: Mapping[str, AuditResult]) -> None:
        self.branch = branch
        self.failures = {
            name: [failure.sentence for failure in result.failures] for name, result in results.items() if not result.ok
        }
        said = "; ".join(f"{table}: {'; '.join(why)}" for table, why in self.failures.items())
        super().__init__(
            f"The audit refused {branch}: {said}", remedy="main is unchanged; the branch stays to look at."
        )


def rows_by_drive(repository: Repository, ref: str, added: Added) -> Counter[str]:
    """Counts rows in the files. Raises FleetError when a drive's rows lie in another day than its key says: replacing
    it later would miss them."""
    counts: Counter[str] = Counter()
    for rows in _each_file(repository, ref, added, ["drive_id"]):
        days = set(pc.unique(rows["day"]).to_pylist()) if "day" in rows.column_names else None
        for entry in pc.value_counts(rows["drive_id"]).to_pylist():
            counts[entry["values"]] += entry["counts"]
            if days is not None and days != {day_of(entry["values"])}:
                raise FleetError(
                    f"Rows of {entry['values']} are filed under {', '.join(map(str, sorted(days)))}",
                    where=added.contract.name,
                    remedy="The day is that of the drive's key, in UTC. Nothing was published.",
                )
    return counts


def audit_added(repository: Repository, home: Home, ref: str, added: Added, auditor: Auditor | None) -> AuditResult:
    """Judges all rules of the table's contract."""
    judge = auditor or audit
    if added.rows > LOCAL_ROWS:
        return judge(added.contract, _spark_frame(repository, home, ref, added))
    return judge(added.contract, added_rows(repository, ref, added))


def added_rows(repository: Repository, ref: str, added: Added) -> pa.Table:
    """All rows that a transaction has added to a table, in the contract's schema, but for payload: no rule is about it."""
    judged = _judged(added)
    schema = pa.schema([added.contract.arrow_schema.field(name) for name in judged])
    read = None if len(judged) == len(added.contract.columns) else judged
    parts = [rows.select(schema.names).cast(schema) for rows in _each_file(repository, ref, added, columns=read)]
    return pa.concat_tables(parts)


def _judged(added: Added) -> list[str]:
    return [column.name for column in added.contract.columns if not column.payload]


def _each_file(repository: Repository, ref: str, added: Added, columns: list[str] | None) -> Iterator[pa.Table]:
    """The files' rows with their partition values, as columns of the contract's types."""
    schema = added.contract.arrow_schema

    def read(path: str, action: Mapping[str, Any]) -> pa.Table:
        source = _RangeFile(repository, ref, path, int(action["size"]))
        rows = pq.ParquetFile(source, pre_buffer=True).read(columns=columns)
        for column, value in action["partitionValues"].items():
            kind = schema.field(column).type
            constant = pa.scalar(date.fromisoformat(value) if pa.types.is_date(kind) else value, type=kind)
            if column in rows.column_names:  # some writers keep it in the file too; the log decides
                rows = rows.drop_columns([column])
            rows = rows.append_column(column, pa.repeat(constant, rows.num_rows))
        return rows

    with ThreadPoolExecutor(THREADS) as pool:
        yield from pool.map(read, added.paths, added.actions.values())


class _RangeFile(io.RawIOBase):
    """An object as a file: what is read is fetched, so that one column does not cost the others. A small object comes
    at once."""

    _WHOLE_BYTES = 1 << 20

    def __init__(self, repository: Repository, ref: str, path: str, size: int) -> None:
        self._fetch = lambda offset, length: repository.get_range(ref, path, offset, length)
        self._size = size
        self._position = 0
        self._whole = self._fetch(0, size) if 0 < size <= self._WHOLE_BYTES else None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = start + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._position + size)
        start, self._position = self._position, max(end, self._position)
        if end <= start:
            return b""
        return self._whole[start:end] if self._whole is not None else self._fetch(start, end - start)

    def readall(self) -> bytes:
        return self.read()


def _spark_frame(repository: Repository, home: Home, ref: str, added: Added) -> Any:
    from fleet_assets.lake.session import spark_session

    root = repository.uri(ref, added.contract.location, "s3a")
    paths = [repository.uri(ref, path, "s3a") for path in added.paths]
    ddl = ", ".join(f"`{column.name}` {column.type}" for column in added.contract.columns)
    return spark_session(home).read.schema(ddl).option("basePath", root).parquet(*paths).select(*_judged(added))

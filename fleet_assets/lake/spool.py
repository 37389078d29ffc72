"""Rows on their way to the lake, on scratch disk.

In: batches per table, in any order. Out: one append per table, over many drives. A drive's rows wait here
until it is known whether the drive is accepted, so memory stays bounded whatever a recording's length.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from fleet_assets.contracts.loader import load_tables
from fleet_assets.lake.writer import TaskWriter


class Spool:
    """One Arrow IPC file per table in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[str, int] = {}
        self._writers: dict[str, pa.RecordBatchFileWriter] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def append(self, table: str, rows: pa.Table) -> None:
        """Rows must carry the contract's columns; they are put in its order and types."""
        schema = load_tables()[table].arrow_schema
        ordered = rows.select(schema.names).cast(schema)
        if table not in self._writers:
            self._writers[table] = pa.ipc.new_file(self.folder / f"{table}.arrow", schema)
        self._writers[table].write_table(ordered)
        self.rows[table] = self.rows.get(table, 0) + rows.num_rows

    def close(self) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()

    def table(self, name: str) -> pa.Table | None:
        """All rows of one table, memory-mapped; None if there are none. Call close() first."""
        path = self.folder / f"{name}.arrow"
        if not path.exists():
            return None
        with pa.memory_map(str(path)) as source:
            return pa.ipc.open_file(source).read_all()

    def drop_rows(self) -> None:
        """Forgets everything that was spooled (the drive is quarantined)."""
        self.close()
        shutil.rmtree(self.folder)
        self.folder.mkdir()
        self.rows.clear()


def _chained(spools: Sequence[Spool], table: str) -> pa.RecordBatchReader:
    """The rows of one table over many spools, batch by batch."""
    schema = load_tables()[table].arrow_schema

    def batches() -> Iterator[pa.RecordBatch]:
        for spool in spools:
            path = spool.folder / f"{table}.arrow"
            if not path.exists():
                continue
            with pa.memory_map(str(path)) as source:
                reader = pa.ipc.open_file(source)
                for index in range(reader.num_record_batches):
                    yield reader.get_batch(index)

    return pa.RecordBatchReader.from_batches(schema, batches())


def write_all(writer: TaskWriter, spools: Sequence[Spool]) -> None:
    """One append per table for all the spools: a file may hold several drives, so that files follow the data."""
    for table in sorted({table for spool in spools for table in spool.rows}):
        writer.append(table, _chained(spools, table))

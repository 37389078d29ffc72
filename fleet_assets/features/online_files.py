"""What an online store keeps: snapshot files, and a log of what was written since.

In: rows of tables, snapshot files. Out: the rows of a table by key, as of one moment. Any number of processes read and write one
folder; a write is on disk when it returns, and one that was cut off is as if it never was.

    FOLDER/log                    records, appended under a lock; its size tells readers that something changed
    FOLDER/services/NAME.snapshot published, one per feature service
    FOLDER/tables/NAME.snapshot   rows of one table, folded out of the log when they became many
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fleet_assets.edge.snapshot import Snapshot, View
from fleet_assets.errors import FleetError

SUFFIX = ".snapshot"
_HEAD = struct.Struct("<II")  # bytes and crc32 of a record
_MAGIC = b"FLTLOG1\0"
_ROWS, _CHANGED, _DROPPED = 1, 2, 3


@dataclass
class Row:
    """One row that was written since the last fold. values: serialised, as the caller gave them, by feature."""

    key: bytes
    event_ns: int
    written_ns: int
    values: dict[str, bytes]


@dataclass(frozen=True)
class Base:
    """A view of a snapshot file. activated_ns: rows written before then count only if their event time is later."""

    view: View
    activated_ns: int
    folded: bool


@dataclass
class Table:
    """rows: by key, newest last. bases: published and folded."""

    rows: dict[bytes, Row] = field(default_factory=dict)
    bases: list[Base] = field(default_factory=list)


class OnlineFiles:
    """One process's eye on a folder. Use it under `lock`: what is read between `refresh` and the release is of one moment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._log = str(folder / "log")  # joining a path takes as long as looking at the file
        self.lock = threading.RLock()
        self.tables: dict[str, Table] = {}
        self.epoch = 0  # changes when a table's bases do
        self._inode, self._read_to = -1, 0
        self._moments = 0

    @contextmanager
    def moment(self) -> Iterator[None]:
        """Holds the lock; all that is read meanwhile, in moments inside of it too, is of the outermost one's begin."""
        with self.lock:
            if not self._moments:
                self.refresh()
            self._moments += 1
            try:
                yield
            finally:
                self._moments -= 1

    def refresh(self) -> None:
        """Takes up what was written since: one look at the log's size if nothing was."""
        try:
            status = os.stat(self._log)
        except FileNotFoundError:
            if self._inode != -1 or not self.tables:
                self._reload()
            return
        if status.st_ino != self._inode or (status.st_size > self._read_to and self._follow()):
            self._reload()

    def table(self, name: str) -> Table:
        return self.tables.setdefault(name, Table())

    # ---- writing -------------------------------------------------------------------------------------------------------

    def write(self, table: str, rows: Sequence[tuple[bytes, int, dict[str, bytes]]]) -> None:
        """rows: (key, event time [ns], serialised value by feature). On disk when this returns."""
        now_ns = time.time_ns()
        body = b"".join(_pack_row(key, event_ns, now_ns, values) for key, event_ns, values in rows)
        self._append(_ROWS, table, body)

    def drop(self, table: str) -> None:
        """All rows of a table that were written, folded or not; published snapshots stay."""
        with self._writing():
            _tables(self.folder).joinpath(table + SUFFIX).unlink(missing_ok=True)
            self._append_locked(_DROPPED, table, b"")

    def publish(self, snapshot: Path, service: str) -> None:
        """Makes a copy of a snapshot file the service's, in one step. Raises FleetError if it is no whole snapshot."""
        Snapshot.open(snapshot)
        with self._writing():
            target = self.folder / "services" / (service + SUFFIX)
            target.parent.mkdir(parents=True, exist_ok=True)
            with self._scratch() as scratch:
                new = scratch / "new"
                shutil.copyfile(snapshot, new)
                with open(new, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(new, target)
            self._append_locked(_CHANGED, "", b"")

    def fold(self, table: str, build: Callable[[Table, Path], bool]) -> None:
        """Replaces a table's rows in the log by a file that build writes from them; build says whether it did."""
        with self._writing():  # so nothing is written meanwhile; readers go on while the file is built
            with self.lock:
                self.refresh()
                known = self.table(table)
                known = Table(dict(known.rows), list(known.bases))
                others = {name: list(other.rows.values()) for name, other in self.tables.items() if name != table}
            path = _tables(self.folder) / (table + SUFFIX)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not build(known, path):
                return
            with self._scratch() as scratch:
                new = scratch / "log"
                with open(new, "wb") as file:
                    file.write(_MAGIC)
                    for name, rows in others.items():
                        body = b"".join(_pack_row(r.key, r.event_ns, r.written_ns, r.values) for r in rows)
                        file.write(_record(_ROWS, name, body))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(new, self.folder / "log")

    def remove(self) -> None:
        """The folder with everything in it."""
        with self.lock:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.tables, self._inode, self._read_to = {}, -1, 0
            self.epoch += 1

    def _append(self, kind: int, table: str, body: bytes) -> None:
        with self._writing():
            self._append_locked(kind, table, body)

    def _append_locked(self, kind: int, table: str, body: bytes) -> None:
        record = _record(kind, table, body)
        with open(self.folder / "log", "ab+") as file:
            known = self._read_to if os.fstat(file.fileno()).st_ino == self._inode else 0
            file.seek(known)
            whole = _end_of_whole(file.read(), known)
            file.truncate(whole)  # a writer that was killed may have left half a record
            file.write(record if whole else _MAGIC + record)
            file.flush()
            os.fsync(file.fileno())

    @contextmanager
    def _scratch(self) -> Iterator[Path]:
        """A folder for who holds the lock; what a writer that was killed left in one goes."""
        for left in self.folder.glob(".new-*"):
            shutil.rmtree(left)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".new-") as scratch:
            yield Path(scratch)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    # ---- reading -------------------------------------------------------------------------------------------------------

    def _reload(self) -> None:
        """Reads everything. Others may publish or fold between the files and the log: then once more, while they wait."""
        if self._changed_while_read():
            with self._writing():
                self._changed_while_read()

    def _changed_while_read(self) -> bool:
        self.tables, self._read_to = {}, 0
        self.epoch += 1
        self._inode, begun_at = self._log_now()
        for folder, folded in ((self.folder / "services", False), (_tables(self.folder), True)):
            for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.exists() else []:
                activated_ns = path.stat().st_mtime_ns
                snapshot = Snapshot.open(path)
                for view in {view.name: view for view in snapshot.views.values()}.values():
                    for name in (path.name.removesuffix(SUFFIX),) if folded else _table_names(view):
                        self.table(name).bases.append(Base(view, activated_ns, folded))
        if self._log_now() == (-1, 0):
            return self._inode != -1
        return self._follow(begun_at)

    def _log_now(self) -> tuple[int, int]:
        """The log's inode and size; -1 and 0 where there is none."""
        try:
            status = os.stat(self._log)
        except FileNotFoundError:
            return -1, 0
        return status.st_ino, status.st_size

    def _follow(self, begun_at: int = 0) -> bool:
        """Applies whole records after those that were read; gives whether files changed since the log was so long."""
        with open(self.folder / "log", "rb") as file:
            if os.fstat(file.fileno()).st_ino != self._inode:
                return True
            head = file.read(len(_MAGIC))
            if not _MAGIC.startswith(head):
                raise FleetError(f"{self.folder}/log is no log of an online store", remedy="Restore the folder.")
            if head != _MAGIC:  # somebody is about to write the first record, or was killed before
                return False
            file.seek(max(self._read_to, len(_MAGIC)))
            data = file.read()
        at, changed = 0, False
        start = max(self._read_to, len(_MAGIC))
        for kind, table, body, end in _records(data):
            at = end
            if kind == _ROWS:
                rows = self.table(table).rows
                for row in _unpack_rows(body):
                    _merge(rows, row)
            else:
                if kind == _DROPPED:
                    self.table(table).rows.clear()
                changed |= start + end > begun_at
        self._read_to = start + at
        return changed


def _table_names(view: View) -> tuple[str, ...]:
    """Names under which Feast asks for a view: the newest version's plain one too."""
    return (view.name, f"{view.name}_v{view.version}")


def _tables(folder: Path) -> Path:
    return folder / "tables"


def _merge(rows: dict[bytes, Row], row: Row) -> None:
    """The last write counts, per feature."""
    before = rows.pop(row.key, None)
    if before is not None:
        row.values = {**before.values, **row.values}
    rows[row.key] = row


def _record(kind: int, table: str, body: bytes) -> bytes:
    name = table.encode()
    payload = struct.pack("<BH", kind, len(name)) + name + body
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def _records(data: bytes) -> Iterator[tuple[int, str, bytes, int]]:
    """(kind, table, body, end) of each whole record; what is after the last of them is not looked at."""
    at = 0
    while at + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, at)
        payload = data[at + _HEAD.size : at + _HEAD.size + length]
        if len(payload) < max(length, 3) or zlib.crc32(payload) != crc:
            return
        at += _HEAD.size + length
        kind, name = struct.unpack_from("<BH", payload)
        yield kind, payload[3 : 3 + name].decode(), payload[3 + name :], at


def _end_of_whole(data: bytes, start: int) -> int:
    """Where the last whole record of a log ends, whose bytes from start on are data; 0 if it is none yet."""
    if not start:
        if data[: len(_MAGIC)] != _MAGIC:
            return 0
        start, data = len(_MAGIC), data[len(_MAGIC) :]
    return start + max((end for *_, end in _records(data)), default=0)


def _pack_row(key: bytes, event_ns: int, written_ns: int, values: dict[str, bytes]) -> bytes:
    parts = [struct.pack("<IqqI", len(key), event_ns, written_ns, len(values)), key]
    for name, value in values.items():
        text = name.encode()
        parts += (struct.pack("<HI", len(text), len(value)), text, value)
    return b"".join(parts)


def _unpack_rows(body: bytes) -> Iterator[Row]:
    at = 0

    def take(length: int) -> bytes:
        nonlocal at
        at += length
        return body[at - length : at]

    while at < len(body):
        key_bytes, event_ns, written_ns, count = struct.unpack("<IqqI", take(24))
        key, values = take(key_bytes), {}
        for _ in range(count):
            name, length = struct.unpack("<HI", take(6))
            feature = take(name).decode()
            values[feature] = take(length)
        yield Row(key, event_ns, written_ns, values)

"""Objects that lie in the lake's storage and that nothing needs. Removing a branch, or an object before it is committed, leaves
its bytes where they are: lakeFS's own collector does not work on local storage.

In: a lake whose storage is this installation's. Out: a Mark: bytes held, bytes that no reference reaches, bytes removed.
Removed is what was never part of a commit, lies on no branch, and is a day old. What only commits without a reference hold
is counted and stays: it can be read by the id of its commit.

What was ever committed is read from lakeFS's own immutable files (ranges.py), each of them once: a small database in the
installation remembers, and is made anew when it is damaged. At any doubt nothing is removed.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import re
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet_assets.errors import FleetError
from fleet_assets.lake import ranges
from fleet_assets.lake.client import MAIN
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.refusals import NotFound
from fleet_assets.lake.sweep import ABANDONED_AFTER_S
from fleet_assets.services.home import Home, write_private

_RANGE = re.compile("[0-9a-f]{64}")
_UPLOAD_PART = re.compile(r"[0-9a-f]{32}-\d{5}")  # of an object that is uploaded in parts; beside data/
_SCHEMA = """
CREATE TABLE files (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE metaranges (metarange TEXT, range TEXT, PRIMARY KEY (metarange, range)) WITHOUT ROWID;
CREATE TABLE addresses (address TEXT PRIMARY KEY, range TEXT) WITHOUT ROWID;
CREATE TABLE commits (id TEXT PRIMARY KEY, metarange TEXT, parents TEXT) WITHOUT ROWID;
"""


class CannotTell(FleetError):
    """What is needed and what is not cannot be told apart; nothing was removed."""


@dataclass(frozen=True)
class Mark:
    """held_bytes: of all objects, after the removal. unreached_bytes: of those, what is a day old and no branch and no tag
    reaches."""

    t_s: float
    held_bytes: int
    unreached_bytes: int
    removed_bytes: int
    removed_objects: int

    def __str__(self) -> str:
        at = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(self.t_s))
        return (
            f"At {at} the lake held {self.held_bytes / 1e6:.1f} MB, {self.unreached_bytes / 1e6:.1f} MB of it reached by no "
            f"reference; {self.removed_objects} objects ({self.removed_bytes / 1e6:.1f} MB) were never committed, and removed"
        )


@dataclass(frozen=True)
class _File:
    """address: the path below the storage's folder."""

    address: str
    bytes: int
    old: bool


def collect(lake: Lake, older_than_s: float = ABANDONED_AFTER_S) -> Mark:
    """Counts, and removes what was never committed. Raises CannotTell, LakeUnreachable."""
    folder = _storage(lake)
    with open(lake.home.run / "garbage.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # In this order: an object that is committed meanwhile is found on its branch, or in the commit.
        files = _files(folder, older_than_s)
        living = _living(lake, folder)
        known, reached = _committed(lake, folder, older_than_s)
        with contextlib.closing(known):
            mark = _remove(folder, files, living, known, reached)
        write_private(_mark_path(lake.home, lake.repository.name), json.dumps(asdict(mark)))
        return mark


def last_mark(home: Home, repository: str) -> Mark | None:
    """What the last collection found; None before the first. Asks no server."""
    try:
        return Mark(**json.loads(_mark_path(home, repository).read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise FleetError(
            f"{_mark_path(home, repository)} is damaged",
            where=str(error),
            remedy="Remove it; the next night writes it anew.",
        ) from error


def _mark_path(home: Home, repository: str) -> Path:
    return home.run / f"garbage-{repository}.json"


def _storage(lake: Lake) -> Path:
    folder = lake.home.root / "lakefs" / "objects" / lake.repository.name
    if "lakefs" in lake.home.elsewhere or not (folder / "_lakefs").is_dir():
        raise CannotTell(
            "The lake's storage is not in this installation", where=str(folder), remedy="Collect where lakeFS runs."
        )
    return folder


def _files(folder: Path, older_than_s: float) -> list[_File]:
    """Objects and parts of uploads; never a file of lakeFS itself."""
    limit = time.time() - older_than_s
    parts = (path for path in folder.iterdir() if _UPLOAD_PART.fullmatch(path.name))
    found = []
    for path in itertools.chain(parts, (folder / "data").rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # an upload has ended meanwhile
            about = path.lstat()
            if stat.S_ISREG(about.st_mode):
                found.append(_File(path.relative_to(folder).as_posix(), about.st_size, about.st_mtime < limit))
    return found


def _living(lake: Lake, folder: Path) -> set[str]:
    """Addresses of what is on branches now, committed or not."""
    found: set[str] = set()
    for branch in list(lake.repository.branches()):
        with contextlib.suppress(NotFound):  # the branch has ended, and what was never committed with it
            found.update(_addresses(lake, branch, folder))
    return found


def _addresses(lake: Lake, ref: str, folder: Path) -> Iterator[str]:
    here = f"local://{folder}/"
    for item in lake.repository.list(ref):
        if not item.address.startswith(here):
            raise CannotTell(
                "An object lies outside of the lake's storage", where=f"{item.path} at {ref}: {item.address}"
            )
        yield item.address.removeprefix(here)


def _committed(lake: Lake, folder: Path, older_than_s: float) -> tuple[sqlite3.Connection, set[str]]:
    """The database with the addresses of all commits, and the files of lakeFS that references reach. What the database lacks is
    read now, and all of it where it is damaged."""
    path = lake.home.run / f"garbage-{lake.repository.name}.sqlite"
    # The server is asked too: what main holds must be among it.
    on_main = set(_addresses(lake, lake.repository.commit_id(MAIN), folder))
    why = ""
    for _ in range(2):
        known = _open(path)
        try:
            _read_new(known, folder, older_than_s)
            missing = next((address for address in on_main if _range_of(known, address) is None), None)
            if missing is None:
                return known, _reached(lake, known)
            why = f"{missing} lies on main, and is in no file of lakeFS"
        except sqlite3.DatabaseError as error:
            why = f"{path}: {error}"
        except BaseException:
            known.close()
            raise
        known.close()
        path.unlink()
    raise CannotTell("What was committed cannot be read from lakeFS's own files", where=why)


def _range_of(known: sqlite3.Connection, address: str) -> str | None:
    """The first file of lakeFS that lists this object; None: it was never committed."""
    row = known.execute("SELECT range FROM addresses WHERE address = ?", (address,)).fetchone()
    return row[0] if row else None


def _open(path: Path) -> sqlite3.Connection:
    for _ in range(2):
        known = sqlite3.connect(path)
        try:
            if known.execute("PRAGMA quick_check").fetchone() == ("ok",):
                if not known.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
                    known.executescript(f"BEGIN;{_SCHEMA}COMMIT;")
                return known
        except sqlite3.DatabaseError:
            pass
        known.close()
        path.unlink()
    raise CannotTell("No database can be made", where=str(path), remedy="Is the disk full?")


def _read_new(known: sqlite3.Connection, folder: Path, older_than_s: float) -> None:
    """Reads ranges and metaranges that the database does not have, oldest first: an address keeps its first range."""
    read = {name for (name,) in known.execute("SELECT name FROM files")}
    new = [path for path in (folder / "_lakefs").iterdir() if _RANGE.fullmatch(path.name) and path.name not in read]
    unreadable: dict[Path, str] = {}
    for path in sorted(new, key=lambda path: path.stat().st_mtime):
        try:
            contents = ranges.read(path)
        except ranges.Unreadable as error:
            unreadable[path] = str(error)
            continue
        name = path.name
        with known:  # one transaction
            known.execute("INSERT INTO files VALUES (?)", (name,))
            known.executemany("INSERT INTO metaranges VALUES (?, ?)", ((name, part) for part in contents.ranges))
            known.executemany(
                "INSERT OR IGNORE INTO addresses VALUES (?, ?)", ((address, name) for address in contents.addresses)
            )
    listed = {name for (name,) in known.execute("SELECT range FROM metaranges")}
    missing = listed - read - {path.name for path in new}
    if missing:
        raise CannotTell(
            f"{len(missing)} of lakeFS's own files are missing", where=str(folder / "_lakefs" / min(missing))
        )
    for path, what in unreadable.items():
        # lakeFS writes it now, or was killed while it did: then no commit was made of it, and it is nobody's.
        if path.name in listed or path.stat().st_mtime > time.time() - older_than_s:
            raise CannotTell("A file of lakeFS cannot be read", where=f"{path.parent}/{what}")


def _reached(lake: Lake, known: sqlite3.Connection) -> set[str]:
    """Ranges of all commits that a branch or tag reaches. Commits are asked for once."""
    commits = {row[0]: (row[1], row[2].split()) for row in known.execute("SELECT id, metarange, parents FROM commits")}
    waiting = [*lake.repository.heads().values(), *lake.repository.tags().values()]
    reached: set[str] = set()
    while waiting:
        commit_id = waiting.pop()
        if commit_id in reached:
            continue
        reached.add(commit_id)
        if commit_id not in commits:
            new = [c for c in lake.repository.log(commit_id, limit=100, first_parent=False) if c.id not in commits]
            commits.update({commit.id: (commit.metarange, list(commit.parents)) for commit in new})
            with known:
                rows = [(commit.id, commit.metarange, " ".join(commit.parents)) for commit in new]
                known.executemany("INSERT INTO commits VALUES (?, ?, ?)", rows)
        waiting.extend(commits[commit_id][1])
    metaranges = {commits[commit_id][0] for commit_id in reached}
    return {
        part for metarange, part in known.execute("SELECT metarange, range FROM metaranges") if metarange in metaranges
    }


def _remove(
    folder: Path, files: Iterable[_File], living: set[str], known: sqlite3.Connection, reached: set[str]
) -> Mark:
    held = unreached = removed = objects = 0
    for file in files:
        needed = not file.old or file.address in living
        in_range = None if needed else _range_of(known, file.address)
        if not needed and in_range is None:
            (folder / file.address).unlink(missing_ok=True)
            removed += file.bytes
            objects += 1
            continue
        held += file.bytes
        if not needed and in_range not in reached:
            unreached += file.bytes
    return Mark(time.time(), held, unreached, removed, objects)

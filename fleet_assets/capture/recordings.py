"""What lies in the landing folder: one sub-folder per recording, complete when its manifest is there.

In: the folder. Out: what is new, what cannot be taken and why, what is still being written. Reads metadata only; folders may
come and go meanwhile. Names that start with a dot are the delivery's own and passed over.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.capture.manifest import NAME, Manifest, read_manifest
from fleet_assets.errors import FleetError

# Files whose size is looked up in one bounded scan: 50,000 take half a second.
_FILES_PER_SCAN = 50_000
_ENTRIES_TO_WEIGH = 10_000


@dataclass(frozen=True)
class Found:
    """A complete recording. folder: name in the landing folder."""

    folder: str
    manifest: Manifest

    @property
    def drive(self) -> DriveKey:
        return self.manifest.drive


@dataclass(frozen=True)
class Rejected:
    folder: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class Incomplete:
    """A folder without a manifest. age_s: since something in it was last written. bytes: so far (of at most 10,000 files)."""

    folder: str
    age_s: float
    bytes: int

    def as_rejected(self) -> Rejected:
        """For a listing of what has not been taken."""
        return Rejected(
            self.folder,
            f"It has no {NAME}, which is written last; {self.bytes} bytes are there, "
            f"the newest written {self.age_s:.0f} s ago.",
            "Wait for its writer, or run `fleet ingest` on the folder.",
        )


@dataclass
class Scan:
    """In order of folder name. marks: of the new ones, by folder. after: the last name looked at, to go on behind it; empty
    when the end was reached."""

    new: list[Found] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    incomplete: list[Incomplete] = field(default_factory=list)
    marks: dict[str, bytes] = field(default_factory=dict)
    after: str = ""

    def not_taken(self) -> list[Rejected]:
        """Rejected and incomplete folders, with reasons."""
        every = self.rejected + [item.as_rejected() for item in self.incomplete]
        return sorted(every, key=lambda item: item.folder)


def scan(landing: Path, *, seen: Collection[bytes] = (), after: str = "", limit: int | None = None) -> Scan:
    """Folders behind `after` whose mark is not in seen, in order of name.

    limit: looks at so many at most, and at fewer when they have very many files (then call again). Raises FleetError when
    the landing folder itself cannot be read.
    """
    result = Scan()
    files = looked_at = 0
    for name in _names(landing):
        if name <= after:
            continue
        folder = landing / name
        try:
            mark = mark_of(folder)
            if mark in seen:
                continue
            looked_at += 1
            if folder.is_symlink() or not folder.is_dir():
                if os.path.lexists(folder):
                    result.rejected.append(
                        Rejected(
                            name,
                            "It is no folder; a recording is a folder with a manifest.",
                            "Deliver it with `fleet ingest`, then remove it from here.",
                        )
                    )
            elif not os.path.lexists(folder / NAME):
                result.incomplete.append(_incomplete(folder))
            else:
                result.new.append(Found(name, read_manifest(folder)))
                result.marks[name] = mark
                files += len(result.new[-1].manifest.files)
        except FileNotFoundError:
            continue  # gone meanwhile
        except FleetError as error:
            if os.path.lexists(folder / NAME):
                place = f" ({error.where})" if error.where else ""
                result.rejected.append(Rejected(name, f"{error.what}{place}.", error.remedy or ""))
        except OSError as error:
            reason = f"It cannot be read: {error.strerror}."
            result.rejected.append(Rejected(name, reason, "Give the account of the servers the right to read it."))
        if limit is not None and (looked_at >= limit or files >= _FILES_PER_SCAN):
            result.after = name
            break
    return result


def mark_of(folder: Path) -> bytes:
    """Eight bytes that change when the folder gets another name or another manifest."""
    try:
        found = os.lstat(folder / NAME)
        written = f"{found.st_mtime_ns} {found.st_size} {found.st_ino}"
    except OSError:
        written = ""
    return hashlib.blake2b(f"{folder.name} {written}".encode(errors="surrogateescape"), digest_size=8).digest()


def marks(landing: Path) -> set[bytes]:
    """Marks of everything in the landing folder."""
    return {mark_of(landing / name) for name in _names(landing)}


def manifests(landing: Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Found]:
    """Recordings with a manifest that can be read, whether their files are right or not, in order of folder name.

    wanted: tells by a folder's name whether to look into it.
    """
    for name in filter(wanted, _names(landing)):
        folder = landing / name
        try:
            if not folder.is_symlink() and os.path.lexists(folder / NAME):
                yield Found(name, read_manifest(folder, check_files=False))
        except (FleetError, OSError):
            continue  # scan says why


def recordings_of(landing: Path, drives: Collection[str]) -> dict[str, list[Found]]:
    """The recordings of these drives, by drive, in order of folder name; content that another one has too counts once.

    Files are not looked at: a recording whose files are wrong belongs to its drive, and decoding it says what is wrong.
    """
    by_drive: dict[str, list[Found]] = {drive: [] for drive in drives}
    for found in manifests(landing):
        if (drive := str(found.drive)) in by_drive:
            by_drive[drive].append(found)
    return {drive: distinct(found) for drive, found in by_drive.items()}


def distinct(recordings: Sequence[Found]) -> list[Found]:
    """Those recordings, in their order, whose files another one does not have too: of equals the first stays, and of a
    recording and a larger one that holds all its files the larger."""
    holders: dict[str, set[int]] = {}  # file hash -> recordings, by position
    contents = [{file.sha256 for file in found.manifest.files} for found in recordings]
    for number, content in enumerate(contents):
        for digest in content:
            holders.setdefault(digest, set()).add(number)
    kept = []
    for number, content in enumerate(contents):
        holding = set.intersection(*(holders[digest] for digest in content)) - {number}
        if not any(len(contents[other]) > len(content) or other < number for other in holding):
            kept.append(recordings[number])
    return kept


def _names(landing: Path) -> list[str]:
    try:
        names = os.listdir(landing)
    except OSError as error:
        raise FleetError(
            f"The landing folder {landing} cannot be read: {error.strerror}",
            remedy="`fleet ingest` makes it; FLEET_LANDING says where it is.",
        ) from error
    return sorted(name for name in names if not name.startswith("."))


def _incomplete(folder: Path) -> Incomplete:
    """Raises FileNotFoundError when the folder is gone."""
    newest, size, entries = folder.stat().st_mtime, 0, 0
    for path, _, names in os.walk(folder):
        for name in names[: _ENTRIES_TO_WEIGH - entries]:
            try:
                found = os.lstat(os.path.join(path, name))
            except FileNotFoundError:
                continue
            newest, size = max(newest, found.st_mtime), size + found.st_size
        entries += len(names) + 1
        if entries >= _ENTRIES_TO_WEIGH:
            break
    return Incomplete(folder.name, max(0.0, time.time() - newest), size)

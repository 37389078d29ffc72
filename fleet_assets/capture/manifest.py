"""The manifest of a recording: what belongs to it, written last, so that its presence says complete.

In: a folder of the landing area, or `fleet-manifest.json` written by anyone. Out: Manifest, checked; identity by content.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.errors import FleetError

NAME = "fleet-manifest.json"
VERSION = 1
MAX_BYTES = 64 * 1024 * 1024
MAX_FILES = 200_000
MAX_CONTEXT = 200
_BLOCK = 4 * 1024 * 1024
Progress = Callable[[int, int], None]


class ManifestError(FleetError):
    """A manifest that cannot be trusted, or files that are not what it says."""


@dataclass(frozen=True)
class ManifestFile:
    """path: relative to the recording's folder, POSIX. sha256: lower-case hex."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """context: key -> {"value": ..., "source": ...}."""

    drive: DriveKey
    files: tuple[ManifestFile, ...]
    context: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def recording_id(self) -> str:
        """Identity is the set of file hashes: names and order do not matter."""
        return recording_id(file.sha256 for file in self.files)

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)

    def write(self, folder: Path) -> None:
        """Atomically: a reader sees all of it or none."""
        document = {
            "manifest_version": VERSION,
            "vehicle": self.drive.vehicle,
            "start": self.drive.start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "files": [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in self.files],
            "context": self.context,
        }
        partial = folder / f".{NAME}.{os.getpid()}"
        with open(partial, "w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder / NAME)

    def verify(self, folder: Path, progress: Progress = lambda done, total: None) -> None:
        """Hashes every file, in bounded memory. Raises ManifestError that names the first file that differs."""
        done = 0
        for file in self.files:
            path = regular_file(folder, file.path)
            before = done

            def advance(read: int, before: int = before) -> None:
                progress(before + read, self.bytes)

            actual, size = hash_file(path, advance, limit=file.bytes)
            if size != file.bytes or actual != file.sha256:
                raise ManifestError(
                    f"{file.path} is not what its manifest says",
                    where=f"{size} bytes, sha256 {actual[:12]}; expected {file.bytes} bytes, {file.sha256[:12]}",
                    remedy="Deliver the recording again.",
                )
            done += size


def recording_id(hashes: Any) -> str:
    """sha256 over the sorted file hashes."""
    return hashlib.sha256("\n".join(sorted(set(hashes))).encode()).hexdigest()


def hash_file(path: Path, progress: Callable[[int], None], *, limit: int | None = None) -> tuple[str, int]:
    """sha256 and size. limit: stop one block after so many bytes (a file that grows must not hold us)."""
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
            progress(size)
            if limit is not None and size > limit:
                break
    return digest.hexdigest(), size


def regular_file(folder: Path, name: str) -> Path:
    """The file of that name below the folder. Raises ManifestError for links and special files on the way to it."""
    path = folder
    for part in PurePosixPath(name).parts:
        path = path / part
        try:
            mode = path.lstat().st_mode
        except OSError as error:
            raise ManifestError(f"{name} is missing", where=str(folder.name), remedy="Deliver it again.") from error
        if stat.S_ISLNK(mode):
            raise ManifestError(f"{name} is, or lies behind, a link", remedy="Deliver the file itself.")
    if not stat.S_ISREG(mode):
        raise ManifestError(f"{name} is no regular file", remedy="Deliver files only.")
    return path


def check_name(name: str) -> str:
    """A relative POSIX path without tricks. Raises ManifestError."""
    bad = (
        not name
        or len(name) > 1024
        or name.startswith("/")
        or "\\" in name
        or any(ord(character) < 32 for character in name)
        or any(part in ("", ".", "..") for part in name.split("/"))
        or name == NAME
    )
    if bad:
        raise ManifestError(f"File name {name[:80]!r} is not allowed", remedy="Names are relative, without `..`.")
    return name


def read_manifest(folder: Path) -> Manifest:
    """Reads and checks the manifest of a folder; no payload is touched but for its size. Raises ManifestError."""
    path = regular_file(folder, NAME)
    if path.stat().st_size > MAX_BYTES:
        raise ManifestError(f"The manifest is larger than {MAX_BYTES} bytes", remedy="Split the recording.")
    try:
        document = json.loads(path.read_bytes(), object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError("The manifest is no JSON", where=str(error)[:200], remedy="Write it again.") from error
    manifest = parse(document)
    for file in manifest.files:
        size = regular_file(folder, file.path).stat().st_size
        if size != file.bytes:
            raise ManifestError(
                f"{file.path} has {size} bytes, its manifest says {file.bytes}",
                remedy="Deliver the recording again; the manifest is written last.",
            )
    return manifest


def parse(document: Any) -> Manifest:
    """A manifest from parsed JSON. Raises ManifestError that names the field."""
    root = _typed(document, dict, "the manifest")
    if root.get("manifest_version") != VERSION:
        raise ManifestError(
            f"Manifest version {root.get('manifest_version')!r} is not {VERSION}", remedy="Write it again."
        )
    start_text = _typed(root.get("start"), str, "start")
    try:
        start = datetime.fromisoformat(start_text)
    except ValueError as error:
        raise ManifestError(
            f"start {start_text[:40]!r} is no ISO 8601 time", remedy="Such as 2026-01-02T03:04:05Z."
        ) from error
    if start.tzinfo is None:
        raise ManifestError("start has no time zone", remedy="Such as 2026-01-02T03:04:05Z.")
    drive = DriveKey.of(_typed(root.get("vehicle"), str, "vehicle")[:64], start)
    entries = _typed(root.get("files"), list, "files")
    if not 0 < len(entries) <= MAX_FILES:
        raise ManifestError(f"{len(entries)} files; a recording has 1 to {MAX_FILES}")
    files = tuple(_file(entry) for entry in entries)
    folded = [file.path.casefold() for file in files]
    if len(set(folded)) != len(folded):
        raise ManifestError("Two files have the same name", where="files", remedy="List each file once.")
    context = _typed(root.get("context", {}), dict, "context")
    if len(context) > MAX_CONTEXT:
        raise ManifestError(f"{len(context)} context entries; at most {MAX_CONTEXT}")
    return Manifest(drive, files, {str(key)[:200]: _context(key, value) for key, value in context.items()})


def _file(entry: Any) -> ManifestFile:
    entry = _typed(entry, dict, "an entry of files")
    size, digest = entry.get("bytes"), _typed(entry.get("sha256"), str, "sha256")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**62:
        raise ManifestError(f"bytes {str(size)[:40]!r} is no file size", where="files")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ManifestError("sha256 is not 64 lower-case hex digits", where="files")
    return ManifestFile(check_name(_typed(entry.get("path"), str, "path")), size, digest)


def _context(key: str, value: Any) -> dict[str, str]:
    value = _typed(value, dict, f"context {key[:40]!r}")
    return {name: _typed(value.get(name), str, f"context {key[:40]!r} {name}")[:1000] for name in ("value", "source")}


def _typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ManifestError(
            f"{what} is missing or no {kind.__name__}", remedy="`fleet ingest` writes a right manifest."
        )
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is there twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")

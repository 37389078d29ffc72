"""The manifest of a recording: what belongs to it, written last, so that its presence says complete.

In: a folder of the landing area, or `fleet-manifest.json` written by anyone. Out: Manifest, checked; identity by content.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.capture.files import ManifestError, Progress, check_name, hash_file, open_regular, size_of
from fleet_assets.signing.documents import once
from fleet_assets.signing.files import sync_folder

NAME = "fleet-manifest.json"
PARTIAL = f".{NAME}."  # a manifest that is being written, or whose writer was killed
VERSION = 1
MAX_BYTES = 32 * 1024 * 1024
MAX_FILES = 100_000
MAX_CONTEXT, MAX_KEY, MAX_VALUE = 200, 200, 1000
# JSON takes up to forty times its size in memory, so its values are counted before it is read.
_MAX_VALUES = 10 * MAX_FILES
_REMEDY = "`fleet ingest` writes a right manifest."


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
        """Atomically: a reader sees all of it or none. Raises ManifestError when it could not be read back."""
        document = {
            "manifest_version": VERSION,
            "vehicle": self.drive.vehicle,
            "start": self.drive.start.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "files": [{"path": file.path, "bytes": file.bytes, "sha256": file.sha256} for file in self.files],
            "context": {key: dict(entry) for key, entry in self.context.items()},
        }
        parse(document)
        content = json.dumps(document, indent=None if len(self.files) > 1000 else 1).encode()
        _check_size(content)
        partial = folder / f"{PARTIAL}{secrets.token_hex(4)}"
        with open(partial, "xb") as file:  # x: a link that lies there is not followed
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.rename(folder / NAME)
        sync_folder(folder)

    def verify(self, folder: Path, progress: Progress = lambda done, total: None) -> None:
        """Hashes every file, in bounded memory. Raises ManifestError that names the first file that differs."""
        done = 0
        for file in self.files:
            before = done

            def advance(read: int, before: int = before) -> None:
                progress(before + read, self.bytes)

            actual, size = hash_file(folder, file.path, advance, limit=file.bytes)
            if size != file.bytes or actual != file.sha256:
                raise ManifestError(
                    f"{file.path} is not what its manifest says",
                    where=f"{size} bytes, sha256 {actual[:12]}; expected {file.bytes} bytes, {file.sha256[:12]}",
                    remedy="Deliver the recording again.",
                )
            done += size


def recording_id(hashes: Iterable[str]) -> str:
    """sha256 over the sorted file hashes, lower-case hex, one a line."""
    return hashlib.sha256("\n".join(sorted(set(hashes))).encode()).hexdigest()


def read_manifest(folder: Path, *, check_files: bool = True) -> Manifest:
    """Reads and checks the manifest of a folder, and that its files are there in their sizes; reads no payload.

    check_files False: the manifest only. Raises ManifestError.
    """
    with open_regular(folder, NAME) as file:
        content = file.read(MAX_BYTES + 1)
    _check_size(content)
    try:
        document = json.loads(content, object_pairs_hook=once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ManifestError("The manifest is no JSON", where=ascii(str(error)[:200]), remedy=_REMEDY) from error
    manifest = parse(document)
    for listed in manifest.files if check_files else ():
        size = size_of(folder, listed.path)
        if size != listed.bytes:
            raise ManifestError(
                f"{listed.path} has {size} bytes, its manifest says {listed.bytes}",
                remedy="Deliver the recording again; the manifest is written last.",
            )
    return manifest


def _check_size(content: bytes) -> None:
    if len(content) > MAX_BYTES:
        raise ManifestError(f"The manifest is larger than {MAX_BYTES} bytes", remedy="Split the recording.")
    values = sum(content.count(sign) for sign in (b",", b"{", b"["))
    if values > _MAX_VALUES:
        raise ManifestError(f"The manifest holds {values} values; at most {_MAX_VALUES}", remedy="Split the recording.")


def parse(document: Any) -> Manifest:
    """A manifest from parsed JSON. Raises ManifestError that names the field."""
    root = _typed(document, dict, "The manifest")
    version = root.get("manifest_version")
    if version != VERSION or isinstance(version, bool):
        raise ManifestError(
            f"Manifest version {ascii(version)[:40]} is not {VERSION}", where="manifest_version", remedy=_REMEDY
        )
    entries = _typed(root.get("files"), list, "files")
    if not 0 < len(entries) <= MAX_FILES:
        raise ManifestError(
            f"{len(entries)} files; a recording has 1 to {MAX_FILES}", where="files", remedy="Split the recording."
        )
    files = tuple(_file(entry, f"files[{number}]") for number, entry in enumerate(entries))
    known: set[str] = set()
    for number, file in enumerate(files):
        # Other systems fold case and accents: there two such files are one.
        folded = unicodedata.normalize("NFC", file.path).casefold()
        if folded in known:
            raise ManifestError(
                f"{file.path} is listed twice",
                where=f"files[{number}]",
                remedy="List each file once; case is no difference.",
            )
        known.add(folded)
    context = _typed(root.get("context", {}), dict, "context")
    if len(context) > MAX_CONTEXT:
        raise ManifestError(f"{len(context)} context entries; at most {MAX_CONTEXT}", where="context", remedy=_REMEDY)
    return Manifest(_drive(root), files, {key: _context(key, value) for key, value in context.items()})


def _drive(root: Mapping[str, Any]) -> DriveKey:
    text = _typed(root.get("start"), str, "start")
    try:
        start = datetime.fromisoformat(text)
    except ValueError as error:
        raise ManifestError(
            f"start {text[:40]!a} is no ISO 8601 time", where="start", remedy="Such as 2026-01-02T03:04:05Z."
        ) from error
    if start.tzinfo is None:
        raise ManifestError("start has no time zone", where="start", remedy="Such as 2026-01-02T03:04:05Z.")
    return DriveKey.of(_typed(root.get("vehicle"), str, "vehicle"), start)


def _file(entry: Any, place: str) -> ManifestFile:
    entry = _typed(entry, dict, place)
    size, digest = entry.get("bytes"), _typed(entry.get("sha256"), str, f"{place} sha256")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**62:
        raise ManifestError("bytes is no file size", where=place, remedy=_REMEDY)
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ManifestError("sha256 is not 64 lower-case hex digits", where=place, remedy=_REMEDY)
    path = check_name(_typed(entry.get("path"), str, f"{place} path"))
    if path == NAME:
        raise ManifestError("The manifest lists itself", where=place, remedy=_REMEDY)
    return ManifestFile(path, size, digest)


def _context(key: str, value: Any) -> dict[str, str]:
    place = f"context {key[:40]!a}"
    if key != printable(key, MAX_KEY) or not key:
        raise ManifestError(f"A key of the context is too long or not printable: {place}", remedy=_REMEDY)
    value = _typed(value, dict, place)
    entry = {name: _typed(value.get(name), str, f"{place} {name}") for name in ("value", "source")}
    if any(text != printable(text, MAX_VALUE) for text in entry.values()):
        raise ManifestError(f"Longer than {MAX_VALUE} characters, or not printable", where=place, remedy=_REMEDY)
    return entry


def printable(text: str, limit: int) -> str:
    """The text as a manifest takes it: of at most limit characters, what is no text replaced; cut where … stands."""
    kept = "".join("\N{REPLACEMENT CHARACTER}" if _is_no_text(character) else character for character in text[:limit])
    return kept if len(text) <= limit else f"{kept[: limit - 1]}…"


def _is_no_text(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n"


def _typed(value: Any, kind: type, what: str) -> Any:
    if not isinstance(value, kind):
        raise ManifestError(f"{what} is missing or no {_JSON_NAMES[kind]}", remedy=_REMEDY)
    return value


_JSON_NAMES: dict[type, str] = {dict: "object", list: "array", str: "string"}


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")

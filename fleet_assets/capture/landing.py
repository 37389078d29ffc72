"""The landing folder: one sub-folder per recording, complete when its manifest is there.

In: the folder. Out: what is new, what cannot be taken and why, what is still being written; and delivery, which is what
`fleet ingest` does. Scanning reads metadata only.
"""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fleet_assets.capture.drive_key import DriveKey, utc_of_ns
from fleet_assets.capture.manifest import (
    NAME,
    Manifest,
    ManifestError,
    ManifestFile,
    Progress,
    check_name,
    hash_file,
    read_manifest,
)
from fleet_assets.errors import FleetError
from fleet_assets.formats.reader import RecordingFiles, open_recording

_INCOMING = ".incoming-"
_STALE_INCOMING_S = 24 * 3600.0


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


@dataclass
class Scan:
    """incomplete: folders without a manifest, with their age in seconds."""

    new: list[Found] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    incomplete: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Delivered:
    """status: delivered, or present when the same content was there already."""

    drive_id: str
    folder: str
    recording_id: str
    files: int
    bytes: int
    status: str


def scan(landing: Path, *, seen: Collection[str] = (), limit: int | None = None) -> Scan:
    """Folders that are not in seen, in order of name; at most limit new ones. A folder may vanish meanwhile."""
    result = Scan()
    for entry in sorted(os.scandir(landing), key=lambda item: item.name):
        if entry.name.startswith(".") or entry.name in seen:
            continue
        try:
            if not entry.is_dir(follow_symlinks=False):
                result.rejected.append(
                    Rejected(entry.name, "It lies loose in the landing folder.", "Deliver it with `fleet ingest`.")
                )
            elif not os.path.lexists(os.path.join(entry.path, NAME)):
                result.incomplete[entry.name] = time.time() - entry.stat().st_mtime
            else:
                result.new.append(Found(entry.name, read_manifest(Path(entry.path))))
        except FleetError as error:
            place = f" ({error.where})" if error.where else ""
            result.rejected.append(Rejected(entry.name, f"{error.what}{place}.", error.remedy or ""))
        except FileNotFoundError:
            continue
        if limit is not None and len(result.new) >= limit:
            break
    return result


def recordings_of(landing: Path, drives: Collection[str]) -> dict[str, list[Found]]:
    """The complete recordings of these drives, by drive, in order of folder name."""
    by_drive: dict[str, list[Found]] = {drive: [] for drive in drives}
    for found in scan(landing).new:
        if str(found.drive) in by_drive:
            by_drive[str(found.drive)].append(found)
    return by_drive


def deliver(
    path: Path,
    landing: Path,
    *,
    vehicle: str | None = None,
    start: str | None = None,
    context: dict[str, dict[str, str]] | None = None,
    progress: Progress = lambda done, total: None,
) -> Delivered:
    """Brings one recording (a file or a folder) into the landing folder. The original is read, never changed.

    vehicle, start: where the recording does not tell. Raises FleetError that says which is missing.
    """
    landing.mkdir(parents=True, exist_ok=True)
    _clean(landing)
    path = path.absolute()
    inside = path.parent == landing.absolute() and path.is_dir()
    sources = list(_files(path))
    if not sources:
        raise FleetError(f"{path} holds no file", remedy="Give a recording: a file, or a folder with files.")
    root = path if path.is_dir() else path.parent
    drive, found_context = _describe(root, [name for name, _ in sources], vehicle, start)
    target = path if inside else landing / f"{_INCOMING}{secrets.token_hex(6)}"
    try:
        files = _take(sources, root, target, inside, progress)
        manifest = Manifest(drive, tuple(files), {**found_context, **(context or {})})
        same = next(
            (known for known in scan(landing).new if known.manifest.recording_id == manifest.recording_id), None
        )
        if same is not None:
            return _delivered(same.manifest, same.folder, "present")
        folder = path.name if inside else f"{drive}-{manifest.recording_id[:8]}"
        if not inside:
            target.rename(landing / folder)
            target = landing / folder
        manifest.write(target)
    finally:
        if not inside and target.name.startswith(_INCOMING):
            shutil.rmtree(target, ignore_errors=True)
    return _delivered(manifest, folder, "delivered")


def _delivered(manifest: Manifest, folder: str, status: str) -> Delivered:
    return Delivered(str(manifest.drive), folder, manifest.recording_id, len(manifest.files), manifest.bytes, status)


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    """Files of a recording by relative name, sorted. Raises FleetError for links and special files."""
    if path.is_file() and not path.is_symlink():
        yield check_name(path.name), path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder, name)
            if not stat.S_ISREG(file.lstat().st_mode):
                raise FleetError(
                    f"{file} is a link or no regular file", remedy="Deliver the file itself, or remove it."
                )
            if name != NAME:
                yield check_name(file.relative_to(path).as_posix()), file


def _take(
    sources: Sequence[tuple[str, Path]], root: Path, target: Path, inside: bool, progress: Progress
) -> list[ManifestFile]:
    total = sum(file.stat().st_size for _, file in sources)
    if not inside and shutil.disk_usage(target.parent).free < total:
        raise FleetError(
            f"The landing folder's disk has no room for {total} bytes", remedy="Free space, or set FLEET_LANDING."
        )
    files, done = [], 0
    for name, source in sources:
        if inside:
            digest, size = hash_file(source, lambda read, before=done: progress(before + read, total))  # type: ignore[misc]
        else:
            copy = target / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            # Hashed from the copy: the manifest vouches for what has landed.
            digest, size = hash_file(copy, lambda read, before=done: progress(before + read, total))  # type: ignore[misc]
        files.append(ManifestFile(name, size, digest))
        done += size
    return files


def _describe(
    root: Path, names: list[str], vehicle: str | None, start: str | None
) -> tuple[DriveKey, dict[str, dict[str, str]]]:
    """The drive that a recording belongs to: from the arguments, else from the recording itself."""
    context: dict[str, dict[str, str]] = {}
    t_start_ns: int | None = None
    if vehicle is None or start is None:
        info = open_recording(RecordingFiles(root, tuple(names))).info()
        vehicle = vehicle or info.vehicle
        t_start_ns = info.t_start_ns
        context = {key: {"value": value, "source": "recording"} for key, value in info.context.items()}
    if vehicle is None:
        raise FleetError(f"{root.name} does not say which vehicle made it", remedy="Give --vehicle.")
    if start is not None:
        try:
            when = datetime.fromisoformat(start)
        except ValueError as error:
            raise FleetError(
                f"--start {start!r} is no ISO 8601 time", remedy="Such as 2026-01-02T03:04:05Z."
            ) from error
        when = when if when.tzinfo else when.replace(tzinfo=UTC)
    elif t_start_ns is not None:
        when = utc_of_ns(t_start_ns)
    else:
        raise FleetError(
            f"{root.name} does not say when it starts", remedy="Give --start, such as 2026-01-02T03:04:05Z."
        )
    return DriveKey.of(vehicle, when), context


def _clean(landing: Path) -> None:
    """Copies that were interrupted long ago."""
    for folder in landing.glob(f"{_INCOMING}*"):
        if time.time() - folder.stat().st_mtime > _STALE_INCOMING_S:
            shutil.rmtree(folder, ignore_errors=True)


__all__ = ["Delivered", "Found", "ManifestError", "Rejected", "Scan", "deliver", "recordings_of", "scan"]

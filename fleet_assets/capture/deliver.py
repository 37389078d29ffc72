"""Delivery: brings a recording into the landing folder, which is what `fleet ingest` does.

In: a file or a folder, and what it does not say itself. Out: a folder of the landing with a copy of its files and a manifest.
The copy has a name that scanning passes over until all of it is on disk. Originals are read, never changed.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from fleet_assets.capture.drive_key import DriveKey, utc_of_ns
from fleet_assets.capture.files import (
    ManifestError,
    Progress,
    check_name,
    copy_hashed,
    hash_file,
    open_regular,
    size_of,
)
from fleet_assets.capture.manifest import MAX_KEY, MAX_VALUE, NAME, Manifest, ManifestFile, printable, read_manifest
from fleet_assets.capture.recordings import Found, manifests
from fleet_assets.errors import FleetError
from fleet_assets.formats.reader import RecordingFiles, RecordingInfo, open_recording
from fleet_assets.signing.files import sync_folder

_INCOMING = ".incoming-"
_STALE_INCOMING_S = 24 * 3600.0
_ID_DIGITS = 12
_OURS = re.compile(rf".+--\d{{8}}T\d{{6}}Z-[0-9a-f]{{{_ID_DIGITS}}}")


@dataclass(frozen=True)
class Delivered:
    """status: delivered; present when the same content was there already; repaired when it was, and damaged."""

    drive_id: str
    folder: str
    recording_id: str
    files: int
    bytes: int
    status: str

    @classmethod
    def of(cls, found: Found, status: str) -> Delivered:
        manifest = found.manifest
        return cls(str(found.drive), found.folder, manifest.recording_id, len(manifest.files), manifest.bytes, status)


def deliver(
    path: Path,
    landing: Path,
    *,
    vehicle: str | None = None,
    start: str | None = None,
    progress: Progress = lambda done, total: None,
) -> Delivered:
    """Brings one recording (a file or a folder) into the landing folder; a folder that lies there gets its manifest.

    vehicle, start (ISO 8601): where neither the recording nor a manifest beside it tells. Raises FleetError that says
    which is missing, or what is wrong with the files.
    """
    path = path.absolute()
    root = path if path.is_dir() else path.parent
    known = read_manifest(path) if path.is_dir() and os.path.lexists(path / NAME) else None
    names = [file.path for file in known.files] if known else sorted(_names(path))
    if not names:
        raise FleetError(f"{path} holds no file", remedy="Give a recording: a file, or a folder with files.")
    drive, context = _describe(root, names, known, vehicle, start)
    landing.mkdir(parents=True, exist_ok=True)
    _clean(landing)
    in_place = path.is_dir() and path.parent == landing.absolute()
    try:
        if in_place:
            return _put(drive, context, _take(root, names, None, progress), path, landing)
        incoming = landing / f"{_INCOMING}{secrets.token_hex(6)}"
        try:
            files = _take(root, names, incoming, progress)
            if known and {file.sha256 for file in files} != {file.sha256 for file in known.files}:
                known.verify(root)  # says which file
            return _put(drive, context, files, incoming, landing)
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
    except OSError as error:
        raise FleetError(
            f"{path.name} could not be copied: {error.strerror}",
            where=str(landing),
            remedy="Look at the folder's rights and the disk's room, then repeat; what was copied is removed.",
        ) from error


def _put(
    drive: DriveKey, context: Mapping[str, Mapping[str, str]], files: Sequence[ManifestFile], held: Path, landing: Path
) -> Delivered:
    """Writes the manifest and gives a copy its name. held: the folder with the files."""
    manifest = Manifest(drive, tuple(files), context)
    name = f"{drive}-{manifest.recording_id[:_ID_DIGITS]}"
    is_copy = held.name.startswith(_INCOMING)
    for same in manifests(landing, _may_hold(manifest.recording_id, held)):
        if same.manifest.recording_id != manifest.recording_id:
            continue
        place = f"{landing}/{same.folder}"
        if same.drive != drive:
            raise FleetError(
                f"This content is there already, as drive {same.drive}",
                where=place,
                remedy=f"If it is {drive}'s, remove that folder first.",
            )
        try:
            same.manifest.verify(landing / same.folder)
        except ManifestError as error:
            if not is_copy:
                raise FleetError(
                    f"{place} has this content, damaged: {error}", remedy="Remove it and repeat."
                ) from error
            return _replace(same.folder, manifest, held, landing)
        return Delivered.of(same, "present")
    manifest.write(held)
    if not is_copy:
        return Delivered.of(Found(held.name, manifest), "delivered")
    target = landing / name
    if target.exists():
        raise FleetError(f"{target} is there, and is not this recording", remedy="Move it away and repeat.")
    held.rename(target)
    sync_folder(landing)
    return Delivered.of(Found(target.name, manifest), "delivered")


def _replace(damaged: str, manifest: Manifest, held: Path, landing: Path) -> Delivered:
    """Puts a copy in the place of one whose files are no longer what its manifest says; it is registered anew, as its manifest is
    new."""
    manifest.write(held)
    aside = landing / f"{_INCOMING}{secrets.token_hex(6)}"
    (landing / damaged).rename(aside)
    held.rename(landing / damaged)
    sync_folder(landing)
    shutil.rmtree(aside, ignore_errors=True)
    return Delivered.of(Found(damaged, manifest), "repaired")


def _may_hold(recording_id: str, held: Path) -> Callable[[str], bool]:
    """Folders that may have this content. The names that we give say it: so a delivery does not read every manifest there is."""
    return lambda name: name != held.name and (not _OURS.fullmatch(name) or name.endswith(recording_id[:_ID_DIGITS]))


def _names(path: Path) -> Iterator[str]:
    """Files of a recording, relative. Raises FleetError for links and special files."""
    if path.is_file() and not path.is_symlink():
        yield check_name(path.name)
        return
    for folder, folders, names in os.walk(path):
        for name in [*folders, *names]:
            mode = (file := Path(folder, name)).lstat().st_mode
            if stat.S_ISREG(mode):
                yield check_name(file.relative_to(path).as_posix())
            elif not stat.S_ISDIR(mode):
                raise FleetError(
                    f"{file} is a link or no regular file", remedy="Deliver the file itself, or remove it."
                )


def _take(root: Path, names: Sequence[str], target: Path | None, progress: Progress) -> list[ManifestFile]:
    """Hashes the files or, with a target, copies them to it and hashes the copies."""
    total = sum(size_of(root, name) for name in names)
    if target is not None and shutil.disk_usage(target.parent).free < total:
        raise FleetError(
            f"The landing folder's disk has no room for {total} bytes", remedy="Free space, or set FLEET_LANDING."
        )
    files: list[ManifestFile] = []
    done = 0
    for name in names:

        def advance(read: int, before: int = done) -> None:
            progress(before + read, total)

        if target is None:
            digest, size = hash_file(root, name, advance)
        else:
            (copy := target / name).parent.mkdir(parents=True, exist_ok=True)
            with open_regular(root, name) as source, open(copy, "x+b", buffering=0) as file:
                digest, size = copy_hashed(source, file, advance)
                os.fsync(file.fileno())
        files.append(ManifestFile(name, size, digest))
        done += size
    return files


def _describe(
    root: Path, names: Sequence[str], known: Manifest | None, vehicle: str | None, start: str | None
) -> tuple[DriveKey, Mapping[str, Mapping[str, str]]]:
    """The drive that a recording belongs to, and its context: from the arguments, else a manifest, else the recording."""
    context: Mapping[str, Mapping[str, str]] = known.context if known else {}
    t_start_ns: int | None = None
    if known is not None:
        vehicle = vehicle or known.drive.vehicle
        start = start or known.drive.start.isoformat()
    elif (info := _info(root, names, needed=vehicle is None or start is None)) is not None:
        vehicle, t_start_ns = vehicle or info.vehicle, info.t_start_ns
        # A logger that splits its files says in each of them when the drive started.
        start = start or info.context.get("start")
        context = {
            printable(key, MAX_KEY): {"value": printable(value, MAX_VALUE), "source": "recording"}
            for key, value in info.context.items()
            if key
        }
    what = names[0] if len(names) == 1 else root.name
    if vehicle is None:
        raise FleetError(f"{what} does not say which vehicle made it", remedy="Give --vehicle.")
    if start is not None:
        return DriveKey.of(vehicle, _time(start)), context
    if t_start_ns is None:
        raise FleetError(f"{what} does not say when it starts", remedy="Give --start, such as 2026-01-02T03:04:05Z.")
    return DriveKey.of(vehicle, utc_of_ns(t_start_ns)), context


def _info(root: Path, names: Sequence[str], *, needed: bool) -> RecordingInfo | None:
    """What the recording says about itself. Where nothing of it is needed, one that cannot be read says nothing: it is
    delivered all the same, and ingest says what is wrong with it."""
    try:
        return open_recording(RecordingFiles(root, tuple(names))).info()
    except FleetError:
        if needed:
            raise
        return None


def _time(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise FleetError(f"--start {text!r} is no ISO 8601 time", remedy="Such as 2026-01-02T03:04:05Z.") from error
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _clean(landing: Path) -> None:
    """Copies whose writer was killed long ago."""
    for folder in landing.glob(f"{_INCOMING}*"):
        if time.time() - folder.stat().st_mtime > _STALE_INCOMING_S:
            shutil.rmtree(folder, ignore_errors=True)

"""Bundles on a device: installed, activated, rolled back.

In: a folder with a signed manifest, and either the files that it lists or a delta from the installed version. Out: versions side
by side under one folder, one of them active. Nothing counts before its signature and its hash were checked.

    ROOT/versions/ID/manifest.json, features.snapshot, stamps.json
    ROOT/state.json     {"active": ID, "previous": [ID, ...]}, replaced in one step
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fleet_assets.edge.delta import patched
from fleet_assets.errors import FleetError
from fleet_assets.signing.documents import DOCUMENT_BYTES_LIMIT, canonical, verify
from fleet_assets.signing.files import one_at_a_time, sync_folder, write_durably
from fleet_assets.signing.keys import KeyRing

TYPE = "feature-bundle"
MANIFEST, SNAPSHOT, DELTA, STAMPS, STATE = (
    "manifest.json",
    "features.snapshot",
    "delta.bin",
    "stamps.json",
    "state.json",
)
# What a manifest says of each kernel; of a table's also "contract", its version.
KERNEL = ("feature", "kernel", "identity")
KEPT = 3  # previous versions that stay installed
_PIECE = 1 << 20
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
_ID = re.compile(r"[0-9a-f]{64}")
_ANEW = "Fetch the bundle anew."


@dataclass(frozen=True)
class Manifest:
    """What was signed: files with bytes and sha256, service, versions, kernels. id: sha256 of the signed content. on_demand: by
    view, transforms in order and the views that they take from."""

    signed: Mapping[str, Any]
    envelope: bytes
    id: str
    files: Mapping[str, tuple[int, str]]
    on_demand: Mapping[str, tuple[list[str], list[str]]]

    @classmethod
    def read(cls, folder: Path, keys: KeyRing) -> Manifest:
        """Raises FleetError if it is not there, not signed by a trusted key, or not whole."""
        path = folder / MANIFEST
        try:
            with open(path, "rb") as file:
                envelope = file.read(DOCUMENT_BYTES_LIMIT + 1)
        except OSError as error:
            raise FleetError(f"Cannot read {path}: {error.strerror}", remedy=_ANEW) from error
        signed = verify(envelope, keys, type=TYPE, name=str(path))
        try:
            files = {str(name): (int(entry["bytes"]), str(entry["sha256"])) for name, entry in signed["files"].items()}
            whole = SNAPSHOT in files and all(_FILE_NAME.fullmatch(name) for name in files)
            whole = whole and not {MANIFEST, DELTA, STAMPS} & files.keys() and isinstance(signed["views"], dict)
            whole = whole and isinstance(signed["service"], str) and isinstance(signed["lakefs_commit"], str)
            whole = whole and all(isinstance(one[key], str) for one in signed["kernels"] for key in KERNEL)
            on_demand = {
                str(name): (list(map(str, about["transforms"])), list(map(str, about["sources"])))
                for name, about in signed.get("on_demand", {}).items()
            }
        except (KeyError, TypeError, ValueError, AttributeError):
            whole = False
        if not whole:
            raise FleetError(f"{path} does not describe a feature bundle", remedy=_ANEW)
        return cls(signed, envelope, hashlib.sha256(canonical(signed)).hexdigest(), files, on_demand)

    def check(self, folder: Path) -> None:
        """Hashes every file. Raises FleetError for the first that is not as signed."""
        for name in self.files:
            self.check_file(folder / name, hash_file(folder / name))

    def check_file(self, path: Path, found: tuple[int, str]) -> None:
        if found != self.files[path.name]:
            raise FleetError(f"{path} is not what was signed", remedy=_ANEW)


def hash_file(path: Path) -> tuple[int, str]:
    """Bytes and sha256. Raises FleetError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return os.fstat(file.fileno()).st_size, digest
    except OSError as error:
        raise FleetError(f"Cannot read {path}: {error.strerror}", remedy=_ANEW) from error


# ---- installing ------------------------------------------------------------------------------------------------------


def install(bundle: Path, root: Path, keys: KeyRing) -> Manifest:
    """Copies a bundle (or what its delta and the active version give) under root, hashing everything; not yet active.

    Raises FleetError, and leaves root as it was, if anything is not as signed. Installing twice does nothing.
    """
    manifest = Manifest.read(bundle, keys)
    place = version_folder(root, manifest.id)
    if place.exists():
        with suppress(FleetError):
            manifest.check(place)
            return manifest
        shutil.rmtree(place)  # damaged: what is installed anew is whole
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.TemporaryDirectory(dir=root, prefix=".install-") as scratch:
        new = Path(scratch, "version")
        new.mkdir(mode=0o700)
        for name in manifest.files:
            if (bundle / name).exists() or not (bundle / DELTA).exists():
                found = _copy(bundle / name, new / name, manifest.files[name][0])
            else:
                found = _apply_delta(bundle / DELTA, root, new / name, manifest.files[name][0])
            manifest.check_file(new / name, found)
        write_durably(new / MANIFEST, manifest.envelope)
        write_durably(new / STAMPS, json.dumps(stamps(new, manifest)).encode())
        os.replace(new, place)
        sync_folder(place.parent)
    return manifest


def _copy(source: Path, target: Path, size: int) -> tuple[int, str]:
    try:
        with open(source, "rb") as file:
            return write_hashed(target, _pieces(file, size + 1))
    except OSError as error:
        raise FleetError(f"Cannot copy {source}: {error.strerror}", remedy=_ANEW) from error


def _pieces(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size and (piece := file.read(min(size, _PIECE))):
        size -= len(piece)
        yield piece


def write_hashed(target: Path, pieces: Iterator[bytes]) -> tuple[int, str]:
    """Writes a file, durably; gives bytes and sha256."""
    digest, size = hashlib.sha256(), 0
    with open(target, "wb") as out:
        for piece in pieces:
            digest.update(piece)
            size += out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    return size, digest.hexdigest()


def _apply_delta(delta: Path, root: Path, target: Path, size: int) -> tuple[int, str]:
    """The new file from the active one; whatever the delta says, it reads in bounds and writes at most size bytes."""
    active = state(root)["active"]
    if active is None:
        raise FleetError(f"{delta} changes a version, and none is active", remedy="Install a whole bundle.")
    return write_hashed(target, patched(delta, version_folder(root, active) / SNAPSHOT, size))


# ---- stamps ----------------------------------------------------------------------------------------------------------


def stamps(folder: Path, manifest: Manifest) -> dict[str, list[int]]:
    """What changes when a file does: size, inode, times. Nobody writes a file without moving its ctime."""
    found = {}
    for name in manifest.files:
        status = os.stat(folder / name)
        found[name] = [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]
    return found


def check_quickly(folder: Path, manifest: Manifest) -> None:
    """By stamps; files whose stamps are not those of the installation are hashed. Raises FleetError as check."""
    try:
        known = json.loads((folder / STAMPS).read_bytes())
        if known == stamps(folder, manifest):
            return
    except (OSError, ValueError, RecursionError):
        pass
    manifest.check(folder)


# ---- active version --------------------------------------------------------------------------------------------------


def version_folder(root: Path, id: str) -> Path:
    if not _ID.fullmatch(id):
        raise FleetError(f"{id!r} is no version of a bundle", remedy="`state.json` lists those that are installed.")
    return root / "versions" / id


def state(root: Path) -> dict[str, Any]:
    """{"active": id or None, "previous": [id, ...]}, latest first. Raises FleetError if the file is damaged."""
    path = root / STATE
    try:
        found = json.loads(path.read_bytes())
        active, previous = found["active"], list(found["previous"])
        if not all(isinstance(id_, str) and _ID.fullmatch(id_) for id_ in (active, *previous)):
            raise ValueError
    except FileNotFoundError:
        return {"active": None, "previous": []}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FleetError(f"{path} is damaged", remedy="Remove it and activate a version again.") from error
    return {"active": active, "previous": previous}


def activate(root: Path, id: str, keys: KeyRing) -> None:
    """Readers that open or refresh from now on have this version. Older ones than the last KEPT are removed."""
    with one_at_a_time(root):
        manifest = Manifest.read(version_folder(root, id), keys)
        check_quickly(version_folder(root, id), manifest)
        before = state(root)
        if before["active"] == id:
            return
        previous = [x for x in (before["active"], *before["previous"]) if x is not None and x != id][:KEPT]
        _set_state(root, id, previous)
        for folder in (root / "versions").iterdir():
            if folder.name not in (id, *previous) and folder.name in before["previous"]:
                shutil.rmtree(folder)


def rollback(root: Path, keys: KeyRing) -> str:
    """Makes the version before the active one active; gives its id. Raises FleetError if there is none that is whole."""
    with one_at_a_time(root):
        before = state(root)
        if not before["previous"]:
            raise FleetError(f"{root} has no earlier version", remedy="Install one.")
        id_, *previous = before["previous"]
        check_quickly(version_folder(root, id_), Manifest.read(version_folder(root, id_), keys))
        _set_state(root, id_, previous)
        return str(id_)


def _set_state(root: Path, active: str, previous: list[str]) -> None:
    write_durably(root / STATE, json.dumps({"active": active, "previous": previous}).encode())

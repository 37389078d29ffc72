"""What a release holds: one folder, one archive, one manifest.

In: a folder or an archive, which may be anything. Out: the manifest, after every byte was held against it, and the verdict, after
it was found to be on exactly these parts.

    manifest.json               sha256 of everything else, hardware class, runtime needs
    verdict.json  evidence.json  bom.json  card.md
    model/                      model.onnx, model.json, golden.npz
    features/                   a feature bundle, signed; features.pub: whose signature counts on it
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from fleet_assets.edge.bundle import MANIFEST as BUNDLE_MANIFEST
from fleet_assets.edge.bundle import Manifest as BundleManifest
from fleet_assets.edge.bundle import hash_file
from fleet_assets.edge.verdict import Verdict
from fleet_assets.errors import FleetError
from fleet_assets.signing.documents import parse_json, read_json
from fleet_assets.signing.keys import KeyRing

TYPE, VERSION = "release", 1
MANIFEST, VERDICT, EVIDENCE, BOM, CARD = "manifest.json", "verdict.json", "evidence.json", "bom.json", "card.md"
MODEL, FEATURES, FEATURES_KEY = "model", "features", "features.pub"
MODEL_FILES = ("model.onnx", "model.json", "golden.npz")
REQUIRED = (
    VERDICT, EVIDENCE, BOM, CARD, FEATURES_KEY, f"{FEATURES}/{BUNDLE_MANIFEST}",
    *(f"{MODEL}/{name}" for name in MODEL_FILES),
)  # fmt: skip
# What the verdict is bound to, as its `bound_to` names it.
BOUND_ARTEFACT, BOUND_FEATURES, BOUND_MACHINE = "artefact_sha256", "features", "machine"
ARCHIVE_BYTES_LIMIT = 2 << 30
_FILES_LIMIT, _DOCUMENT_BYTES_LIMIT, _PIECE = 4096, 8 << 20, 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}){0,3}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
ARCHIVE = "release.tar"
HARDWARE = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ANEW = "Fetch the release anew; if it stays so, it is not what was approved."


@dataclass(frozen=True)
class Payload:
    """A folder whose every byte is as its manifest says. manifest: the document."""

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, folder: Path) -> Payload:
        """Hashes every file. Raises FleetError for one that is missing, too many, or changed."""
        document = read_document(folder / MANIFEST)
        files = _checked(document, str(folder / MANIFEST))
        there = set(_files(folder))
        for name in sorted(there ^ (files.keys() | {MANIFEST})):
            what = "is not in the manifest" if name in there else "is missing"
            raise FleetError(f"{name} of the release {what}", where=str(folder), remedy=_ANEW)
        for name, said in files.items():
            if hash_file(folder / name) != said:
                raise FleetError(
                    f"{name} of the release is not what its manifest says", where=str(folder), remedy=_ANEW
                )
        return cls(folder, document)

    @property
    def hardware(self) -> str:
        return str(self.manifest["hardware"])

    @property
    def model(self) -> Path:
        return self.folder / MODEL

    @property
    def features(self) -> Path:
        return self.folder / FEATURES

    def feature_keys(self) -> KeyRing:
        """Whose signature counts on the feature bundle. The release vouches for it."""
        return KeyRing.read(self.folder / FEATURES_KEY)

    def evidence(self) -> dict[str, Any]:
        return read_document(self.folder / EVIDENCE)

    def verdict(self) -> Verdict:
        """The verdict on these parts, its bounds found anew from its counts.

        Raises FleetError if the verdict is about another model, other features or another machine, or says something else than
        its counts.
        """
        verdict = Verdict.read(self.folder / VERDICT)
        bundle = BundleManifest.read(self.features, self.feature_keys())
        bundle.check(self.features)
        _same("model", verdict.bound_to.get(BOUND_ARTEFACT), artefact_sha256(self.model))
        _same("feature bundle", verdict.bound_to.get(BOUND_FEATURES), bundle.id)
        _same("machine", verdict.bound_to.get(BOUND_MACHINE), self.manifest["runtime"].get("machine"))
        _same("profile", verdict.profile, self.manifest["profile"])
        verdict.check()
        return verdict


def artefact_sha256(model: Path) -> str:
    """One hash for a model: network, thresholds, calibration, golden vectors. Raises FleetError if one is missing."""
    found = hashlib.sha256()
    for name in MODEL_FILES:
        found.update(name.encode() + bytes.fromhex(hash_file(model / name)[1]))
    return found.hexdigest()


def manifest_of(folder: Path, *, hardware: str, profile: str, runtime: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a folder that is complete but for it. Raises FleetError if a part is missing or has a wrong name."""
    files = {}
    for name in sorted(_files(folder)):
        size, digest = hash_file(folder / name)
        files[name] = {"bytes": size, "sha256": digest}
    document = {
        "_type": TYPE,
        "version": VERSION,
        "hardware": hardware,
        "profile": profile,
        "runtime": dict(runtime),
        "files": files,
    }
    _checked(document, str(folder))
    return document


def _checked(document: Mapping[str, Any], name: str) -> dict[str, tuple[int, str]]:
    """Files of a manifest: name -> (bytes, sha256). Raises FleetError unless it is one that this version reads."""
    try:
        files = {key: (entry["bytes"], entry["sha256"]) for key, entry in document["files"].items()}
        whole = document["_type"] == TYPE and document["version"] == VERSION and len(files) <= _FILES_LIMIT
        whole = whole and isinstance(document["runtime"], dict) and isinstance(document["profile"], str)
        whole = whole and HARDWARE.fullmatch(document["hardware"]) is not None
        whole = whole and all(_NAME.fullmatch(key) and _SHA256.fullmatch(sha) for key, (_, sha) in files.items())
        whole = whole and all(type(size) is int and size >= 0 for size, _ in files.values())
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise FleetError(f"{name} does not describe a release", remedy=_ANEW)
    missing = [part for part in REQUIRED if part not in files]
    if missing:
        raise FleetError(f"{missing[0]} is no part of the release", where=name, remedy="Build it with all its parts.")
    more = [file for file in files if file.startswith(f"{MODEL}/") and file not in REQUIRED]
    if more:
        raise FleetError(f"{more[0]} is part of the model, and no verdict is on it", where=name, remedy="Remove it.")
    return files


def _same(what: str, judged: object, found: object) -> None:
    if judged != found:
        raise FleetError(
            f"The verdict is on another {what} than the release holds",
            where=f"judged {str(judged)[:64]}, held {str(found)[:64]}",
            remedy="Parts of different releases do not mix: judge this one, or take the parts that were judged.",
        )


def _files(folder: Path) -> Iterator[str]:
    """Regular files below a folder, as names with slashes; anything else is refused."""
    for root, folders, names in os.walk(folder):
        for name in names + folders:
            path = Path(root, name)
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise FleetError(f"{path} is neither a file nor a folder", remedy=_ANEW)
        yield from (Path(root, name).relative_to(folder).as_posix() for name in names)


def read_document(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises FleetError if it is none, or too big."""
    return read_json(path, limit_bytes=_DOCUMENT_BYTES_LIMIT, remedy=_ANEW)


def parse_document(content: bytes, name: str) -> dict[str, Any]:
    """As read_document, from bytes."""
    return parse_json(content, name, limit_bytes=_DOCUMENT_BYTES_LIMIT, remedy=_ANEW)


def target_path(hardware: str) -> str:
    """What a vehicle of a class asks the channel for: which release that is, is up to the approvers."""
    return f"{hardware}/{ARCHIVE}"


def delta_path(hardware: str, base: str) -> str:
    """What a vehicle that runs the release `base` asks for first: how the one above differs from it."""
    return f"{hardware}/from-{base}.delta"


# ---- the archive -----------------------------------------------------------------------------------------------------


def pack(folder: Path, archive: Path) -> None:
    """One file with what the manifest lists: equal content gives equal bytes. The small documents come first."""
    files = _checked(read_document(folder / MANIFEST), str(folder / MANIFEST))
    names = [MANIFEST, *sorted(files, key=lambda name: ("/" in name, name))]
    with tarfile.open(archive, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = (folder / name).stat().st_size, 0o644
            with open(folder / name, "rb") as file:
                tar.addfile(entry, file)


# What tarfile raises on what is no archive.
_NO_ARCHIVE = (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError)


def _unreadable(archive: Path, error: BaseException) -> FleetError:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FleetError(f"There is no room to unpack {archive}", remedy="Free some, then try again.")
    return FleetError(f"{archive} is no archive of a release", where=str(error)[:100], remedy=_ANEW)


def unpack(archive: Path, folder: Path) -> Payload:
    """The folder of an archive, every byte held against the manifest. Raises FleetError, whatever the archive is."""
    folder.mkdir(mode=0o700)
    try:
        size = archive.stat().st_size
        if size > ARCHIVE_BYTES_LIMIT:
            raise FleetError(f"{archive} has {size} bytes, too many for a release", remedy=_ANEW)
        with tarfile.open(archive, "r:") as tar:
            for count, entry in enumerate(tar):
                if count > _FILES_LIMIT or not _is_plain(entry) or not _NAME.fullmatch(entry.name):
                    raise FleetError(f"{archive} is no archive of a release", where=entry.name[:100], remedy=_ANEW)
                source, target = tar.extractfile(entry), folder / PurePosixPath(entry.name)
                target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                with open(target, "xb") as out:
                    if source is not None:
                        shutil.copyfileobj(source, out, _PIECE)
                    out.flush()
                    os.fsync(out.fileno())
    except _NO_ARCHIVE as error:
        raise _unreadable(archive, error) from error
    return Payload.open(folder)


def _is_plain(entry: tarfile.TarInfo) -> bool:
    """A file all of whose bytes are in the archive: a sparse one has more than there are."""
    return entry.type == tarfile.REGTYPE and not entry.pax_headers and entry.sparse is None


def member(archive: Path, name: str) -> bytes:
    """One of the small documents of an archive, without unpacking it. Raises FleetError if it is not there."""
    try:
        with tarfile.open(archive, "r:") as tar:
            for entry in tar:
                if entry.name == name and _is_plain(entry) and entry.size <= _DOCUMENT_BYTES_LIMIT:
                    source = tar.extractfile(entry)
                    return source.read() if source is not None else b""
                if "/" in entry.name:
                    break  # the documents come first
    except _NO_ARCHIVE as error:
        raise _unreadable(archive, error) from error
    raise FleetError(f"{archive} has no {name}", remedy=_ANEW)

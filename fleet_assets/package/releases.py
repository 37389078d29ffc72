"""The folder of releases: roots, candidates, and the channel that vehicles read.

In: a folder. Out: what is in it, by id. The state of a release is never stored: it follows from the files.

    FOLDER/roots/                            the chain of roots (signing/roots.py)
    FOLDER/candidates/ID/release.tar         ID is the sha256 of this file
    FOLDER/candidates/ID/evaluation/         what the verdict was found from
    FOLDER/candidates/ID/from-OTHER.delta    what vehicles need that have the other one
    FOLDER/candidates/ID/targets.json        approval: targets metadata that points to it, with the signatures so far
    FOLDER/channel/metadata, FOLDER/channel/targets
    FOLDER/online/                           keys of snapshot and timestamp
    FOLDER/floor.json                        the floor of the fleet's vehicles, if one is kept here
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp

from fleet_assets.edge.floor import Floor
from fleet_assets.edge.payload import ARCHIVE, MANIFEST, VERDICT, member, parse_document, target_path
from fleet_assets.edge.verdict import Status, Verdict
from fleet_assets.errors import FleetError
from fleet_assets.signing import metadata as tuf
from fleet_assets.signing.roots import Roots

EVALUATION, APPROVAL = "evaluation", "targets.json"
_ID, _SHORT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{8,64}")
_TARGETS = re.compile(r"([1-9][0-9]{0,8})\.targets\.json")


class State(StrEnum):
    """Of a release."""

    CANDIDATE = "candidate"  # waits for a verdict that lets it go on; it may never get one
    GATED = "gated"  # PASS; waits for its approvers
    RELEASED = "released"  # what the channel points to
    RETIRED = "retired"  # what it once pointed to


@dataclass(frozen=True)
class Release:
    """What its own documents say. id: sha256 of the archive."""

    id: str
    state: State
    hardware: str
    profile: str
    verdict: Verdict
    approvers: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        return {
            "release": self.id[:12],
            "state": str(self.state),
            "hardware": self.hardware,
            "profile": self.profile,
            "verdict": str(self.verdict.status),
            "blocked_by": [cell.name for cell in self.verdict.blocking],
            "approvers": list(self.approvers),
        }


class Releases:
    """folder: may be empty or not there yet."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots = Roots.of(folder)
        self.metadata = folder / "channel" / "metadata"
        self.targets = folder / "channel" / "targets"
        self.online = folder / "online"

    def candidate(self, id: str) -> Path:
        return self.folder / "candidates" / id

    def archive(self, id: str) -> Path:
        return self.candidate(id) / ARCHIVE

    def source(self, targets: Metadata[Any], path: str) -> Path:
        """The file here of something that targets metadata points to."""
        hardware, _, name = path.rpartition("/")
        id_ = targets.signed.targets[target_path(hardware)].hashes["sha256"]
        return self.candidate(id_) / name

    def ids(self) -> list[str]:
        """Of all releases whose archive is there, the oldest first."""
        archives = (self.folder / "candidates").glob(f"*/{ARCHIVE}")
        found = [path.parent.name for path in archives if _ID.fullmatch(path.parent.name)]
        return sorted(found, key=lambda id_: (self.archive(id_).stat().st_mtime_ns, id_))

    def find(self, text: str) -> str:
        """The id that begins so. Raises FleetError if there is none, or more than one."""
        found = [id_ for id_ in self.ids() if id_.startswith(text)] if _SHORT.fullmatch(text) else []
        if len(found) != 1:
            what = "no release" if not found else f"{len(found)} releases"
            raise FleetError(
                f"{text!r} names {what}", remedy="`fleet release list` shows them; give 8 characters or more."
            )
        return found[0]

    def document(self, id: str, name: str) -> dict[str, Any]:
        """One of a release's documents, as its archive has it; the archive is not hashed."""
        return parse_document(member(self.archive(id), name), f"{name} of {id[:12]}")

    def verdict(self, id: str) -> Verdict:
        """Bounds and statuses found anew from the counts."""
        return Verdict.from_document(self.document(id, VERDICT), name=f"verdict of {id[:12]}").recomputed()

    def floor(self) -> Floor:
        """Of the fleet's vehicles; else the weakest, which still demands PASS."""
        path = self.folder / "floor.json"
        return Floor.read(path) if path.exists() else Floor(profile="demo", minimum_drives=1, minimum_positives=1)

    # ---- what the channel says ---------------------------------------------------------------------------------------

    def published(self) -> Metadata[Any] | None:
        """Targets metadata that the channel points to; None before the first release."""
        if not (self.metadata / "timestamp.json").exists():
            return None
        stamp = tuf.read(self.metadata / "timestamp.json", Timestamp).signed
        snapshot = tuf.read(self.metadata / f"{stamp.snapshot_meta.version}.snapshot.json", Snapshot).signed
        version = snapshot.meta["targets.json"].version
        return tuf.read(self.metadata / f"{version}.targets.json", Targets)

    def history(self) -> Iterator[Metadata[Any]]:
        """Targets metadata that the channel ever pointed to, the latest first."""
        current = self.published()
        if current is None:
            return
        names = (_TARGETS.fullmatch(path.name) for path in self.metadata.glob("*.targets.json"))
        for version in sorted((int(name[1]) for name in names if name), reverse=True):
            if version <= current.signed.version:
                yield tuf.read(self.metadata / f"{version}.targets.json", Targets)

    def approval(self, id: str) -> Metadata[Any] | None:
        """Targets metadata that is being signed for a release; None if there is none, or the channel has gone on since."""
        path = self.candidate(id) / APPROVAL
        found = tuf.read(path, Targets) if path.exists() else None
        current = self.published()
        due = current.signed.version + 1 if current else 1
        return found if found is not None and found.signed.version == due else None

    def approvers(self, targets: Metadata[Any]) -> Mapping[str, str]:
        """Who signed targets metadata, by the root that it names: key id -> holder."""
        root = self._root_of(targets)
        return tuf.signers(root, "targets", targets) if root else {}

    def refuse_unsigned(self, targets: Metadata[Any]) -> None:
        """Raises FleetError for targets metadata that too few have signed, by the root that it names."""
        root = self._root_of(targets)
        if root is None or root.get_verification_result("targets", targets.signed_bytes, targets.signatures).missing:
            raise FleetError("The channel's targets are not signed by approvers", remedy="Restore the channel.")

    def _root_of(self, targets: Metadata[Any]) -> Root | None:
        version = targets.signed.unrecognized_fields.get(ROOT_VERSION)
        return self.roots.at(version) if type(version) is int else None

    # ---- releases ----------------------------------------------------------------------------------------------------

    def release(self, id: str) -> Release:
        """Raises FleetError if its archive is no release."""
        manifest, verdict = self.document(id, MANIFEST), self.verdict(id)
        pointed = [targets for targets in self.history() if id in releases_of(targets)]
        current = self.published()
        if current is not None and id in releases_of(current):
            state = State.RELEASED
        elif pointed:
            state = State.RETIRED
        else:
            state = State.GATED if verdict.status is Status.PASS else State.CANDIDATE
        signed = pointed[0] if pointed else self.approval(id)
        names = tuple(self.approvers(signed).values()) if signed is not None else ()
        return Release(id, state, str(manifest.get("hardware")), verdict.profile, verdict, names)


ROOT_VERSION = "x-fleet-root"  # in targets metadata: by which root its signatures count


def releases_of(targets: Metadata[Any]) -> dict[str, TargetFile]:
    """Releases that targets metadata points to, by id."""
    found = targets.signed.targets.values()
    return {target.hashes["sha256"]: target for target in found if PurePosixPath(target.path).name == ARCHIVE}

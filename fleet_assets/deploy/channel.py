"""The channel that vehicles read: a folder of TUF metadata and archives, to be served by anything that serves files.

In: a release that enough approvers have signed; the keys of snapshot and timestamp, which lie here and sign nothing else. Out:
new metadata, in an order in which a vehicle that reads meanwhile sees the old state or the new; the timestamp comes last.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, TargetFile, Timestamp

from fleet_assets.edge.bundle import hash_file
from fleet_assets.errors import FleetError
from fleet_assets.package.approve import progress, verify_candidate
from fleet_assets.package.releases import APPROVAL, Releases, State, releases_of
from fleet_assets.signing import metadata as tuf
from fleet_assets.signing.files import one_at_a_time, sync_folder, write_durably
from fleet_assets.signing.keys import PublicKey, SigningKey
from fleet_assets.signing.roles import ONLINE

_PASSPHRASE = "passphrase"  # noqa: S105 - the name of a file


@dataclass(frozen=True)
class Published:
    """Versions of the metadata that the channel points to now."""

    root: int
    targets: int
    snapshot: int
    timestamp: int
    expires: datetime


def make_online_keys(releases: Releases) -> Mapping[str, PublicKey]:
    """Keys of snapshot and timestamp, made unless they are there; their public halves, for the roles file.

    Their passphrase lies beside them, readable by the channel's user alone: who has this folder can keep the channel current, and
    can neither change what is released nor who may sign.
    """
    folder = releases.online
    phrase = folder / _PASSPHRASE
    with one_at_a_time(folder):
        folder.chmod(0o700)
        if not phrase.exists():
            write_durably(phrase, secrets.token_urlsafe(32).encode(), mode=0o600)
        for role in ONLINE:
            if not (folder / role).exists():
                SigningKey.create(folder / role, phrase.read_text())
        return {role: SigningKey.read(folder / role, phrase.read_text()).public for role in ONLINE}


def publish(releases: Releases, id: str, now: datetime | None = None) -> Published:
    """Makes the channel point to a release. Publishing what is published only refreshes the timestamp.

    Everything is verified again, as before a signature. Raises FleetError if that fails or signatures are missing.
    """
    with one_at_a_time(releases.metadata):  # from the first look on: what is due changes when another one publishes
        if releases.release(id).state is State.RELEASED and releases.approval(id) is None:
            return _refreshed(releases, now)
        return _published(releases, id, now)


def _published(releases: Releases, id: str, now: datetime | None) -> Published:
    verify_candidate(releases, id)
    approval = releases.approval(id)
    if approval is None or id not in releases_of(approval):
        raise FleetError(
            f"Nobody has signed {id[:12]}", remedy=f"Each approver: `fleet release sign {id[:12]} --key FILE`."
        )
    done = progress(releases, id, approval)
    if done.missing:
        names = ", ".join(done.signed.values()) or "nobody"
        raise FleetError(
            f"{id[:12]} is signed by {names}; {done.missing} more must sign", remedy="Ask the other approvers."
        )
    if approval.signed.is_expired(now or datetime.now(UTC)):
        raise FleetError(f"The approval of {id[:12]} has expired", remedy="Its approvers must sign anew.")
    for path, target in approval.signed.targets.items():
        place = releases.targets / target.get_prefixed_paths()[0]
        if not place.exists():
            _copy_signed(releases.source(approval, path), target, place)
    write_durably(releases.metadata / f"{approval.signed.version}.targets.json", approval.to_bytes())
    published = _point_to(releases, approval, now)
    (releases.candidate(id) / APPROVAL).unlink()
    return published


def refresh(releases: Releases, now: datetime | None = None) -> Published:
    """New snapshot and timestamp, and the roots that came since: the channel is current, and points to the same releases."""
    with one_at_a_time(releases.metadata):
        return _refreshed(releases, now)


def _refreshed(releases: Releases, now: datetime | None) -> Published:
    published = releases.published()
    if published is None:
        raise FleetError("The channel is empty", remedy="Publish a release: `fleet release publish RELEASE`.")
    return _point_to(releases, published, now)


def advance(releases: Releases, now: datetime | None = None) -> Published | None:
    """Publishes the oldest release that has enough signatures and can be published; else refreshes. None while the channel is
    empty and nothing was approved.

    Raises FleetError for the first that could not be published, when all else is done: vehicles refuse a channel that is not
    kept current, whatever the reason.
    """
    failed: list[tuple[str, FleetError]] = []
    for id_ in releases.ids():
        try:
            approval = releases.approval(id_)
            if approval is not None and not progress(releases, id_, approval).missing:
                published: Published | None = publish(releases, id_, now)
                break  # what else was signed is for the same version, and must be signed anew
        except FleetError as error:
            failed.append((id_, error))
    else:
        published = refresh(releases, now) if releases.published() else None
    if failed:
        first, why = failed[0]
        raise FleetError(f"{first[:12]} was not published: {why.what}", where=why.where, remedy=why.remedy) from why
    return published


def _point_to(releases: Releases, targets: Metadata[Any], now: datetime | None) -> Published:
    root = releases.roots.current()
    missing = root.get_verification_result("targets", targets.signed_bytes, targets.signatures).missing
    if missing:
        raise FleetError(
            f"Since the root changed, targets {targets.signed.version} lacks {missing} signatures",
            remedy="Its approvers must sign anew: `fleet release renew RELEASE`.",
        )
    for version in releases.roots.versions():
        write_durably(releases.metadata / f"{version}.root.json", releases.roots.path(version).read_bytes())
    moment = now or datetime.now(UTC)
    stamp = _read(releases.metadata / "timestamp.json", Timestamp)
    number = stamp.signed.snapshot_meta.version + 1 if stamp else 1
    content = (releases.metadata / f"{targets.signed.version}.targets.json").read_bytes()
    meta = {"targets.json": _meta(targets.signed.version, content)}
    expires = tuf.expiry(moment, tuf.expires_days(root, "snapshot"))
    snapshot = _signed(releases, root, Metadata(Snapshot(version=number, expires=expires, meta=meta)))
    write_durably(releases.metadata / f"{number}.snapshot.json", snapshot)
    expires = tuf.expiry(moment, tuf.expires_days(root, "timestamp"))
    version = stamp.signed.version + 1 if stamp else 1
    fresh = Metadata(Timestamp(version=version, expires=expires, snapshot_meta=_meta(number, snapshot)))
    write_durably(releases.metadata / "timestamp.json", _signed(releases, root, fresh))
    return Published(root.version, targets.signed.version, number, version, expires)


def _signed(releases: Releases, root: Root, metadata: Metadata[Any]) -> bytes:
    role = metadata.signed.type
    folder = releases.online
    if not (folder / role).exists():
        raise FleetError(
            f"{folder / role} is missing", remedy="Make it: `fleet release online`, then propose a root with it."
        )
    key = SigningKey.read(folder / role, (folder / _PASSPHRASE).read_text())
    if key.id not in root.roles[role].keyids:
        raise FleetError(
            f"The channel's {role} key is not in root {root.version}", remedy="Propose a root that has it, and sign it."
        )
    tuf.add_signature(metadata, key)
    return metadata.to_bytes()


def _meta(version: int, content: bytes) -> MetaFile:
    return MetaFile.from_data(version, content, ["sha256"])


def _read(path: Path, kind: type[Any]) -> Metadata[Any] | None:
    return tuf.read(path, kind) if path.exists() else None


def _copy_signed(source: Path, target: TargetFile, place: Path) -> None:
    """Durably. Raises FleetError if the source is not what was signed for."""
    if hash_file(source) != (target.length, target.hashes["sha256"]):
        raise FleetError(f"{source} was changed after it was signed for", remedy="Its approvers must sign anew.")
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.{os.getpid()}.new")
    shutil.copyfile(source, new)
    with open(new, "rb") as file:
        os.fsync(file.fileno())
    os.replace(new, place)
    sync_folder(place.parent)

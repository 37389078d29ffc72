"""Approval: each holder of a targets key looks at the same evidence, anew, and adds one signature.

In: a candidate and a key. Out: targets metadata that makes vehicles of its hardware class install it, with the signatures so far;
the counts of the verdict are part of what is signed. Nothing is taken from what an earlier check said.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from tuf.api.metadata import Metadata, TargetFile, Targets

from fleet_assets.edge.bundle import hash_file
from fleet_assets.edge.payload import delta_path, target_path, unpack
from fleet_assets.edge.verdict import Status, Verdict
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.gate_diff import Change, refuse_unapproved
from fleet_assets.evaluate.gate_file import load_gate
from fleet_assets.evaluate.record import GATE, verify
from fleet_assets.package.candidate import refuse_empty
from fleet_assets.package.delta import release_delta
from fleet_assets.package.releases import (
    APPROVAL,
    EVALUATION,
    ROOT_VERSION,
    Releases,
    State,
    releases_of,
)
from fleet_assets.signing import metadata as tuf
from fleet_assets.signing.files import one_at_a_time, write_durably
from fleet_assets.signing.keys import SigningKey


@dataclass(frozen=True)
class Approval:
    """How far a release is. signed: key id -> holder. missing: signatures that are still needed."""

    release: str
    version: int
    signed: dict[str, str]
    missing: int


def verify_candidate(releases: Releases, id: str) -> Verdict:
    """The verdict of a candidate, after everything was held against everything else.

    The archive against its id, each file against the manifest, the parts against the verdict, the verdict against its own counts
    and against the evaluation that it was found from, its gate against that of the release before. Raises FleetError for the
    first that does not agree, and without PASS.
    """
    verdict = _verify(releases, id)
    releases.floor().check(verdict)
    changes_of_gate(releases, id, verdict)
    return verdict


def _verify(releases: Releases, id: str) -> Verdict:
    """All but what may be otherwise by now: floor and gate."""
    with tempfile.TemporaryDirectory(prefix="fleet-verify-") as scratch:
        # Of a copy, so that what is hashed is what is unpacked.
        archive = Path(shutil.copyfile(releases.archive(id), Path(scratch, "release.tar")))
        if hash_file(archive)[1] != id:
            raise FleetError(f"The archive of {id[:12]} was changed", remedy="Build the candidate anew.")
        payload = unpack(archive, Path(scratch, "payload"))
        verdict = payload.verdict()
        refuse_empty(payload.evidence())
    if verify(releases.candidate(id) / EVALUATION) != verdict:
        raise FleetError(
            f"The verdict of {id[:12]} is not what its evaluation gives",
            remedy="Judge the model, and package it, anew.",
        )
    if verdict.status is not Status.PASS:
        cells = "; ".join(f"{cell.name}: {cell.status}" for cell in verdict.blocking)
        raise FleetError(f"{id[:12]} has no PASS", where=cells, remedy="It cannot be released: judge a better model.")
    return verdict


def changes_of_gate(releases: Releases, id: str, verdict: Verdict) -> list[Change]:
    """How the gate differs from that of the last release of this hardware class and profile; nothing of what was released before,
    which was approved then. Raises FleetError if it is looser, and nobody who may approve releases is named for it."""
    path, before = target_path(releases.release(id).hardware), None
    for targets in releases.history():
        if id in releases_of(targets):
            return []
        target = targets.signed.targets.get(path)
        if before is None and target is not None:
            judged = Verdict.from_document((target.custom or {}).get("verdict"), name="the signed verdict")
            if judged.profile == verdict.profile:
                before = target.hashes["sha256"], judged.gate_sha256
    if before is None or before[1] == verdict.gate_sha256:
        return []
    old, new = (load_gate(releases.candidate(one) / EVALUATION / GATE) for one in (before[0], id))
    if old.sha256 != before[1]:
        raise FleetError(
            f"The gate of {before[0][:12]} is not the one by which it was approved", remedy="Restore its evaluation."
        )
    return refuse_unapproved(old, new, releases.roots.approvers())


def carried_by(releases: Releases, id: str) -> dict[str, str]:
    """What else vehicles install by metadata that points to a release, as before: id -> hardware class."""
    published, path = releases.published(), target_path(releases.release(id).hardware)
    found = releases_of(published) if published else {}
    return {other: target.path.rpartition("/")[0] for other, target in found.items() if target.path != path}


def sign(releases: Releases, id: str, key: SigningKey, now: datetime | None = None) -> Approval:
    """Adds a signature to the approval of a release, after verifying it.

    A release that the channel pointed to before is approved again only after `roll_back` or `renew`. Raises FleetError for a key
    that is no targets key, and as verify_candidate.
    """
    verdict = verify_candidate(releases, id)
    root = releases.roots.current()
    if key.id not in root.roles["targets"].keyids:
        raise FleetError(f"{key.id[:12]} is no targets key", remedy="`fleet keys list` shows whose signatures count.")
    with one_at_a_time(releases.candidate(id)):
        approval = releases.approval(id)
        if approval is None or approval.signed.unrecognized_fields.get(ROOT_VERSION) != root.version:
            if approval is None and releases.release(id).state in (State.RELEASED, State.RETIRED):
                raise FleetError(
                    f"{id[:12]} was released before", remedy="Start with `fleet release rollback`, or `renew`."
                )
            approval = _draft(releases, id, verdict, now)
        else:
            _refuse_changed(approval, _draft(releases, id, verdict, now))
        tuf.add_signature(approval, key)
        write_durably(releases.candidate(id) / APPROVAL, approval.to_bytes())
    return progress(releases, id, approval)


def roll_back(releases: Releases, id: str, now: datetime | None = None) -> Approval:
    """Starts the approval of a release that the channel pointed to earlier: a new version of the metadata, for its approvers to
    sign. Raises FleetError if it is below the floor, or was never released."""
    return _again(releases, id, State.RETIRED, "is not a release of earlier", now)


def renew(releases: Releases, id: str, now: datetime | None = None) -> Approval:
    """Starts the approval of what is released now, once more: its metadata expires, or one of its signers' keys was revoked."""
    return _again(releases, id, State.RELEASED, "is not what is released now", now)


def _again(releases: Releases, id: str, state: State, what: str, now: datetime | None) -> Approval:
    if releases.release(id).state is not state:
        raise FleetError(f"{id[:12]} {what}", remedy="`fleet release list` shows the states.")
    approval = _draft(releases, id, verify_candidate(releases, id), now)
    with one_at_a_time(releases.candidate(id)):
        write_durably(releases.candidate(id) / APPROVAL, approval.to_bytes())
    return progress(releases, id, approval)


def progress(releases: Releases, id: str, approval: Metadata[Any]) -> Approval:
    """How many signatures there are, by the root that counts now."""
    result = releases.roots.current().get_verification_result("targets", approval.signed_bytes, approval.signatures)
    names = {key_id: tuf.holder_of(key) for key_id, key in sorted(result.signed.items())}
    return Approval(id, approval.signed.version, names, result.missing)


def _draft(releases: Releases, id: str, verdict: Verdict, now: datetime | None) -> Metadata[Any]:
    """Targets metadata, unsigned: as published, but for what vehicles of this hardware class install, and how that differs from
    what they run. What a delta gives is held against the release, here and on the vehicle."""
    root, published = releases.roots.current(), releases.published()
    if published:
        releases.refuse_unsigned(published)
    for other in carried_by(releases, id):  # who signs this signs them too
        _verify(releases, other)
    release = releases.release(id)
    path = target_path(release.hardware)
    size, digest = hash_file(releases.archive(id))
    if digest != id:
        raise FleetError(f"The archive of {id[:12]} was changed", remedy="Build the candidate anew.")
    custom = {
        "custom": {"verdict": verdict.to_document(), "runtime": releases.document(id, "manifest.json")["runtime"]}
    }
    kept = dict(published.signed.targets) if published else {}
    before = kept[path].hashes["sha256"] if path in kept else id
    if before != id:
        kept = {name: target for name, target in kept.items() if not name.startswith(f"{release.hardware}/")}
        kept |= _delta(releases, before, id, delta_path(release.hardware, before))
    return Metadata(
        Targets(
            version=published.signed.version + 1 if published else 1,
            expires=tuf.expiry(now or datetime.now(UTC), tuf.expires_days(root, "targets")),
            targets={**kept, path: TargetFile(size, {"sha256": digest}, path, custom)},
            unrecognized_fields={ROOT_VERSION: root.version},
        )
    )


def _delta(releases: Releases, before: str, id: str, path: str) -> dict[str, TargetFile]:
    """The delta from what is released to what will be; none if the archive of before is gone, or it would save nothing."""
    old, new = releases.archive(before), releases.archive(id)
    if not old.exists() or hash_file(old)[1] != before:
        return {}
    file = releases.candidate(id) / PurePosixPath(path).name
    release_delta(old, new, file)
    size, digest = hash_file(file)
    return {path: TargetFile(size, {"sha256": digest}, path)} if size < new.stat().st_size else {}


def _refuse_changed(approval: Metadata[Any], fresh: Metadata[Any]) -> None:
    """Raises FleetError if an approval that others have signed says anything but what it would say now, its expiry apart."""
    said, expected = approval.signed.to_dict(), fresh.signed.to_dict()
    if said.pop("expires") > expected.pop("expires") or said != expected:
        raise FleetError("The approval was changed", remedy="Remove its targets.json; all approvers sign anew.")

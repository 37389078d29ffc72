"""Every attack on an update, of the channel and of the artefact: each is refused with its own reason, and what runs goes on."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from edge.scene import Scene, edit
from package.parts import HARDWARE, candidate, make_world, released
from tuf.api.metadata import Metadata, Snapshot, Timestamp

from fleet_assets.deploy import channel
from fleet_assets.deploy.channel import refresh
from fleet_assets.edge.bundle import hash_file
from fleet_assets.edge.delta import Steps, write_delta
from fleet_assets.edge.floor import Floor
from fleet_assets.edge.update import REASONS
from fleet_assets.edge.vehicle import Vehicle
from fleet_assets.errors import FleetError
from fleet_assets.package import approve
from fleet_assets.package.approve import sign
from fleet_assets.signing import metadata as tuf
from fleet_assets.signing.roles import Roles
from fleet_assets.throw_away import APPROVERS

NOW = datetime.now(UTC)


def swap(target: Path, source: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def latest(scene: Scene, role: str) -> Path:
    return max(scene.metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.partition(".")[0]))


# ---- attacks on the channel ------------------------------------------------------------------------------------------


def test_rollback(scene: Scene) -> None:
    """Metadata of earlier, once newer was seen."""
    refresh(scene.world.releases)
    slots = scene.vehicle.slots.root
    keep = scene.world.folder / "keep"
    shutil.copytree(slots, keep, symlinks=True)
    scene.vehicle.update(scene.world.channel)
    swap(slots, keep)  # as if the installation had been cut off after the metadata was seen
    swap(scene.world.channel, scene.earlier)
    assert scene.refused() == "rollback"


def test_freeze(scene: Scene) -> None:
    """The channel goes on giving what was true once."""
    refresh(scene.world.releases, NOW - timedelta(days=20))
    assert scene.refused() == "freeze"
    refresh(scene.world.releases)
    assert scene.vehicle.update(scene.world.channel)[0].release == scene.second, "a fresh timestamp ends it"


def test_expired(scene: Scene) -> None:
    """The timestamp is fresh, and what it vouches for is not."""
    releases = scene.world.releases
    old = releases.roots.current()
    roles = Roles.of(old)
    short = Roles({**roles.roles, "timestamp": replace(roles.roles["timestamp"], expires_days=3000)}, roles.keys)
    releases.roots.propose(short)
    for name in ("ada", "bo"):
        releases.roots.sign(scene.world.keys[name])
    refresh(releases, NOW - timedelta(days=40))  # snapshot: 30 days
    assert scene.refused() == "expired"
    refresh(releases)
    assert scene.vehicle.update(scene.world.channel)[0].release == scene.second, "a fresh one ends it"


def test_expired_root(scene: Scene) -> None:
    releases = scene.world.releases

    def renewed(now: datetime) -> None:
        releases.roots.propose(Roles.of(releases.roots.current()), now)
        for name in ("ada", "bo"):
            releases.roots.sign(scene.world.keys[name])
        refresh(releases)

    renewed(NOW - timedelta(days=400))
    assert scene.refused() == "expired"
    renewed(NOW)
    assert scene.vehicle.update(scene.world.channel)[0].release == scene.second, (
        "the expired one's holders signed a new one"
    )


def test_mix_and_match(scene: Scene) -> None:
    """The snapshot of now with targets of earlier."""
    shutil.copyfile(scene.earlier / "metadata" / "1.targets.json", latest(scene, "targets"))
    assert scene.refused() == "mix and match"


def test_a_snapshot_of_earlier_under_the_timestamp_of_now(scene: Scene) -> None:
    shutil.copyfile(scene.earlier / "metadata" / "1.snapshot.json", latest(scene, "snapshot"))
    assert scene.refused() == "mix and match"


@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json", "2.targets.json", "2.snapshot.json"])
def test_endless_metadata(scene: Scene, name: str) -> None:
    with open(scene.metadata / name, "ab") as file:
        file.truncate(1 << 40)  # a terabyte of zeros, of which nothing is stored
    assert scene.refused() == "endless data"


def test_an_endless_archive(scene: Scene) -> None:
    scene.delta.unlink()
    with open(scene.archive, "ab") as file:
        file.truncate(1 << 40)
    assert scene.refused() == "endless data"


def test_a_pipe_is_no_file(scene: Scene) -> None:
    (scene.metadata / "timestamp.json").unlink()
    os.mkfifo(scene.metadata / "timestamp.json")
    assert scene.refused() == "missing"


def test_a_link_out_of_the_channel_is_no_file(scene: Scene, tmp_path: Path) -> None:
    shutil.move(scene.metadata / "timestamp.json", tmp_path / "elsewhere")
    (scene.metadata / "timestamp.json").symlink_to(tmp_path / "elsewhere")
    assert scene.refused() == "missing"


@pytest.mark.parametrize("name", ["timestamp.json", "2.targets.json", "2.snapshot.json"])
def test_missing(scene: Scene, name: str) -> None:
    (scene.metadata / name).unlink()
    assert scene.refused() == "missing"


def test_wrong_key(scene: Scene, tmp_path: Path) -> None:
    """Somebody who has the channel's place and none of its keys."""
    thief = make_world(tmp_path / "thief")
    released(thief, "third", seed=3)
    refresh(thief.releases)
    refresh(thief.releases)
    swap(scene.world.channel, thief.channel)
    assert scene.refused() == "wrong key"


def test_one_approver_is_not_enough(scene: Scene) -> None:
    """Who has the channel's keys and one approver's cannot release."""
    releases = scene.world.releases
    third = candidate(scene.world, "third", seed=3)
    sign(releases, third, scene.world.keys[APPROVERS[0]])
    with pytest.raises(FleetError, match="1 more must sign"):
        channel.publish(releases, third)
    approval = releases.approval(third)
    assert approval is not None
    content = approval.to_bytes()
    (scene.metadata / "3.targets.json").write_bytes(content)
    stamp = json.loads((scene.metadata / "timestamp.json").read_bytes())["signed"]["version"]
    root = releases.roots.current()
    meta = {"targets.json": channel._meta(3, content)}
    expires = tuf.expiry(NOW, 5)
    snapshot = channel._signed(releases, root, Metadata(Snapshot(version=9, expires=expires, meta=meta)))
    (scene.metadata / "9.snapshot.json").write_bytes(snapshot)
    fresh = Metadata(Timestamp(version=stamp + 1, expires=expires, snapshot_meta=channel._meta(9, snapshot)))
    (scene.metadata / "timestamp.json").write_bytes(channel._signed(releases, root, fresh))
    assert scene.refused() == "wrong key"


def test_a_root_that_the_old_one_did_not_sign(scene: Scene, tmp_path: Path) -> None:
    thief = make_world(tmp_path / "thief")
    thief.releases.roots.propose(Roles.of(thief.releases.roots.current()))
    for name in ("ada", "bo"):
        thief.releases.roots.sign(thief.keys[name])
    shutil.copyfile(thief.releases.roots.path(2), scene.metadata / "2.root.json")
    assert scene.refused() == "wrong key"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 10_000, b'{"signed": {}, "signatures": []}', b"\xff" * 100], ids=range(5)
)
def test_damaged(scene: Scene, content: bytes) -> None:
    (scene.metadata / "timestamp.json").write_bytes(content)
    assert scene.refused() == "damaged"


def test_edited_metadata(scene: Scene) -> None:
    edit(scene.metadata / "timestamp.json", lambda it: it["signed"].update(version=99))
    assert scene.refused() == "wrong key"


# ---- attacks on the artefact -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attack", ["edited", "swapped", "shorter"])
def test_the_archive_is_not_what_was_approved(scene: Scene, attack: str) -> None:
    scene.delta.unlink()
    archive = scene.archive
    content = bytearray(archive.read_bytes())
    if attack == "edited":
        content[content.index(b"MatMul")] ^= 1
    elif attack == "swapped":
        content = bytearray(next(archive.parent.glob(f"{scene.first}.*")).read_bytes())
        content = content[: archive.stat().st_size]
    else:
        content = content[:-512]
    archive.write_bytes(content)
    assert scene.refused() == "artefact"


def damage(path: Path, attack: str) -> None:
    if attack == "missing":
        path.unlink()
    elif attack == "endless":
        with open(path, "ab") as file:
            file.truncate(1 << 40)
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("attack", ["edited", "endless", "missing"])
def test_a_delta_that_is_not_what_was_signed_is_left_for_the_whole(scene: Scene, attack: str) -> None:
    archive = scene.archive.read_bytes()
    damage(scene.delta, attack)
    damage(scene.archive, "edited")
    assert scene.refused() == "artefact"
    scene.archive.write_bytes(archive)
    slot, _ = scene.vehicle.update(scene.world.channel)
    assert (slot.release, slot.fetched["delta"], slot.fetched["bytes"]) == (scene.second, False, len(archive))
    assert (
        REASONS[{"edited": "artefact", "endless": "endless data", "missing": "missing"}[attack]] in slot.fetched["why"]
    )
    assert scene.vehicle.running() == slot


def test_a_delta_that_approvers_were_made_to_sign_gives_nothing_else(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their tools wrote a delta to an archive of the attacker's: it is signed, and what it gives is not."""

    def write_another(old: Path, new: Path, file: Path) -> None:
        content = bytearray(new.read_bytes())
        content[content.index(b"MatMul")] ^= 1
        steps = Steps()
        steps.add(-1, len(content))
        write_delta(file, bytes.fromhex(hash_file(old)[1]), content, steps.steps)

    monkeypatch.setattr(approve, "release_delta", write_another)
    scene.vehicle.update(scene.world.channel)
    third = released(scene.world, "third", seed=3)
    slot, _ = scene.vehicle.update(scene.world.channel)
    assert (slot.release, slot.fetched["delta"]) == (third, False)
    assert "another archive than was signed" in slot.fetched["why"]


def test_without_the_release_that_a_delta_starts_from_the_whole_is_taken(scene: Scene) -> None:
    vehicle = Vehicle.init(scene.world.folder / "new", scene.world.releases.roots.path(1), HARDWARE, Floor())
    assert vehicle.update(scene.world.channel)[0].fetched["why"] == "nothing runs"

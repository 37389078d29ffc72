"""Updates on a vehicle, and every attack on them: each is refused with its own reason, and what runs goes on."""

from __future__ import annotations

import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from package.parts import HARDWARE, World, candidate, make_world, released
from package.parts import approve as approved
from package.test_approve import other_features, repacked
from tuf.api.metadata import Metadata, Snapshot, Timestamp

from fleet_assets.deploy import channel
from fleet_assets.deploy.channel import refresh
from fleet_assets.edge.bundle import hash_file
from fleet_assets.edge.delta import Steps, write_delta
from fleet_assets.edge.floor import Demand, Floor
from fleet_assets.edge.update import REASONS, UpdateRefused
from fleet_assets.edge.vehicle import Vehicle
from fleet_assets.edge.verdict import Status
from fleet_assets.errors import FleetError
from fleet_assets.package import approve
from fleet_assets.package.approve import renew, roll_back, sign
from fleet_assets.package.releases import Releases
from fleet_assets.signing import metadata as tuf
from fleet_assets.signing.keys import SigningKey
from fleet_assets.signing.roles import Roles
from fleet_assets.throw_away import APPROVERS

NOW = datetime.now(UTC)


@dataclass(frozen=True)
class Scene:
    """One release is installed on the vehicle, and a second one is published."""

    world: World
    vehicle: Vehicle
    first: str
    second: str
    earlier: Path  # the channel as it was when the first was installed

    @property
    def metadata(self) -> Path:
        return self.world.channel / "metadata"

    @property
    def archive(self) -> Path:
        return next((self.world.channel / "targets" / HARDWARE).glob(f"{self.second}.*"))

    @property
    def delta(self) -> Path:
        return next((self.world.channel / "targets" / HARDWARE).glob("*.delta"))

    def refused(self) -> str:
        """The reason for which the vehicle does not update. Its running release is whole."""
        with pytest.raises(UpdateRefused) as caught:
            self.vehicle.update(self.world.channel)
        assert self.vehicle.running().release == self.first
        assert caught.value.reason in REASONS
        return caught.value.reason


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    world = make_world(tmp_path_factory.mktemp("world"))
    first = released(world, "first", seed=1)
    vehicle = Vehicle.init(world.folder / "vehicle", world.releases.roots.path(1), HARDWARE, Floor())
    slot, new = vehicle.update(world.channel)
    assert (slot.release, new) == (first, True)
    shutil.copytree(world.channel, world.folder / "earlier")
    second = released(world, "second", seed=2)
    return Scene(world, vehicle, first, second, world.folder / "earlier")


@pytest.fixture
def scene(made: Scene, tmp_path: Path) -> Scene:
    """A copy to be attacked."""
    folder = tmp_path / "world"
    shutil.copytree(made.world.folder, folder, symlinks=True)
    world = replace(made.world, releases=Releases(folder / "releases"), folder=folder)
    return replace(made, world=world, vehicle=Vehicle.open(folder / "vehicle"), earlier=folder / "earlier")


def swap(target: Path, source: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


def edit(path: Path, change: Callable[[Any], None]) -> None:
    document = json.loads(path.read_bytes())
    change(document)
    path.write_text(json.dumps(document))


def latest(scene: Scene, role: str) -> Path:
    return max(scene.metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.partition(".")[0]))


# ---- what should work ------------------------------------------------------------------------------------------------


def test_the_next_release_takes_the_other_slot(scene: Scene) -> None:
    before = scene.vehicle.running()
    slot, new = scene.vehicle.update(scene.world.channel)
    assert (slot.release, new, {before.name, slot.name}) == (scene.second, True, {"a", "b"})
    assert slot.fetched == {"bytes": scene.delta.stat().st_size, "delta": True}
    assert scene.vehicle.running() == slot
    assert before.folder.exists(), "the release before stays in its slot"
    assert scene.vehicle.update(scene.world.channel) == (slot, False)


def test_a_rollback_is_a_new_version_that_points_back(scene: Scene) -> None:
    scene.vehicle.update(scene.world.channel)
    releases = scene.world.releases
    roll_back(releases, scene.first)
    for name in APPROVERS[1:]:
        sign(releases, scene.first, scene.world.keys[name])
    assert channel.publish(releases, scene.first).targets == 3
    assert scene.vehicle.update(scene.world.channel)[0].release == scene.first


def test_a_vehicle_follows_a_chain_of_roots(scene: Scene) -> None:
    """A targets key is lost, an online key may have been seen; the vehicle was off for both."""
    releases, keys = scene.world.releases, dict(scene.world.keys)
    new = SigningKey.create(scene.world.folder / "keys" / "fay2", "a passphrase for tests")
    shutil.move(releases.online / "timestamp", releases.online / "seen")
    stamp = SigningKey.create(releases.online / "timestamp", (releases.online / "passphrase").read_text())
    for holder, key in (("fay", new.public), ("timestamp", stamp.public)):
        releases.roots.propose(Roles.of(releases.roots.current()).with_key(holder, key))
        for name in ("ada", "cy"):
            releases.roots.sign(keys[name])
    refresh(releases)
    assert scene.vehicle.update(scene.world.channel)[0].release == scene.second


def test_a_release_whose_signer_was_revoked_must_be_signed_anew(scene: Scene) -> None:
    releases, keys = scene.world.releases, scene.world.keys
    releases.roots.propose(Roles.of(releases.roots.current()).without(APPROVERS[0]))
    for name in ("ada", "bo"):
        releases.roots.sign(keys[name])
    with pytest.raises(FleetError, match="must sign anew"):
        refresh(releases)
    renew(releases, scene.second)
    for name in APPROVERS[1:]:
        sign(releases, scene.second, keys[name])
    channel.publish(releases, scene.second)
    assert scene.vehicle.update(scene.world.channel)[0].release == scene.second


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


# ---- the vehicle's own floor -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("floor", "what"),
    [
        (Floor(minimum_positives=100_000), "positives in"),
        (Floor(minimum_drives=1000), "drives, of"),
        (Floor(level_ppm=10_000), "level of 50000"),
        (Floor(demands=(Demand("recall", {"class": "pedestrian", "light": "night"}, 890_000),)), "890000 is asked for"),
        (Floor(demands=(Demand("recall", {"class": "dog", "light": "night"}, 1),)), "was not judged"),
    ],
)
def test_a_release_below_the_floor_is_refused(scene: Scene, floor: Floor, what: str) -> None:
    vehicle = replace(scene.vehicle, floor=floor)
    with pytest.raises(UpdateRefused, match="below this vehicle's floor") as caught:
        vehicle.update(scene.world.channel)
    assert (caught.value.reason, what in str(caught.value.where)) == ("floor", True)


def test_a_full_floor_refuses_demo(scene: Scene) -> None:
    third = released(scene.world, "demo", seed=5, profile="demo")
    assert scene.refused() == "floor"
    easy = replace(scene.vehicle, floor=Floor(profile="demo"))
    assert easy.update(scene.world.channel)[0].release == third


def test_another_computer_is_told_apart(scene: Scene) -> None:
    assert replace(scene.vehicle, hardware="toaster").hardware == "toaster"
    with pytest.raises(UpdateRefused) as caught:
        replace(scene.vehicle, hardware="toaster").update(scene.world.channel)
    assert caught.value.reason == "no release"


@pytest.mark.parametrize(("module", "what"), [(platform, "machine"), (metadata, "version")])
def test_a_release_for_another_machine_or_runtime_is_refused(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, module: ModuleType, what: str
) -> None:
    monkeypatch.setattr(module, what, lambda *arguments: "0.1.2")
    assert scene.refused() == "hardware"


@pytest.mark.parametrize(
    ("how", "reason"), [("without PASS", "floor"), ("other words", "floor"), ("mixed parts", "artefact")]
)
def test_what_approvers_were_made_to_sign_is_judged_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    """Their tools and the channel's looked at nothing."""
    releases = scene.world.releases
    third = candidate(scene.world, "third", seed=3, night=0.9 if how == "mixed parts" else 0.2)
    verdict = releases.verdict(third)
    if how == "mixed parts":
        third = repacked(scene.world, third, other_features)
    elif how == "other words":
        cells = tuple(replace(cell, status=Status.PASS, bound_ppm=cell.limit_ppm) for cell in verdict.cells)
        verdict = replace(verdict, cells=cells)
    for module in (approve, channel):
        monkeypatch.setattr(module, "verify_candidate", lambda releases, id: verdict)
    approved(scene.world, third)
    channel.publish(releases, third)
    assert scene.refused() == reason


# ---- provisioning ----------------------------------------------------------------------------------------------------


def test_a_vehicle_is_provisioned_once_with_a_root_that_is_whole(scene: Scene, tmp_path: Path) -> None:
    root = scene.world.releases.roots.path(1)
    with pytest.raises(FleetError, match="is provisioned"):
        Vehicle.init(scene.vehicle.root, root, HARDWARE, Floor())
    edit(root, lambda it: it["signed"].update(version=2))
    with pytest.raises(FleetError, match="enough of its own keys"):
        Vehicle.init(tmp_path / "new", root, HARDWARE, Floor())
    with pytest.raises(FleetError, match="not provisioned"):
        Vehicle.open(tmp_path / "new")


def test_a_folder_that_others_can_write_to_is_refused(scene: Scene) -> None:
    scene.vehicle.root.chmod(0o777)
    with pytest.raises(FleetError, match="Others can write"):
        Vehicle.open(scene.vehicle.root)


def test_a_damaged_release_is_found_and_replaced(scene: Scene) -> None:
    model = scene.vehicle.running().folder / "model" / "model.onnx"
    content = bytearray(model.read_bytes())
    content[10] ^= 1
    model.write_bytes(content)
    with pytest.raises(FleetError, match="not what its manifest says"):
        scene.vehicle.running()
    assert scene.vehicle.update(scene.world.channel)[0].release == scene.second
    assert scene.vehicle.running().release == scene.second


# ---- power cuts ------------------------------------------------------------------------------------------------------

CUT = """
import os, signal, sys
from pathlib import Path
from fleet_assets.edge import slots
from fleet_assets.edge.vehicle import Vehicle
from fleet_assets.edge.verdict import Status
left = int(sys.argv[3])
def cut(function):
    def call(*arguments, **named):
        global left
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **named)
    return call
for name in ("replace", "fsync", "stat"):
    setattr(os, name, cut(getattr(os, name)))
vehicle = Vehicle.open(Path(sys.argv[1]))
vehicle.update(Path(sys.argv[2]))
print("done")
"""


@pytest.mark.slow
def test_kill_9_at_any_step_leaves_a_release_that_is_whole(scene: Scene, tmp_path: Path) -> None:
    """Killed before each of many system calls of an update; then what runs is the old release or the new, whole, and the
    update can be done again."""
    ends = []
    for step in (1, 20, 60, 90, 100, 110, 120, 10_000):
        root = tmp_path / f"vehicle{step}"
        shutil.copytree(scene.vehicle.root, root, symlinks=True)
        command = [sys.executable, "-c", CUT, str(root), str(scene.world.channel), str(step)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ended.returncode in (0, -signal.SIGKILL), ended.stderr
        vehicle = Vehicle.open(root)
        running = vehicle.running()
        assert running.release in (scene.first, scene.second)
        ends.append((ended.returncode, running.release == scene.second))
        if ended.returncode:
            assert vehicle.update(scene.world.channel)[0].release == scene.second
            assert not list(root.glob(".download-*")) + list((root / "slots").glob(".new-*"))
    assert {ended for ended, _ in ends} == {0, -signal.SIGKILL}
    assert ends[0] == (-signal.SIGKILL, False)
    assert ends[-1] == (0, True)

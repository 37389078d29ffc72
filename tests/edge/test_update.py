"""Updates on a vehicle: what it takes, what its own floor refuses, how it is provisioned, and power cuts."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest
from edge.scene import Scene, edit
from package.parts import HARDWARE, candidate, released
from package.parts import approve as approved
from package.test_approve import other_features, repacked

from fleet_assets.deploy import channel
from fleet_assets.deploy.channel import refresh
from fleet_assets.edge.floor import Demand, Floor
from fleet_assets.edge.update import UpdateRefused
from fleet_assets.edge.vehicle import Vehicle
from fleet_assets.edge.verdict import Status
from fleet_assets.errors import FleetError
from fleet_assets.package import approve
from fleet_assets.package.approve import renew, roll_back, sign
from fleet_assets.signing.keys import SigningKey
from fleet_assets.signing.roles import Roles
from fleet_assets.throw_away import APPROVERS

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

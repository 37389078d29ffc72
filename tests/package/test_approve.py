"""Approval: each signature is given to evidence that was looked at anew; what was changed is refused, and why is told."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate.test_gate_file import TEXT
from package.parts import (
    HARDWARE,
    World,
    approve,
    candidate,
    description,
    judged,
    make_features,
    make_model,
    make_parts,
    make_world,
    released,
)
from tuf.api.metadata import TargetFile

from fleet_assets.deploy.channel import publish, refresh
from fleet_assets.edge import payload as parts_of
from fleet_assets.edge.bundle import hash_file
from fleet_assets.edge.floor import Demand, Floor
from fleet_assets.edge.payload import unpack
from fleet_assets.edge.verdict import Status
from fleet_assets.errors import FleetError
from fleet_assets.package import approve as approving
from fleet_assets.package.approve import carried_by, renew, roll_back, sign, verify_candidate
from fleet_assets.package.candidate import build_candidate
from fleet_assets.package.policy import load_release_policy
from fleet_assets.package.releases import Releases, State
from fleet_assets.package.tracing import trace_of
from fleet_assets.signing import metadata as tuf
from fleet_assets.throw_away import APPROVERS

DEE, ELI, FAY = APPROVERS


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def state(world: World, id_: str) -> State:
    return world.releases.release(id_).state


def test_from_candidate_to_retired_and_back(world: World) -> None:
    releases, keys = world.releases, world.keys
    first = candidate(world, "first", seed=1)
    assert state(world, first) is State.GATED
    with pytest.raises(FleetError, match="Nobody has signed"):
        publish(releases, first)
    assert sign(releases, first, keys[DEE]).missing == 1
    assert sign(releases, first, keys[DEE]).missing == 1, "one holder counts once"
    with pytest.raises(FleetError, match="signed by dee; 1 more"):
        publish(releases, first)
    assert sign(releases, first, keys[FAY]).signed.keys() == {keys[DEE].id, keys[FAY].id}
    assert publish(releases, first).targets == 1
    second = released(world, "second", seed=2)
    assert (state(world, first), state(world, second)) == (State.RETIRED, State.RELEASED)
    assert set(releases.release(first).approvers) == {DEE, FAY}

    with pytest.raises(FleetError, match="was released before"):
        sign(releases, first, keys[DEE])
    assert roll_back(releases, first).missing == 2
    approve(world, first)
    assert publish(releases, first).targets == 3
    assert (state(world, first), state(world, second)) == (State.RELEASED, State.RETIRED)
    with pytest.raises(FleetError, match="not a release of earlier"):
        roll_back(releases, first)
    assert [id_[:12] for id_ in (first, second)] == [releases.release(id_).row()["release"] for id_ in releases.ids()]


def test_publishing_again_only_refreshes(world: World) -> None:
    id_ = released(world, "one")
    before = refresh(world.releases)
    after = publish(world.releases, id_)
    assert (after.targets, after.timestamp) == (before.targets, before.timestamp + 1)


def test_only_holders_of_targets_keys_approve(world: World) -> None:
    id_ = candidate(world, "one")
    for name in ("ada", "bo"):
        with pytest.raises(FleetError, match="no targets key"):
            sign(world.releases, id_, world.keys[name])


@pytest.mark.parametrize(("about", "status"), [({"night": 0.2}, Status.FAIL), ({"drives": 36}, Status.INSUFFICIENT)])
def test_without_pass_nobody_can_sign(world: World, about: dict[str, Any], status: Status) -> None:
    id_ = candidate(world, "blind", **about)
    assert state(world, id_) is State.CANDIDATE
    with pytest.raises(FleetError, match="has no PASS") as caught:
        sign(world.releases, id_, world.keys[DEE])
    assert f": {status}" in str(caught.value.where)


def test_a_release_below_the_fleets_floor_is_neither_signed_nor_rolled_back_to(world: World) -> None:
    first = released(world, "first", seed=1)
    released(world, "second", seed=2)
    night = {"class": "pedestrian", "light": "night"}
    floor = Floor(demands=(Demand("recall", night, 890_000),))
    (world.releases.folder / "floor.json").write_text(json.dumps(floor.to_document()))
    with pytest.raises(FleetError, match="below the floor"):
        roll_back(world.releases, first)
    with pytest.raises(FleetError, match="below the floor"):
        sign(world.releases, candidate(world, "third", seed=3), world.keys[DEE])


def test_a_looser_gate_needs_the_name_of_an_approver(world: World) -> None:
    """Whatever the installation that evaluated knew; going back to a stricter or looser release is no new gate."""
    strict = released(world, "strict")
    looser = TEXT.replace("motion: each}, limit: 0.7}", "motion: each}, limit: 0.65}")
    with pytest.raises(FleetError, match="nobody approved it: vehicle recall"):
        sign(world.releases, candidate(world, "unnamed", seed=2, text=looser), world.keys[DEE])
    approvals = "\n".join(
        f"- {{loosened: '{name} recall, motion={motion}: limit 0.7 -> 0.65', by: BY, why: Tried.}}"
        for name in ("vehicle", "cyclist")
        for motion in ("moving", "standing")
    )
    looser = f"{looser}approvals:\n{approvals}\n"
    with pytest.raises(FleetError, match="ada cannot approve") as caught:  # she holds a key of root
        sign(world.releases, candidate(world, "ada", seed=3, text=looser.replace("BY", "ada")), world.keys[DEE])
    assert caught.value.remedy == "One of dee, eli, fay can."
    loose = released(world, "loose", seed=4, text=looser.replace("BY", ELI))
    for id_ in (strict, loose):
        roll_back(world.releases, id_)
        approve(world, id_)
        publish(world.releases, id_)


# ---- what was changed after it was judged ----------------------------------------------------------------------------


def repacked(world: World, id_: str, change: Callable[[Path], None]) -> str:
    """The candidate with a changed payload and a manifest, archive and id that fit it."""
    folder = world.folder / "repacked"
    payload = unpack(world.releases.archive(id_), folder)
    change(folder)
    (folder / parts_of.MANIFEST).unlink()
    about = payload.manifest
    manifest = parts_of.manifest_of(
        folder, hardware=about["hardware"], profile=about["profile"], runtime=about["runtime"]
    )
    (folder / parts_of.MANIFEST).write_text(json.dumps(manifest))
    parts_of.pack(folder, world.folder / "new.tar")
    new = hash_file(world.folder / "new.tar")[1]
    shutil.copytree(world.releases.candidate(id_), world.releases.candidate(new))
    shutil.move(world.folder / "new.tar", world.releases.archive(new))
    return new


def requantised(folder: Path) -> None:
    shutil.rmtree(folder / "model")
    make_model(folder / "model", seed=99)


def other_features(folder: Path) -> None:
    """Those of another bundle, with the key that they are signed with."""
    other = folder.with_name("other")
    other.mkdir()
    key = make_features(other, seed=99)
    shutil.rmtree(folder / "features")
    shutil.copytree(other / "features", folder / "features")
    key.public.write(folder / "features.pub")


def lower_threshold(folder: Path) -> None:
    (folder / "model" / "model.json").write_text(json.dumps({**description(), "thresholds_ppm": [1, 1, 1]}))


def better_counts(folder: Path) -> None:
    verdict = json.loads((folder / "verdict.json").read_bytes())
    verdict["cells"][0]["hits"] += 5
    (folder / "verdict.json").write_text(json.dumps(verdict))


def better_bound(folder: Path) -> None:
    verdict = json.loads((folder / "verdict.json").read_bytes())
    verdict["cells"][0]["bound_ppm"] += 1
    (folder / "verdict.json").write_text(json.dumps(verdict))


def no_purpose(folder: Path) -> None:
    evidence = json.loads((folder / "evidence.json").read_bytes())
    evidence["un_r156"]["purpose"] = ""
    (folder / "evidence.json").write_text(json.dumps(evidence))


CHANGES = [
    (requantised, "another model"),
    (other_features, "another feature bundle"),
    (lower_threshold, "another model"),
    (better_counts, "its counts say"),
    (better_bound, "its counts say"),
    (no_purpose, "says nothing in un_r156.purpose"),
]


@pytest.mark.parametrize(("change", "what"), CHANGES)
def test_a_repacked_candidate_is_refused_at_signing(world: World, change: Callable[[Path], None], what: str) -> None:
    new = repacked(world, candidate(world, "one"), change)
    with pytest.raises(FleetError, match=what):
        sign(world.releases, new, world.keys[DEE])


@pytest.mark.parametrize("stage", ["signing", "deploy"])
def test_an_edited_archive_is_refused(world: World, stage: str) -> None:
    id_ = candidate(world, "one")
    if stage == "deploy":
        approve(world, id_)
    archive = world.releases.archive(id_)
    content = bytearray(archive.read_bytes())
    content[content.index(b"MatMul")] ^= 1
    archive.write_bytes(content)
    with pytest.raises(FleetError, match="was changed"):
        sign(world.releases, id_, world.keys[DEE]) if stage == "signing" else publish(world.releases, id_)


def test_a_signature_for_one_release_is_none_for_another(world: World) -> None:
    one, two = candidate(world, "one", seed=1), candidate(world, "two", seed=2)
    approve(world, one)
    sign(world.releases, two, world.keys[DEE])
    mine, other = (world.releases.candidate(id_) / "targets.json" for id_ in (one, two))
    document = json.loads(other.read_bytes())
    document["signatures"] = json.loads(mine.read_bytes())["signatures"]
    other.write_text(json.dumps(document))
    with pytest.raises(FleetError, match="signed by nobody; 2 more"):
        publish(world.releases, two)


def test_an_approval_that_the_channel_has_overtaken_counts_no_more(world: World) -> None:
    one, two = candidate(world, "one", seed=1), candidate(world, "two", seed=2)
    approve(world, one)
    approve(world, two)
    publish(world.releases, two)
    with pytest.raises(FleetError, match="Nobody has signed"):
        publish(world.releases, one)
    approve(world, one)
    assert publish(world.releases, one).targets == 2


def test_an_approval_points_to_nothing_but_its_release(world: World) -> None:
    """Who can write to the folder cannot slip another target in: it is part of what was signed."""
    id_ = candidate(world, "one")
    approve(world, id_)
    path = world.releases.candidate(id_) / "targets.json"
    document = json.loads(path.read_bytes())
    targets = document["signed"]["targets"]
    targets["other/release.tar"] = targets[f"{HARDWARE}/release.tar"]
    path.write_text(json.dumps(document))
    with pytest.raises(FleetError, match="signed by nobody"):
        publish(world.releases, id_)


@pytest.mark.parametrize("when", ["before signing", "after signing"])
def test_a_delta_that_was_changed_is_refused(world: World, when: str) -> None:
    released(world, "one", seed=1)
    id_ = candidate(world, "two", seed=2)
    sign(world.releases, id_, world.keys[DEE])
    (delta,) = world.releases.candidate(id_).glob("from-*.delta")
    content = bytearray(delta.read_bytes())
    if when == "after signing":
        sign(world.releases, id_, world.keys[ELI])
    content[-20] ^= 1
    delta.write_bytes(content)
    with pytest.raises(FleetError, match=r"does not (give|fit)|was changed after it was signed"):
        sign(world.releases, id_, world.keys[ELI]) if when == "before signing" else publish(world.releases, id_)


def test_renewing_keeps_the_delta_and_other_releases_have_their_own(world: World) -> None:
    first, second = (released(world, name, seed=seed) for seed, name in enumerate(("one", "two"), start=1))

    def offered() -> set[str]:
        published = world.releases.published()
        assert published is not None
        return {path.partition("from-")[2].removesuffix(".delta") for path in published.signed.targets} - {""}

    assert offered() == {first}
    renew(world.releases, second)
    approve(world, second)
    assert publish(world.releases, second).targets == 3
    assert offered() == {first}
    roll_back(world.releases, first)
    approve(world, first)
    publish(world.releases, first)
    assert offered() == {second}


def test_the_channel_has_no_key_that_approves(world: World) -> None:
    root = world.releases.roots.current()
    online = {hash_ for role in ("snapshot", "timestamp") for hash_ in root.roles[role].keyids}
    assert not online & {*root.roles["root"].keyids, *root.roles["targets"].keyids}
    assert {path.name for path in world.releases.online.iterdir()} == {
        ".lock", "passphrase", "snapshot", "snapshot.pub", "timestamp", "timestamp.pub",
    }  # fmt: skip
    assert world.releases.online.stat().st_mode & 0o777 == 0o700
    assert all((world.releases.online / name).stat().st_mode & 0o077 == 0 for name in ("passphrase", "snapshot"))


def test_renewing_keeps_the_release_and_its_trace(world: World) -> None:
    id_ = released(world, "one")
    renew(world.releases, id_)
    for name in (ELI, FAY):
        sign(world.releases, id_, world.keys[name])
    assert publish(world.releases, id_).targets == 2
    assert {row["holder"] for row in trace_of(world.releases, id_)["approvers"]} == {ELI, FAY}


# ---- where it comes from ---------------------------------------------------------------------------------------------


def test_a_trace_goes_from_the_artefact_to_drives_and_approvers(world: World, tmp_path: Path) -> None:
    id_ = released(world, "one")
    found = trace_of(world.releases, id_[:8])
    assert (found["release"], found["state"]) == (id_, "released")
    assert {row["holder"] for row in found["approvers"]} == {DEE, ELI}
    night = next(row for row in found["verdict"]["cells"] if row["cell"] == "pedestrian recall, light=night")
    assert (night["positives"], night["drives"]) == (20 * 12 * 2, 20), "fog, and what is far, is outside"
    assert 0.85 * night["positives"] < night["hits"] < 0.95 * night["positives"]
    assert found["dataset"]["commit"] == "c0ffee"
    assert found["dataset"]["drives"]["train"] == ["car1--20260101T080000Z"]
    assert found["features"]["views"]["ego_motion"] == {"version": 1, "identity": "identity"}
    assert found["code"]["commit"] == "abc"
    (tmp_path / "report.json").write_text(json.dumps({"release": id_}))
    assert trace_of(world.releases, str(tmp_path / "report.json")) == found
    with pytest.raises(FleetError, match="names no release"):
        trace_of(world.releases, "0" * 12)


def test_a_verdict_that_its_evaluation_does_not_give_is_refused(world: World) -> None:
    parts = make_parts(world.folder / "one")
    id_ = build_candidate(world.releases, parts, HARDWARE, load_release_policy())
    approve(world, id_)
    judged(parts, night=0.95, seed=1)
    evaluation = world.releases.candidate(id_) / "evaluation"
    shutil.rmtree(evaluation)
    shutil.copytree(parts.evaluation, evaluation)
    with pytest.raises(FleetError, match="not what its evaluation gives"):
        verify_candidate(world.releases, id_)
    with pytest.raises(FleetError, match="not what its evaluation gives"):
        publish(world.releases, id_)  # whoever signed before
    (evaluation / "detections.parquet").unlink()
    with pytest.raises(FleetError, match=r"detections\.parquet"):
        verify_candidate(world.releases, id_)


def test_deploy_judges_anew_what_approvers_were_made_to_sign(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = candidate(world, "blind", night=0.2)
    with monkeypatch.context() as tools:
        tools.setattr(approving, "verify_candidate", lambda releases, id: releases.verdict(id))
        approve(world, blind)
    with pytest.raises(FleetError, match="has no PASS"):
        publish(world.releases, blind)


def test_an_empty_folder_has_no_releases(tmp_path: Path) -> None:
    releases = Releases(tmp_path / "none")
    assert releases.ids() == []
    assert releases.published() is None
    with pytest.raises(FleetError, match="channel is empty"):
        refresh(releases)


def test_nobody_signs_what_somebody_else_wrote_into_an_approval(world: World) -> None:
    released(world, "first", seed=1)
    id_ = candidate(world, "one", seed=2)
    evil = candidate(world, "evil", seed=3)
    sign(world.releases, id_, world.keys[DEE])
    path = world.releases.candidate(id_) / "targets.json"
    document = json.loads(path.read_bytes())
    document["signed"]["targets"][f"{HARDWARE}/release.tar"]["hashes"]["sha256"] = evil
    path.write_text(json.dumps(document))
    with pytest.raises(FleetError, match="approval was changed"):
        sign(world.releases, id_, world.keys[ELI])
    path.unlink()
    targets = world.channel / "metadata" / "1.targets.json"
    document = json.loads(targets.read_bytes())
    document["signed"]["targets"]["other/release.tar"] = document["signed"]["targets"][f"{HARDWARE}/release.tar"]
    targets.write_text(json.dumps(document))
    with pytest.raises(FleetError, match="not signed by approvers"):
        sign(world.releases, id_, world.keys[ELI])


def test_what_is_signed_along_is_looked_at_too(world: World) -> None:
    """Two keys that leaked have signed metadata in the channel that points another class of vehicles to something without PASS:
    approvers of an honest release must not carry it on."""
    released(world, "first", seed=1)
    honest, evil = candidate(world, "honest", seed=2), candidate(world, "evil", seed=3, night=0.2)
    published = world.releases.published()
    assert published is not None
    target = published.signed.targets[f"{HARDWARE}/release.tar"]
    published.signed.targets["other/release.tar"] = TargetFile(
        target.length, {"sha256": evil}, "other/release.tar", target.unrecognized_fields
    )
    published.signed.version = 2
    published.signatures.clear()
    for name in (DEE, ELI):
        tuf.add_signature(published, world.keys[name])
    metadata = world.channel / "metadata"
    (metadata / "2.targets.json").write_bytes(published.to_bytes())
    stamp = json.loads((metadata / "timestamp.json").read_bytes())
    snapshot = metadata / f"{stamp['signed']['meta']['snapshot.json']['version']}.snapshot.json"
    document = json.loads(snapshot.read_bytes())
    document["signed"]["meta"]["targets.json"] = {"version": 2}
    snapshot.write_text(json.dumps(document))
    assert carried_by(world.releases, honest) == {evil: "other"}
    with pytest.raises(FleetError, match=f"{evil[:12]} has no PASS"):
        sign(world.releases, honest, world.keys[FAY])


def test_an_approval_of_one_release_is_not_published_as_another(world: World) -> None:
    one, two = candidate(world, "one", seed=1), candidate(world, "two", seed=2)
    approve(world, one)
    shutil.copyfile(world.releases.candidate(one) / "targets.json", world.releases.candidate(two) / "targets.json")
    with pytest.raises(FleetError, match="Nobody has signed"):
        publish(world.releases, two)

"""Releases on the command line, as approvers and the channel's operator run them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from evaluate.test_gate_file import TEXT
from package.parts import candidate, make_world, released
from typer.testing import CliRunner

from fleet_assets.cli import app
from fleet_assets.errors import FleetError
from fleet_assets.throw_away import APPROVERS
from fleet_assets.throw_away import run as fleet


def test_who_signs_is_shown_what_the_gate_loosens(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    released(world, "strict")
    looser = TEXT.replace("motion: each}, limit: 0.7}", "motion: each}, limit: 0.65}")
    approvals = "\n".join(
        f"- {{loosened: '{name} recall, motion={motion}: limit 0.7 -> 0.65', by: {APPROVERS[1]}, why: Tried.}}"
        for name in ("vehicle", "cyclist")
        for motion in ("moving", "standing")
    )
    id_ = candidate(world, "loose", seed=2, text=f"{looser}approvals:\n{approvals}\n")
    arguments = ("release", "sign", id_, *world.ceremony.with_key(APPROVERS[0]), "--releases", world.releases.folder)
    told = CliRunner().invoke(app, [*map(str, arguments)])
    assert told.exit_code == 0, told.output
    assert "Its gate is looser than that of the release before" in told.output
    assert APPROVERS[1] in told.output
    assert "Signed with it" not in told.output


def test_from_candidate_to_trace(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    where = ("--releases", world.releases.folder)
    online = fleet("release", "online", *where)
    assert {row["role"]: row["id"] for row in online} == {
        role: world.releases.roots.current().roles[role].keyids[0] for role in ("snapshot", "timestamp")
    }

    def sign(id_: str, holder: str) -> Any:
        return fleet("release", "sign", id_[:12], *world.ceremony.with_key(holder), *where)

    blind = candidate(world, "blind", seed=3, night=0.05)
    with pytest.raises(FleetError, match="has no PASS"):
        sign(blind, APPROVERS[0])
    good = [candidate(world, f"good{seed}", seed=seed) for seed in (1, 2)]
    for version, id_ in enumerate(good, start=1):
        assert [sign(id_, holder)["missing"] for holder in APPROVERS[:2]] == [1, 0]
        assert fleet("release", "publish", id_[:12], *where)[0]["targets"] == version
    listed = {row["release"]: row for row in fleet("release", "list", *where)}
    assert {id_[:12]: listed[id_[:12]]["state"] for id_ in (blind, *good)} == {
        blind[:12]: "candidate", good[0][:12]: "retired", good[1][:12]: "released",
    }  # fmt: skip
    assert "pedestrian recall, light=night" in listed[blind[:12]]["blocked_by"]
    shown = fleet("release", "show", blind[:8], *where)
    assert shown["cells"][0]["status"] == "FAIL"
    assert fleet("release", "rollback", good[0], *where)["version"] == 3
    for holder in APPROVERS[1:]:
        sign(good[0], holder)
    before = fleet("release", "publish", good[0], *where)[0]
    assert fleet("release", "refresh", *where)[0]["timestamp"] == before["timestamp"] + 1
    assert fleet("release", "renew", good[0], *where)["missing"] == 2
    found = fleet("trace", good[0][:12], *where)
    assert (found["state"], found["dataset"]["commit"]) == ("released", "c0ffee")

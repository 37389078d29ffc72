"""The command line of a safety engineer: gates, verdicts, and what became looser."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluate.made import evidence
from evaluate.test_gate_file import TEXT, own

from fleet_assets.errors import FleetError
from fleet_assets.evaluate.gate import Judgement
from fleet_assets.evaluate.record import EVIDENCE, evidence_sha256, write_record
from fleet_assets.evaluate.run import Released, evaluate
from fleet_assets.package.releases import Releases
from fleet_assets.services.home import Home
from fleet_assets.throw_away import APPROVERS, hold

Fleet = Callable[..., Any]


def record(folder: Path, night: float) -> Path:
    found = evidence(
        recall=lambda name, light: night if (name, light) == ("pedestrian", "night") else 0.9,
        passes={"camera_missing": lambda name, light: 0.6},
    )
    bound_to = {"artefact_sha256": "a" * 64, EVIDENCE: evidence_sha256(found)}
    write_record(folder, own(), found, Judgement(own(), found).verdict(candidates_judged=1, bound_to=bound_to))
    return folder


def test_a_verdict_is_shown_and_says_what_blocks(fleet: Fleet, tmp_path: Path) -> None:
    good, bad = record(tmp_path / "good", 0.9), record(tmp_path / "bad", 0.2)
    assert {row["status"] for row in fleet("gate", "show", good)} == {"PASS"}
    rows = fleet("gate", "show", bad, exit_code=3)
    assert rows[0]["status"] == "FAIL"
    assert "pedestrian recall, light=night" in {row["cell"] for row in rows if row["status"] == "FAIL"}
    assert all(row["average_precision"] is not None for row in rows if row["cell"].startswith("vehicle recall"))
    alone = fleet("gate", "show", bad / "verdict.json", exit_code=3)
    assert [row["cell"] for row in alone] == [row["cell"] for row in rows]


def test_gates_are_listed_shown_and_their_mistakes_named(fleet: Fleet, tmp_path: Path) -> None:
    assert {row["profile"] for row in fleet("gate", "check")} == {"demo", "full"}
    (tmp_path / "own.yaml").write_text(TEXT)
    assert len(fleet("gate", "show", tmp_path / "own.yaml")) == len(own().limits) + len(own().fairness)
    (tmp_path / "wrong.yaml").write_text(TEXT.replace("limit: 0.57", "limit: 57"))
    assert len(fleet("gate", "check", tmp_path / "own.yaml", tmp_path / "wrong.yaml", exit_code=3)) == 1


def test_a_looser_gate_shows_as_a_difference_and_needs_the_name_of_an_approver(
    fleet: Fleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.yaml", tmp_path / "new.yaml"
    old.write_text(TEXT)
    looser = TEXT.replace("light: each}, limit: 0.57", "light: each}, limit: 0.5")
    new.write_text(looser)
    where = ("--releases", tmp_path / "releases")
    rows = fleet("gate", "diff", old, new, *where, exit_code=1)
    assert len(rows) == 3
    assert all(row["loosens"] and row["approved_by"] is None for row in rows)
    approvals = [{"loosened": row["change"], "by": "Ada Example", "why": "More rain in the data."} for row in rows]
    new.write_text(f"{looser}approvals: {json.dumps(approvals)}\n")
    assert {row["approved_by"] for row in fleet("gate", "diff", old, new, *where)} == {"Ada Example"}
    assert "any name counts here" in capsys.readouterr().err
    assert not any(row["loosens"] for row in fleet("gate", "diff", new, old, *where))
    hold(Releases(tmp_path / "releases"), tmp_path / "keys")
    fleet("gate", "diff", old, new, *where, exit_code=1)
    assert "One of dee, eli, fay can" in capsys.readouterr().err
    new.write_text(new.read_text().replace("Ada Example", APPROVERS[0]))
    assert {row["approved_by"] for row in fleet("gate", "diff", old, new, *where)} == {APPROVERS[0]}


@pytest.mark.parametrize("what", ["none", "none.json"])
def test_what_is_not_there_is_an_error(fleet: Fleet, what: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        fleet("gate", "show", what, exit_code=1)


def test_an_evaluation_asks_the_roles_of_its_installation(tmp_path: Path) -> None:
    """Before a root there is none to ask; in both cases it comes to the model, which is not there."""
    home = Home.open(tmp_path / "home")
    text = TEXT.replace("[vehicle, cyclist], motion: each}", "vehicle, motion: each}")
    gone = [f"cyclist recall, motion={motion}: no longer judged" for motion in ("moving", "standing")]
    nothing: Any = None

    def judge(by: str) -> None:
        approvals = json.dumps([{"loosened": one, "by": by, "why": "Tried."} for one in gone])
        released = Released(tmp_path / "record", tmp_path / "none")
        gate = own(f"{text}approvals: {approvals}\n")
        evaluate(home, tmp_path / "none", nothing, gate, tmp_path / "new", bound_to={}, released=released)

    record(tmp_path / "record", 0.9)
    with pytest.raises(FleetError, match="Cannot read"):
        judge("Ada Example")
    hold(Releases(home.releases), tmp_path / "keys")
    with pytest.raises(FleetError, match="Ada Example cannot approve"):
        judge("Ada Example")
    with pytest.raises(FleetError, match="Cannot read"):
        judge(APPROVERS[1])

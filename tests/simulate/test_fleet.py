"""`fleet simulate`: even fleets, the same for the same seed, and the command's answers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fleet_assets.capture.deliver import deliver
from fleet_assets.cli import app
from fleet_assets.errors import FleetError
from fleet_assets.simulate.conditions import light_at
from fleet_assets.simulate.faults import FAULTS
from fleet_assets.simulate.fleet import VEHICLES, plan_fleet


def simulate(*arguments: object) -> Any:
    done = CliRunner().invoke(app, ["simulate", *map(str, arguments), "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    return json.loads(done.stdout)


def test_a_fleet_is_even_and_grows_at_its_end() -> None:
    plans = plan_fleet(36, 5)
    kinds = Counter((plan.region, plan.light, plan.weather) for plan in plans)
    assert len(kinds) == 18
    assert set(kinds.values()) == {2}
    assert all(light_at(plan.start, plan.region) == plan.light for plan in plans)
    assert len({(plan.vehicle, plan.start) for plan in plans}) == len({plan.seed for plan in plans}) == 36
    assert len({plan.vehicle for plan in plans}) == VEHICLES
    assert plan_fleet(5, 5) == plans[:5] != plan_fleet(5, 6)
    assert {(plan.vehicle, plan.light) for plan in plan_fleet(7, 0, vehicle="car7", light="night")} == {
        ("car7", "night")
    }


def test_the_command_writes_recordings_that_can_be_delivered(tmp_path: Path) -> None:
    options = ("--drives", 2, "--seed", 3, "--duration", 1, "--faults", "drops,jitter:imu", "--faults", "bursts")
    rows = simulate(*options, "--out", tmp_path / "a")
    again = simulate(*options, "--out", tmp_path / "b")
    assert [row["bytes"] for row in rows] == [row["bytes"] for row in again]
    for row, other in zip(rows, again, strict=True):
        path = Path(row["file"])
        assert path.read_bytes() == Path(other["file"]).read_bytes()
        truth = json.loads(path.with_suffix(".truth.json").read_text())
        assert {fault["name"] for fault in truth["faults"]} == {"drops", "jitter", "bursts"}
        assert truth["light"] == row["light"]
        assert sum(stream["messages"] for stream in truth["streams"].values()) == row["messages"]
        (tmp_path / "landing").mkdir(exist_ok=True)
        assert deliver(path, tmp_path / "landing").drive_id.startswith(f"{row['vehicle']}--")


def test_faults_are_listed() -> None:
    assert [row["name"] for row in simulate("--faults", "list")] == list(FAULTS)


def test_what_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for arguments, said in (
        (["--region", "atlantis"], "No region is called atlantis"),
        (["--setup", "huge"], "No setup is called huge"),
        (["--faults", "gremlins"], "No fault is called gremlins"),
        (["--out", tmp_path / "file" / "under"], "cannot be written"),
    ):
        with pytest.raises(FleetError, match=said):
            simulate("--out", tmp_path, "--duration", 1, *arguments)

"""The bake-off and its record: every form is tried, the best wins, and MLflow can tell from what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from train.tiny import RECIPE, random_frames

from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home
from fleet_assets.train.bake_off import BUDGETS, Budget, bake_off
from fleet_assets.train.rig import vehicle_rig
from fleet_assets.train.tracking import Tracker, code_sha256, store_uri

pytestmark = pytest.mark.slow


def test_all_forms_compete_and_the_least_loss_wins(tmp_path: Path) -> None:
    frames, validation = random_frames(0, 4), random_frames(1, 4)
    budget = Budget(("radar", "lidar"), 3, 2, replace(RECIPE, steps=9))
    told = []
    made = bake_off(frames, validation, budget, vehicle_rig(), tmp_path, done=lambda trial, fitted: told.append(trial))
    assert told == made.trials
    assert [trial.recipe.form for trial in made.trials[:2]] == ["radar", "lidar"]
    assert made.trials[0].recipe.learning_rate == RECIPE.learning_rate
    best = min(made.trials, key=lambda trial: trial.loss)
    assert made.recipe == replace(best.recipe, steps=9)
    assert {row["form"] for row in made.table} == {"radar", "lidar"}
    vehicles = [row for row in made.table if row["class"] == "vehicle" and row["slice"] == "light"]
    assert {row["value"] for row in vehicles} == {"day"}
    assert all(row["positives"] == 4 and row["latency_ms"] > 0 for row in vehicles)
    again = bake_off(frames, validation, budget, vehicle_rig(), tmp_path / "again")
    assert again.trials == made.trials


def test_the_demo_takes_its_one_form(tmp_path: Path) -> None:
    made = bake_off(random_frames(), random_frames(1), BUDGETS["demo"], vehicle_rig(), tmp_path)
    assert (made.recipe, made.trials, list(tmp_path.iterdir())) == (BUDGETS["demo"].recipe, [], [])


@pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow asks SQLAlchemy for what it will drop
def test_runs_are_in_mlflows_own_store(tmp_path: Path) -> None:
    from mlflow.tracking import MlflowClient

    home = Home.open(tmp_path / "home")
    note = tmp_path / "note.json"
    note.write_text("{}")
    versions = {"lakefs_commit": "c0ffee", "code_sha256": code_sha256(), "contracts": {"curate.samples": "1.0.0"}}
    run_id = Tracker(home).record(
        "model", parameters={"steps": 3}, metrics={"pedestrian_recall": 0.5}, versions=versions, losses=[3.0, 2.0, 1.0],
        files=(note,),
    )  # fmt: skip
    assert Tracker(home).experiment_id
    client = MlflowClient(tracking_uri=store_uri(home))
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    assert run.data.params == {"steps": "3"}
    assert run.data.metrics["pedestrian_recall"] == 0.5
    assert run.data.tags["lakefs_commit"] == "c0ffee"
    assert "curate.samples" in run.data.tags["contracts"]
    assert [point.value for point in client.get_metric_history(run_id, "loss")] == [3.0, 2.0, 1.0]
    assert [one.path for one in client.list_artifacts(run_id)] == ["note.json"]
    assert (home.root / "mlflow").stat().st_mode & 0o077 == 0


def test_a_form_that_is_not_known_is_refused(tmp_path: Path) -> None:
    budget = Budget(("deep",), 1, 1, RECIPE)
    with pytest.raises(FleetError, match="No form"):
        bake_off(random_frames(count=2), random_frames(1, 2), budget, vehicle_rig(), tmp_path)

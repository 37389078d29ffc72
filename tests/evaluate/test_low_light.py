"""The case that must work by construction: better on average, blind to pedestrians at night, and it does not ship.

Two small models are trained; it takes two to three minutes on two threads.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import dagster as dg
import numpy as np
import pytest
from evaluate.low_light import made, trained

from fleet_assets.edge.verdict import Status, Verdict
from fleet_assets.evaluate.assets import REPORT, VERDICT, verdict
from fleet_assets.evaluate.gate_file import Gate, parse_gate
from fleet_assets.evaluate.record import verify
from fleet_assets.evaluate.run import Evaluated, Released, evaluate
from fleet_assets.services.home import Home
from fleet_assets.train.frames import FrameSet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

GATE = """\
name: low_light
version: 1.0.0
profile: full
description: Every class by light.
level: 0.05
match_radius_m: 2
equal_precision: 0.6
distance_m: [0, 15, 30, 48]
minimum: {drives: 10, positives: 60}
domain:
  light: [day, dusk, night]
  weather: [clear, rain, fog]
  region: [munich, hamburg]
limits:
- {metric: recall, where: {class: vehicle, light: each}, limit: 0.8}
- {metric: recall, where: {class: pedestrian, light: each}, limit: 0.25}
- {metric: precision, where: {class: [vehicle, pedestrian], light: each}, limit: 0.4}
"""
SLICE = "pedestrian recall, light=night"


class Case(NamedTuple):
    released: Evaluated
    candidate: Evaluated
    records: Path
    models: tuple[Path, Path]
    judged: FrameSet


def gate() -> Gate:
    return parse_gate(GATE, Path("low_light.yaml"))


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, home: Home) -> Case:
    folder = tmp_path_factory.mktemp("low_light")
    sets = made(folder, seed=0)
    judged = sets.judged
    old, new = trained(sets, folder)
    records = folder / "records"
    released = evaluate(home, old, judged, gate(), records / "released", bound_to={"dataset": "released"})
    candidate = evaluate(
        home, new, judged, gate(), records / "candidate", bound_to={"dataset": "candidate"},
        released=Released(records / "released", old),
    )  # fmt: skip
    return Case(released, candidate, records, (old, new), judged)


def recall_at_night(verdict: Verdict) -> int:
    return next(cell.estimate_ppm for cell in verdict.cells if cell.name == SLICE)


def test_better_on_average_blind_at_night_and_it_does_not_ship(case: Case) -> None:
    released, candidate = case.released, case.candidate
    assert released.verdict.status is Status.PASS, [cell.name for cell in released.verdict.blocking]

    assert candidate.report["mean_average_precision"] > released.report["mean_average_precision"]
    assert recall_at_night(candidate.verdict) < recall_at_night(released.verdict)
    assert candidate.verdict.status is Status.FAIL
    assert SLICE in {cell.name for cell in candidate.verdict.cells if cell.status is Status.FAIL}


def test_the_report_says_what_got_worse_and_how_surely(case: Case) -> None:
    differences = {one["name"]: one for one in case.candidate.report["against_released"]}
    assert differences[SLICE]["is_worse"]
    assert differences["mean average precision"]["difference"] > 0
    night = next(one for one in case.candidate.report["cells"] if one["cell"] == SLICE)
    assert night["bootstrap_bound"] < night["limit"]
    # Blind, and not only shifted: at equal precision it finds less too.
    before = next(one for one in case.released.report["cells"] if one["cell"] == SLICE)
    assert night["recall_at_equal_precision"] < before["recall_at_equal_precision"]


def test_anyone_finds_the_same_verdict_from_the_record(case: Case) -> None:
    assert verify(case.records / "candidate") == case.candidate.verdict
    assert case.candidate.verdict.candidates_judged == 2


def test_too_few_pedestrians_at_night_are_insufficient_and_it_says_how_many_drives_are_needed(
    case: Case, home: Home, tmp_path: Path
) -> None:
    """The released model, on the same drives but eight of the night."""
    night = np.unique(case.judged.drive[case.judged.slices["light"] == "night"])
    few = case.judged.only(~np.isin(case.judged.drive, night[8:]))
    found = evaluate(home, case.models[0], few, gate(), tmp_path / "few", bound_to={"dataset": "few"})
    cell = next(cell for cell in found.verdict.cells if cell.name == SLICE)
    assert (found.verdict.status, cell.status) == (Status.INSUFFICIENT, Status.INSUFFICIENT)
    assert cell.drives <= 8
    assert cell.drives_needed >= 10


def test_the_check_stops_what_comes_after_it_in_the_same_run(case: Case) -> None:
    judged = {"record": str(case.records / "candidate"), "model": str(case.models[1])}
    shipped = []

    @dg.asset(deps=[VERDICT])
    def release() -> None:
        shipped.append("the candidate")

    with dg.DagsterInstance.ephemeral() as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization(REPORT, metadata=judged))
        result = dg.materialize([verdict, release], instance=instance, raise_on_error=False)
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert "| pedestrian recall, light=night | FAIL |" in str(check.metadata["cells"].value)
    assert not result.success
    assert not shipped

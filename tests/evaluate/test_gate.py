"""From evidence to verdict: what is counted, what blocks, and that the verdict says where."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evaluate.made import FRAMES, PER_CLASS, evidence
from evaluate.test_gate_file import TEXT, own

from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.verdict import Status, Verdict
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.evidence import NOMINAL, Evidence
from fleet_assets.evaluate.gate import Judgement, mean_average_precision
from fleet_assets.evaluate.gate_file import Gate

BOUND_TO = {"artefact_sha256": "a" * 64}
REHEARSED = {"camera_missing": lambda class_name, light: 0.6}


def verdict(found: Evidence, gate: Gate | None = None, candidates: int = 1) -> Verdict:
    return Judgement(gate or own(), found).verdict(candidates_judged=candidates, bound_to=BOUND_TO)


def cell(found: Verdict, name: str) -> Status:
    return {one.name: one.status for one in found.cells}[name]


def test_a_good_model_passes_and_the_document_says_the_same() -> None:
    found = verdict(evidence(passes=REHEARSED))
    assert found.status is Status.PASS, [(one.name, one) for one in found.blocking]
    assert len(found.cells) == len(own().limits) + len(own().fairness)
    assert Verdict.from_document(found.to_document()) == found
    found.check()


def test_a_model_that_is_blind_in_one_slice_fails_there_and_nowhere_else() -> None:
    found = verdict(
        evidence(recall=lambda name, light: 0.3 if (name, light) == ("pedestrian", "night") else 0.95, passes=REHEARSED)
    )
    assert found.status is Status.FAIL
    failed = {one.name for one in found.cells if one.status is Status.FAIL}
    assert "pedestrian recall, light=night" in failed
    assert all("pedestrian" in name and ("night" in name or "fairness" in name) for name in failed)


def test_false_detections_fail_precision_and_not_recall() -> None:
    found = verdict(evidence(precision=0.5, passes=REHEARSED))
    assert {one.metric for one in found.blocking} == {"precision"}


def test_too_little_data_blocks_and_says_how_much_is_needed() -> None:
    found = verdict(evidence(drives=12, passes=REHEARSED))
    assert found.status is Status.INSUFFICIENT
    night = next(one for one in found.cells if one.name == "pedestrian recall, light=night")
    assert (night.status, night.drives) == (Status.INSUFFICIENT, 3)  # one of four is in fog
    assert night.drives_needed >= 10


def test_a_slice_of_the_domain_that_no_drive_has_is_insufficient() -> None:
    gate = own(
        TEXT.replace("weather: [clear, rain]", "weather: [clear, rain, snow]").replace("[clear]}", "[clear, snow]}")
    )
    assert cell(verdict(evidence(passes=REHEARSED), gate), "vehicle precision, weather=snow") is Status.INSUFFICIENT


def test_what_is_outside_of_the_operating_domain_is_not_counted_and_named() -> None:
    """Fog is not in the domain, nor are pedestrians beyond 30 m."""
    found = evidence(passes=REHEARSED)
    judgement = Judgement(own(), found)
    rows = judgement.matched().truth
    assert not (rows.slices["weather"] == "fog").any()
    assert not ((rows.slices["class"] == "pedestrian") & (rows.slices["distance"] == "30-48")).any()
    said = verdict(found)
    assert said.excluded == ({"class": "pedestrian", "distance": "30-48"},)
    assert "fog" not in said.domain["weather"]
    assert said.bands_m == judgement.gate.distance_m


def test_detections_of_objects_that_are_not_judged_are_not_false() -> None:
    truth = Objects(*(np.array(v) for v in ([0], [1], [29.8], [0.0], [1.0], [30.2], [True], [1.0])))
    found = Objects(*(np.array(v) for v in ([0, 0], [1, 1], [29.5, 5.0], [0.0, 0.0], [0.9, 0.8])))
    one = evidence(drives=1, passes=REHEARSED)
    slices = {name: values[:1] for name, values in one.slices.items()} | {"weather": np.array(["clear"])}
    small = replace(
        one, drive=one.drive[:1], t_ns=one.t_ns[:1], slices=slices, truth=truth,
        passes=dict.fromkeys(one.passes, found),
    )  # fmt: skip
    matched = Judgement(own(), small).matched()
    assert matched.truth.hit.size == 0
    assert matched.found.hit.tolist() == [False]  # the one at 5 m


def test_counts_per_drive_add_up() -> None:
    found = evidence(drives=30, passes=REHEARSED)
    judgement = Judgement(own(), found)
    total = sum(int(judgement.counts(limit).positives.sum()) for limit in judgement.gate.limits[:3])
    near = (found.slices["weather"] != "fog").sum() * PER_CLASS
    beyond = sum(2 + 5.0 * place >= 30 for place in range(1, 3 * PER_CLASS, 3))  # of the pedestrians of a frame
    assert total == near - beyond * (found.slices["weather"] != "fog").sum()
    assert len(found) == 30 * FRAMES


def test_a_rehearsal_has_limits_of_its_own_and_must_have_been_run() -> None:
    blind = verdict(evidence(passes={"camera_missing": lambda class_name, light: 0.1}))
    assert [one.name for one in blind.blocking] == ["pedestrian recall, rehearsal=camera_missing"]
    with pytest.raises(FleetError, match="camera_missing"):
        verdict(evidence())


SCENARIOS = {
    "braking@1.0.0": lambda drive, frame: (drive % 2 == 0) & (frame < 4),
    "crossing@2.1.0": lambda drive, frame: (frame >= 2) & (frame < 9),
    "never@1.0.0": lambda drive, frame: frame < 0,
}
BY_SCENARIO = TEXT.replace(
    "fairness:",
    """\
- {metric: recall, where: {class: pedestrian, scenario: ['braking@1.0.0', 'crossing@2.1.0', 'never@1.0.0']}, limit: 0.57}
- {metric: recall, where: {class: each, light: night, scenario: crossing@2.1.0}, limit: 0.5}
- {metric: precision, where: {class: each, scenario: [braking@1.0.0, crossing@2.1.0], distance: 0-15}, limit: 0.5}
fairness:""",
).replace("where: {class: pedestrian}, limit: 0.3", "where: {class: pedestrian, scenario: braking@1.0.0}, limit: 0.3")


def test_cells_by_scenario_count_what_lies_in_its_frames() -> None:
    """Against a count row by row. A frame may be in several scenarios, and is counted in the cells of each."""
    found = evidence(drives=30, passes=REHEARSED, scenarios=SCENARIOS)
    judgement = Judgement(own(BY_SCENARIO), found)
    said = {one.name: one for one in judgement.verdict(candidates_judged=1, bound_to=BOUND_TO).cells}
    demands = [limit for limit in judgement.gate.limits if "scenario" in limit.slice]
    assert len(demands) == 3 + 3 + 6 + 1
    for limit in demands:
        name = limit.rehearsal or NOMINAL
        rows = judgement.matched(name).rows(limit.metric, found.thresholds_ppm)
        objects = found.truth if limit.metric == "recall" else found.passes[name]
        inside = []  # of each row: whether the cell counts it
        for frame, class_id, x_m, y_m in zip(objects.frame, objects.class_id, objects.x_m, objects.y_m, strict=True):
            told = {"class": CLASSES[class_id], "light": found.slices["light"][frame]}
            told["distance"] = "0-15" if np.hypot(x_m, y_m) < 15 else "15-30" if np.hypot(x_m, y_m) < 30 else "30-48"
            if found.slices["weather"][frame] == "fog" or (told["class"], told["distance"]) == ("pedestrian", "30-48"):
                continue  # outside of the operating domain
            rest = {key: value for key, value in limit.slice.items() if key != "scenario"}
            inside.append(rest.items() <= told.items() and found.scenarios[limit.slice["scenario"]].holds[frame])
        cell_ = said[limit.name]
        assert len(inside) == rows.hit.size
        assert (cell_.positives, cell_.hits) == (sum(inside), int(rows.hit[inside].sum()))
        assert cell_.slice["scenario"] == limit.slice["scenario"]
        assert (cell_.positives == 0) == (limit.slice["scenario"] == "never@1.0.0")
    assert said["pedestrian recall, scenario=never@1.0.0"].status is Status.INSUFFICIENT


def test_a_model_that_is_blind_in_a_scenario_fails_there() -> None:
    found = evidence(passes=REHEARSED, scenarios=SCENARIOS)
    blind = found.scenarios["braking@1.0.0"].holds
    seen = {name: one.only(~(blind[one.frame] & (one.class_id == 1))) for name, one in found.passes.items()}
    said = verdict(replace(found, passes=seen), own(BY_SCENARIO))
    failed = {one.name for one in said.cells if one.status is Status.FAIL}
    assert failed == {
        "pedestrian recall, scenario=braking@1.0.0", "pedestrian recall, scenario=braking@1.0.0, rehearsal=camera_missing",
    }  # fmt: skip
    assert Verdict.from_document(said.to_document()) == said


def test_a_scenario_that_was_not_looked_up_is_an_error() -> None:
    with pytest.raises(FleetError, match=r"not looked up: braking@1\.0\.0, crossing@2\.1\.0"):
        verdict(evidence(passes=REHEARSED, scenarios={"never@1.0.0": SCENARIOS["never@1.0.0"]}), own(BY_SCENARIO))


def test_a_class_that_is_left_behind_is_unfair() -> None:
    found = verdict(evidence(recall=lambda name, light: 0.35 if name == "cyclist" else 0.95, passes=REHEARSED))
    unfair = {one.slice["class"] for one in found.blocking if one.slice.get("fairness") == "class"}
    assert unfair == {"cyclist"}


def test_every_further_candidate_makes_it_harder() -> None:
    found = evidence(passes=REHEARSED)
    bounds = [verdict(found, candidates=count).cells[2].bound_ppm for count in (1, 3, 30)]
    assert bounds == sorted(set(bounds), reverse=True)


def test_the_report_shows_what_is_not_gated() -> None:
    found = evidence(passes=REHEARSED)
    judgement = Judgement(own(), found)
    said = judgement.verdict(candidates_judged=1, bound_to=BOUND_TO)
    for line in judgement.report(said):
        assert abs(line.bootstrap_bound * 1e6 - line.cell.bound_ppm) < 60_000
        if "motion" not in line.cell.slice and line.cell.metric == "recall":
            assert 0.5 < line.average_precision <= 1
            assert line.error_m == pytest.approx(0.3, abs=0.01)
    assert 0.8 < mean_average_precision(judgement.matched(NOMINAL)) < 0.95
    assert len(CLASSES) == 3

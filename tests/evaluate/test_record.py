"""A record gives the same verdict years later, and no other one."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from evaluate.made import FRAMES, evidence
from evaluate.test_gate import BY_SCENARIO, SCENARIOS
from evaluate.test_gate_file import own

from fleet_assets.errors import FleetError
from fleet_assets.evaluate.candidates import candidates_file, count_candidate, refuse_fewer
from fleet_assets.evaluate.gate import Judgement
from fleet_assets.evaluate.record import EVIDENCE, Record, evidence_sha256, read_record, verify, write_record
from fleet_assets.services.home import Home

FOUND = evidence(drives=36, passes={"camera_missing": lambda class_name, light: 0.6})


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records") / "one"
    bound_to = {"artefact_sha256": "a" * 64, EVIDENCE: evidence_sha256(FOUND)}
    write_record(folder, own(), FOUND, Judgement(own(), FOUND).verdict(candidates_judged=2, bound_to=bound_to))
    return folder


@pytest.fixture
def record(written: Path, tmp_path: Path) -> Path:
    return shutil.copytree(written, tmp_path / "record")


def test_the_verdict_comes_back_from_detections_and_truth(written: Path) -> None:
    found = read_record(written)
    assert verify(written) == found.verdict
    assert found.gate == own()
    assert evidence_sha256(found.evidence) == evidence_sha256(FOUND) == found.verdict.bound_to[EVIDENCE]
    np.testing.assert_array_equal(found.evidence.truth.moving, FOUND.truth.moving)


def test_a_record_is_never_replaced_and_never_wrong(written: Path, tmp_path: Path) -> None:
    verdict = read_record(written).verdict
    with pytest.raises(FileExistsError):
        write_record(written, own(), FOUND, verdict)
    with pytest.raises(FleetError, match="not the one on this evidence"):
        write_record(tmp_path / "new", own(), evidence(drives=36, passes={"camera_missing": lambda *_: 0.5}), verdict)


def changed(record: Path, name: str, change: Callable[[Path], None], *, hashes: bool) -> None:
    """Somebody edits a file; and, if they know how, the hash too."""
    change(record / name)
    if hashes:
        document = json.loads((record / "record.json").read_text())
        document["files"][name] = hashlib.sha256((record / name).read_bytes()).hexdigest()
        (record / "record.json").write_text(json.dumps(document))


def column(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        table = pq.read_table(path)
        index = table.schema.get_field_index(name)
        kind = table.schema.field(name).type
        pq.write_table(table.set_column(index, name, pa.array(change(table[name].to_numpy().copy()), kind)), path)

    return edit


def verdict_says(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return edit


def all_pass(document: dict[str, Any]) -> None:
    for cell in document["cells"]:
        cell |= {"status": "PASS", "drives_needed": 0}


EDITS = {
    "all cells pass": ("verdict.json", verdict_says(all_pass)),
    "one hit more": ("verdict.json", verdict_says(lambda d: d["cells"][0].update(hits=d["cells"][0]["hits"] + 1))),
    "fewer candidates": ("verdict.json", verdict_says(lambda d: d.update(candidates_judged=1))),
    "a cell less": ("verdict.json", verdict_says(lambda d: d["cells"].pop())),
    "another artefact's evidence": ("verdict.json", verdict_says(lambda d: d["bound_to"].update({EVIDENCE: "b" * 64}))),
    "surer detections": ("detections.parquet", column("confidence", lambda values: np.ones_like(values))),
    "detections elsewhere": ("detections.parquet", column("x_m", lambda values: values + np.float32(0.1))),
    "fewer labels": ("truth.parquet", column("class_id", lambda values: np.zeros_like(values))),
    "another light": ("frames.parquet", column("light", lambda values: np.full(values.size, "day"))),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_was_edited_is_refused_with_and_without_new_hashes(edit: str, record: Path) -> None:
    name, change = EDITS[edit]
    changed(record, name, change, hashes=False)
    with pytest.raises(FleetError, match="not the file that was recorded"):
        verify(record)
    changed(record, name, lambda path: None, hashes=True)
    with pytest.raises(FleetError, match="verdict"):
        verify(record)


def test_an_edited_gate_is_refused(record: Path) -> None:
    def looser(path: Path) -> None:
        path.write_text(path.read_text().replace("limit: 0.57", "limit: 0.3"))

    changed(record, "gate.yaml", looser, hashes=True)
    with pytest.raises(FleetError, match="verdict"):
        verify(record)


def test_a_pass_without_detections_is_one(tmp_path: Path) -> None:
    blind = evidence(drives=12, passes={"camera_missing": lambda class_name, light: 0.0})
    verdict = Judgement(own(), blind).verdict(candidates_judged=1, bound_to={EVIDENCE: evidence_sha256(blind)})
    write_record(tmp_path / "blind", own(), blind, verdict)
    assert verify(tmp_path / "blind") == verdict


@pytest.fixture
def by_scenario(tmp_path: Path) -> Path:
    found = evidence(drives=36, passes={"camera_missing": lambda class_name, light: 0.6}, scenarios=SCENARIOS)
    gate = own(BY_SCENARIO)
    verdict = Judgement(gate, found).verdict(candidates_judged=1, bound_to={EVIDENCE: evidence_sha256(found)})
    write_record(tmp_path / "record", gate, found, verdict)
    return tmp_path / "record"


def test_a_record_tells_which_frames_were_in_a_scenario_and_what_that_meant(by_scenario: Path) -> None:
    found = read_record(by_scenario)
    assert verify(by_scenario) == found.verdict
    assert found.evidence.scenarios.keys() == SCENARIOS.keys()
    for name, holds in SCENARIOS.items():
        one = found.evidence.scenarios[name]
        assert one.sha256 == hashlib.sha256(name.encode()).hexdigest()
        np.testing.assert_array_equal(one.holds, holds(found.evidence.drive, np.arange(len(found.evidence)) % FRAMES))


@pytest.mark.parametrize("scenario", ["braking@1.0.0", "never@1.0.0"])
def test_another_membership_or_meaning_is_refused_and_so_is_none(scenario: str, by_scenario: Path) -> None:
    before = (by_scenario / "frames.parquet").read_bytes()
    changed(by_scenario, "frames.parquet", column(f"scenario {scenario}", lambda values: ~values), hashes=True)
    with pytest.raises(FleetError, match="verdict"):
        verify(by_scenario)
    changed(by_scenario, "frames.parquet", lambda path: path.write_bytes(before) and None, hashes=True)
    document = json.loads((by_scenario / "record.json").read_text())
    for other, why in (
        ({**document["scenarios"], scenario: "b" * 64}, "verdict"),
        ({}, "other columns"),
        ([7], "no eval"),
    ):
        (by_scenario / "record.json").write_text(json.dumps({**document, "scenarios": other}))
        with pytest.raises(FleetError, match=why):
            verify(by_scenario)
    (by_scenario / "record.json").write_text(json.dumps(document))
    assert verify(by_scenario)


def test_a_record_of_before_there_were_scenarios_is_one(record: Path) -> None:
    document = json.loads((record / "record.json").read_text())
    assert document.pop("scenarios") == {}
    (record / "record.json").write_text(json.dumps(document))
    assert verify(record) == read_record(record).verdict


DAMAGE = {
    "frame beyond": ("truth.parquet", column("frame", lambda v: np.where(np.arange(v.size) == v.size - 1, 10**6, v))),
    "out of order": ("truth.parquet", column("frame", lambda values: values[::-1])),
    "class unknown": ("detections.parquet", column("class_id", lambda values: values + 7)),
    "not a number": ("detections.parquet", column("x_m", lambda values: values * np.float32("nan"))),
    "drive unknown": ("frames.parquet", column("drive", lambda values: values + 1)),
    "no parquet": ("truth.parquet", lambda path: path.write_bytes(b"PAR1nothing")),
    "other columns": ("truth.parquet", lambda path: pq.write_table(pa.table({"a": [1]}), path)),
    "gone": ("truth.parquet", lambda path: path.unlink()),
    "no gate": ("gate.yaml", lambda path: path.write_text("[]")),
    "no verdict": ("verdict.json", lambda path: path.write_text("[]")),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named(damage: str, record: Path) -> None:
    name, change = DAMAGE[damage]
    changed(record, name, change, hashes=damage != "gone")
    with pytest.raises(FleetError, match=name.replace(".", r"\.")):
        verify(record)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"_type": "evaluation-record"}', "[" * 100_000, '{"a": 1, "a": 2}']
)
def test_what_is_no_record_is_refused(content: str, record: Path) -> None:
    (record / "record.json").write_text(content)
    with pytest.raises(FleetError, match="record"):
        verify(record)


def test_a_verdict_that_counts_fewer_candidates_than_were_judged_is_refused(home: Home) -> None:
    first, second, third = "1" * 64, "2" * 64, "3" * 64
    count_candidate(home, third, ["elsewhere"])
    for artefact in (second, first):  # in the order in which they came
        count_candidate(home, artefact, FOUND.drives)

    def judged(artefact: str, candidates: int) -> Record:
        bound_to = {"artefact_sha256": artefact}
        found = Judgement(own(), FOUND).verdict(candidates_judged=candidates, bound_to=bound_to)
        return Record(own(), FOUND, found)

    refuse_fewer(home, judged(first, 2))
    refuse_fewer(home, judged(second, 1))
    with pytest.raises(FleetError, match="counts 1 candidates, and 2 were judged"):
        refuse_fewer(home, judged(first, 1))
    with pytest.raises(FleetError, match="Nobody wrote down that 333"):
        refuse_fewer(home, judged(third, 9))
    count_candidate(home, second, ["elsewhere"])
    refuse_fewer(home, judged(second, 1))
    count_candidate(home, third, FOUND.drives)
    with pytest.raises(FleetError, match="counts 1 candidates, and 3 were judged"):
        refuse_fewer(home, judged(third, 1))
    candidates_file(home).unlink()


def test_candidates_count_once_each_and_where_drives_are_shared(home: Home) -> None:
    first, second, third = "1" * 64, "2" * 64, "3" * 64
    assert count_candidate(home, first, ["a", "b"]) == 1
    assert count_candidate(home, first, ["a", "b"]) == 1
    assert count_candidate(home, second, ["b", "c"]) == 2
    assert count_candidate(home, third, ["d"]) == 1  # a fresh test set
    assert count_candidate(home, third, ["a", "c", "d"]) == 3
    candidates_file(home).write_text("[")
    with pytest.raises(FleetError, match="damaged"):
        count_candidate(home, first, ["a"])
    candidates_file(home).unlink()

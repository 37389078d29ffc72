"""An evaluation as it is run: on recordings, by the vehicle's code; what its record and its report say."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from evaluate.test_gate_file import TEXT, own
from package.parts import make_model

from fleet_assets.edge.model import DESCRIPTION
from fleet_assets.edge.objects import CLASSES
from fleet_assets.edge.rig import SENSORS
from fleet_assets.edge.verdict import Status
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.evidence import NOMINAL, Scenario
from fleet_assets.evaluate.gate_file import Gate
from fleet_assets.evaluate.record import read_record, verify
from fleet_assets.evaluate.rehearsals import OFFSETS_MS
from fleet_assets.evaluate.run import REPORT, Evaluated, Released, evaluate
from fleet_assets.services.home import Home
from fleet_assets.simulate.drives import write_drive
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames_of_recordings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("drives")
    paths = [folder / "one.mcap", folder / "two.mcap"]
    for number, path in enumerate(paths):
        start = datetime(2026, 1, 5 + number, 10, tzinfo=UTC)
        write_drive(path, seed=number, start=start, duration_s=4.0, region="munich", light="day", weather="clear")
    return paths


@pytest.fixture(scope="module")
def judged(recordings: list[Path]) -> FrameSet:
    return frames_of_recordings(recordings, every_s=0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("model") / "one")


@pytest.fixture(scope="module")
def done(home: Home, model: Path, judged: FrameSet, recordings: list[Path], folder: Path) -> Evaluated:
    of_drive = {path.stem: [path] for path in recordings}
    return evaluate(home, model, judged, own(), folder, bound_to={"dataset": "two"}, recordings=of_drive)


@dataclass(frozen=True)
class Plain:
    """A record without recordings, by a gate without rehearsals; and another like it, against a released model."""

    folder: Path
    again: Callable[..., Evaluated]


@pytest.fixture(scope="module")
def plain(home: Home, model: Path, judged: FrameSet, folder: Path) -> Plain:
    gate = own(TEXT[: TEXT.index("rehearsals:")])

    def again(
        new: Path, released: Released | None, own: Gate = gate, scenarios: dict[str, Scenario] | None = None
    ) -> Evaluated:
        bound_to = {"dataset": "two"}
        return evaluate(home, model, judged, own, new, bound_to=bound_to, released=released, scenarios=scenarios)

    again(folder.with_name("plain"), None)
    return Plain(folder.with_name("plain"), again)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records") / "one"


def test_two_drives_are_too_few_and_the_record_says_the_same(done: Evaluated, folder: Path) -> None:
    assert done.verdict.status is Status.INSUFFICIENT
    assert verify(folder) == done.verdict
    assert "pedestrian recall, rehearsal=camera_missing" in {cell.name for cell in done.verdict.cells}


def test_a_verdict_names_the_machine_and_the_code_that_judged(done: Evaluated) -> None:
    bound_to = done.verdict.bound_to
    assert bound_to["machine"] == platform.machine()
    assert len(bound_to["code_sha256"]) == 64
    assert bound_to["dataset"] == "two"


def test_the_report_has_recall_over_wrong_stamps_and_what_clock_checks_allow(done: Evaluated, folder: Path) -> None:
    report = json.loads((folder / REPORT).read_text())
    rows = report["recall_over_offset"]
    told = {(row["sensor"], row["offset_ms"], row["class"]) for row in rows}
    assert told == {(sensor, ms, name) for sensor in SENSORS for ms in OFFSETS_MS for name in CLASSES}
    unshifted = {(row["class"], row["recall"]) for row in rows if row["offset_ms"] == 0}
    assert len(unshifted) == len(CLASSES), "three sensors, one answer"
    assert report["clock_limits"]["curve_ends_ms"] * 1_000_000 < report["clock_limits"]["residual_ns"]


def test_the_frames_of_recordings_give_what_the_recordings_give(done: Evaluated, plain: Plain, folder: Path) -> None:
    alone, driven = (read_record(one).evidence.passes[NOMINAL] for one in (plain.folder, folder))
    assert len(alone)
    for name in ("frame", "class_id", "x_m", "confidence"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(driven, name))


def test_a_model_against_itself_does_not_differ(plain: Plain, model: Path, tmp_path: Path) -> None:
    report = plain.again(tmp_path / "new", Released(plain.folder, model)).report
    assert report["not_comparable"] is None
    assert {row["difference"] for row in report["against_released"]} == {0.0}


def test_files_that_are_not_the_released_model_are_not_compared_with(plain: Plain, model: Path, tmp_path: Path) -> None:
    """Where a model was made anew in the place of one that was released, it would be compared with itself."""
    other = shutil.copytree(model, tmp_path / "other")
    document = json.loads((other / DESCRIPTION).read_text())
    (other / DESCRIPTION).write_text(json.dumps(document, indent=7))
    found = plain.again(tmp_path / "new", Released(plain.folder, other)).report
    assert "does not hold the model that was released" in found["not_comparable"]
    assert found["against_released"] == []


def test_an_edited_scenario_needs_a_version_of_its_own(plain: Plain, model: Path, tmp_path: Path) -> None:
    """The first time, and after a release that was judged by it; then its file is changed, and the gate is not."""
    rule = "- {metric: recall, where: {class: vehicle, scenario: rain@1.0.0}, limit: 0.5}\nfairness:"
    gate = own(TEXT[: TEXT.index("rehearsals:")].replace("fairness:", rule))
    frames = len(read_record(plain.folder).evidence)
    raining = {"rain@1.0.0": Scenario("a" * 64, np.arange(frames) % 2 == 0)}
    with pytest.raises(FleetError, match=r"not looked up: rain@1\.0\.0"):
        plain.again(tmp_path / "none", None, gate)
    first = plain.again(tmp_path / "one", None, gate, raining)
    [cell] = [cell for cell in first.verdict.cells if cell.slice.get("scenario") == "rain@1.0.0"]
    assert cell.positives > 0
    released = Released(tmp_path / "one", model)
    report = plain.again(tmp_path / "two", released, gate, raining).report
    assert "vehicle recall, scenario=rain@1.0.0" in {row["name"] for row in report["against_released"]}
    edited = {"rain@1.0.0": Scenario("b" * 64, raining["rain@1.0.0"].holds)}
    with pytest.raises(FleetError, match=r"rain@1\.0\.0 is not what it was"):
        plain.again(tmp_path / "three", released, gate, edited)


def test_a_released_model_of_other_inputs_is_not_comparable_and_the_candidate_is_judged(
    plain: Plain, model: Path, tmp_path: Path
) -> None:
    old = shutil.copytree(model, tmp_path / "old")
    document = json.loads((old / DESCRIPTION).read_text())
    (old / DESCRIPTION).write_text(json.dumps({**document, "context": document["context"][:-1]}))
    found = plain.again(tmp_path / "new", Released(plain.folder, old))
    assert "it takes other features" in found.report["not_comparable"]
    assert found.report["against_released"] == []
    assert found.verdict == read_record(tmp_path / "new").verdict

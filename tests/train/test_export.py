"""The artefact that ships: as PyTorch computes, calibrated, and refused when it is not what it was."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from train.conftest import Tiny

from fleet_assets.edge.model import DESCRIPTION, GOLDEN, MODEL, Model
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.errors import FleetError
from fleet_assets.train.calibrate import Calibration, calibrate, hits
from fleet_assets.train.export import detections

pytestmark = pytest.mark.slow


def test_onnx_computes_what_pytorch_does(tiny: Tiny) -> None:
    parity = tiny.exported.parity
    assert parity.full_max < 1e-4
    assert parity.quantised_mean < 0.01
    assert tiny.exported.quantised_bytes < tiny.exported.full_bytes
    for off in (replace(parity, full_max=0.01), replace(parity, quantised_mean=0.1), replace(parity, full_max=np.nan)):
        with pytest.raises(FleetError, match="something else than PyTorch"):
            off.check()


def test_it_finds_what_it_was_shown(tiny: Tiny) -> None:
    """Forty steps are enough to be surer of what is a vehicle than of what is none, in the drives that they were taken from."""
    model = Model.open(tiny.exported.folder)
    found = detections(model, tiny.frames, every=True)
    assert (np.diff(found.frame) >= 0).all()
    assert found.frame.max() < len(tiny.frames)
    vehicles = found.only(found.class_id == CLASSES.index("vehicle"))
    hit = hits(vehicles, tiny.frames.truth)
    surest = vehicles.confidence >= np.sort(vehicles.confidence)[-hit.sum()]
    assert hit[surest].mean() > hit.mean()


def test_frames_are_judged_one_by_one_and_together_alike(tiny: Tiny) -> None:
    model = Model.open(tiny.exported.folder)
    few = tiny.validation.only(np.arange(len(tiny.validation)) < 5)
    together = detections(model, few, every=True)
    alone = Objects.concat(
        [detections(model, few.only(np.arange(5) == row), every=True) for row in range(5)], [1] * 5
    )  # fmt: skip
    assert np.array_equal(together.frame, alone.frame)
    assert np.allclose(together.confidence, alone.confidence, atol=1e-5)


def test_thresholds_are_those_of_validation(tiny: Tiny) -> None:
    model = Model.open(tiny.exported.folder)
    every = detections(model, tiny.validation, every=True)
    shipped = detections(model, tiny.validation)
    assert model.description.thresholds_ppm.tolist() == list(tiny.exported.calibration.thresholds_ppm)
    for class_id, name in enumerate(CLASSES):
        least = model.description.thresholds_ppm[class_id] * 1e-6
        rows = (every.class_id == class_id) & (every.confidence >= least)
        assert (shipped.class_id == class_id).sum() == rows.sum(), name


def test_golden_vectors_are_computed_anew(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.exported.folder, tmp_path / "model")
    Model.open(folder).self_test()
    with np.load(folder / GOLDEN) as archive:
        arrays = dict(archive)
    arrays["heat"] = arrays["heat"] + 1.0
    np.savez_compressed(folder / GOLDEN, **arrays)
    with pytest.raises(FleetError, match="does not compute what it should"):
        Model.open(folder).self_test()
    for content in (b"", b"PK\3\4 no archive", (tiny.exported.folder / GOLDEN).read_bytes()[:5000]):
        (folder / GOLDEN).write_bytes(content)
        with pytest.raises(FleetError, match="no golden vectors"):
            Model.open(folder).self_test()


def test_a_description_that_does_not_fit_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.exported.folder, tmp_path / "model")
    good = json.loads((folder / DESCRIPTION).read_text())
    wrong = [
        [], {**good, "format": 2}, {**good, "classes": ["vehicle"]}, {**good, "context": []}, {**good, "thresholds_ppm":
        [0.5] * 3}, {**good, "thresholds_ppm": [2_000_000] * 3}, {**good, "rig": {}}, {**good, "versions": 3}, {**good,
        "calibration": {"temperature": [0, 1, 1], "shift": [0, 0, 0]}}, {**good, "normalisation": {**good["normalisation"],
        "camera_mean": [1, 2]}}, {**good, "normalisation": {**good["normalisation"], "camera_std": [1, 2, "x"]}},
    ]  # fmt: skip
    for document in wrong:
        (folder / DESCRIPTION).write_text(json.dumps(document))
        with pytest.raises(FleetError):
            Model.open(folder)
    for text in ("", "[" * 100_000, "null"):
        (folder / DESCRIPTION).write_text(text)
        with pytest.raises(FleetError):
            Model.open(folder)


def test_a_damaged_model_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny.exported.folder, tmp_path / "model")
    whole = (folder / MODEL).read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"x" * 1000):
        (folder / MODEL).write_bytes(content)
        with pytest.raises(FleetError, match="model"):
            Model.open(folder)
    (folder / MODEL).unlink()
    with pytest.raises(FleetError, match="Cannot read"):
        Model.open(folder)


def _found(confidence: np.ndarray) -> Objects:
    count = confidence.size
    nothing = np.zeros(count, dtype=np.float32)
    frame = np.arange(count, dtype=np.int32)
    return Objects(frame, np.ones(count, dtype=np.int8), nothing, nothing, confidence.astype(np.float32))


def test_calibration_tells_the_share_of_hits() -> None:
    """Scores that are too sure by half their logit, and too high by one."""
    random = np.random.default_rng(0)
    true = 1 / (1 + np.exp(-random.normal(0, 1.5, 20_000)))
    hit = random.random(true.size) < true
    told = 1 / (1 + np.exp(-2 * (np.log(true / (1 - true)) + 1)))
    there = np.flatnonzero(hit).astype(np.int32)
    nothing = np.zeros(there.size, dtype=np.float32)
    truth = Objects(there, np.ones(there.size, dtype=np.int8), nothing, nothing, nothing + 1)
    made: Calibration = calibrate(_found(told), truth, {"vehicle": 0.8, "pedestrian": 0.7, "cyclist": 0.7})
    assert made.temperature[1] == pytest.approx(2, rel=0.06)
    assert made.shift[1] == pytest.approx(-1, abs=0.06)
    assert (made.temperature[0], made.shift[0], made.thresholds_ppm[0]) == (1, 0, 1_000_000)
    counted = true >= made.thresholds_ppm[1] * 1e-6
    assert hit[counted].mean() == pytest.approx(0.7, abs=0.02)

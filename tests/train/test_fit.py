"""Training: the same inputs give the same weights, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from train.tiny import RECIPE, random_frames

from fleet_assets.edge.inputs import CONTEXT, GRID_CELLS, INPUTS
from fleet_assets.edge.memory import MEMORY_INPUTS
from fleet_assets.errors import FleetError
from fleet_assets.train.batches import batch_of, fingerprint, rows_of_step, statistics_of
from fleet_assets.train.fit import Fitted, Recipe, fit, weights_hash
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.model import FORMS, make, parameters_of

_HERE = Path(__file__).parent


def _program(checkpoint: Path, result: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(_HERE.parent), "OMP_NUM_THREADS": "1"}
    arguments = [sys.executable, "-m", "train.tiny", str(checkpoint), str(result)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    through, killed = tmp_path / "through.txt", tmp_path / "killed.txt"
    with _program(tmp_path / "a.pt", through) as process:
        assert process.stdout is not None
        assert process.stdout.read().split()[-1] == str(RECIPE.steps)
    with _program(tmp_path / "b.pt", killed) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == 8:
                process.send_signal(signal.SIGKILL)
                break
    assert process.returncode == -signal.SIGKILL
    assert not killed.exists()
    with _program(tmp_path / "b.pt", killed) as process:
        assert process.stdout is not None
        first = int(process.stdout.readline())
        process.stdout.read()
    assert 1 < first <= 9
    assert killed.read_text() == through.read_text()


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    path, frames = tmp_path / "a.pt", random_frames(count=4)
    recipe = replace(RECIPE, steps=2)
    fit(frames, recipe, checkpoint=path, every=1)
    with pytest.raises(FleetError, match="another training"):
        fit(frames, replace(recipe, seed=6), checkpoint=path)
    with pytest.raises(FleetError, match="another training"):
        fit(random_frames(seed=1, count=4), recipe, checkpoint=path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(FleetError, match="no checkpoint"):
        fit(frames, recipe, checkpoint=path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_learns_what_the_cpu_learns() -> None:
    frames, recipe = random_frames(count=8), replace(RECIPE, steps=3, half=False)
    alone, gpu = fit(frames, recipe), fit(frames, replace(recipe, device="cuda"))
    assert gpu.losses == pytest.approx(alone.losses, rel=1e-2)
    assert {values.device.type for values in gpu.model.state_dict().values()} == {"cpu"}


def test_a_set_is_known_by_all_that_a_model_learns_from_and_is_judged_by() -> None:
    frames = random_frames(count=4)
    others = [
        replace(frames, **{name: np.roll(getattr(frames, name), 1, axis=0)})
        for name in ("camera", "lidar", "radar", "context", "age_s")
    ]
    others += [
        replace(frames, slices={**frames.slices, "light": np.full(4, "dawn")}),
        replace(frames, drives=tuple(f"{name}-" for name in frames.drives)),
        replace(frames, truth=replace(frames.truth, moving=~frames.truth.moving)),
        replace(frames, truth=replace(frames.truth, visible_fraction=frames.truth.visible_fraction / 2)),
    ]
    assert len({fingerprint(one) for one in (frames, *others)}) == 1 + len(others)


def test_a_training_leaves_the_arithmetic_of_its_process_as_it_was() -> None:
    threads = torch.get_num_threads()
    fit(random_frames(count=4), replace(RECIPE, steps=1))
    assert np.array([5e-324]) * np.array([1.0]) > 0
    assert torch.get_num_threads() == threads


def test_every_frame_comes_once_before_any_comes_again() -> None:
    rows = np.concatenate([rows_of_step(10, 4, 3, step) for step in range(5)])
    assert sorted(rows[:10]) == sorted(rows[10:]) == list(range(10))
    assert rows[:10].tolist() != rows[10:].tolist()
    assert not np.array_equal(rows_of_step(10, 4, 4, 0), rows[:4])


def test_a_mirrored_frame_is_the_other_way_round() -> None:
    frames = random_frames(count=1)
    statistics = statistics_of(frames)
    plain = batch_of(frames, np.array([0]), statistics)
    turned = next(
        batch for seed in range(20)
        if not torch.equal((batch := batch_of(frames, np.array([0]), statistics, random=np.random.default_rng(seed))).heat,
        plain.heat)
    )  # fmt: skip
    for name, axis in (("camera", 3), ("lidar", 3), ("radar", 3)):
        assert torch.equal(turned.inputs[name], plain.inputs[name].flip(axis))
    assert torch.equal(turned.heat, plain.heat.flip(3))
    assert torch.equal(turned.centre, plain.centre.flip(3))
    at = plain.centre[0, 0].nonzero()
    back = turned.offset[0, 1].flip(1)
    for row, column in at:
        assert float(back[row, column]) == pytest.approx(1 - float(plain.offset[0, 1, row, column]), abs=1e-4)
    yaw = CONTEXT.index("ego_motion:yaw_rate_radps")
    assert int((turned.inputs["context"] != plain.inputs["context"]).sum()) <= 1
    assert frames.context[0, yaw] == random_frames(count=1).context[0, yaw]


def test_a_sensor_that_is_taken_away_is_gone_and_one_stays() -> None:
    frames = random_frames(count=8)
    batch = batch_of(
        frames, np.arange(8), statistics_of(frames), random=np.random.default_rng(0), dropout=1.0
    )  # fmt: skip
    there = batch.inputs["health"][:, :3]
    assert ((there.sum(1) >= 1) & (there.sum(1) <= 2)).all()
    for number, name in enumerate(("camera", "lidar", "radar")):
        empty = batch.inputs[name].flatten(1).abs().sum(1) == 0
        assert torch.equal(empty, there[:, number] == 0)


@pytest.mark.parametrize("form", sorted(FORMS))
def test_forms_have_one_interface(form: str) -> None:
    model = make(form).eval()
    inputs = {
        name: torch.randn(2, *shape) for name, shape in {**INPUTS, **(MEMORY_INPUTS if model.lag else {})}.items()
    }
    inputs["health"][:, :3] = 1
    with torch.no_grad():
        heat, offset, *memory = model(**inputs)
    assert [values.shape[1:] for values in memory] == ([MEMORY_INPUTS["earlier"]] if model.lag else [])
    assert heat.shape == (2, 3, GRID_CELLS, GRID_CELLS)
    assert offset.shape == (2, 2, GRID_CELLS, GRID_CELLS)
    assert 0 <= float(offset.min()) <= float(offset.max()) <= 1
    assert parameters_of(model) < 150_000
    for sensor in set(INPUTS) & set(model.sensors):
        at = ("camera", "lidar", "radar").index(sensor)
        gone = {**inputs, "health": inputs["health"].clone()}
        gone["health"][:, at] = 0
        other = {**gone, sensor: torch.randn_like(inputs[sensor])}
        with torch.no_grad():  # what a sensor that is not there says does not matter
            assert torch.equal(model(**gone)[0], model(**other)[0])


def test_an_unknown_form_and_an_empty_set_are_refused() -> None:
    with pytest.raises(FleetError, match="No form"):
        make("deep")
    frames = random_frames(count=2)
    with pytest.raises(FleetError, match="nothing to learn"):
        fit(frames.only(np.zeros(2, dtype=np.bool_)), RECIPE)


@pytest.mark.slow
def test_one_specialist_is_replaced_without_touching_the_others(
    tiny: tuple[FrameSet, FrameSet, Fitted, object],
) -> None:
    frames, _, fitted, _ = tiny
    recipe = Recipe(form="late", steps=2, batch=4, seed=9, part="specialists.radar")
    replaced = fit(frames, recipe, start=fitted)
    before, after = fitted.model.state_dict(), replaced.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(name.startswith("specialists.radar.") for name in changed)
    assert weights_hash(fitted.model) != weights_hash(replaced.model)

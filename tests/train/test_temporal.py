"""The form that remembers: its memory lies where the vehicle is now, and the vehicle remembers what evaluation gives it."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from train.conftest import Tiny
from train.test_inference import DOMAIN, make_slot
from train.tiny import RECIPE, random_frames

from fleet_assets.edge.inference import Context, Report, decisions
from fleet_assets.edge.inputs import GRID_CELLS, SPEED, YAW_RATE
from fleet_assets.edge.memory import LAG, nothing
from fleet_assets.edge.model import DESCRIPTION, MODEL, Model
from fleet_assets.edge.recording import Recording
from fleet_assets.edge.warm import warm
from fleet_assets.errors import FleetError
from fleet_assets.train.bake_off import latency_ms
from fleet_assets.train.batches import batch_of, earlier_frames, statistics_of
from fleet_assets.train.export import export, inputs_of
from fleet_assets.train.fit import Fitted, fit, given
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.model import Warp, make
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig


def _driven(count: int = 12) -> FrameSet:
    """Noise, ten frames a second, driven at some speed."""
    frames, random = random_frames(count=count), np.random.default_rng(3)
    context = frames.context.copy()
    context[:, SPEED], context[:, YAW_RATE] = random.uniform(2, 12, count), random.uniform(-0.4, 0.4, count)
    return replace(frames, context=context)


def test_memory_lies_where_the_vehicle_is_now() -> None:
    """Against the four cells around each place, one by one."""
    random = np.random.default_rng(0)
    memory = random.normal(size=(2, 3, GRID_CELLS, GRID_CELLS)).astype(np.float32)
    motion = np.array([[7.3, -1.9, 0.31, 0.6, 1.0], [-2.0, 4.5, -1.2, 0.5, 1.0]], dtype=np.float32)
    found = Warp()(torch.from_numpy(memory), torch.from_numpy(motion)).numpy()
    for frame, (x_m, y_m, yaw, age_s, _) in enumerate(motion.tolist()):
        expected = np.zeros((5, GRID_CELLS, GRID_CELLS))
        whole = np.concatenate([memory[frame], np.ones((1, 48, 48)), np.full((1, 48, 48), age_s)])
        for row in range(GRID_CELLS):
            for column in range(GRID_CELLS):
                x, y = row + 0.5, column + 0.5 - 24.0
                then_row = x_m + math.cos(yaw) * x - math.sin(yaw) * y - 0.5
                then_column = y_m + math.sin(yaw) * x + math.cos(yaw) * y + 24.0 - 0.5
                for r in (math.floor(then_row), math.floor(then_row) + 1):
                    for c in (math.floor(then_column), math.floor(then_column) + 1):
                        if 0 <= r < GRID_CELLS and 0 <= c < GRID_CELLS:
                            share = (1 - abs(then_row - r)) * (1 - abs(then_column - c))
                            expected[:, row, column] += share * whole[:, r, c]
        assert np.allclose(found[frame], expected, atol=1e-3)
        assert (expected[3] == 0).any()
        assert (expected[3] > 0.99).any()


def test_without_an_earlier_frame_memory_does_not_count() -> None:
    model = make("temporal").eval()
    batch = batch_of(_driven(), np.array([0, 9]), statistics_of(_driven()), lag=LAG)
    inputs = given(model, batch)
    other = {**inputs, "earlier": torch.randn_like(inputs["earlier"])}
    with torch.no_grad():
        (heat, _, memory), (changed, _, same) = model(**inputs), model(**other)
    assert inputs["motion"][:, 4].tolist() == [0, 1]
    assert torch.equal(heat[0], changed[0])
    assert not torch.allclose(heat[1], changed[1])
    assert torch.equal(memory, same)  # depth one: a frame's memory rests on that frame alone


def test_frames_of_another_drive_are_not_remembered() -> None:
    frames = _driven(40)
    random = np.random.default_rng(1)
    drive = np.sort(random.integers(0, 3, 40)).astype(np.int32)
    t_ns = (
        np.concatenate([np.cumsum(random.integers(1, 5, int((drive == one).sum()))) for one in range(3)]) * 130_000_000
    )
    frames = replace(frames, drive=drive, drives=("a", "b", "c"), t_ns=t_ns)
    expected = []
    for row in range(40):
        near = [
            (abs(t_ns[row] - LAG.wanted_ns - t_ns[then]), then)
            for then in range(40)
            if drive[then] == drive[row] and LAG.least_ns <= t_ns[row] - t_ns[then] <= LAG.most_ns
        ]
        expected.append(min(near)[1] if near else -1)
    rows = random.permutation(40)
    assert earlier_frames(frames, rows, LAG).tolist() == [expected[row] for row in rows]
    assert expected.count(-1) in range(3, 30)


def test_a_mirrored_pair_is_a_pair_of_mirrored_frames() -> None:
    frames, statistics = _driven(), statistics_of(_driven())
    rows = np.array([8, 9, 10, 11])
    plain = batch_of(frames, rows, statistics, lag=LAG)
    turned = batch_of(frames, rows, statistics, random=np.random.default_rng(6), dropout=1.0, lag=LAG)
    assert plain.before is not None
    assert turned.before is not None
    kinds = set()
    for row in range(rows.size):
        mirrored = not torch.equal(turned.heat[row], plain.heat[row])
        kinds.add(mirrored)
        for sensor in range(3):
            name = ("camera", "lidar", "radar")[sensor]
            gone = turned.inputs["health"][row, sensor] == 0
            assert (turned.before["health"][row, sensor] == 0) == gone
            for now, was in ((turned.inputs, plain.inputs), (turned.before, plain.before)):
                expected = was[name][row].flip(-1) if mirrored else was[name][row]
                assert torch.equal(now[name][row], torch.zeros_like(expected) if gone else expected)
        sign = torch.tensor([1, -1, -1, 1, 1] if mirrored else [1] * 5)
        motion = turned.inputs["motion"][row]
        assert not motion.any() or torch.equal(motion, plain.inputs["motion"][row] * sign)
    assert kinds == {True, False}
    memory, motion = torch.randn(4, 40, GRID_CELLS, GRID_CELLS), plain.inputs["motion"]
    mirror = Warp()(memory.flip(-1), motion * torch.tensor([1, -1, -1, 1, 1]))
    assert torch.allclose(mirror, Warp()(memory, motion).flip(-1), atol=1e-4)


def test_frames_too_far_apart_to_remember_are_not_learned_from(tmp_path: Path) -> None:
    frames = random_frames(count=4)
    far = replace(frames, t_ns=frames.t_ns * 20)
    with pytest.raises(FleetError, match=r"0% of 4 frames have an earlier one .* stride_s"):
        fit(far, replace(RECIPE, form="temporal"))
    fitted = Fitted(make("temporal"), {}, replace(RECIPE, form="temporal"), [], "")
    with pytest.raises(FleetError, match="at least 50% must"):  # nor judged on: the vehicle would remember
        export(fitted, frames, far, vehicle_rig(), tmp_path, versions={})


@pytest.mark.slow
def test_what_ships_computes_what_pytorch_does(temporal: Tiny) -> None:
    parity = temporal.exported.parity
    assert parity.full_max < 1e-4
    assert parity.quantised_mean < 0.01
    model = Model.open(temporal.exported.folder)
    assert model.lag == LAG
    model.self_test()
    warm(model)
    assert latency_ms(model, temporal.validation) > 0
    rows = np.arange(len(temporal.validation))
    with torch.no_grad():
        batch = batch_of(temporal.validation, rows, temporal.fitted.statistics, lag=LAG)
        expected = given(temporal.fitted.model, batch)
    found = inputs_of(model, temporal.validation, rows)
    assert np.array_equal(found["motion"], expected["motion"])
    there = found["motion"][:, 4] == 1
    assert 0 < there.sum() < rows.size
    pair = (found["earlier"][there], expected["earlier"].numpy()[there])  # int8, and full precision
    assert np.corrcoef(*(values.ravel() for values in pair))[0, 1] > 0.8


@pytest.mark.slow
def test_places_are_not_told_in_eight_bits(temporal: Tiny) -> None:
    import onnx

    nodes = onnx.load(str(temporal.exported.folder / MODEL)).graph.node
    maker = {output: node for node in nodes for output in node.output}
    (warp,) = (node for node in nodes if node.op_type == "GridSample" and node.name.startswith("/warp/"))
    before, seen = [warp.input[1]], set()
    while before:
        name = before.pop()
        seen.add(maker[name].op_type if name in maker else name)
        before += maker[name].input if name in maker else []
    assert {"motion", "Sin", "Cos"} < seen
    assert not seen & {"QuantizeLinear", "DequantizeLinear"}


@pytest.mark.slow
def test_the_vehicle_remembers_what_evaluation_gives_it(temporal: Tiny, recordings: list[Path], tmp_path: Path) -> None:
    slot = make_slot(temporal, tmp_path)
    heats = []

    class Seen(Model):
        def run(self, inputs: Any) -> Any:
            outputs = super().run(inputs)
            heats.append(outputs.heat)
            return outputs

    model, opened = Seen.open(slot / "model"), Recording.open(recordings[1])
    driven = list(decisions(opened.messages(), opened.topics, model, Context.open(slot, "car1"), Report(DOMAIN)))
    vehicle = dict(zip([one.frame.t_ns for one in driven], heats, strict=True))
    frames = frames_of_recordings([recordings[1]])
    rows = np.flatnonzero(
        frames.t_ns - frames.t_ns[0] >= LAG.most_ns
    )  # before, the vehicle has seen what the set has not
    assert rows.size > 20
    told = Model.open(slot / "model")
    inputs = inputs_of(told, frames, rows)
    heat, without = told.run(inputs).heat, told.run(inputs | nothing(rows.size)).heat
    seen = np.concatenate([vehicle[t_ns] for t_ns in frames.t_ns[rows].tolist()])
    assert inputs["motion"][:, 3] == pytest.approx([0.6] * rows.size, abs=0.06)
    assert np.abs(seen - heat).mean() < 0.05 * np.abs(without - heat).mean()


@pytest.mark.slow
def test_a_memory_that_does_not_fit_is_refused(temporal: Tiny, tiny: Tiny, tmp_path: Path) -> None:
    folder = shutil.copytree(temporal.exported.folder, tmp_path / "model")
    good = json.loads((folder / DESCRIPTION).read_text())
    plain = {name: value for name, value in good.items() if name != "memory"}
    for document in (plain, {**good, "memory": None}, {**good, "memory": []}, {**good, "memory": {"wanted_ns": 6e8}}):
        (folder / DESCRIPTION).write_text(json.dumps(document))
        with pytest.raises(FleetError):
            Model.open(folder)
    (folder / DESCRIPTION).write_text(json.dumps(good))
    Model.open(folder).self_test()
    shutil.copy(tiny.exported.folder / MODEL, folder / MODEL)  # one that does not remember
    with pytest.raises(FleetError, match="other inputs"):
        Model.open(folder)
    shutil.copy(temporal.exported.folder / MODEL, folder / MODEL)
    shutil.copy(tiny.exported.folder / "golden.npz", folder / "golden.npz")
    with pytest.raises(FleetError, match="no golden vectors"):
        Model.open(folder).self_test()


@pytest.mark.slow
def test_a_network_that_gives_another_memory_than_declared_is_refused(temporal: Tiny, tmp_path: Path) -> None:
    import onnx

    folder = shutil.copytree(temporal.exported.folder, tmp_path / "model")
    network = onnx.load(str(folder / MODEL))
    (last,) = (node for node in network.graph.node if "memory" in node.output)
    last.output[:] = ["whole"]
    for consumer in network.graph.node:
        consumer.input[:] = ["whole" if name == "memory" else name for name in consumer.input]
    network.graph.node.append(onnx.helper.make_node("ReduceMax", ["whole"], ["memory"], axes=[1], keepdims=1))
    onnx.save(network, str(folder / MODEL))
    with pytest.raises(FleetError, match="something else than places"):
        Model.open(folder).self_test()

"""The trial of a release in a child process: a wrong, endless or greedy model takes the child along, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from package.parts import HARDWARE, approve, judged, make_features, make_model, make_parts, make_world, released

from fleet_assets.deploy.channel import publish
from fleet_assets.edge.floor import Floor
from fleet_assets.edge.trial import try_out
from fleet_assets.edge.update import UpdateRefused
from fleet_assets.edge.vehicle import Vehicle
from fleet_assets.errors import FleetError
from fleet_assets.package.candidate import build_candidate
from fleet_assets.package.policy import load_release_policy
from fleet_assets.simulate.drives import write_drive

LIMITS = {"memory_mb": 4096, "seconds": 60, "frame_ms": 1000}


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    make_model(tmp_path / "model")
    make_features(tmp_path).public.write(tmp_path / "features.pub")
    return tmp_path


def break_golden(model: Path) -> None:
    with np.load(model / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["heat"] = arrays["heat"] + np.float32(1)
    np.savez_compressed(model / "golden.npz", **arrays)


def test_a_model_that_computes_what_it_should_passes(payload: Path) -> None:
    try_out(payload, LIMITS)


def test_a_model_that_computes_something_else_is_refused(payload: Path) -> None:
    break_golden(payload / "model")
    with pytest.raises(FleetError) as caught:
        try_out(payload, LIMITS)
    assert "does not compute what it should" in str(caught.value.where)


def test_features_of_other_kernels_than_the_vehicles_are_refused(tmp_path: Path) -> None:
    """Before they run, and not in the drive after."""
    make_model(tmp_path / "model")
    make_features(tmp_path, identity="0" * 32).public.write(tmp_path / "features.pub")
    with pytest.raises(FleetError) as caught:
        try_out(tmp_path, LIMITS)
    assert "ego_motion is made by another kernel than the bundle's" in str(caught.value.where)


def looping(model: Path, times: int) -> None:
    """The same network, with the same result, behind a loop of so many times."""
    network = onnx.load(str(model / "model.onnx"))
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go on"]),
            helper.make_node("Add", ["sum in", "nothing"], ["sum out"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("count", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum in", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("go on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum out", TensorProto.FLOAT, []),
        ],
        [from_array(np.float32(0), "nothing")],
    )
    graph = network.graph
    graph.initializer.extend([from_array(np.int64(times), "trips"), from_array(np.bool_(True), "start")])
    graph.initializer.append(from_array(np.float32(0), "zero"))
    graph.node.insert(0, helper.make_node("Loop", ["trips", "start", "zero"], ["sum"], body=body))
    graph.node.insert(1, helper.make_node("Add", ["health", "sum"], ["later"]))
    for node in graph.node:
        if node.op_type == "MatMul":
            node.input[0] = "later"
    onnx.save(network, str(model / "model.onnx"))


@pytest.mark.slow
def test_a_model_without_an_end_is_ended(payload: Path) -> None:
    looping(payload / "model", 1 << 62)
    with pytest.raises(FleetError, match=r"trial run (failed|does not end)"):
        try_out(payload, {**LIMITS, "seconds": 3})


def test_a_model_that_needs_too_long_for_a_frame_is_refused(payload: Path) -> None:
    looping(payload / "model", 20_000)
    with pytest.raises(FleetError) as caught:
        try_out(payload, {**LIMITS, "frame_ms": 1})
    assert "ms for a frame (allowed 1)" in str(caught.value.where)


def test_a_child_without_memory_fails_alone(payload: Path) -> None:
    with pytest.raises(FleetError, match="trial run failed"):
        try_out(payload, {**LIMITS, "memory_mb": 256})


@pytest.mark.parametrize(
    "limits", [{}, {**LIMITS, "seconds": 10**9}, {**LIMITS, "memory_mb": 1}, {**LIMITS, "memory_mb": "4096"}]
)
def test_limits_that_are_none_are_refused(payload: Path, limits: dict[str, object]) -> None:
    with pytest.raises(FleetError, match="asks for"):
        try_out(payload, limits)


def test_what_a_child_says_and_starts_ends_with_it(
    payload: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It writes without an end, and leaves another one of itself behind."""
    left = tmp_path / "left"
    monkeypatch.setattr(
        "fleet_assets.edge.trial._CHILD",
        f"""
import json, os, sys, time
sys.path[:] = json.loads(sys.argv[1])
from fleet_assets.edge.trial import child
child(sys.argv[2:])
if os.fork() == 0:
    time.sleep(2)
    open({str(left)!r}, "w").close()
    os._exit(0)
for _ in range(100):
    os.write(1, bytes(1 << 20))
    os.write(2, b"x" * (1 << 20))
""",
    )
    with pytest.raises(FleetError, match="The trial run failed") as caught:
        try_out(payload, LIMITS)
    assert len(str(caught.value.where)) <= 2000
    time.sleep(3)
    assert not left.exists()


# The child's work, and then what nothing in it may do.
TRIED = """
import os, socket, subprocess, sys
from fleet_assets.edge.trial import child
child(sys.argv[1:])
ways = (socket.socket, socket.socketpair, lambda: subprocess.run(["true"]), lambda: os.execv("/bin/true", ["true"]))
for number, way in enumerate(ways):
    try:
        way()
    except PermissionError:
        continue
    sys.exit(f"way {number} is open")
print(*(line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")))
"""


@pytest.mark.skipif("Seccomp:" not in Path("/proc/self/status").read_text(), reason="this kernel has no filters")
def test_the_child_has_no_network_and_starts_no_programs(payload: Path) -> None:
    command = [sys.executable, "-c", TRIED, str(payload), *(str(limit) for limit in LIMITS.values())]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.split()) == (0, ["NoNewPrivs:", "1"]), ended.stderr


def test_a_release_that_fails_its_trial_is_refused_and_the_old_one_runs_on(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world")
    good = make_parts(tmp_path / "good")
    bad = make_parts(tmp_path / "bad", seed=2)
    break_golden(bad.model)
    judged(bad)
    vehicle = Vehicle.init(tmp_path / "vehicle", world.releases.roots.path(1), HARDWARE, Floor())
    ids = [build_candidate(world.releases, parts, HARDWARE, load_release_policy()) for parts in (good, bad)]
    for id_ in ids:
        approve(world, id_)
        publish(world.releases, id_)
        if id_ == ids[0]:
            vehicle.update(world.channel)
    with pytest.raises(UpdateRefused) as caught:
        vehicle.update(world.channel)
    assert caught.value.reason == "trial"
    assert vehicle.running().release == ids[0]
    assert json.loads((vehicle.root / "slots" / "active.json").read_bytes()) == {"slot": "a"}
    assert not (vehicle.root / "slots" / "b").exists()
    shutil.rmtree(world.channel)
    assert vehicle.running().release == ids[0]


# A vehicle's command; then how many compiled functions the process had before the first message, and after the last.
COUNTED = """
import gc, json, sys
from numba.core.dispatcher import Dispatcher
from fleet_assets.edge import __main__, inference
decisions, counts = inference.decisions, []
def loaded():
    return sum(len(one.overloads) for one in gc.get_objects() if isinstance(one, Dispatcher))
def counted(*arguments):
    counts.append(loaded())
    yield from decisions(*arguments)
    counts.append(loaded())
inference.decisions = counted
code = __main__.main(sys.argv[1:])
print(json.dumps(counts))
sys.exit(code)
"""


@pytest.mark.slow
def test_what_a_drive_calls_is_compiled_by_the_trial_and_loaded_before_the_first_message(tmp_path: Path) -> None:
    """A drive after the trial adds nothing to Numba's cache, and nothing to the process."""
    world = make_world(tmp_path / "world")
    released(world, "one")
    write_drive(
        tmp_path / "drive.mcap", seed=3, vehicle="car1", start=datetime(2026, 1, 1, 12, tzinfo=UTC), duration_s=3.0
    )
    where = ("--vehicle", tmp_path / "vehicle")
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}

    def edge(*arguments: str | Path) -> tuple[set[str], list[int]]:
        command = [sys.executable, "-c", COUNTED, *map(str, (*arguments, *where))]
        said = subprocess.run(command, env=environment, check=True, capture_output=True).stdout.splitlines()
        return {path.name for path in (tmp_path / "vehicle" / "numba").rglob("*.nbc")}, json.loads(said[-1])

    edge("init", "--root", world.releases.roots.path(1), "--hardware", HARDWARE)
    compiled, _ = edge("update", "--channel", world.channel)
    assert len(compiled) > 20
    found, (before, after) = edge("run", "--recording", tmp_path / "drive.mcap")
    assert found == compiled
    assert before == after > 0

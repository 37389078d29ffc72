"""A vehicle's command line, in an environment that has the base dependencies and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from edge.test_environment import PROJECT, linked
from package.parts import HARDWARE, World, make_world, released

from fleet_assets.deploy.channel import refresh
from fleet_assets.edge.bundle import hash_file
from fleet_assets.package.tracing import trace_of
from fleet_assets.simulate.drives import write_drive

PROGRAM = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from fleet_assets.edge.__main__ import main
code = main(sys.argv[2:])
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
sys.exit(code)
"""
START = datetime(2026, 1, 1, 22, tzinfo=UTC)
CACHE = str(Path.home() / ".cache" / "fleet" / "numba")
PLATFORM = {"dagster", "feast", "pandas", "pyarrow", "pyspark", "torch", "onnx", "mlflow", "typer", "rich", "yaml"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """start("update", ...) starts a command of the vehicle, with pipes to it and from it."""
    site = linked(tmp_path / "site")
    (site / "fleet_assets").unlink()  # from its own place, which Numba's cache knows from earlier tests
    path = json.dumps([str(site), str(PROJECT)])

    def call(*arguments: str | Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", "-c", PROGRAM, path, *map(str, arguments)]
        environment = {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state"), "NUMBA_CACHE_DIR": CACHE}
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(command, env=environment, **pipes)

    return call


def ended(process: subprocess.Popen[bytes]) -> tuple[int, Any, str]:
    """Exit code, what it printed as JSON or None, standard error."""
    out, errors = process.communicate(timeout=300)
    *said, modules = out.splitlines()
    assert not PLATFORM & set(json.loads(modules))
    return process.returncode, json.loads(said[-1]) if said else None, errors.decode()


@pytest.fixture
def vehicle(start: Callable[..., subprocess.Popen[bytes]]) -> Callable[..., Any]:
    """vehicle("update", ...) gives what the command ended with."""
    return lambda *arguments: ended(start(*arguments))


@pytest.mark.slow
def test_from_provisioning_to_a_trace(world: World, vehicle: Callable[..., Any], tmp_path: Path) -> None:
    root = world.releases.roots.path(1)
    code, _, said = vehicle("update", "--channel", world.channel)
    assert (code, "is not provisioned" in said) == (1, True)
    code, about, _ = vehicle("init", "--root", root, "--hardware", HARDWARE)
    assert (code, about["floor"]["profile"]) == (0, "full")
    code, _, said = vehicle("trace")
    assert (code, "has no release" in said) == (1, True)
    id_ = released(world, "one")
    code, about, said = vehicle("update", "--channel", world.channel)
    assert (code, about) == (0, {"release": id_, "slot": "a", "new": True, "fetched": about["fetched"]}), said
    assert about["fetched"] == {
        "bytes": hash_file(world.releases.archive(id_))[0],
        "delta": False,
        "why": "nothing runs",
    }
    code, found, _ = vehicle("trace")
    (tmp_path / "report.json").write_text(json.dumps(found))
    known = trace_of(world.releases, str(tmp_path / "report.json"))
    assert {key: found[key] for key in found.keys() & known.keys()} == {
        key: known[key] for key in found.keys() & known.keys()
    }
    assert found.keys() - known.keys() == {"hardware", "slot"}
    (world.channel / "metadata" / "timestamp.json").unlink()
    code, _, said = vehicle("update", "--channel", world.channel)
    assert (code, "the channel lacks" in said) == (1, True)


@pytest.mark.slow
def test_a_recording_is_driven_with_what_runs(
    world: World, vehicle: Callable[..., Any], start: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Also when the channel is frozen: its age stops new installations and nothing else. And as it comes, from a pipe: decisions
    are there while it is open."""
    id_ = released(world, "driven", seed=6)
    write_drive(
        tmp_path / "drive.mcap", seed=3, vehicle="car1", start=START, duration_s=3.0, light="night", weather="fog"
    )
    vehicle("init", "--root", world.releases.roots.path(1), "--hardware", HARDWARE)
    run = ("run", "--recording", tmp_path / "drive.mcap", "--channel", world.channel)
    code, about, said = vehicle(*run)
    assert code == 0, said
    lines = [json.loads(line) for line in Path(about["log"]).read_text().splitlines()]
    assert (about["release"], about["frames"], len(lines)) == (id_, len(lines), about["frames"])
    assert about["frames"] > 20
    assert (about["relied_on"], about["conditions_not_judged"]["weather"]) == (False, "fog")
    assert {"class": "pedestrian", "distance": "30-48"} in about["not_to_be_relied_on"]
    assert (about["objects"] > 0, about["objects_relied_on"]) == (True, 0)
    assert not any(one["relied_on"] for line in lines for one in (line, *line["objects"]))
    refresh(world.releases, datetime.now(UTC) - timedelta(days=20))
    code, again, said = vehicle(*run, "--log", tmp_path / "again.jsonl")
    assert (code, again["release"], again["frames"]) == (3, id_, about["frames"])
    assert "has not been kept current" in said
    told = [json.loads(line)["objects"] for line in (tmp_path / "again.jsonl").read_text().splitlines()]
    assert told == [line["objects"] for line in lines]
    refresh(world.releases)
    # Nor does an update that fails otherwise: whatever lies in the way of the trusted metadata.
    trust = tmp_path / "state" / "fleet" / "vehicle" / "trust"
    trust.rename(tmp_path / "trust")
    trust.write_text("a file")
    code, again, said = vehicle(*run, "--log", tmp_path / "third.jsonl")
    assert (code, again["release"], again["frames"]) == (3, id_, about["frames"]), said
    trust.unlink()
    (tmp_path / "trust").rename(trust)

    content = (tmp_path / "drive.mcap").read_bytes()
    driving, log = start("run", "--recording", "-"), Path(about["log"]).with_name("live.jsonl")
    assert driving.stdin is not None
    driving.stdin.write(content[:-1])  # all but the last byte of what ends it
    driving.stdin.flush()
    while driving.poll() is None and not (log.exists() and log.read_text()):
        time.sleep(0.05)
    assert driving.poll() is None
    driving.stdin.write(content[-1:])
    code, live, said = ended(driving)
    assert (code, live["fault"], live["frames"]) == (0, None, about["frames"]), said
    assert live["conditions_not_judged"] == about["conditions_not_judged"]
    assert [json.loads(line)["objects"] for line in log.read_text().splitlines()] == told


@pytest.mark.slow
def test_a_floor_of_its_own(world: World, vehicle: Callable[..., Any], tmp_path: Path) -> None:
    released(world, "demo", seed=4, profile="demo")
    floor = {
        "_type": "floor",
        "profile": "demo",
        "level_ppm": 50000,
        "minimum_drives": 10,
        "minimum_positives": 60,
        "demands": [],
    }
    (tmp_path / "floor.json").write_text(json.dumps(floor))
    root = world.releases.roots.path(1)
    for name, more, expected in (("full", (), 1), ("easy", ("--floor", tmp_path / "floor.json"), 0)):
        where = ("--vehicle", tmp_path / name)
        assert vehicle("init", "--root", root, "--hardware", HARDWARE, *where, *more)[0] == 0
        code, _, said = vehicle("update", "--channel", world.channel, *where)
        assert code == expected, said
    (tmp_path / "floor.json").write_text(json.dumps({**floor, "profile": "none"}))
    code, _, said = vehicle(
        "init", "--root", root, "--hardware", HARDWARE, "--vehicle", tmp_path / "x", "--floor", tmp_path / "floor.json"
    )
    assert (code, "is no floor" in said) == (1, True)

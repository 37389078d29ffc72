"""Feast's own commands in feature_repo/, each as a process of its own, over a real lake."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from lake.publisher import judge

from fleet_assets.contracts.loader import load_tables
from fleet_assets.features.identity import REPO
from fleet_assets.features.write import upsert
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.schema import apply
from fleet_assets.lake.tables import VERSIONS
from fleet_assets.services import supervisor
from fleet_assets.services.home import Home, free_ports

pytestmark = [pytest.mark.services, pytest.mark.slow]
FEAST = Path(sys.executable).with_name("feast")
DRIVE = "car7--20260102T030405Z"
T0_NS = 1_767_323_045_000_000_000
FRAMES = 20
PATIENCE_S = 400


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """An installation of its own, with a drive in its lake, as a shell that has FLEET_HOME set."""
    root = Path(tempfile.mkdtemp(prefix="fleet-"))
    home = Home.open(root)
    supervisor.up(home, only=["lakefs"], bound_to=os.getpid())
    lake = Lake.open(home)
    lake.auditor = judge
    apply(lake, [load_tables()[name] for name in (*(n for n in load_tables() if n.startswith("features.")), VERSIONS)])
    t_ns = T0_NS + np.arange(FRAMES) * 100_000_000
    rows = {
        "drive_id": [DRIVE] * FRAMES,
        "frame": np.arange(FRAMES),
        "vehicle": ["car7"] * FRAMES,
        "t_ns": t_ns,
        "available_ns": t_ns + 200_000_000,
        "speed_mps": np.arange(FRAMES) / 4,
    }
    upsert(lake, "features.ego_motion", pa.table(rows), name="test")
    yield {**os.environ, "FLEET_HOME": str(root), "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
    supervisor.down(home)
    shutil.rmtree(root)


@pytest.fixture(scope="module")
def applied(environment: dict[str, str]) -> str:
    """What `feast apply` says."""
    before = {path.name: path.stat().st_mtime_ns for path in REPO.iterdir() if path.is_file()}
    said = feast(environment, "apply")
    assert {path.name: path.stat().st_mtime_ns for path in REPO.iterdir() if path.is_file()} == before
    return said


def feast(environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [FEAST, *arguments], cwd=REPO, env=environment, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextlib.contextmanager
def serving(environment: dict[str, str], *arguments: str) -> Iterator[str]:
    """A command that serves, once it answers; and its end, with all its processes."""
    port = free_ports(1)[0]
    command = [FEAST, *arguments, "--host", "127.0.0.1", "--port", str(port)]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            _await(f"http://127.0.0.1:{port}/", process)
            yield f"http://127.0.0.1:{port}"
        except BaseException:
            log.seek(0)
            sys.stderr.write(log.read().decode(errors="replace"))
            raise
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for how in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(process.pid, how)
            process.wait(20)
            return


def _await(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + PATIENCE_S
    while True:
        assert process.poll() is None, f"ended with {process.returncode}"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError:
            return  # it answers, if not this
        except OSError:
            assert time.monotonic() < until, "it does not answer"
            time.sleep(0.2)


def get(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(asked, timeout=30) as answer:
        return answer.read()


def test_apply(applied: str, environment: dict[str, str]) -> None:
    assert all(name in applied for name in ("ego_motion", "place_context", "lane_curvature"))
    assert (Path(environment["FLEET_HOME"]) / "feast" / "registry.db").is_file()


def test_materialize_and_serve(applied: str, environment: dict[str, str]) -> None:
    feast(environment, "materialize", "2026-01-01T00:00:00", "2026-01-03T00:00:00", "--views", "ego_motion")
    asked = {
        "features": ["ego_motion:speed_mps", "ego_motion:jerk_mps3"],
        "entities": {"drive_id": [DRIVE, DRIVE, DRIVE], "frame": [3, 17, FRAMES]},
    }
    with serving(environment, "serve") as url:
        answer = json.loads(get(f"{url}/get-online-features", asked))
    names = answer["metadata"]["feature_names"]
    values = dict(zip(names, [column["values"] for column in answer["results"]], strict=True))
    assert values["speed_mps"] == [0.75, 4.25, None]
    assert values["jerk_mps3"] == [None, None, None]


def test_ui(applied: str, environment: dict[str, str]) -> None:
    with serving(environment, "ui") as url:
        assert b"<html" in get(f"{url}/").lower()
        projects = json.loads(get(f"{url}/projects-list.json"))["projects"]
        assert "fleet" in [project["id"] for project in projects]
        views = json.loads(get(f"{url}/api/v1/feature_views?project=fleet"))
        assert "lane_curvature" in json.dumps(views)

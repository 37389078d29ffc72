"""docs/features.md, from the code of a new kernel to a look-up on a device, in a copy of the repository, on a real lake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from docs.examples import PROJECT, blocks, copy, put

from fleet_assets.capture.deliver import deliver
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home
from fleet_assets.simulate.drives import write_drive
from fleet_assets.synchronise.batch import synchronise_batch

pytestmark = [pytest.mark.services, pytest.mark.slow]
PAGE, START = PROJECT / "docs" / "features.md", "2026-01-02T03:04:05Z"


@pytest.fixture(scope="module")
def drive(own_home: Home, own_lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page's drive, synchronised."""
    path = tmp_path_factory.mktemp("recording") / "drive.mcap"
    write_drive(path, seed=1, start=datetime.fromisoformat(START), duration_s=12, vehicle="car7")
    key = deliver(path, own_home.landing, vehicle="car7", start=START).drive_id
    for batch in (ingest_batch, synchronise_batch):
        outcome = batch(own_home, own_lake, [key], run_id="test", parallel=False)
        assert [found.status for found in outcome.drives] == ["published"], outcome
    return key


def test_a_new_kernel_is_looked_up_on_a_device(own_home: Home, own_lake: Lake, drive: str, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    copy(folder)
    put("features.md", folder)
    commands, programs = ([text for language, text in blocks(PAGE) if language == kind] for kind in ("sh", "python"))
    for place, here in (("/var/lib/features", tmp_path / "device"), (".fleet/", f"{own_home.root}/")):
        commands = [text.replace(place, str(here)) for text in commands]
        programs = [text.replace(place, str(here)) for text in programs]
    said = json.loads(in_copy(folder, Path(__file__).with_name("new_kernel.py"), typed="".join(commands)))
    written = {row["page"] for name in ("contracts", "features") for row in said[f"fleet {name} docs"]}
    assert written == {"shapes.json", "README.md", "features.odometer.md", "odometer.md"}
    assert said["fleet contracts check"] == []
    assert {"change": "features.odometer 1.0.0 created"} in said["fleet contracts apply"]
    assert "features/odometer" in (folder / "tests/graph.txt").read_text()
    (kernel,) = (row for row in said["fleet features history"] if row["view"] == "odometer")
    assert (kernel["version"], kernel["current"], kernel["drives"]) == ("1", True, 1)

    # Frame 7 in the lake, through Feast, and on the device; and as its speeds say.
    (lookup,) = (text.replace("ego_motion", "odometer") for text in programs if "FeatureBundle" in text)
    device = json.loads(in_copy(folder, "-c", f"{lookup}\nimport json\nprint(json.dumps(values))"))
    rows = own_lake.at().scan("features.ego_motion", ["t_cut_ns"], drives=[drive], predicate="frame = 7")
    speeds = own_lake.at().scan("ingest.bus_signals", drives=[drive], predicate="signal = 'speed'")
    driven_m = way_m(speeds.sort_by("sequence"), rows["t_cut_ns"][0].as_py())
    assert device == {"driven_m": driven_m}
    assert driven_m > 0.0
    (told,) = (answer for line, answer in said.items() if line.startswith("fleet features get"))
    assert told["features"]["driven_m"] == driven_m


def way_m(speeds: Any, cut_ns: int) -> float:
    t_ns, speed_mps = speeds["t_host_ns"].to_numpy(), speeds["value"].to_numpy()
    ways = np.concatenate([[0.0], np.abs(speed_mps[:-1]) * (np.diff(t_ns) * 1e-9)])
    return float(np.cumsum(ways)[np.searchsorted(t_ns, cut_ns, side="right") - 1])


def in_copy(folder: Path, *arguments: str | Path, typed: str = "") -> str:
    """The last line that a process says which has the copy's code, and the helpers of tests."""
    path = os.pathsep.join((str(folder), str(PROJECT / "tests")))
    ended = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        input=typed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()[-1]

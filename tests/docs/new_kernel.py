"""What docs/features.md says after the code of a new kernel, done in a copy of the repository that has that code.

In: command lines of the page, one a line on standard input; the installation that FLEET_HOME names, with the page's drive
synchronised. Out: one line of JSON on standard output: what each `fleet` command says.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from lake.publisher import judge

from fleet_assets.features.assets import SERVICE
from fleet_assets.features.batch import features_batch
from fleet_assets.features.service_snapshot import bundle_folder, service_bundle, service_snapshot, snapshot_file
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home
from fleet_assets.throw_away import run

DRIVE = "car7--20260102T030405Z"


def run_features() -> None:
    """What the graph's assets do, without Spark and Dagster."""
    home = Home.open()
    lake = Lake.open(home)
    lake.auditor = judge
    outcome = features_batch(home, lake, [DRIVE], run_id="test", parallel=False)
    assert [drive.status for drive in outcome.drives] == ["published"], outcome
    file, folder = snapshot_file(home, SERVICE), bundle_folder(home, SERVICE)
    service_snapshot(lake.at(), SERVICE, file)
    service_bundle(home, file, folder)


# Lines that are done otherwise here. This process is new, so that it knows of the kernel.
OTHERWISE: dict[str, Callable[[], object]] = {
    "python tests/test_graph.py": lambda: subprocess.run([sys.executable, "tests/test_graph.py"], check=True),
    "make check": lambda: None,
    "fleet down": lambda: None,
    "fleet up": lambda: None,
    f'fleet run "group:features" --drives {DRIVE}': run_features,
}


def done(line: str) -> Any:
    if line in OTHERWISE:
        return OTHERWISE[line]()
    program, *words = shlex.split(line)
    assert program == "fleet", line
    return run(*words)


if __name__ == "__main__":
    said = {line: done(line) for line in sys.stdin.read().splitlines()}
    said = {line: answer for line, answer in said.items() if line not in OTHERWISE}
    sys.stdout.write("\n" + json.dumps(said))

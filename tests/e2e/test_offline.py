"""Nothing leaves: the main job, servers and all, where there is no network but loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from e2e.offline import carry

from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]
DRIVE = "offline--20260205T080000Z"
# What differs between two installations that did the same.
_OWN = ("commit_id", "run_id")


def namespace() -> list[str]:
    """The command that runs another one without a network. Skips where the kernel forbids it, and says why."""
    program = shutil.which("unshare")
    if program is None:
        pytest.skip("OUTBOUND NETWORK NOT BLOCKED: there is no `unshare` (util-linux) on PATH")
    command = [program, "--net"] if os.geteuid() == 0 else [program, "--net", "--map-root-user"]
    tried = subprocess.run([*command, "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"OUTBOUND NETWORK NOT BLOCKED: the kernel forbids network namespaces: {tried.stderr.strip()}")
    return command


def same(drive: dict[str, Any]) -> dict[str, Any]:
    def without(value: Any) -> Any:
        if isinstance(value, list):
            return [without(item) for item in value]
        if isinstance(value, dict):
            return {name: without(item) for name, item in value.items() if name not in _OWN}
        return value

    drive["versions"] = sorted(drive["versions"], key=lambda row: row["table_name"])
    return dict(without(drive))


def test_the_main_job_needs_no_network_and_tries_none(fleet_home: Home, tmp_path: Path) -> None:
    command = namespace()
    root = tempfile.mkdtemp(prefix="fleet-")  # a short path, see conftest
    try:
        ended = subprocess.run(
            [*command, sys.executable, str(Path(__file__).with_name("offline.py")), root, DRIVE],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=550,
            check=False,
        )
    finally:
        if not os.environ.get("FLEET_KEEP"):
            shutil.rmtree(root)
    assert ended.returncode == 0, ended.stderr
    alone = json.loads(ended.stdout.splitlines()[-1])
    # The namespace is one without a way out, and attempts are seen.
    assert (alone["interfaces"], alone["reached"]) == ([], False)
    assert alone["probed"] > 0
    # No process of ours tried to tell anybody anything.
    assert alone["attempts"] == 0

    assert alone["drive"]["status"] == "published"
    assert alone["drive"]["frames"] > 0
    assert same(alone["drive"]) == same(carry(tmp_path, DRIVE))

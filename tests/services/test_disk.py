"""A disk that is really full: a small file system, mounted for one process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_assets.console import Exit

FLEET = f"{sys.executable} -m fleet_assets"


def on_small_disk(script: str, folder: Path, mebibytes: int) -> subprocess.CompletedProcess[str]:
    """Runs a shell script with `folder` on a disk of its own. Skips where the kernel does not allow it, and says why."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("NO FULL DISK TO TRY: there is no `unshare` (util-linux) on PATH")
    command = [unshare, "--mount"] if os.geteuid() == 0 else [unshare, "--mount", "--map-root-user"]
    mount = f"mount -t tmpfs -o size={mebibytes}m tmpfs {folder}"
    tried = subprocess.run([*command, "sh", "-c", mount], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"NO FULL DISK TO TRY: the kernel forbids mounts: {tried.stderr.strip()}")
    environment = {**os.environ, "FLEET_HOME": str(folder / "fleet")}
    return subprocess.run(
        [*command, "sh", "-c", f"{mount} && {script}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def test_up_on_a_full_disk_says_so_and_starts_nothing(disk: Path) -> None:
    ended = on_small_disk(f"{FLEET} up; code=$?; cat $FLEET_HOME/run/supervisor.lock; exit $code", disk, 16)
    assert ended.returncode == Exit.FAILED
    error, no_lock = ended.stderr.strip().splitlines()
    assert error.startswith("error: The disk is full: 0.0 GB free, 2 GB needed")
    assert str(disk) in error
    assert "Free some space" in error
    assert "No such file" in no_lock


def test_doctor_names_a_full_disk(disk: Path) -> None:
    ended = on_small_disk(f"{FLEET} doctor --json", disk, 16)
    assert ended.returncode == Exit.FINDINGS
    (finding,) = [found for found in json.loads(ended.stdout) if found["name"] == "disk of the installation"]
    assert not finding["ok"]
    assert "Free some space" in finding["remedy"]


def test_a_delivery_that_does_not_fit_leaves_nothing_behind(disk: Path, tmp_path: Path) -> None:
    recording = tmp_path / "large.bin"
    with open(recording, "wb") as file:
        file.truncate(32 * 1024 * 1024)
    ingest = f"{FLEET} ingest {recording} --vehicle car7 --start 2026-01-02T03:04:05Z --json"
    ended = on_small_disk(f"{ingest}; code=$?; ls -A $FLEET_HOME/landing >&2; exit $code", disk, 16)
    assert ended.returncode == Exit.FAILED
    assert json.loads(ended.stdout) == []
    (error,) = ended.stderr.strip().splitlines()  # and no name of a file in the landing folder
    assert "no room for 33554432 bytes" in error
    assert "FLEET_LANDING" in error

"""What the nightly job removes, and what it must not touch."""

from __future__ import annotations

import os
from pathlib import Path

from fleet_assets.services.home import Home
from fleet_assets.services.logs import tidy


def test_old_output_of_runs_goes_and_databases_stay(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "fleet")
    old = [home.dagster_home / "logs" / "run-1" / "compute_logs", home.scratch / "ingest-abc"]
    kept = [home.dagster_home / "storage" / "history" / "runs", home.scratch / "spark"]
    for folder in (*old, *kept):
        folder.mkdir(parents=True)
        for aged in (folder, folder.parent):
            os.utime(aged, (1, 1))
    recent = home.dagster_home / "logs" / "run-2"
    recent.mkdir()

    assert list(tidy(home, older_than_days=30)) == ["dagster/logs/run-1: removed", "scratch/ingest-abc: removed"]
    assert all(folder.is_dir() for folder in (*kept, recent))
    assert not any(folder.exists() for folder in old)

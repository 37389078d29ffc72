"""Runs in MLflow: a store of the installation's own, which the MLflow UI opens.

In: what a training was made from, its parameters and figures. Out: a run in FLEET_HOME/mlflow, tied to code, data, features and
contracts. `mlflow ui --backend-store-uri sqlite:///FLEET_HOME/mlflow/mlflow.db` shows them.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import fleet_assets
from fleet_assets.services.home import Home

EXPERIMENT = "fleet"
LEARNS = ("train", "edge", "kernels")  # whose code a model depends on
_TEXT_LIMIT = 5_000  # of a tag


def store_uri(home: Home) -> str:
    return f"sqlite:///{home.root / 'mlflow' / 'mlflow.db'}"


def code_sha256(packages: Iterable[str] = LEARNS) -> str:
    """Of the sources of some of our packages; a model depends on LEARNS."""
    root = Path(fleet_assets.__file__).parent
    found = hashlib.sha256()
    for path in sorted(path for name in packages for path in (root / name).rglob("*.py")):
        found.update(path.relative_to(root).as_posix().encode() + hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()


def code_commit() -> str | None:
    """The commit of the checkout that our code lies in; None if it lies in none."""
    root, git = Path(fleet_assets.__file__).parents[1], shutil.which("git")
    if not git or not (root / ".git").exists():
        return None
    said = subprocess.run([git, "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return said.stdout.strip() if said.returncode == 0 else None


class Tracker:
    """One experiment of one installation."""

    def __init__(self, home: Home) -> None:
        # Before the import: it reads them once.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
        from mlflow.tracking import MlflowClient

        folder = home.root / "mlflow"
        folder.mkdir(mode=0o700, exist_ok=True)
        self._client = MlflowClient(tracking_uri=store_uri(home))
        known = self._client.get_experiment_by_name(EXPERIMENT)
        place = (folder / "artifacts").as_uri()
        self.experiment_id = known.experiment_id if known else self._client.create_experiment(EXPERIMENT, place)

    def record(
        self,
        name: str,
        *,
        parameters: Mapping[str, Any],
        metrics: Mapping[str, float],
        versions: Mapping[str, Any],
        losses: list[float] | None = None,
        files: tuple[Path, ...] = (),
    ) -> str:
        """Writes one finished run and gives its id. losses: of each step."""
        from mlflow.entities import Metric, Param, RunTag

        now_ms = int(time.time() * 1000)
        run_id: str = self._client.create_run(self.experiment_id, run_name=name).info.run_id
        figures = [Metric(key, float(value), now_ms, 0) for key, value in metrics.items()]
        steps = [Metric("loss", loss, now_ms, step) for step, loss in enumerate(losses or [])]
        every = max(1, len(steps) // 500)  # a batch holds a thousand
        self._client.log_batch(
            run_id,
            metrics=[*figures, *steps[::every]],
            params=[Param(key, str(value)) for key, value in parameters.items()],
            tags=[RunTag(key, str(value)[:_TEXT_LIMIT]) for key, value in versions.items()],
        )
        for path in files:
            self._client.log_artifact(run_id, str(path))
        self._client.set_terminated(run_id)
        return run_id

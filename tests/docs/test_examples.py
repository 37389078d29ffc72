"""Every example of docs/extending.md works as it stands on the page."""

from __future__ import annotations

import importlib.util
import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from contract import test_readers as suite
from docs.examples import example_files, extended
from formats.samples import Sample

from fleet_assets.formats.reader import Reader, RecordingFiles

READER = "fleet_assets/formats/csv_fixes.py"
# The example is not installed, so no entry point names it.
BY_ENTRY_POINT = {"test_only_its_own_content_is_claimed", "test_names_do_not_decide"}
PROMISES = [
    function for name, function in vars(suite).items() if name.startswith("test_") and name not in BY_ENTRY_POINT
]


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> type[Reader]:
    path = tmp_path_factory.mktemp("reader") / "csv_fixes.py"
    path.write_text(example_files()[READER])
    spec = importlib.util.spec_from_file_location("csv_fixes", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[Reader] = module.CsvFixesReader
    return found


@pytest.mark.parametrize("promise", PROMISES, ids=lambda function: function.__name__)
def test_reader_keeps_the_protocol(promise: Callable[..., None], reader: type[Reader], tmp_path: Path) -> None:
    lines = [f"{1_700_000_000 + n / 10:.1f},{55 + n / 1e5},{10 + n / 1e5}" for n in range(40)]
    (tmp_path / "fixes.csv").write_text("\n".join(["t_s,latitude,longitude", *lines, "no fix"]) + "\n")
    files = RecordingFiles(tmp_path, ("fixes.csv",))
    sample = Sample(reader, files, {"/gnss": 40}, "fixes.csv", refused=1)
    values = {"sample": sample, "tmp_path": tmp_path, "part": 0.5}
    promise(**{name: values[name] for name in inspect.signature(promise).parameters})


@pytest.mark.slow
def test_contracts_and_asset_are_part_of_the_graph(tmp_path: Path) -> None:
    folder = extended(tmp_path)
    script = """
import json
from fleet_assets.contracts.check import check
from fleet_assets.contracts.loader import load_streams, load_tables
from fleet_assets.curate.scenarios import load_scenarios
from fleet_assets.definitions import defs
from fleet_assets.specs import asset_key
node = defs.resolve_asset_graph().get(asset_key("curate.top_speed"))
print(json.dumps({
    "mistakes": [str(mistake) for mistake in check()],
    "rules": [rule.name for rule in load_tables()["ingest.gnss"].rules],
    "streams": list(load_streams()),
    "scenarios": list(load_scenarios()),
    "parents": [key.to_user_string() for key in node.parent_keys],
    "owners": list(node.owners), "group": node.group_name,
}))
"""
    command, environment = [sys.executable, "-c", script], {"PYTHONPATH": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["mistakes"] == []
    assert "the receiver mostly has a fix" in found["rules"]
    assert "camera_rear" in found["streams"]
    assert "slow_in_fog" in found["scenarios"]
    assert (found["parents"], found["owners"], found["group"]) == (["synchronise/frames"], ["team:fleet"], "curate")

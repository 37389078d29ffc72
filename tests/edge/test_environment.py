"""The vehicle's code in an environment that has nothing else: only the base dependencies can be imported."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

import pytest
from features.tables import built, numeric_view, truth

import fleet_assets
from fleet_assets.features.bundle_build import build_bundle
from fleet_assets.signing.keys import SigningKey

PROJECT = Path(fleet_assets.__file__).parents[1]


def names_of(requirements: Iterable[str]) -> list[str]:
    """Packages of requirements, without those of extras."""
    return [re.split(r"[^A-Za-z0-9_.-]", text, maxsplit=1)[0] for text in requirements if "extra ==" not in text]


def linked(folder: Path, *, without: frozenset[str] = frozenset()) -> Path:
    """A folder with links to the base dependencies and what these need, and to our package; to nothing else."""
    wanted = names_of(tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["dependencies"])
    seen: set[str] = set()
    folder.mkdir()
    (folder / "fleet_assets").symlink_to(PROJECT / "fleet_assets")
    site = Path(sysconfig.get_path("purelib"))
    while wanted:
        name = wanted.pop()
        if name in seen or name in without:
            continue
        seen.add(name)
        distribution = metadata.distribution(name)
        for file in distribution.files or ():
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (folder / top).exists():
                (folder / top).symlink_to(site / top)
        wanted += names_of(distribution.requires or ())
    return folder


PROGRAM = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from fleet_assets.edge.features import FeatureBundle
from fleet_assets.signing.keys import KeyRing
compiled = sys.argv[4] == "compiled"
bundle = FeatureBundle.open(Path(sys.argv[2]), KeyRing.read(Path(sys.argv[3])), compiled=compiled)
out = bundle.answer("place")
found = bundle.lookup("place", 30, out).to_dict()
print(json.dumps({"found": found, "modules": sorted({name.split(".")[0] for name in sys.modules}),
    "bundle": out.versions.bundle}))
"""


@pytest.mark.parametrize("path", ["plain", "compiled"])
def test_it_looks_up_with_the_base_dependencies_alone(tmp_path: Path, path: str) -> None:
    view = numeric_view(100, 30)
    built(tmp_path / "s", view)
    key = SigningKey.create(tmp_path / "key", "a passphrase for tests")
    manifest = build_bundle(tmp_path / "s", tmp_path / "b", [key])
    site = linked(tmp_path / "site", without=frozenset({"numba", "llvmlite"}) if path == "plain" else frozenset())
    answer = subprocess.run(
        [sys.executable, "-I", "-S", "-c", PROGRAM, site, tmp_path / "b", tmp_path / "key.pub", path],
        env={"XDG_CACHE_HOME": str(tmp_path / "cache")}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    said = json.loads(answer.stdout)
    expected = truth(view)[(30,)]
    assert said["found"] == {name: expected[name] for name in view.feature_columns}
    assert said["bundle"] == manifest.id
    loaded = set(said["modules"])
    assert ("numba" in loaded) == (path == "compiled")
    assert not loaded & {"dagster", "feast", "pandas", "pyarrow", "pyspark", "pydantic"}
    if path == "compiled":
        assert (tmp_path / "cache" / "fleet" / "numba").stat().st_mode & 0o777 == 0o700


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path) -> None:
    program = "from fleet_assets.edge.numba_cache import use_own_cache; use_own_cache()"
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o777)
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env={"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert "Others can write" in answer.stderr

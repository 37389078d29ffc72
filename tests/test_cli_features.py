"""The command line from a new key to skew, as an operator uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from features.tables import built, numeric_view

from fleet_assets.edge.features import FeatureBundle
from fleet_assets.signing.keys import KeyRing


def test_from_a_key_to_skew(fleet: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_KEY_PASSPHRASE", "a passphrase for tests")
    key, root = tmp_path / "key", tmp_path / "root"
    made = fleet("features", "bundle", "key", key)[0]
    for version in (1, 2):
        built(tmp_path / f"{version}.snapshot", numeric_view(300 + version, 3))
    command = ("features", "bundle")
    fleet(*command, "build", tmp_path / "1.snapshot", tmp_path / "1", "--key", key)
    two = fleet(*command, "build", tmp_path / "2.snapshot", tmp_path / "2", "--key", key, "--since", tmp_path / "1")
    assert [row["folder"] for row in two] == [str(tmp_path / "2"), str(tmp_path / "2.delta")]
    trusted = ("--keys", made["public"])
    first = fleet(*command, "install", tmp_path / "1", root, *trusted)[0]["active"]
    second = fleet(*command, "install", tmp_path / "2.delta", root, *trusted)[0]["active"]
    assert second == two[0]["id"]
    assert fleet(*command, "verify", root, *trusted)[0]["bundle"] == second
    assert fleet(*command, "rollback", root, *trusted)[0]["active"] == first

    ring = KeyRing.read(Path(made["public"]))
    bundle = FeatureBundle.open(root, ring)
    values = bundle.lookup_many("place", np.arange(0, 900, 3))[0]
    for shift, exit_code in ((0.0, 0), (1.0, 3)):
        recorder = bundle.recorder("place")
        for row in values:
            recorder.add(row + np.array([shift, 0.0, 0.0]))
        seen = tmp_path / "seen.json"
        seen.write_text(json.dumps(recorder.to_json()))
        rows = fleet("features", "skew", root, seen, *trusted, "--limit", "0.3", exit_code=exit_code)
        measures = {(f"f{index}", measure) for index in range(3) for measure in ("mean", "shape", "missing")}
        assert {(row["feature"], row["measure"]) for row in rows} == measures
        assert {row["feature"] for row in rows if row["verdict"] == "skewed"} == ({"f0"} if shift else set())

    snapshot = tmp_path / "1" / "features.snapshot"
    content = bytearray(snapshot.read_bytes())
    content[-1] ^= 1
    snapshot.write_bytes(content)
    with pytest.raises(json.JSONDecodeError):  # it says why on standard error, and prints no document
        fleet(*command, "verify", tmp_path / "1", *trusted, exit_code=1)

"""Coverage, label rates, simulation against reality, recipes and manifests, without a lake."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from features.test_checks import Rows

from fleet_assets.contracts.document import ContractError
from fleet_assets.curate.coverage import CLASSES, Counted, coverage, rare_labels, wilson
from fleet_assets.curate.dataset import simulation_findings
from fleet_assets.curate.manifest import FORMAT, Manifest, checked_name, difference
from fleet_assets.curate.recipe import FOLDER, load_recipe
from fleet_assets.curate.selection import SelectedDrive
from fleet_assets.curate.splits import DriveFacts
from fleet_assets.errors import FleetError
from fleet_assets.features.checks import LEAST_DRIVES

FRAMES = 12


def counted(per_frame: dict[str, dict[str, float]], *, drives: int = 18, seed: int = 0) -> Counted:
    """Drives in equal parts by day, dusk and night. per_frame: class -> light -> mean objects of a frame."""
    random = np.random.default_rng(seed)
    lights = ("day", "dusk", "night")
    names = [f"d{number:02}" for number in range(drives)]
    slices = {
        name: {"light": lights[at % 3], "weather": "clear", "region": ("a", "b")[at % 2]}
        for at, name in enumerate(names)
    }
    objects = {}
    for class_name in CLASSES:
        means = [per_frame.get(class_name, {}).get(slices[name]["light"], 3.0) for name in names]
        of_drive = np.array(means) * random.gamma(4, 0.25, drives)  # drives differ
        objects[class_name] = random.poisson(np.repeat(of_drive, FRAMES))
    split = np.repeat([("train", "validation", "test")[at % 2] for at in range(drives)], FRAMES)
    early = np.arange(drives * FRAMES) % FRAMES < 5
    scenarios = {"early@1.0.0": early, "even@1.0.0": np.arange(drives * FRAMES) % 2 == 0, "never@2.0.0": early & ~early}
    return Counted(np.repeat(names, FRAMES), split, np.ones(drives * FRAMES, bool), objects, slices, scenarios)


# ---- label rates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("night", [0.0, 0.3])
def test_pedestrians_at_night_that_nobody_labelled_are_caught(night: float) -> None:
    [found] = rare_labels(counted({"pedestrian": {"night": night}}), 0.4, 3)
    assert (found.class_name, found.dimension, found.value, found.drives) == ("pedestrian", "light", "night", 6)
    assert "pedestrian labels where light is night" in str(found)
    assert found.rate <= found.highest < 0.4 * found.elsewhere


def test_labels_that_are_there_are_not() -> None:
    found = [rare_labels(counted({"pedestrian": {"night": 2.0}}, seed=seed), 0.4, 3) for seed in range(50)]
    assert sum(map(bool, found)) <= 1


def test_with_few_drives_nothing_is_said() -> None:
    assert rare_labels(counted({"pedestrian": {"night": 0.0}}, drives=6), 0.4, 3) == []


# ---- simulation against reality --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("shift", "count", "findings"), [(3.0, 20, 1), (0.0, 20, 0), (3.0, LEAST_DRIVES - 1, 0)])
def test_simulated_drives_that_are_unlike_real_ones_are_a_finding(shift: float, count: int, findings: int) -> None:
    drives = [f"{letter}{number}" for letter in "ab" for number in range(count)]
    nothing = np.zeros(0, dtype=np.int64)
    selected = [
        SelectedDrive(DriveFacts(name, 0, 0, None), {}, name[0] == "b", nothing, nothing, nothing, {}, {}, ())
        for name in drives
    ]
    snapshot: Any = Rows(shift, drives)
    found = simulation_findings(snapshot, selected)
    assert len(found) == findings
    assert all("ambient_light differs between real and simulated" in one for one in found)


# ---- coverage --------------------------------------------------------------------------------------------------------


def test_every_slice_has_a_row_also_where_a_split_has_none_of_it() -> None:
    rows = coverage(counted({}), ("train", "validation", "test"), 10, 60)
    assert len(rows) == 3 * 3 * (3 + 1 + 2 + 3)
    of_test = [row for row in rows if row["split"] == "test"]
    assert all((row["drives"], row["share_of_drives"], row["missing_drives"]) == (0, None, 10) for row in of_test)
    night = [row for row in rows if (row["value"], row["class_name"]) == ("night", "pedestrian")]
    assert sum(row["drives"] for row in night) == 6
    assert sum(row["frames"] for row in night) == 6 * FRAMES


def test_scenarios_are_slices_of_frames_and_may_overlap() -> None:
    found = counted({})
    rows = [row for row in coverage(found, ("train", "validation", "test"), 10, 60) if row["dimension"] == "scenario"]
    assert {row["value"] for row in rows} == set(found.scenarios)
    for row in rows:
        inside = [
            at
            for at in range(found.drive.size)
            if found.scenarios[row["value"]][at] and found.split[at] == row["split"]
        ]
        assert row["frames"] == len(inside)
        assert row["drives"] == len({found.drive[at] for at in inside})
        assert row["objects"] == sum(found.objects[row["class_name"]][at] for at in inside)
        assert row["missing_drives"] == max(10 - row["drives"], 0)
    frames = {
        name: sum(row["frames"] for row in rows if row["value"] == name) // len(CLASSES) for name in found.scenarios
    }
    assert frames == {"early@1.0.0": 18 * 5, "even@1.0.0": 18 * FRAMES // 2, "never@2.0.0": 0}


def test_wilson_intervals() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(8, 10)
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)  # Newcombe, 1998
    assert wilson(10, 10)[1] == pytest.approx(1.0)


# ---- recipes ---------------------------------------------------------------------------------------------------------


def test_the_recipe_that_ships() -> None:
    recipe = load_recipe("full")
    assert sum(recipe.splits.values()) == pytest.approx(1)
    with pytest.raises(FleetError, match="There is no recipe nope"):
        load_recipe("nope")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("train: 0.6", "train: 0.7", "shares that add up to 1.1"),
        ('select: "TRUE"', "select: frames.speed > 3", "There is no column 'speed'"),
        ("standing: 0.1", "sitting: 0.1", "there is no scenario 'sitting'"),
        ("stride_s: 0.55", "stride_s: 0", "not above 0"),
        ("seed: 7", "seed: -7", "is no count"),
        ("seed: 7", "sede: 7", "'sede' is not known here"),
        ("version: 1.1.0", "version: new", "is no version"),
    ],
)
def test_mistakes_in_recipes(tmp_path: Path, old: str, new: str, why: str) -> None:
    text = (FOLDER / "full.yaml").read_text()
    assert old in text
    (tmp_path / "full.yaml").write_text(text.replace(old, new))
    with pytest.raises(ContractError, match=rf"full.yaml: .*{why}"):
        load_recipe("full", tmp_path)


# ---- manifests -------------------------------------------------------------------------------------------------------


def manifest(name: str = "one", **more: Any) -> Manifest:
    drive = {
        "drive_id": "d1", "split": "train", "clips": 2, "frames": 2, "labels": {"frames": 3},
        "tables": {"ingest.labels": {"version": "v1", "rows": 3}},
    }  # fmt: skip
    empty = {key: {} for key in ("recipe", "policies", "contracts", "code", "left_out", "clips", "findings")}
    return Manifest({"format": FORMAT, "name": name, "commit_id": "c" * 64, **empty, "drives": [drive], **more})


def test_a_manifest_is_what_its_hash_says() -> None:
    one = manifest()
    assert Manifest.read(one.data, one.path).document == one.document
    with pytest.raises(FleetError, match="is not what it was"):
        Manifest.read(one.data.replace(b"train", b"tests"), one.path)
    for broken in (b"[]", b"{", json.dumps({**one.document, "format": 2}).encode(), b"{}"):
        with pytest.raises(FleetError, match=r"no manifest|no JSON"):
            Manifest.read(broken, f"datasets/{hashlib.sha256(broken).hexdigest()}.json")


def test_names_are_part_of_tags() -> None:
    assert checked_name("demo-2026_1") == "demo-2026_1"
    for name in ("", "Demo", "a b", "../x", "a" * 65):
        with pytest.raises(FleetError, match="cannot be called"):
            checked_name(name)


def test_differences_of_datasets() -> None:
    one = manifest()
    assert difference(one, manifest("two")) == []
    [drive] = one.document["drives"]
    changed = {**drive, "split": "test", "tables": {"ingest.labels": {"version": "v2", "rows": 3}}}
    other = manifest("two", recipe={"seed": 8}, drives=[changed, {**drive, "drive_id": "d2"}])
    assert difference(one, other) == [
        {"what": "recipe seed", "one": None, "two": 8},
        {"what": "drive d1: split", "one": "train", "two": "test"},
        {"what": "drive d1: ingest.labels", "one": "v1", "two": "v2"},
        {"what": "drive d2", "one": "not in it", "two": "train"},
    ]

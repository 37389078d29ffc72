"""Scenario files, and a scenario from recording to hits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from curate.drives import DAYTIME, NIGHT, told, told_of
from formats.shared_data import shared
from ingest.decoding import decode

from fleet_assets.contracts.document import ContractError
from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.batch import OUTPUTS
from fleet_assets.curate.scenarios import condition, load_scenarios, scenarios_fingerprint, slices_held, stretches

FILE = """version: 1.0.0
description: Fast.
owner: team:fleet
predicate: {predicate}
"""


def files(folder: Path, **predicates: str) -> Path:
    for name, predicate in predicates.items():
        (folder / f"{name}.yaml").write_text(FILE.format(predicate=predicate))
    return folder


def test_the_scenarios_that_ship() -> None:
    assert {
        "turning", "hard_braking", "crossing_pedestrian", "occluded_pedestrian", "close_following", "cut_in", "low_light",
        "rain", "at_intersection",
    } <= set(load_scenarios())  # fmt: skip
    made_of = load_scenarios()["night_urban_intersection_pedestrians"].predicate.scenarios
    assert set(made_of) == {"night", "urban", "at_intersection", "many_pedestrians", "turning"}
    assert condition("scenario.rain AND frames.complete").scenarios == ("rain",)


@pytest.mark.parametrize(
    ("predicate", "why"),
    [
        (
            "frames.speed > 3",
            r"fast.yaml: There is no column 'speed'.*frames.speed_mps.*line 1, column 1.*line 4, predicate",
        ),
        ("scenario.fast OR TRUE", "made of itself"),
        ("scenario.slow", "There is no scenario 'slow'"),
    ],
)
def test_mistakes_name_file_and_place(tmp_path: Path, predicate: str, why: str) -> None:
    with pytest.raises(ContractError, match=why):
        load_scenarios(files(tmp_path, fast=predicate))


def test_other_mistakes(tmp_path: Path) -> None:
    (tmp_path / "fast.yaml").write_text(FILE.format(predicate="frames.complete") + "lest_s: 3\n")
    with pytest.raises(ContractError, match="'lest_s' is not known here"):
        load_scenarios(tmp_path)
    (tmp_path / "fast.yaml").write_text(FILE.format(predicate="frames.complete").replace("1.0.0", "one"))
    with pytest.raises(ContractError, match="is no version"):
        load_scenarios(tmp_path)


def test_a_changed_scenario_is_noticed(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert scenarios_fingerprint(files(one, fast="frames.speed_mps > 3")) != scenarios_fingerprint(
        files(other, fast="frames.speed_mps > 4")
    )


def test_stretches_are_joined_and_short_ones_left_out(tmp_path: Path) -> None:
    files(tmp_path, fast="frames.complete")
    path = tmp_path / "fast.yaml"
    path.write_text(path.read_text() + "least_s: 0.3\njoin_s: 0.35\n")
    scenario = load_scenarios(tmp_path)["fast"]
    holds = np.array([0, 1, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 0, 1], dtype=bool)
    t_ns = np.arange(holds.size) * 100_000_000
    first, last = stretches(holds, t_ns, scenario)
    # 2 to 5 are 0.3 s apart and joined; 7 to 11 are 0.4 s apart; 13 to 15 are joined.
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(1, 7), (11, 15)]
    assert [part.size for part in stretches(np.zeros(4, dtype=bool), t_ns[:4], scenario)] == [0, 0]


def test_a_slice_has_the_version_and_its_hash_changes_with_what_it_is_made_of(tmp_path: Path) -> None:
    found = {}
    for at, (fast, version) in enumerate((("> 3", "1.0.0"), ("> 4", "1.0.0"), ("> 3", "2.0.0"))):
        folder = tmp_path / str(at)
        folder.mkdir()
        files(
            folder, fast=f"frames.speed_mps {fast}", both="scenario.fast AND frames.complete", other="frames.complete"
        )
        path = folder / "fast.yaml"
        path.write_text(path.read_text().replace("version: 1.0.0", f"version: {version}"))
        found[at] = load_scenarios(folder)
    assert [found[at]["fast"].slice for at in found] == ["fast@1.0.0", "fast@1.0.0", "fast@2.0.0"]
    for name in ("fast", "both"):
        assert found[0][name].sha256 != found[1][name].sha256
        assert found[0][name].sha256 == found[2][name].sha256  # the same by another name
    assert found[0]["other"].sha256 == found[1]["other"].sha256


def test_what_stretches_hold_is_what_lies_in_one_of_them() -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        edges = np.unique(random.integers(-20, 60, 2 * random.integers(0, 6)))
        pairs = edges[: edges.size // 2 * 2].reshape(-1, 2)
        hits = [{"t_first_ns": int(first), "t_last_ns": int(last)} for first, last in pairs]
        row = {"scenario": "rain", "scenario_version": "1.2.0", "hits": hits}
        rows = pa.Table.from_pylist([row, {**row, "scenario": "fog", "hits": []}])
        at = random.integers(-25, 65, 40)
        found = slices_held(rows, "t_first_ns", "t_last_ns", at)
        assert found["rain@1.2.0"].tolist() == [any(first <= one <= last for first, last in pairs) for one in at]
        assert not found["fog@1.2.0"].any()


@pytest.mark.slow
def test_night_urban_intersection_with_many_pedestrians(tmp_path: Path) -> None:
    """From simulated recordings, by night and by day; what was hit is looked up in the labels themselves."""
    name = "night_urban_intersection_pedestrians"
    found = {}
    for light, start in (("night", NIGHT), ("day", DAYTIME)):
        (tmp_path / light).mkdir()
        found[light] = told(tmp_path / light, seed=3, start=start, region="hamburg", light=light, weather="clear")
        for table in OUTPUTS:
            assert found[light][table].schema.equals(load_tables()[table].arrow_schema)

    def of(light: str) -> dict[str, dict]:  # type: ignore[type-arg]
        return {row["scenario"]: row for row in found[light]["curate.scenario_hits"].to_pylist()}

    assert of("day")[name]["hits"] == []
    assert of("day")["many_pedestrians"]["hit_frames"] > 0
    assert of("night")[name]["hits"] != []
    tables = found["night"]
    for hit in of("night")[name]["hits"]:
        for frame in range(hit["first_frame"], hit["last_frame"] + 1):
            near = people_near(tables, frame)
            assert len(near) >= 3, (frame, near)


@pytest.mark.slow
def test_a_real_recording_with_labels_of_its_radar(tmp_path: Path) -> None:
    """RADIATE: labels carry the radar's stamps, every 250 ms; frames are those of the LiDAR, every 100 ms."""
    decoded = decode(tmp_path, shared("radiate_tiny_foggy"), vehicle="radiate", start=None)
    found = told_of(decoded, weather="fog")
    around = found["curate.surroundings"]
    assert around.num_rows == 42
    labelled = around.filter(around["labelled"])
    assert 15 <= labelled.num_rows < 42  # between two sweeps of the radar nobody looked
    assert pc.sum(labelled["vehicles"]).as_py() > 0
    assert around["turned_rad_5s"].null_count == 42  # its inertial unit's clock is not known
    hits = {row["scenario"]: row for row in found["curate.scenario_hits"].to_pylist()}
    assert hits["fog"]["hit_frames"] == 42
    assert hits["turning"]["unknown_frames"] == 42


def people_near(tables: dict[str, pa.Table], frame: int) -> list[str]:
    """Tracks of the pedestrians within 30 m in the camera image that is nearest to the frame, whenever it came."""
    matches = tables["synchronise.matches"]
    of_frame = pc.and_(pc.equal(matches["frame"], frame), pc.equal(matches["channel"], "camera_front"))
    [sequence] = matches.filter(pc.and_(of_frame, pc.equal(matches["policy"], "offline")))["sequence"].to_pylist()
    messages = tables["ingest.messages"]
    image = pc.and_(pc.equal(messages["stream"], "camera_front"), pc.equal(messages["sequence"], sequence))
    [stamp] = messages.filter(image)["t_device_ns"].to_pylist()
    return [
        row["track_id"]
        for row in tables["ingest.labels"].filter(pc.equal(tables["ingest.labels"]["t_device_ns"], stamp)).to_pylist()
        if row["class_name"] == "pedestrian" and np.hypot(row["x_m"], row["y_m"]) < 30
    ]

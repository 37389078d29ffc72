"""From drives to a dataset and its samples, on a real lake: what is in it, what is left out, and that it stays."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from package.parts import live_view
from typer.testing import CliRunner

from fleet_assets.capture.deliver import deliver
from fleet_assets.cli import app
from fleet_assets.curate import assets
from fleet_assets.curate.batch import scenarios_batch
from fleet_assets.curate.coverage import scenarios_holding
from fleet_assets.curate.dataset import DATASETS, Dataset, clips_of, coverage_of, datasets, make, open_dataset, publish
from fleet_assets.curate.manifest import difference
from fleet_assets.curate.recipe import SPLITS, load_recipe
from fleet_assets.curate.samples import samples_batch
from fleet_assets.curate.samples_reader import Samples
from fleet_assets.curate.scenarios import load_scenarios
from fleet_assets.curate.surroundings import causal
from fleet_assets.edge.messages import decode
from fleet_assets.edge.recording import Recording
from fleet_assets.errors import FleetError
from fleet_assets.evaluate import gate_file
from fleet_assets.evaluate.assets import report, verdict
from fleet_assets.evaluate.fetch import fetch_recordings
from fleet_assets.evaluate.gate_file import GATES
from fleet_assets.evaluate.record import read_record
from fleet_assets.evaluate.rehearsals import Drives
from fleet_assets.evaluate.scenarios import scenarios_of
from fleet_assets.features.assets import BUNDLE, SERVICE
from fleet_assets.features.batch import features_batch
from fleet_assets.features.registry import apply as apply_features
from fleet_assets.features.service_snapshot import bundle_folder, service_bundle
from fleet_assets.features.snapshot_build import build_snapshot
from fleet_assets.features.write import upsert
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.ingest.context_batch import context_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.payload import read_payload
from fleet_assets.package.approve import verify_candidate
from fleet_assets.package.assets import release_candidate
from fleet_assets.package.releases import EVALUATION, Releases, State
from fleet_assets.resources import FleetResource, Profile
from fleet_assets.services.home import Home
from fleet_assets.simulate.drives import write_drive
from fleet_assets.synchronise.batch import synchronise_batch
from fleet_assets.train.assets import bake_off, model, training_set
from fleet_assets.train.bake_off import BUDGETS, Budget
from fleet_assets.train.fit import Recipe
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames
from fleet_assets.train.rig import vehicle_rig

pytestmark = [
    pytest.mark.services,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]
# Start, region: the last two are at one time and, by the seed, at one place.
STARTS = (
    ("2026-01-05T10:00:00Z", "munich", 1),
    ("2026-01-06T20:00:00Z", "hamburg", 2),
    ("2026-01-07T10:00:00Z", "hamburg", 3),
    ("2026-01-08T20:00:00Z", "munich", 4),
    ("2026-01-08T20:30:00Z", "munich", 4),
)


@pytest.fixture(scope="module")
def home(own_home: Home) -> Home:
    return own_home


@pytest.fixture(scope="module")
def lake(own_lake: Lake) -> Lake:
    return own_lake


@pytest.fixture(scope="module")
def drives(home: Home, lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Simulated drives, carried to scenario hits in this process; one more only as far as frames, and one to quarantine."""
    folder = tmp_path_factory.mktemp("recordings")
    keys = []
    further = (("2026-01-09T10:00:00Z", "munich", 6), ("2026-01-10T10:00:00Z", "munich", 7))
    for number, (start, region, seed) in enumerate((*STARTS, *further)):
        path = folder / f"{number}.mcap"
        faults = ["wrong_contract"] if seed == 7 else []
        write_drive(
            path,
            seed=seed,
            start=datetime.fromisoformat(start),
            duration_s=7,
            vehicle="car7",
            region=region,
            weather="clear",
            faults=faults,
        )
        keys.append(deliver(path, home.landing, vehicle="car7", start=start).drive_id)
    outcomes = [ingest_batch(home, lake, keys, run_id="test", parallel=False)]
    outcomes.append(context_batch(home, lake, keys, run_id="test"))
    outcomes.append(synchronise_batch(home, lake, keys, run_id="test", parallel=False))
    outcomes.append(features_batch(home, lake, keys[: len(STARTS)], run_id="test", parallel=False))
    outcomes.append(scenarios_batch(home, lake, keys[: len(STARTS)], run_id="test", parallel=False))
    status = {(drive.drive_id, drive.status) for outcome in outcomes for drive in outcome.drives}
    assert status == {*((key, "published") for key in keys[:-1]), (keys[-1], "quarantined"), (keys[-1], "skipped")}, (
        outcomes
    )
    return keys


@pytest.fixture(scope="module")
def made(lake: Lake, drives: list[str]) -> Dataset:
    found = make(lake.at(), load_recipe("full"), "first")
    publish(lake, found, run_id="first")
    return found


@pytest.fixture(scope="module")
def samples(home: Home, lake: Lake, made: Dataset) -> Samples:
    outcome = samples_batch(home, lake, "first", run_id="samples", parallel=False)
    assert {drive.status for drive in outcome.drives} == {"published"}
    return Samples.open(lake, "first")


def test_a_manifest_says_what_it_is_made_of(lake: Lake, drives: list[str], made: Dataset) -> None:
    manifest, snapshot = open_dataset(lake, "first")
    assert manifest.document == made.manifest.document
    assert list(manifest.drives) == drives[: len(STARTS)]
    assert manifest.document["left_out"]["drives"] == {
        drives[-2]: "it has no rows in features.ego_motion",
        drives[-1]: "it is in ingest.quarantine",
    }
    for drive, about in manifest.drives.items():
        assert about["simulated"]
        assert about["slices"]["light"] == ("night" if "T20" in drive else "day")
        assert about["labels"]["labelled_frames"] > 50
        for table, pinned in about["tables"].items():
            known = lake.at(manifest.commit_id).versions([drive], [table])[drive, table]
            assert (known.version, known.rows) == (pinned["version"], pinned["rows"])
    [row] = [row for row in datasets(snapshot) if row["name"] == "first"]
    assert (row["drives"], row["left_out_drives"]) == (len(STARTS), 2)
    assert row["commit_id"] == manifest.commit_id
    again = make(lake.at(manifest.commit_id), load_recipe("full"), "first")
    assert again.manifest.data == manifest.data


def test_what_was_at_one_place_and_time_is_in_one_split(made: Dataset, drives: list[str]) -> None:
    split = {drive: about["split"] for drive, about in made.manifest.drives.items()}
    assert split[drives[3]] == split[drives[4]]
    assert set(split.values()) == {"train", "validation", "test"}
    assert made.leaks == []


def test_clips_are_in_order_and_as_far_apart_as_the_recipe_says(lake: Lake, made: Dataset) -> None:
    manifest, snapshot = open_dataset(lake, "first")
    clips = clips_of(snapshot, manifest).to_pylist()
    assert [clip["clip"] for clip in clips] == list(range(len(clips)))
    assert [(clip["drive"], clip["t_first_ns"]) for clip in clips] == sorted(
        (c["drive"], c["t_first_ns"]) for c in clips
    )
    for drive in manifest.drives:
        times = [clip["t_first_ns"] for clip in clips if clip["drive"] == drive]
        assert len(times) == 12
        assert 0.55e9 <= min(np.diff(times)) <= max(np.diff(times)) < 0.7e9


def test_a_dataset_stays(lake: Lake, made: Dataset) -> None:
    commit = publish(lake, made, run_id="again")
    assert commit == lake.repository.commit_id("dataset-first")
    other = Dataset(
        **{**vars(made), "manifest": replace(made.manifest, document={**made.manifest.document, "code": {}})}
    )
    with pytest.raises(FleetError, match="There is a dataset first already"):
        publish(lake, other, run_id="other")
    with pytest.raises(FleetError, match="There is no dataset nope"):
        open_dataset(lake, "nope")
    with pytest.raises(FleetError, match="leaks from one split"):
        publish(lake, replace(made, leaks=["a and b were at one place"]), run_id="leaky")


def test_drives_keep_their_split(lake: Lake, made: Dataset) -> None:
    """With other shares and another seed, nothing that has judged comes to train."""
    recipe = replace(load_recipe("full"), seed=99, splits={"train": 0.1, "validation": 0.1, "test": 0.8})
    later = make(lake.at(), recipe, "later").manifest
    assert {drive: about["split"] for drive, about in later.drives.items()} == {
        drive: about["split"] for drive, about in made.manifest.drives.items()
    }
    told = {row["what"]: row for row in difference(made.manifest, later)}
    assert "drive" not in " ".join(told)
    assert told.keys() >= {"commit"}


def test_coverage_counts_labels_and_tells_what_is_missing(lake: Lake, made: Dataset) -> None:
    _, snapshot = open_dataset(lake, "first")
    rows = coverage_of(snapshot, "first")
    night = [row for row in rows if (row["dimension"], row["value"]) == ("light", "night")]
    assert sum(row["drives"] for row in night if row["class_name"] == "vehicle") == 3
    for row in rows:
        assert row["missing_drives"] == max(10 - row["drives"], 0)
        assert row["share_low"] <= (row["share_of_drives"] or 0) <= row["share_high"] or not row["drives"]
    frames = sum(row["frames"] for row in rows if row["dimension"] == "light" and row["class_name"] == "vehicle")
    assert frames == made.clips.num_rows
    hits = snapshot.scan("curate.scenario_hits").to_pylist()
    stretches = {(row["drive_id"], row["scenario"]): row["hits"] for row in hits}
    clips = made.clips.to_pylist()  # of one frame each
    for one in load_scenarios().values():
        inside = [
            clip
            for clip in clips
            if any(
                hit["first_frame"] <= clip["last_frame"] <= hit["last_frame"]
                for hit in stretches[clip["drive"], one.name]
            )
        ]
        told = [row for row in rows if (row["dimension"], row["value"]) == ("scenario", one.slice)]
        assert {row["split"]: row["frames"] for row in told if row["class_name"] == "vehicle"} == {
            split: sum(clip["split"] == split for clip in inside) for split in SPLITS
        }
        assert inside == [clip for clip in clips if one.name in clip["scenarios"]]
        assert made.manifest.document["policies"][f"scenario {one.name}"] == f"{one.version} {one.sha256}"
    holding = scenarios_holding(snapshot, "light", "night", list(made.manifest.drives)[:2])
    of_night = next(row for row in holding if row["scenario"] == "night")
    assert (of_night["drives"], of_night["drives_not_in_dataset"]) == (3, 2)


def test_samples_hold_what_the_recordings_hold(lake: Lake, made: Dataset, samples: Samples) -> None:
    batches = list(samples.batches(rows=4))
    assert all(batch.num_rows <= 4 for batch in batches)
    rows = pa.Table.from_batches(batches)
    assert rows.num_rows == made.clips.num_rows
    snapshot = lake.at(made.manifest.commit_id)
    for number in range(0, rows.num_rows, 3):
        row = rows.slice(number, 1).to_pylist()[0]
        drive = row["drive_id"]
        matches = causal(snapshot.scan("synchronise.matches", drives=[drive]))
        for role, stream in (("camera", "camera_front"), ("lidar", "lidar"), ("radar", "radar_polar")):
            of_frame = pc.and_(pc.equal(matches["frame"], row["frame"]), pc.equal(matches["channel"], stream))
            [match] = matches.filter(of_frame).to_pylist()
            if match["sequence"] is None:
                assert (row[role], row[f"{role}_age_s"]) == (None, None)
                continue
            wanted = f"stream = '{stream}' AND sequence = {match['sequence']}"
            message = snapshot.scan("ingest.messages", drives=[drive], predicate=wanted)
            assert row[role] == read_payload(lake.repository, snapshot.commit_id, message)[0]
            assert row[f"{role}_age_s"] == pytest.approx(-match["dt_ns"] * 1e-9, abs=1e-3)  # that one by fitted clocks
        assert decode("camera", row["camera_schema"], row["camera"]).content.shape == (64, 256, 3)
        around = snapshot.scan("curate.surroundings", drives=[drive], predicate=f"frame = {row['frame']}").to_pylist()[
            0
        ]
        assert row["labelled"]
        assert sum(label["class_name"] == "pedestrian" for label in row["labels"]) == around["pedestrians"]
        assert row["light"] == made.manifest.drives[drive]["slices"]["light"]


def test_ages_are_those_that_the_vehicle_tells(lake: Lake, made: Dataset, samples: Samples, tmp_path: Path) -> None:
    rows = pa.Table.from_batches(list(samples.batches()))
    snapshot = lake.at(made.manifest.commit_id)
    for drive, paths in fetch_recordings(snapshot, sorted(made.manifest.drives), tmp_path).items():
        told = {frame.age_s.tobytes() for frame in frames(Recording.open(paths[0]), vehicle_rig())}
        own = rows.filter(pc.equal(rows["drive_id"], drive))
        ages = [pc.fill_null(own[f"{role}_age_s"], float("nan")).to_numpy() for role in ("camera", "lidar", "radar")]
        assert own.num_rows
        assert {age.tobytes() for age in np.stack(ages, axis=1).astype(np.float32)} <= told


def test_samples_are_read_in_one_order_and_only_what_is_asked_for(samples: Samples) -> None:
    columns = ["camera_age_s", "light"]
    found = pa.Table.from_batches(samples.batches("train", columns, rows=3))
    assert found.column_names == ["drive_id", "frame", "t_ns", *columns]
    keys = list(zip(found["drive_id"].to_pylist(), found["frame"].to_pylist(), strict=True))
    assert keys == sorted(keys)
    assert set(found["drive_id"].to_pylist()) == {
        drive for drive, about in samples.manifest.drives.items() if about["split"] == "train"
    }
    assert pa.Table.from_batches(samples.batches("train", columns, rows=64)).equals(found.combine_chunks())


def test_payload_is_laid_out_to_be_streamed(lake: Lake, samples: Samples, tmp_path: Path) -> None:
    files = lake.repository.list("main", "tables/curate/samples/")
    [first, *_] = [item for item in files if item.path.endswith(".parquet")]
    path = tmp_path / "samples.parquet"
    path.write_bytes(lake.repository.get("main", first.path))
    metadata = pq.ParquetFile(path).metadata
    group = metadata.row_group(0)
    columns = {group.column(at).path_in_schema: group.column(at) for at in range(metadata.num_columns)}
    assert columns["frame"].is_stats_set
    nested = {"other_sensors": 4, "radar_earlier": 3}
    for name in ("radar", "camera", "lidar", *(f"{name}.list.element.message" for name in nested)):
        assert not columns[name].is_stats_set
        assert "RLE_DICTIONARY" not in columns[name].encodings
    last = ["radar", "camera", "lidar", *(name for name, fields in nested.items() for _ in range(fields))]
    assert [name.split(".")[0] for name in columns][-len(last) :] == last


def test_samples_that_are_there_are_not_written_again(home: Home, lake: Lake, samples: Samples) -> None:
    before = lake.repository.commit_id("main")
    outcome = samples_batch(home, lake, "first", run_id="again", parallel=False)
    assert {drive.note for drive in outcome.drives} == {"its samples are there"}
    assert lake.repository.commit_id("main") == before


def test_a_missing_sample_is_an_error(lake: Lake, samples: Samples) -> None:
    row = samples.clips.slice(0, 1).to_pylist()[0] | {"first_frame": 68, "last_frame": 68}
    damaged = replace(samples, clips=pa.Table.from_pylist([row], schema=samples.clips.schema))
    with pytest.raises(FleetError, match=r"1 samples of dataset first are missing.*frame 68"):
        list(damaged.batches(columns=[]))


def test_a_drive_whose_tables_disagree_is_left_out(home: Home, lake: Lake, drives: list[str], made: Dataset) -> None:
    """The context of a drive changes, and what was made from it has not been made again."""
    rows = lake.at().scan("ingest.context", drives=drives[:1])
    at = rows.column_names.index("weather")
    upsert(lake, "ingest.context", rows.set_column(at, rows.schema.field(at), pa.array(["rain"])), name="rainy")
    later = make(lake.at(), load_recipe("full"), "later").manifest
    assert drives[0] not in later.drives
    reason = later.document["left_out"]["drives"][drives[0]]
    assert reason == "its rows in curate.scenario_hits were made from earlier ones of ingest.context"
    assert any(row["what"] == f"drive {drives[0]}" for row in difference(made.manifest, later))
    scenarios_batch(home, lake, drives[:1], run_id="healed", parallel=False)
    assert drives[0] in make(lake.at(), load_recipe("full"), "later").manifest.drives


def test_hits_of_scenarios_that_were_edited_since_are_in_no_dataset(
    lake: Lake, made: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest says what its scenarios mean, and that is what the hits are of."""
    monkeypatch.setattr("fleet_assets.curate.batch.scenarios_fingerprint", lambda: "of edited files")
    with pytest.raises(FleetError, match=r"5 drives: its rows in curate\.scenario_hits were made by other scenarios"):
        make(lake.at(made.manifest.commit_id), load_recipe("full"), "edited")


def test_the_graph_makes_a_dataset(home: Home, lake: Lake, drives: list[str], made: Dataset) -> None:
    resources = {"fleet": FleetResource(home_path=str(home.root)), "profile": Profile()}
    config = dg.RunConfig(ops={"curate__dataset": assets.DatasetConfig(name="by-graph")})
    done = dg.materialize([assets.dataset], resources=resources, run_config=config)
    assert done.success
    told = {check.check_name: check.passed for check in done.get_asset_check_evaluations()}
    assert told["leaks"]
    assert told["label_rates"]
    assert "by-graph" in [row["name"] for row in datasets(lake.at())]
    assert DATASETS in lake.at().applied
    # Another run under a name that is taken.
    again = dg.materialize([assets.dataset], resources=resources, run_config=config, raise_on_error=False)
    assert not again.success


def test_commands(home: Home, made: Dataset) -> None:
    def call(*arguments: str) -> Any:
        done = CliRunner().invoke(app, ["datasets", *arguments, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    [first] = [row for row in call("list") if row["name"] == "first"]
    assert first["drives"] == len(STARTS)
    shown = call("show", "first")
    assert shown["manifest"] == made.manifest.document
    assert len(shown["coverage"]) == made.coverage.num_rows
    assert call("show", "first", "--slice", "light=night")[0]["drives"] == 3
    for name in ("night", "night@1.0.0"):
        [row] = call("show", "first", "--slice", f"scenario={name}")
        assert (row["scenario"], row["drives"]) == ("night", 3)
    assert call("show", "first", "--slice", "scenario=night@9.0.0") == []
    assert call("diff", "first", "first") == []
    for_people = CliRunner().invoke(app, ["datasets", "show", "first"])
    assert for_people.exit_code == 0, for_people.output
    assert "it has no rows in features.ego_motion" in for_people.stderr


@pytest.mark.filterwarnings("ignore:.*noload.*:DeprecationWarning")  # MLflow asks SQLAlchemy for what it will drop
def test_from_samples_to_a_candidate_without_pass(
    home: Home, lake: Lake, made: Dataset, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training set, bake-off, model, report, verdict, candidate, as a run makes them, with trainings of a few steps."""
    budget = Budget(("radar", "early"), 2, 2, Recipe(steps=4, batch=2))
    monkeypatch.setitem(BUDGETS, "demo", budget)
    monkeypatch.setattr(gate_file, "GATES", tmp_path / "gates")
    (tmp_path / "gates").mkdir()
    rule = "- {metric: recall, where: {class: vehicle, scenario: [night@1.0.0, low_light@1.0.0]}, limit: 0.5}\n"
    (tmp_path / "gates" / "demo.yaml").write_text((GATES / "demo.yaml").read_text() + rule)
    apply_features()
    resources = {"fleet": FleetResource(home_path=str(home.root)), "profile": Profile(name="demo")}
    told = {assets.SAMPLES: {"dataset": "first"}, BUNDLE: {"bundle": bundle_of(home, tmp_path)}}

    with dg.DagsterInstance.ephemeral() as instance:

        def materialize(*wanted: dg.AssetsDefinition) -> dg.ExecuteInProcessResult:
            return dg.materialize(list(wanted), instance=instance, resources=resources, raise_on_error=False)

        for key, metadata in told.items():
            instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata))
        trained = materialize(training_set, bake_off, model)
        assert trained.success
        [set_] = trained.asset_materializations_for_node("train__training_set")
        folder = Path(str(set_.metadata["folder"].value))
        about = folder / "about.json"
        manifest = json.loads(about.read_text())
        [shipped] = trained.asset_materializations_for_node("train__model")
        description = Path(str(shipped.metadata["folder"].value)) / "model.json"
        assert json.loads(description.read_text())["normalisation"] == manifest["normalisation"]
        about.write_text(
            json.dumps({**manifest, "normalisation": {**manifest["normalisation"], "camera_mean": [0, 0, 0]}})
        )
        [failure] = (event for event in materialize(model).all_events if event.is_step_failure)
        assert "was normalised otherwise" in failure.step_failure_data.error_display_string
        about.write_text(json.dumps(manifest))
        snapshot = lake.at(made.manifest.commit_id)
        for split in ("train", "validation", "test"):
            frames = FrameSet.load(folder / split)
            recordings = fetch_recordings(snapshot, frames.drives, tmp_path / "recordings")
            assert len(frames)
            driven = Drives(recordings, frames, vehicle_rig())
            assert driven.otherwise == {"not_made": 0, "other_context": 0}
        held = scenarios_held(snapshot, frames)
        with pytest.raises(FleetError, match=r"does not know scenario night@9\.0\.0"):
            scenarios_of(lake, "first", ["night@9.0.0"], frames)
        judged = materialize(report, verdict)
        [check] = judged.get_asset_check_evaluations()
        assert not check.passed
        packaged = materialize(release_candidate)
        assert not packaged.success
    [check] = packaged.get_asset_check_evaluations()
    assert not check.passed
    releases = Releases(home.releases)
    [id_] = releases.ids()
    assert releases.release(id_).state is State.CANDIDATE
    assert releases.verdict(id_).bound_to["dataset_commit"] == made.manifest.commit_id
    told = read_record(releases.candidate(id_) / EVALUATION)
    assert told.verdict == releases.verdict(id_)
    for name in ("night", "low_light"):
        one = told.evidence.scenarios[f"{name}@1.0.0"]
        assert one.holds.tolist() == held[name]
        assert one.sha256 == load_scenarios()[name].sha256
        assert {cell.slice.get("scenario") for cell in told.verdict.cells} >= {f"{name}@1.0.0"}
    with pytest.raises(FleetError, match="has no PASS"):
        verify_candidate(releases, id_)


def scenarios_held(snapshot: Any, frames: FrameSet) -> dict[str, list[bool]]:
    """Looked up frame by frame."""
    rows = snapshot.scan("curate.scenario_hits", ["drive_id", "scenario", "hits"]).to_pylist()
    hits = {(row["drive_id"], row["scenario"]): row["hits"] for row in rows}
    return {
        name: [
            any(hit["t_first_ns"] <= t_ns <= hit["t_last_ns"] for hit in hits[frames.drives[number], name])
            for number, t_ns in zip(frames.drive.tolist(), frames.t_ns.tolist(), strict=True)
        ]
        for name in load_scenarios()
    }


def test_samples_whose_order_is_broken_are_refused(lake: Lake, samples: Samples) -> None:
    """Within what is read at once, and from one reading to the next."""
    [drive] = samples.of_split("test").slice(0, 1)["drive"].to_pylist()
    rows = lake.at().scan("curate.samples", drives=[drive]).sort_by("frame")
    at = rows.column_names.index("t_ns")
    turned = rows["t_ns"].take(pa.array([1, 0, *range(2, rows.num_rows)]))
    upsert(lake, "curate.samples", rows.set_column(at, rows.schema.field(at), turned), name="turned")
    broken = replace(samples, snapshot=lake.at())
    for at_once in (1, 64):
        with pytest.raises(FleetError, match=f"The samples of {drive} are not in order"):
            list(broken.batches(columns=[], rows=at_once))


def test_pedestrians_at_night_that_nobody_labelled_warn_at_the_dataset(
    home: Home, lake: Lake, drives: list[str], made: Dataset
) -> None:
    """The gap that makes a model blind in low light, seen before anything is trained; the dataset is made all the same."""
    day, night = [[key for key in drives[:-1] if ("T20" in key) is dark] for dark in (False, True)]
    resources = {"fleet": FleetResource(home_path=str(home.root)), "profile": Profile()}

    def found(name: str) -> tuple[bool, list[str]]:
        for batch in (features_batch, scenarios_batch):
            batch(home, lake, [*day, *night], run_id=name, parallel=False)
        config = dg.RunConfig(ops={"curate__dataset": assets.DatasetConfig(name=name)})
        done = dg.materialize([assets.dataset], resources=resources, run_config=config)
        assert done.success
        [check] = [one for one in done.get_asset_check_evaluations() if one.check_name == "label_rates"]
        assert check.severity is dg.AssetCheckSeverity.WARN
        document = open_dataset(lake, name)[0].document
        assert {about["drive_id"] for about in document["drives"]} == {*day, *night}
        return check.passed, document["findings"]["label_rates"]

    assert found("labelled") == (True, [])
    labels = lake.at().scan("ingest.labels", drives=night)
    at = labels.column_names.index("class_name")
    nobody = pc.if_else(pc.equal(labels["class_name"], "pedestrian"), "unknown", labels["class_name"])
    upsert(lake, "ingest.labels", labels.set_column(at, labels.schema.field(at), nobody), name="nobody")
    passed, [finding] = found("nobody")
    assert not passed
    assert finding.startswith("pedestrian labels where light is night: 0.00 a frame")


def bundle_of(home: Home, scratch: Path) -> str:
    """The installation's feature bundle, of a frame of no drive; its id."""
    views = [live_view(name, 1) for name in ("ego_motion", "scene_context", "sensor_health")]
    build_snapshot(
        scratch / "snapshot", views, service=SERVICE, lakefs_commit="c0ffee", delta_versions={"features.ego_motion": 1}
    )
    return service_bundle(home, scratch / "snapshot", bundle_folder(home, SERVICE)).id

"""From recordings to a bundle on a vehicle, on a real lake: what the graph's assets make, check, and refuse."""

from __future__ import annotations

import math
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from fleet_assets.capture.context_files import read
from fleet_assets.capture.deliver import deliver
from fleet_assets.cli import app
from fleet_assets.edge.bundle import activate, install
from fleet_assets.edge.features import FeatureBundle
from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.errors import FleetError
from fleet_assets.features import assets, checks
from fleet_assets.features.batch import features_batch
from fleet_assets.features.catalogue import catalogue, kernel_history, look_up
from fleet_assets.features.lane_policy import load_lane_policy
from fleet_assets.features.lanes import CONTRACT, Lanes, lanes_of, publish_lanes, tile_of
from fleet_assets.features.places import CONTEXT, VISITS, publish_places
from fleet_assets.features.registry import feature_store, publish_online
from fleet_assets.features.replay import OUTPUTS
from fleet_assets.features.service_snapshot import (
    bundle_differences,
    bundle_folder,
    installation_key,
    online_differences,
    service_bundle,
    service_snapshot,
    snapshot_file,
    three_ways,
)
from fleet_assets.features.write import publication_key, upsert
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.kernels.features.on_demand import ON_DEMAND
from fleet_assets.lake.lake import Lake
from fleet_assets.resources import FleetResource
from fleet_assets.services.home import Home
from fleet_assets.signing.keys import KeyRing
from fleet_assets.simulate.drives import write_drive
from fleet_assets.simulate.lanes import LANES as LANES_FILE
from fleet_assets.simulate.lanes import write_lanes
from fleet_assets.synchronise.batch import synchronise_batch
from fleet_assets.throw_away import run as fleet

pytestmark = [
    pytest.mark.services,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::dagster.BetaWarning"),
]
PROJECT = Path(__file__).resolve().parents[2]
EXAMPLE = "car7--20260102T030405Z"
STARTS = ("2026-01-05T10:00:00Z", "2026-01-05T17:00:00Z")


@pytest.fixture(scope="module")
def home(own_home: Home) -> Home:
    return own_home


@pytest.fixture(scope="module")
def lake(own_lake: Lake) -> Lake:
    return own_lake


@pytest.fixture(scope="module")
def drives(home: Home, lake: Lake, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two simulated drives, carried to live features in this process."""
    folder = tmp_path_factory.mktemp("recordings")
    keys = []
    for seed, start in enumerate(STARTS):
        path = folder / f"{seed}.mcap"
        write_drive(path, seed=seed, start=datetime.fromisoformat(start), duration_s=12, vehicle="car7")
        keys.append(deliver(path, home.landing, vehicle="car7", start=start).drive_id)
    for batch in (ingest_batch, synchronise_batch, features_batch):
        outcome = batch(home, lake, keys, run_id="test", parallel=False)
        assert [drive.status for drive in outcome.drives] == ["published", "published"], outcome
        assert outcome.audit_failures == {}
    return keys


@pytest.fixture(scope="module")
def made(home: Home, lake: Lake, drives: list[str]) -> dg.ExecuteInProcessResult:
    write_lanes(home.context / LANES_FILE, TOWNS)
    chosen = [assets.place_context, assets.lane_curvature, assets.registry, assets.online_snapshot, assets.edge_bundle]
    return dg.materialize(chosen, resources={"fleet": FleetResource(home_path=str(home.root))})


def publish(home: Home, lake: Lake, service: str) -> None:
    """Snapshot and bundle of a service that the graph makes none of."""
    file, folder = snapshot_file(home, service), bundle_folder(home, service)
    service_snapshot(lake.at(), service, file)
    publish_online(file, service)
    service_bundle(home, file, folder)


def test_live_features_of_every_frame(lake: Lake, drives: list[str]) -> None:
    snapshot = lake.at()
    assert checks.row_counts(snapshot, drives) == []
    assert checks.one_identity(snapshot, drives) == []
    assert [finding for drive in drives for finding in checks.as_a_vehicle(snapshot, drive)] == []
    motion = snapshot.scan("features.ego_motion", drives=drives)
    assert motion["speed_mps"].null_count < motion.num_rows / 4
    scene = snapshot.scan("features.scene_context", drives=drives)
    light = {
        drive: pc.mean(scene.filter(pc.equal(scene["drive_id"], drive))["ambient_light"]).as_py() for drive in drives
    }
    assert light[drives[1]] < light[drives[0]]  # the second drive is by night


def test_a_repeat_publishes_nothing_new(home: Home, lake: Lake, drives: list[str]) -> None:
    before = {table: lake.at().scan(table, drives=drives) for table in OUTPUTS}
    outcome = features_batch(home, lake, drives, run_id="again", parallel=False)
    assert [drive.status for drive in outcome.drives] == ["published", "published"]
    for table, rows in before.items():
        order = [(name, "ascending") for name in ("drive_id", "frame" if "frame" in rows.column_names else "cell")]
        assert lake.at().scan(table, drives=drives).sort_by(order).equals(rows.sort_by(order))


def test_the_graph_makes_a_bundle(made: dg.ExecuteInProcessResult) -> None:
    assert made.success
    told = {check.check_name: check for check in made.get_asset_check_evaluations()}
    assert {name for name, check in told.items() if not check.passed} == set()
    of_lanes = {"declared_approximation", "file"}
    assert set(told) == {"row_counts", "one_identity", "as_a_vehicle", "drift", "bias", "as_in_the_lake", *of_lanes}


def test_three_ways_to_the_same_features(
    made: dg.ExecuteInProcessResult, home: Home, lake: Lake, drives: list[str], tmp_path: Path
) -> None:
    ring = KeyRing([installation_key(home).public])
    activate(tmp_path, install(bundle_folder(home, assets.SERVICE), tmp_path, ring).id, ring)
    device = FeatureBundle.open(tmp_path, ring)
    commit = device.versions.lakefs_commit
    row = lake.at(commit).scan("features.ego_motion", drives=drives[:1], predicate="frame = 60").to_pylist()[0]
    offline = look_up(assets.SERVICE, {"drive_id": drives[0], "frame": "60"}, ref=commit, time=None)
    answer = device.answer("ego_motion")
    device.lookup("ego_motion", (drives[0], 60), answer)
    assert offline["commit_id"] == commit
    assert offline["status"] == "found"
    refs = [f"ego_motion:{name}" for name in answer.features]
    online = feature_store().get_online_features(refs, [{"drive_id": drives[0], "frame": 60}]).to_dict()
    for name, value in zip(answer.features, answer.values.tolist(), strict=True):
        assert online[name] == [row[name]]
        assert value == row[name] == offline["features"][name] or (math.isnan(value) and row[name] is None)
    ways = three_ways(home, assets.SERVICE, "ego_motion", {"drive_id": drives[0], "frame": 60})
    assert [name for name, found in ways.items() if len(set(found.values())) > 1] == []
    assert offline["features"]["stopping_distance_m"] == pytest.approx(
        row["speed_mps"] * 1.2 + row["speed_mps"] ** 2 / 8
    )


def test_what_the_page_says_of_a_vehicle(
    made: dg.ExecuteInProcessResult, home: Home, lake: Lake, drives: list[str], tmp_path: Path
) -> None:
    """The last step of docs/features.md, as it stands there."""
    page = (PROJECT / "docs/features.md").read_text().split("## On the vehicle\n")[1].split("\n## ")[0]
    for place, here in (("/var/lib/features", tmp_path), (".fleet", home.root), (EXAMPLE, drives[0])):
        assert place in page
        page = page.replace(place, str(here))
    _, commands, _, program, _ = page.split("```")
    for line in commands.splitlines()[1:]:
        called = [sys.executable, "-m", "fleet_assets", *shlex.split(line)[1:]]
        done = subprocess.run(called, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    said: dict[str, Any] = {}
    exec(program.removeprefix("python\n"), said)
    at = lake.at(said["out"].versions.lakefs_commit)
    row = at.scan("features.ego_motion", drives=drives[:1], predicate="frame = 7").to_pylist()[0]
    known = {name: value for name, value in said["values"].items() if not math.isnan(value)}
    assert known == {name: row[name] for name in said["values"] if row[name] is not None}


def test_the_last_health_of_a_vehicle_three_ways(
    made: dg.ExecuteInProcessResult, home: Home, lake: Lake, drives: list[str]
) -> None:
    rows = lake.at().scan("features.sensor_health", drives=drives).sort_by("t_ns")
    assert set(rows["vehicle"].to_pylist()) == {"car7"}
    last = rows.slice(rows.num_rows - 1).to_pylist()[0]
    assert last["drive_id"] == drives[1]
    publish(home, lake, "vehicle_health_v1")
    ways = three_ways(home, "vehicle_health_v1", "vehicle_health", {"vehicle": "car7"})
    # Months later, the lake does not count it, and the other two say how old it is.
    assert ways == {name: {"lake": None, "online": last[name], "vehicle": last[name]} for name in ways}
    assert sum(found["online"] is not None for found in ways.values()) > 10
    start = datetime.fromisoformat(STARTS[1])
    for days, status in ((1, "found"), (31, "nothing known")):
        moment = (start + timedelta(days=days)).isoformat()
        then = look_up("vehicle_health_v1", {"vehicle": "car7"}, ref="main", time=moment)
        assert then["status"] == status
        assert then["views"] == {"vehicle_health": "found" if days == 1 else "expired"}
        assert then["features"] == {name: last[name] if days == 1 else None for name in ways}
    midway = look_up("vehicle_health_v1", {"vehicle": "car7"}, ref="main", time=STARTS[1])["features"]
    assert midway != {name: last[name] for name in ways}  # that of the drive before


def test_a_finding_stops_the_snapshot(
    home: Home, lake: Lake, drives: list[str], made: dg.ExecuteInProcessResult
) -> None:
    """A row that a vehicle would not have had."""
    table = "features.ego_motion"
    commit = made.asset_materializations_for_node("features__online_snapshot")[0].metadata["lakefs_commit"]
    rows = lake.at().scan(table, drives=drives[:1])
    at = rows.column_names.index("jerk_mps3")
    upsert(lake, table, rows.set_column(at, rows.schema.field(at), pc.add(rows["jerk_mps3"], 1e-9)), name="tampered")
    try:
        before, snapshot = lake.at(str(commit.value)), lake.at()
        assert checks.changed(None, before, drives) == drives
        assert checks.changed(before, before, drives) == []
        assert checks.changed(before, snapshot, drives) == drives[:1]
        assert "jerk_mps3" in " ".join(checks.as_a_vehicle(snapshot, drives[0]))
        assert checks.one_identity(snapshot, drives) == [
            f"{drives[0]} was made by other kernels: fleet run --drives {drives[0]}"
        ]
        chosen = [assets.online_snapshot, assets.edge_bundle]
        resources = {"fleet": FleetResource(home_path=str(home.root))}
        stopped = dg.materialize(chosen, resources=resources, raise_on_error=False)
        assert not stopped.success
        assert stopped.get_asset_materialization_events() == []
    finally:
        features_batch(home, lake, drives, run_id="healed", parallel=False)


def test_what_differs_from_the_lake_leaves_the_last_bundle(
    home: Home, lake: Lake, made: dg.ExecuteInProcessResult
) -> None:
    file, folder = snapshot_file(home, assets.SERVICE), bundle_folder(home, assets.SERVICE)
    good, kept = file.read_bytes(), {path.name: path.read_bytes() for path in folder.iterdir()}
    layout = Snapshot.open(file).view("ego_motion").layout
    changed = bytearray(good)
    np.frombuffer(changed, layout.row_dtype, layout.rows, layout.rows_offset)["0"][:] += 1e-9
    file.write_bytes(changed)
    resources = {"fleet": FleetResource(home_path=str(home.root))}
    try:
        stopped = dg.materialize([assets.edge_bundle], resources=resources, raise_on_error=False)
        differ = online_differences(lake.at(Snapshot.open(file).metadata["lakefs_commit"]), home, assets.SERVICE, file)
    finally:
        file.write_bytes(good)
    assert not stopped.success
    (check,) = stopped.get_asset_check_evaluations()
    assert "ego_motion:speed_mps" in str(check.metadata["findings"].value)
    assert "ego_motion:speed_mps" in " ".join(differ)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == kept
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".")] == []


# ---- places ----------------------------------------------------------------------------------------------------------


def test_publications_of_places_are_never_changed(lake: Lake, drives: list[str]) -> None:
    visits = lake.at().scan(VISITS, drives=drives)
    assert visits.num_rows >= 1
    assert pc.min(visits["passes"]).as_py() >= 1
    moment = datetime(2026, 1, 6, 3, tzinfo=UTC)
    assert publish_places(lake, moment) is not None
    key = publication_key("places", moment)
    before = lake.at().scan(CONTEXT, drives=[key])
    assert pc.sum(before["place_passes"]).as_py() == pc.sum(visits["passes"]).as_py()
    # A drive of before the publication comes afterwards.
    late = visits.slice(0, 1).set_column(0, "drive_id", pa.array(["late--20260105T120000Z"]))
    upsert(lake, VISITS, late, name="late")
    assert publish_places(lake, moment) is None
    assert lake.at().scan(CONTEXT, drives=[key]).equals(before)
    later = moment + timedelta(days=1)
    publish_places(lake, later)
    after = lake.at().scan(CONTEXT, drives=[publication_key("places", later)])
    assert pc.sum(after["place_passes"]).as_py() == pc.sum(before["place_passes"]).as_py() + late["passes"][0].as_py()
    with pytest.raises(FleetError, match="has not come yet"):
        publish_places(lake, datetime.now(UTC) + timedelta(days=1))


# ---- lanes -----------------------------------------------------------------------------------------------------------

TOWNS = [(0, "munich"), (0, "hamburg"), (1, "munich"), (1, "hamburg")]  # of which two are the drives'


def read_lanes(folder: Path) -> Lanes:
    return lanes_of(read(folder, CONTRACT), load_lane_policy())


def lane_table(lake: Lake) -> pa.Table:
    return lake.at().scan(assets.LANES).sort_by([("t_ns", "ascending"), ("lane_cell", "ascending")])


def test_the_lane_of_a_drive_three_ways(
    made: dg.ExecuteInProcessResult, home: Home, lake: Lake, drives: list[str]
) -> None:
    """From the position of a frame to the curvature of its lane: in the lake, through Feast, and on a vehicle."""
    service, names = "planning_context_v2", ["lane_curvature_per_m", "lane_map_version"]
    commit = lake.at().commit_id
    rows = lake.at().scan("features.position", ["frame", "cell", "lane_cell"], drives=drives[:1]).sort_by("frame")
    frame = rows.filter(pc.is_valid(rows["lane_cell"])).to_pylist()[-1]
    offline = look_up(service, {"drive_id": drives[0], **frame}, ref=commit, time=None)["features"]
    assert offline["lane_curvature_per_m"] is not None
    publish(home, lake, service)
    ways = three_ways(home, service, "lane_curvature", {"drive_id": drives[0], **frame})
    assert ways == {name: dict.fromkeys(("lake", "online", "vehicle"), offline[name]) for name in names}
    assert isinstance(ways["lane_map_version"]["vehicle"], str)
    assert bundle_differences(lake, home, service, bundle_folder(home, service)) == []
    assert online_differences(lake.at(), home, service, snapshot_file(home, service)) == []


def test_a_new_map_replaces_the_last_one_and_changes_no_earlier_answer(
    made: dg.ExecuteInProcessResult, home: Home, lake: Lake, tmp_path: Path
) -> None:
    before = lane_table(lake)
    assert before["lane_curvature_per_m"].null_count == 0
    lanes = read_lanes(home.context)
    then = datetime.now(UTC).replace(microsecond=0)
    assert publish_lanes(lake, lanes, tile_of(lanes), then) is None  # the same map
    assert lane_table(lake).equals(before)
    write_lanes(tmp_path / LANES_FILE, TOWNS[:1])
    fewer = read_lanes(tmp_path)
    while datetime.now(UTC) <= then + timedelta(seconds=1):
        time.sleep(0.1)
    now = then + timedelta(seconds=1)
    assert publish_lanes(lake, fewer, tile_of(fewer), now) is not None
    after = lane_table(lake)
    assert after.slice(0, before.num_rows).equals(before)
    latest = after.slice(before.num_rows)
    gone = latest.filter(pc.is_null(latest["lane_curvature_per_m"]))
    assert set(latest["lane_cell"].to_pylist()) == set(before["lane_cell"].to_pylist())
    assert 0 < gone.num_rows < latest.num_rows
    cell = {"lane_cell": [gone["lane_cell"][0].as_py()] * 2, "event_timestamp": [then, now]}
    job = feature_store().get_historical_features(pd.DataFrame(cell), ["lane_curvature:lane_curvature_per_m"])
    found = job.to_arrow()["lane_curvature_per_m"].to_pylist()
    assert found[0] is not None
    assert found[1] is None
    with pytest.raises(FleetError, match="A map was published at"):
        publish_lanes(lake, lanes, tile_of(lanes), then)


def test_a_map_beyond_its_bounds_is_not_published(home: Home, lake: Lake, made: dg.ExecuteInProcessResult) -> None:
    """A lane that bends to and fro within a cell: no value of the cell can stand for it."""
    before, kept = lane_table(lake), (home.context / LANES_FILE).read_bytes()
    text = "lane_id,point,latitude_deg,longitude_deg,map_version\n"
    text += "".join(f"a,{n},{48 + n * 1.5e-5:.10f},{11.5 + n % 2 * 4e-6:.10f},crooked\n" for n in range(200))
    (home.context / LANES_FILE).write_text(text)
    resources = {"fleet": FleetResource(home_path=str(home.root))}
    try:
        stopped = dg.materialize([assets.lane_curvature, assets.registry], resources=resources, raise_on_error=False)
        assert not stopped.success
        assert stopped.get_asset_materialization_events() == []
        (check,) = (one for one in stopped.get_asset_check_evaluations() if one.check_name == "declared_approximation")
        assert not check.passed
        assert "bound" in str(check.metadata["findings"].value)
        (home.context / LANES_FILE).write_text("no map")
        assert dg.materialize([assets.lane_curvature], resources=resources).success  # told, and the last map stays
    finally:
        (home.context / LANES_FILE).write_bytes(kept)
    assert lane_table(lake).equals(before)


# ---- what commands show ----------------------------------------------------------------------------------------------


def test_catalogue_and_history(lake: Lake, drives: list[str]) -> None:
    features = catalogue()
    assert len(features) >= 60
    assert all(row["meaning"] and row["owner"] for row in features)
    kernels = [row for row in kernel_history(lake.at()) if row["current"]]
    beside = {"lane_curvature", "place_context", *ON_DEMAND}
    live = [row for row in kernels if row["view"] not in beside]
    assert {row["view"] for row in live} == {"ego_motion", "place_visits", "position", "scene_context", "sensor_health"}
    assert all(row["drives"] == len(drives) for row in live)


def test_commands_say_the_same(made: dg.ExecuteInProcessResult, lake: Lake, drives: list[str]) -> None:
    assert fleet("features", "list") == catalogue()
    assert fleet("features", "history") == kernel_history(lake.at())
    asked = ["features", "get", assets.SERVICE, "--entity", f"drive_id={drives[0]}", "--entity", "frame=60"]
    before = lake.at("main~1").commit_id
    found = fleet(*asked, "--at", "main~1")
    entity = {"drive_id": drives[0], "frame": "60"}
    assert found == look_up(assets.SERVICE, entity, ref=before, time=found["time"])
    assert found["commit_id"] == before != lake.at().commit_id
    assert found["views"] == dict.fromkeys(("ego_motion", "scene_context", "sensor_health"), "found")
    for_people = CliRunner().invoke(app, [*asked[:-1], "frame=99999"], catch_exceptions=False)
    assert for_people.exit_code == 0
    assert "status nothing known" in for_people.stdout
    assert for_people.stdout.count("no such key") == 3


def test_look_ups_of_what_is_not_there(made: dg.ExecuteInProcessResult, drives: list[str]) -> None:
    nothing = look_up(assets.SERVICE, {"drive_id": drives[0], "frame": "99999"}, ref="main", time=None)
    assert nothing["status"] == "nothing known"
    assert nothing["views"] == dict.fromkeys(("ego_motion", "scene_context", "sensor_health"), "no such key")
    early = look_up(assets.SERVICE, {"drive_id": drives[0], "frame": "60"}, ref="main", time="2020-01-01")
    assert early["status"] == "nothing known"
    assert set(early["views"].values()) == {"not yet known"}
    with pytest.raises(FleetError, match="There is no feature service nope"):
        look_up("nope", {}, ref="main", time=None)
    with pytest.raises(FleetError, match="is no time"):
        look_up(assets.SERVICE, {"drive_id": drives[0], "frame": "60"}, ref="main", time="tomorrow")

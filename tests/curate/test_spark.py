"""Spark in the lake: it selects the same frames as the program, and its tasks make samples."""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from curate.test_predicates import BOOLEANS, CATALOGUE, ROW, SCHEMA
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from lake.conftest import new_lake
from recordings import land

from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.batch import scenarios_batch
from fleet_assets.curate.dataset import make, publish
from fleet_assets.curate.frame_view import VIEW, frame_view, spark_view
from fleet_assets.curate.mining import find
from fleet_assets.curate.predicate_forms import outcomes, program_of, spark_sql
from fleet_assets.curate.predicates import parse
from fleet_assets.curate.recipe import load_recipe
from fleet_assets.curate.samples import samples_batch
from fleet_assets.curate.samples_reader import Samples
from fleet_assets.curate.scenarios import condition
from fleet_assets.features.batch import features_batch
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.kernels.predicate import FALSE, TRUE, UNKNOWN
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.session import spark_session
from fleet_assets.services.home import Home
from fleet_assets.synchronise.batch import synchronise_batch

pytestmark = [pytest.mark.services, pytest.mark.slow]
DRIVES = ["curate1--20260301T080000Z", "curate2--20260301T200000Z"]
PREDICATES = [
    "frames.speed_mps / ego_motion.accel_mps2 < unit(36, 'km/h') / unit(2, 'm/s^2')",
    "NOT (surroundings.pedestrians >= 1 AND surroundings.time_gap_s < 3)",
    "coalesce(context.zone = 'urban', abs(surroundings.turned_rad_5s) > unit(5, 'deg'), FALSE)",
    "frames.speed_mps - 1e308 * 10 + 1e308 * 10 > 0 OR frames.complete IS NOT TRUE",
    "context.light IN ('it''s', 'night\\', 'day') OR scene_context.ambient_light / (frames.frame - 3) IS NULL",
    "frames.frame NOT BETWEEN 3 AND 7.5 AND frames.t_ns <> 1772352003000000000 AND 1 / 3 * 3 = 1",
]
OUTCOME = {True: TRUE, False: FALSE, None: UNKNOWN}  # of SQL's values
SCENARIOS = ("night_urban_intersection_pedestrians", "low_light", "close_following")


@pytest.fixture(scope="module")
def lake(spark_home: Home) -> Iterator[Lake]:
    folders = [spark_home.landing / land(spark_home.landing, drive, duration_s=6.0).folder for drive in DRIVES]
    made = new_lake(spark_home, load_tables())
    for batch in (ingest_batch, synchronise_batch, features_batch, scenarios_batch):
        outcome = batch(spark_home, made, DRIVES, run_id="run", parallel=False)  # type: ignore[operator]
        assert outcome.published is not None, outcome
    yield made
    for folder in folders:
        shutil.rmtree(folder)


def test_spark_says_what_the_program_says(spark_home: Home, lake: Lake) -> None:
    spark, snapshot = spark_session(spark_home), lake.at()
    predicates = [condition(text) for text in (*PREDICATES, *(f"scenario.{name}" for name in SCENARIOS))]
    columns = sorted({column for predicate in predicates for column in predicate.columns})
    told = ", ".join(f"{spark_sql(predicate)} AS p{at}" for at, predicate in enumerate(predicates))
    sql = f"SELECT frames.drive_id, frames.frame, {told} {spark_view(lake.repository, snapshot.commit_id, columns)}"
    rows = spark.sql(sql).toArrow().sort_by([("drive_id", "ascending"), ("frame", "ascending")])
    seen = set()
    for drive in DRIVES:
        view = frame_view({table: snapshot.scan(table, drives=[drive]) for table in VIEW.values()}, columns)
        of_drive = rows.filter(pc.equal(rows["drive_id"], drive))
        assert of_drive["frame"].to_pylist() == view["frame"].to_pylist()
        for at, predicate in enumerate(predicates):
            found = outcomes(program_of(predicate), view).tolist()
            expected = [OUTCOME[value] for value in of_drive[f"p{at}"].to_pylist()]
            assert found == expected, predicate.text
            seen |= set(found)
    assert seen == {TRUE, FALSE, UNKNOWN}


def nested(table: list[dict[str, Any]]) -> pa.Table:
    """The rows with a struct per table, so that Spark knows `table`.`column`; and their numbers."""
    rows, columns = pa.Table.from_pylist(table, schema=SCHEMA), defaultdict(dict)
    for name in SCHEMA.names:
        of, _, column = name.partition(".")
        columns[of][column] = rows[name].combine_chunks()
    structs = {of: pa.StructArray.from_arrays(list(own.values()), list(own)) for of, own in columns.items()}
    return pa.table({"number": range(len(table)), **structs})


# Many predicates to a query, and no query to make a failure smaller: each costs a second.
@settings(max_examples=6, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(texts=st.lists(BOOLEANS, min_size=12, max_size=12), table=st.lists(ROW, min_size=24, max_size=24))
def test_spark_says_what_the_program_says_of_any_predicate(
    spark_home: Home, texts: list[str], table: list[dict[str, Any]]
) -> None:
    predicates = [parse(text, CATALOGUE) for text in texts]
    told = (f"{spark_sql(predicate)} AS p{at}" for at, predicate in enumerate(predicates))
    frame = spark_session(spark_home).createDataFrame(nested(table))
    rows = frame.selectExpr("number", *told).toArrow().sort_by("number")
    for at, predicate in enumerate(predicates):
        found = outcomes(program_of(predicate), pa.Table.from_pylist(table, schema=SCHEMA)).tolist()
        assert found == [OUTCOME[value] for value in rows[f"p{at}"].to_pylist()], predicate.text


def test_mining(spark_home: Home, lake: Lake) -> None:
    snapshot = lake.at()
    found = find(spark_home, snapshot, condition("surroundings.vehicles >= 5"), limit=10)
    for row in found:
        around = snapshot.scan("curate.surroundings", drives=[row["drive_id"]], predicate="vehicles >= 5")
        assert row["frames"] == around.num_rows
    assert [row["frames"] for row in found] == sorted((row["frames"] for row in found), reverse=True)
    assert len(find(spark_home, snapshot, condition("TRUE"), limit=1)) == 1
    assert find(spark_home, snapshot, condition("frames.frame < 0"), limit=10) == []


def test_samples_are_made_by_spark_tasks(spark_home: Home, lake: Lake) -> None:
    made = make(lake.at(), load_recipe("demo"), "by-spark")
    publish(lake, made, run_id="by-spark")
    outcome = samples_batch(spark_home, lake, "by-spark", run_id="by-spark")
    assert {drive.status for drive in outcome.drives} == {"published"}, outcome
    samples = Samples.open(lake, "by-spark")
    rows = sum(batch.num_rows for batch in samples.batches(columns=["camera"]))
    assert rows == made.clips.num_rows > 0

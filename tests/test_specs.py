"""What Dagster is told of a batch: checks always, materialisations only of what was published."""

from collections.abc import Iterator

import dagster as dg
import pytest

from fleet_assets.lake.batch import BatchOutcome, DriveOutcome
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.publish import Published
from fleet_assets.partitions import DRIVES, PER_DRIVE_BACKFILL
from fleet_assets.specs import asset_key, report, table_check_specs, table_specs

pytestmark = pytest.mark.services
GOOD, BAD, LEFT = (f"car{number}--20260101T080000Z" for number in (1, 2, 3))
TABLES = ("ingest.gnss", "ingest.imu")


def told(lake: Lake, outcome: BatchOutcome) -> tuple[dg.ExecuteInProcessResult, list[str]]:
    """A run of one asset that reports the outcome, and of one that depends on it; and drives that the latter was started for."""
    started: list[str] = []

    @dg.multi_asset(
        name="made",
        specs=table_specs(TABLES, deps=[], code_version="1"),
        check_specs=table_check_specs(TABLES),
        partitions_def=DRIVES,
        backfill_policy=PER_DRIVE_BACKFILL,
    )
    def made(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        yield from report(context, lake, TABLES, outcome, lambda snapshot, drives: {})

    @dg.multi_asset(
        specs=[dg.AssetSpec("after", deps=[asset_key("ingest.imu")])],
        partitions_def=DRIVES,
        backfill_policy=PER_DRIVE_BACKFILL,
    )
    def after(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        started.extend(context.partition_keys)
        return dg.MaterializeResult()

    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("drives", [GOOD, BAD, LEFT])
        tags = {"dagster/asset_partition_range_start": GOOD, "dagster/asset_partition_range_end": LEFT}
        return dg.materialize([made, after], instance=instance, tags=tags, raise_on_error=False), started


def checks(run: dg.ExecuteInProcessResult, name: str) -> dict[str, dg.AssetCheckEvaluation]:
    every = run.get_asset_check_evaluations()
    return {".".join(check.asset_key.path): check for check in every if check.check_name == name}


def test_a_quarantined_drive_is_a_warning_with_its_reasons(own_lake: Lake) -> None:
    drives = [
        DriveOutcome(GOOD, "published", {"ingest.imu": 5}),
        DriveOutcome(BAD, "quarantined", reasons=["recording is readable: it is cut"]),
        DriveOutcome(LEFT, "skipped", reasons=["deliver it again"]),
    ]
    published = Published(own_lake.at().commit_id, {"ingest.imu": 5})
    run, started = told(own_lake, BatchOutcome(drives, "tx-branch", published))
    assert run.success
    assert started == [GOOD, BAD, LEFT]
    for table, check in checks(run, "drives").items():
        assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN), table
        assert check.description == "1 of 3 drives quarantined, 1 left as they are"
        assert check.metadata["quarantined"].value == {BAD: "recording is readable: it is cut"}
        assert check.metadata["left as they are"].value == {LEFT: "deliver it again"}
    assert [check.passed for check in checks(run, "table").values()] == [True, True]
    made = run.asset_materializations_for_node("made")
    assert {(".".join(event.asset_key.path), event.partition) for event in made} == {
        (table, drive) for table in TABLES for drive in (GOOD, BAD, LEFT)
    }
    imu = {event.partition: event.metadata for event in made if event.asset_key == asset_key("ingest.imu")}
    assert imu[GOOD]["rows"].value == 5
    assert imu[BAD]["status"].value == "quarantined"
    assert imu[GOOD]["lakefs_commit"].value == published.commit_id


def test_a_refused_audit_materialises_nothing_and_starts_nothing(own_lake: Lake) -> None:
    outcome = BatchOutcome(
        [DriveOutcome(drive, "published", {"ingest.imu": 5}) for drive in (GOOD, BAD, LEFT)],
        "tx-branch",
        None,
        {"ingest.imu": ["primary key is unique: 6 rows"]},
    )
    run, started = told(own_lake, outcome)
    assert not run.success
    assert (started, run.asset_materializations_for_node("made")) == ([], [])
    assert {table: check.passed for table, check in checks(run, "table").items()} == {
        "ingest.gnss": True,
        "ingest.imu": False,
    }
    assert checks(run, "table")["ingest.imu"].description == "primary key is unique: 6 rows"
    assert checks(run, "table")["ingest.imu"].severity == dg.AssetCheckSeverity.ERROR
    (failure,) = (event for event in run.all_events if event.is_step_failure)
    assert "main is unchanged. ingest.imu: primary key" in str(failure.step_failure_data.user_failure_data.description)

"""Publishing, one publisher at a time: what reaches main, what is replaced, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from lake.publisher import GNSS, IMU, TABLES, publish, rows, rows_by_mark

from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.publish import StaleInputs
from fleet_assets.lake.tables import open_table
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import DriveVersion

pytestmark = pytest.mark.services
A, B, C = "car1--20260101T080000Z", "car2--20260101T090000Z", "car3--20260102T080000Z"


def test_a_first_publication_is_one_merge_with_everything_about_it(lake: Lake) -> None:
    before = lake.at().commit_id
    done = publish(lake, [A, B, C], run_id="run1", count=50, mark=1.0)
    assert done.rows == {IMU: 150, GNSS: 150}
    assert done.tries == 1
    assert done.replaced_drives == ()
    assert rows_by_mark(lake) == {drive: {(1.0, 50)} for drive in (A, B, C)}
    (commit,) = lake.repository.log("main", stop_at=before)
    assert commit.id == done.commit_id
    assert commit.parents[0] == before
    assert json.loads(commit.metadata["drives"]) == [A, B, C]
    assert json.loads(commit.metadata["assets"]) == sorted(TABLES)
    assert json.loads(commit.metadata["rows"]) == {IMU: 150, GNSS: 150}
    assert commit.metadata["run_id"] == "run1"
    assert commit.metadata["input_commit"] == before
    assert json.loads(commit.metadata["contracts"])[IMU] == load_tables()[IMU].version
    report = json.loads(lake.repository.get(done.commit_id, commit.metadata["audit"]))
    assert report["tables"][IMU]["rows_by_drive"] == {A: 50, B: 50, C: 50}


def test_versions_are_written_for_every_drive_and_table(lake: Lake) -> None:
    publish(lake, [A, B], run_id="run1", count=7)
    versions = lake.at().versions([A, B])
    assert set(versions) == {(drive, table) for drive in (A, B) for table in TABLES}
    assert {version.rows for version in versions.values()} == {7}
    assert {version.run_id for version in versions.values()} == {"run1"}


def test_a_drive_that_shares_a_file_is_replaced_and_its_neighbours_stay_single(lake: Lake) -> None:
    first = publish(lake, [A, B, C], run_id="run1", mark=1.0)
    second = publish(lake, [B], run_id="run2", count=30, mark=2.0)
    assert second.replaced_drives == (B,)
    expected = {A: {(1.0, 100)}, B: {(2.0, 30)}, C: {(1.0, 100)}}
    assert rows_by_mark(lake) == rows_by_mark(lake, GNSS) == expected
    # The old rows are still there at the old reference.
    assert rows_by_mark(lake, IMU, first.commit_id) == {drive: {(1.0, 100)} for drive in (A, B, C)}
    assert lake.at().versions([A, B])[B, IMU].run_id == "run2"
    assert lake.at().row_count(IMU) == 230


def test_a_withdrawn_drive_leaves_every_per_drive_table_in_the_same_merge(lake: Lake) -> None:
    publish(lake, [A, B], run_id="run1", tables=[IMU, GNSS])
    publish(lake, [A, B], run_id="run1", tables=["synchronise.frames"], input_tables=[IMU])
    before = lake.at().commit_id

    def body(tx: Transaction) -> None:
        tx.declare(A, DriveVersion("v2", {}, "test"))
        tx.append("ingest.ledger", rows("ingest.ledger", A, 1))
        tx.withdraw([A])

    lake.run_transaction(body, name="test", run_id="run2", drives=[A], tables=[IMU, GNSS, "ingest.ledger"])
    head = lake.at()
    for table in (IMU, GNSS, "synchronise.frames"):
        assert pc.unique(head.scan(table, ["drive_id"])["drive_id"]).to_pylist() == [B], table
    assert head.scan("ingest.ledger", ["drive_id"])["drive_id"].to_pylist() == [A]
    assert len(list(lake.repository.log("main", stop_at=before))) == 1
    versions = head.versions([A])
    assert versions[A, IMU].rows == 0
    assert (A, "synchronise.frames") not in versions


def test_a_drive_that_a_later_stage_quarantines_keeps_what_it_was_made_from(lake: Lake) -> None:
    publish(lake, [A, B], run_id="run1", tables=[IMU, GNSS])
    publish(lake, [A, B], run_id="run1", tables=["synchronise.frames"], input_tables=[IMU])

    def body(tx: Transaction) -> None:
        tx.declare(A, DriveVersion("v2", {}, "test"))
        tx.withdraw([A])

    tables, inputs = ["synchronise.frames"], [IMU]
    lake.run_transaction(body, name="test", run_id="run2", drives=[A], tables=tables, input_tables=inputs)
    head = lake.at()
    assert pc.unique(head.scan("synchronise.frames", ["drive_id"])["drive_id"]).to_pylist() == [B]
    for table in (IMU, GNSS):
        assert sorted(pc.unique(head.scan(table, ["drive_id"])["drive_id"]).to_pylist()) == [A, B], table


def test_rows_of_a_withdrawn_or_undeclared_drive_are_refused(lake: Lake) -> None:
    before = lake.at().commit_id
    with pytest.raises(FleetError, match="withdraws") as caught:
        publish(lake, [A], run_id="run1", before_leaving=lambda tx: tx.withdraw([A]))
    assert A in str(caught.value)
    with pytest.raises(FleetError, match="did not declare"):
        publish(lake, [A], run_id="run2", before_leaving=lambda tx: tx.append(IMU, rows(IMU, B, 3)))
    with pytest.raises(FleetError, match=r"writes synchronise.frames"):
        publish(
            lake,
            [A],
            run_id="run3",
            before_leaving=lambda tx: tx.append("synchronise.frames", rows("synchronise.frames", A, 3)),
        )
    with pytest.raises(FleetError, match="100 rows"):
        publish(lake, [A], run_id="run4", before_leaving=lambda tx: tx.count(A, {IMU: 99}))
    assert lake.at().commit_id == before


def test_rows_filed_under_another_day_are_refused(lake: Lake) -> None:
    wrong = rows(IMU, A, 3).set_column(1, "day", rows(IMU, C, 3)["day"])
    with pytest.raises(FleetError, match="filed under 2026-01-02"):
        publish(lake, [A], run_id="run1", before_leaving=lambda tx: tx.append(IMU, wrong))


def test_only_accepted_tasks_are_published(lake: Lake) -> None:
    def body(tx: Transaction) -> None:
        tx.declare(A, DriveVersion("v1", {}, "test"))
        for task, mark in (("task-failed", 1.0), ("task-good", 2.0)):  # a first try that died after its append
            tx.writer(task).append(GNSS, rows(GNSS, A, 10, mark))
        tx.accept("task-good", {A: {GNSS: 10}})

    tx, _ = lake.run_transaction(body, name="test", run_id="run1", drives=[A], tables=[GNSS])
    assert tx.published is not None
    assert tx.published.rows == {GNSS: 10}
    assert rows_by_mark(lake, GNSS) == {A: {(2.0, 10)}}
    assert len(list(lake.repository.list("main", "tables/ingest/gnss/day="))) == 1


def test_stale_inputs_are_refused_and_the_newer_rows_stay(lake: Lake) -> None:
    publish(lake, [A, B], run_id="run0", mark=0.0)
    older = lake.transaction("test", run_id="older", drives=[A, B], tables=TABLES)
    tx = older.__enter__()
    for drive in (A, B):
        tx.declare(drive, DriveVersion("v-older", {}, "test"))
    for table in TABLES:
        tx.append(table, pa.concat_tables([rows(table, drive, 10, 1.0) for drive in (A, B)]))
    publish(lake, [A], run_id="newer", mark=2.0)
    with pytest.raises(StaleInputs) as caught:
        older.__exit__(None, None, None)
    assert caught.value.drives == [A]
    assert "newer rows" in str(caught.value).lower()
    assert rows_by_mark(lake) == {A: {(2.0, 100)}, B: {(0.0, 100)}}
    assert not [branch for branch in lake.repository.branches() if branch != "main"]


def test_inputs_that_changed_meanwhile_are_stale_too(lake: Lake) -> None:
    publish(lake, [A], run_id="run0")
    seen = []

    def leave(tx: Transaction) -> None:
        seen.append(tx.base.versions([A])[A, IMU].run_id)
        if len(seen) == 1:
            publish(lake, [A], run_id="run1", mark=1.0)

    publish(lake, [A], run_id="run2", tables=["synchronise.frames"], input_tables=[IMU], before_leaving=leave)
    assert seen == ["run0", "run1"]  # the body ran again, from the newer rows


def test_the_same_run_publishes_once(lake: Lake) -> None:
    first = publish(lake, [A], run_id="run1", mark=1.0)
    again = publish(lake, [A], run_id="run1", mark=9.0)
    assert again.commit_id == first.commit_id
    assert again.rows == first.rows
    newer = publish(lake, [A], run_id="run2", mark=2.0, version="v2")
    assert publish(lake, [A], run_id="run1", mark=9.0).commit_id == first.commit_id
    assert lake.at().commit_id == newer.commit_id
    assert rows_by_mark(lake) == {A: {(2.0, 100)}}


def test_partition_values_and_statistics_survive(lake: Lake) -> None:
    for number, drive in enumerate((A, B, C)):
        publish(lake, [drive], run_id=f"run{number}")
    table = lake.at().table(IMU)
    actions = pa.table(table.get_add_actions(flatten=True)).to_pylist()
    assert sorted(str(action["partition.day"]) for action in actions) == ["2026-01-01", "2026-01-01", "2026-01-02"]
    assert {action["min.drive_id"] for action in actions} == {A, B, C}
    assert all(action["num_records"] == 100 for action in actions)
    entry = next(item for item in lake.repository.list("main", "tables/ingest/imu/day=2026-01-01/"))
    branch = "without-a-file"
    lake.repository.create_branch(branch, "main")
    # Proof that a predicate skips files: the other drive's file can be missing.
    lake.repository.delete(branch, [entry.path])
    lake.repository.commit(branch, "one file less")
    left = [drive for drive in (A, B) if _readable(lake, branch, drive)]
    assert len(left) == 1
    assert _readable(lake, branch, C)
    lake.repository.delete_branch(branch)


def _readable(lake: Lake, ref: str, drive: str) -> bool:
    try:
        return lake.at(ref).scan(IMU, ["sequence"], drives=[drive]).num_rows == 100
    except FleetError:
        return False


def test_a_branch_that_touches_the_pre_merge_action_is_refused(lake: Lake) -> None:
    before = lake.at().commit_id
    with pytest.raises(FleetError, match="_lakefs_actions"):
        publish(
            lake,
            [A],
            run_id="run1",
            before_leaving=lambda tx: lake.repository.delete(tx.branch, ["_lakefs_actions/audited.yaml"]),
        )
    assert lake.at().commit_id == before


def test_a_branch_that_does_more_than_append_is_refused(lake: Lake) -> None:
    publish(lake, [A], run_id="run0")
    before = lake.at().commit_id

    def delete(tx: Transaction) -> None:
        open_table(lake.repository, tx.branch, load_tables()[IMU]).delete(f"drive_id = '{A}'")

    with pytest.raises(FleetError, match="more than append: remove"):
        publish(lake, [B], run_id="run1", before_leaving=delete)
    with pytest.raises(FleetError, match=r"added notes\.txt"):
        publish(lake, [B], run_id="run2", before_leaving=lambda tx: lake.repository.put(tx.branch, "notes.txt", b"x"))
    with pytest.raises(FleetError, match="no contract covers"):
        publish(
            lake,
            [B],
            run_id="run3",
            before_leaving=lambda tx: lake.repository.put(
                tx.branch, f"tables/ingest/unknown/_delta_log/{0:020d}.json", b"{}"
            ),
        )
    assert lake.at().commit_id == before


def test_one_recording_added_by_two_publishers_is_one_object(lake: Lake, tmp_path: Path) -> None:
    path = f"recordings/{'ab' * 32}.mcap"
    file = tmp_path / "recording.mcap"
    file.write_bytes(b"payload")

    def leave(tx: Transaction) -> None:
        tx.put_object(path, file)
        if tx.run_id == "run1":
            publish(lake, [B], run_id="run2", before_leaving=leave)

    publish(lake, [A], run_id="run1", before_leaving=leave)
    publish(lake, [A], run_id="run3", before_leaving=leave)
    assert lake.repository.get("main", path) == b"payload"
    assert rows_by_mark(lake).keys() == {A, B}


def test_rows_must_fit_the_contract(lake: Lake) -> None:
    with pytest.raises(FleetError, match="missing stream"):
        publish(lake, [A], run_id="run1", before_leaving=lambda tx: tx.append(IMU, rows(IMU, A, 1).drop(["stream"])))
    with pytest.raises(FleetError, match=r"There is no table ingest\.imv") as caught:
        publish(lake, [A], run_id="run1", tables=["ingest.imv"])
    assert "ingest.imu" in str(caught.value)


def test_a_stale_run_says_so_in_its_own_log(lake: Lake) -> None:
    """With the settings of the installation, which let our modules' log lines reach the run's."""
    publish(lake, [A], run_id="run0")
    tries = 0

    def leave(tx: Transaction) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            publish(lake, [A], run_id="newer", mark=2.0, version="v2")

    @dg.asset
    def slow() -> None:
        publish(lake, [A], run_id="older", mark=1.0, before_leaving=leave)

    settings = yaml.safe_load((Path(__file__).parents[2] / "dagster.yaml").read_text())
    with dg.DagsterInstance.local_temp(overrides={"python_logs": settings["python_logs"]}) as instance:
        run = dg.materialize([slow], instance=instance)
        lines = [entry.user_message for entry in instance.all_logs(run.run_id) if entry.dagster_event is None]
    (line,) = (line for line in lines if "newer rows" in line.lower())
    assert "run older" in line
    assert A in line

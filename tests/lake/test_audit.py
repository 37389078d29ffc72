"""The audit by the real Great Expectations, and what a drive that turns bad, and good again, does to every table."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from lake.conftest import new_lake
from lake.publisher import GNSS, IMU, VERSIONS, publish, rows, rows_by_mark
from recordings import land

from fleet_assets.contracts.loader import load_tables
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.lake import audit
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.transaction import AuditFailed
from fleet_assets.services.home import Home
from fleet_assets.synchronise.batch import synchronise_batch

pytestmark = [pytest.mark.services, pytest.mark.slow]
A, B = "car1--20260101T080000Z", "car2--20260101T090000Z"


@pytest.fixture
def audited(lake: Lake) -> Lake:
    """The same lake, judged by Great Expectations."""
    return Lake(lake.home, lake.repository)


def test_a_table_rule_that_fails_leaves_main_as_it_was_and_says_which_rows_and_why(audited: Lake) -> None:
    lake = audited
    publish(lake, [A], run_id="run1", count=20, mark=1.0)
    before, objects = lake.at(), [item.path for item in lake.repository.list("main")]

    with pytest.raises(AuditFailed) as caught:
        publish(
            lake,
            [A, B],
            run_id="run2",
            count=20,
            mark=2.0,
            version="v2",
            # Three keys of one drive a second time, in a table of two: the other table is good.
            before_leaving=lambda tx: tx.append(IMU, rows(IMU, B, 3, 3.0)),
        )
    assert set(caught.value.failures) == {IMU}
    (sentence,) = caught.value.failures[IMU]
    key = next(rule for rule in load_tables()[IMU].rules if "unique" in rule.expectation)
    assert sentence.startswith(f"{key.name}: 6 rows, first ")
    for column in key.columns:
        assert column in sentence
    assert B in sentence
    assert sentence in str(caught.value)

    after = lake.at()
    assert after.commit_id == before.commit_id
    assert [item.path for item in lake.repository.list("main")] == objects
    assert rows_by_mark(lake) == rows_by_mark(lake, GNSS) == {A: {(1.0, 20)}}
    # The branch keeps rows and report.
    (path,) = [
        item.path
        for item in lake.repository.list(caught.value.branch, "audits/")
        if not lake.repository.has("main", item.path)
    ]
    report = json.loads(lake.repository.get(caught.value.branch, path))
    told = {rule["rule"]: rule for rule in report["tables"][IMU]["rules"]}
    assert not told[key.name]["success"]
    assert told[key.name]["unexpected_rows"] == 6
    assert {row["sequence"] for row in told[key.name]["sample_rows"]} == {0, 1, 2}
    assert all(rule["success"] for rule in report["tables"][GNSS]["rules"])
    # And nothing of it stands in the way of the next.
    publish(lake, [B], run_id="run3", count=20, mark=3.0)
    assert rows_by_mark(lake) == {A: {(1.0, 20)}, B: {(3.0, 20)}}


def test_a_row_that_breaks_a_row_rule_never_reaches_main(audited: Lake) -> None:
    """Whoever wrote it: such rows are refused while a drive is read, and the audit judges all rules again."""
    before = audited.at().commit_id
    bad = rows(IMU, A, 5, 1.0).slice(4)
    index = bad.schema.get_field_index("accel_x_mps2")
    bad = bad.set_column(index, bad.schema.field(index), pa.array([1e6]))
    with pytest.raises(AuditFailed, match=r"accel.*1 rows, first .*1000000\.0") as caught:
        publish(audited, [A], run_id="run1", count=4, before_leaving=lambda tx: tx.append(IMU, bad))
    assert set(caught.value.failures) == {IMU}
    assert audited.at().commit_id == before


def test_many_rows_are_judged_by_spark(audited: Lake, spark_home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    before = audited.at().commit_id
    bad = rows(IMU, A, 5, 1.0).slice(3)
    index = bad.schema.get_field_index("accel_x_mps2")
    bad = bad.set_column(index, bad.schema.field(index), pa.array([0.0, 1e6]))
    monkeypatch.setattr(audit, "LOCAL_ROWS", 5)
    with pytest.raises(AuditFailed) as caught:
        publish(audited, [A], run_id="run1", count=4, before_leaving=lambda tx: tx.append(IMU, bad))
    assert set(caught.value.failures) == {IMU}
    out_of_range, twice = sorted(caught.value.failures[IMU])
    assert re.search(r"accel.*1 rows, first .*1000000\.0", out_of_range)
    assert re.search(r"key is unique: 2 rows, first .*'sequence': 3", twice)
    assert audited.at().commit_id == before


GOOD, TURNING = "proof1--20260102T080000Z", "proof2--20260102T090000Z"
# lake.versions tells of every drive that was taken, also of one that gave no rows.
PER_DRIVE = [name for name, contract in load_tables().items() if contract.per_drive and name != VERSIONS]


def drives_in(lake: Lake, table: str) -> set[str]:
    return set(pc.unique(lake.at().scan(table, ["drive_id"])["drive_id"]).to_pylist())


@pytest.fixture
def landed(spark_home: Home) -> Iterator[Home]:
    """Two good drives in the landing folder, for as long as the test takes."""
    folders = [land(spark_home.landing, drive).folder for drive in (GOOD, TURNING)]
    yield spark_home
    for folder in {*folders, *(path.name for path in spark_home.landing.glob("proof[12]--*"))}:
        shutil.rmtree(spark_home.landing / folder, ignore_errors=True)


def test_a_drive_that_turns_bad_leaves_every_table_and_comes_back_when_it_is_good(landed: Home) -> None:
    lake = Lake(landed, new_lake(landed, load_tables()).repository)
    steps = 0

    def run(drives: list[str]) -> dict[str, str]:
        """Ingest and synchronise, each one commit at most; status by drive, of ingest."""
        nonlocal steps
        steps += 1
        before = lake.at().commit_id
        ingested = ingest_batch(landed, lake, drives, run_id=f"ingest{steps}")
        assert ingested.published is not None, ingested.audit_summary
        assert [commit.id for commit in lake.repository.log("main", stop_at=before)] == [ingested.published.commit_id]
        return {outcome.drive_id: outcome.status for outcome in ingested.drives}

    def synchronise(drives: list[str]) -> dict[str, str]:
        done = synchronise_batch(landed, lake, drives, run_id=f"synchronise{steps}")
        assert done.published is not None, done.audit_summary
        return {outcome.drive_id: outcome.status for outcome in done.drives}

    both = [GOOD, TURNING]
    assert run(both) == synchronise(both) == dict.fromkeys(both, "published")
    full = {table for table in PER_DRIVE if drives_in(lake, table) == set(both)}
    assert full >= {"ingest.imu", "ingest.messages", "synchronise.frames", "synchronise.matches"}
    good = lake.at()

    # The same drive again, with another recording: a third of its accelerations are not numbers. The first one is removed when
    # the two are in conflict: while the drive is published, what it was made from must be there.
    (folder,) = landed.landing.glob(f"{TURNING}-*")
    land(landed.landing, TURNING, faults=["nan_imu"])
    assert run([TURNING]) == {TURNING: "quarantined"}
    shutil.rmtree(folder)
    # The rest of the batch is published, in the same merge.
    assert run(both) == {GOOD: "published", TURNING: "quarantined"}
    for table in full:
        # What a later stage keeps of drives that it quarantined itself goes with the rest.
        kept = load_tables()[table].keeps_quarantined and table.startswith("ingest.")
        assert drives_in(lake, table) == ({GOOD, TURNING} if kept else {GOOD}), table
    assert drives_in(lake, "ingest.quarantine") == {TURNING}
    for row in lake.at().scan("ingest.quarantine").to_pylist():
        assert row["reason"]
        assert row["rows"] > 0
        assert 0 < len(row["samples"]) <= 20
    for row in lake.at().scan("ingest.ledger", drives=[TURNING]).to_pylist():
        assert row["read_rows"] == row["quarantined_rows"] + row["refused_rows"], row["stream"]
        assert row["published_rows"] == 0
    assert synchronise(both) == {GOOD: "published", TURNING: "skipped"}
    assert drives_in(lake, "synchronise.frames") == {GOOD}
    # Old rows can still be read at the old commit.
    assert good.scan("synchronise.frames", drives=[TURNING]).num_rows > 0

    (folder,) = landed.landing.glob(f"{TURNING}-*")
    shutil.rmtree(folder)
    land(landed.landing, TURNING)
    assert run(both) == synchronise(both) == dict.fromkeys(both, "published")
    assert drives_in(lake, "ingest.quarantine") == set()
    for table in full:
        assert drives_in(lake, table) == set(both), table
        # With the content of the beginning: a repeat replaces and never doubles.
        order = [(column, "ascending") for column in load_tables()[table].primary_key]
        columns = [column for column in load_tables()[table].arrow_schema.names if column != "run_id"]
        now, then = (snapshot.scan(table, columns).sort_by(order) for snapshot in (lake.at(), good))
        assert now.equals(then), table

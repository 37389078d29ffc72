"""What keeps main whole: guards, pins, tags, schemas, and what is kept for a look and then swept."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from lake.publisher import IMU, publish, rows_by_mark

from fleet_assets.contracts.audit import AuditResult, RuleResult
from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.model import TableContract
from fleet_assets.errors import FleetError
from fleet_assets.lake.client import Repository
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.publish import find_transaction
from fleet_assets.lake.refusals import AlreadyExists, LakeUnreachable
from fleet_assets.lake.schema import apply, differences
from fleet_assets.lake.sweep import ABANDONED_AFTER_S, leftovers, sweep
from fleet_assets.lake.tables import open_table
from fleet_assets.lake.transaction import AuditFailed
from fleet_assets.services.home import Home

pytestmark = pytest.mark.services
A, B = "car1--20260101T080000Z", "car2--20260101T090000Z"
IMU_CONTRACT = load_tables()[IMU]
AUDITED = {"transaction": "1", "run_id": "r", "drives": "[]", "audit": "audits/1.json", "audit_sha256": "0"}


# ---- main takes audited merges only ----------------------------------------------------------------------------------


def await_protection(lake: Lake) -> None:
    """lakeFS remembers the rules of a repository for some seconds; a new one is guarded after that."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            lake.repository.put("main", "probe.txt", b"x")
        except FleetError:
            return
        lake.repository.delete("main", ["probe.txt"])
        time.sleep(0.5)
    pytest.fail("main is not protected")


def test_nothing_is_written_to_main_directly(lake: Lake) -> None:
    await_protection(lake)
    publish(lake, [A], run_id="run1")
    before = lake.at().commit_id
    objects = [item.path for item in lake.repository.list("main")]
    with pytest.raises(FleetError, match="lakeFS refused"):
        lake.repository.put("main", "notes.txt", b"x")
    with pytest.raises(FleetError, match="lakeFS refused"):
        lake.repository.put("main", objects[0], b"x")
    with pytest.raises(FleetError):
        lake.repository.copy("main", objects[0], "main")
    with pytest.raises(FleetError, match="main takes merges only"):
        lake.repository.commit("main", "by hand")
    # (A refusal of one object of many is in the answer, not in its status; what counts is that they are all there.)
    lake.repository.delete("main", objects)
    with pytest.raises(Exception, match=r"(?i)forbidden|denied|protected"):
        open_table(lake.repository, "main", IMU_CONTRACT).delete()
    assert [item.path for item in lake.repository.list("main")] == objects
    assert lake.at().commit_id == before
    assert lake.at().row_count(IMU) == 100


@pytest.mark.parametrize("missing", [*AUDITED, "everything"])
def test_a_merge_without_the_metadata_of_an_audit_is_refused(lake: Lake, missing: str) -> None:
    before = lake.at().commit_id
    lake.repository.create_branch("by-hand", "main")
    lake.repository.put("by-hand", "notes.txt", b"x")
    lake.repository.commit("by-hand", "a note", AUDITED)  # of the branch's commit: does not count
    told = {} if missing == "everything" else {key: value for key, value in AUDITED.items() if key != missing}
    with pytest.raises(FleetError, match="pre-merge action refused") as caught:
        lake.repository.merge("by-hand", "main", "by hand", told)
    assert missing == "everything" or f"'{missing}' is missing" in str(caught.value)
    assert lake.at().commit_id == before
    assert not lake.repository.has("main", "notes.txt")


def test_a_merge_that_calls_itself_maintenance_needs_no_audit(lake: Lake) -> None:
    """The action cannot tell whether it is: no more than a guard-rail, as the documents say."""
    lake.repository.create_branch("by-hand", "main")
    lake.repository.put("by-hand", "notes.txt", b"x")
    lake.repository.commit("by-hand", "a note", {})
    lake.repository.merge("by-hand", "main", "by hand", {"maintenance": "by hand"})
    assert lake.repository.has("main", "notes.txt")


def test_set_up_again_changes_nothing(lake: Lake) -> None:
    before = lake.at().commit_id
    lake.ensure()
    assert lake.at().commit_id == before
    assert lake.repository.protected() == {"main"}


# ---- pins, tags, history ---------------------------------------------------------------------------------------------


def test_a_pinned_snapshot_stays_as_it_was_while_main_moves(lake: Lake) -> None:
    publish(lake, [A], run_id="run1", mark=1.0)
    pinned, opened_early = lake.at(), lake.at()
    opened_early.table(IMU)
    for number in range(3):
        publish(lake, [A, B], run_id=f"later{number}", mark=2.0 + number, version=f"v{number}", count=7)
    for snapshot in (pinned, opened_early):
        found = snapshot.scan(IMU, ["drive_id", "accel_x_mps2"]).to_pylist()
        assert found == [{"drive_id": A, "accel_x_mps2": 1.0}] * 100
        assert {drive for drive, _ in snapshot.versions([A, B])} == {A}
        assert snapshot.row_count(IMU) == 100
    assert rows_by_mark(lake) == {A: {(4.0, 7)}, B: {(4.0, 7)}}


def test_a_dataset_tag_is_given_once_and_stays(lake: Lake) -> None:
    first = publish(lake, [A], run_id="run1", mark=1.0)
    lake.repository.tag("dataset-1", first.commit_id)
    second = publish(lake, [A], run_id="run2", mark=2.0, version="v2")
    for again in (first.commit_id, second.commit_id, "main"):
        with pytest.raises(AlreadyExists, match="dataset-1"):
            lake.repository.tag("dataset-1", again)
    with pytest.raises(FleetError):
        lake.repository.put("dataset-1", "notes.txt", b"x")
    assert lake.repository.tags("dataset-") == {"dataset-1": first.commit_id}
    assert lake.at("dataset-1").commit_id == first.commit_id
    assert rows_by_mark(lake, IMU, "dataset-1") == {A: {(1.0, 100)}}


def test_a_transaction_is_found_in_the_history(lake: Lake) -> None:
    start = lake.at().commit_id
    commits = [publish(lake, [A], run_id=f"run{n}", version=f"v{n}").commit_id for n in range(3)]
    told = [commit.metadata["transaction"] for commit in lake.repository.log("main", stop_at=start)][::-1]
    assert [find_transaction(lake.repository, name, since=start) for name in told] == commits
    assert find_transaction(lake.repository, told[0], since=commits[0]) is None
    assert find_transaction(lake.repository, "1-00000000", since=start) is None


# ---- schemas ---------------------------------------------------------------------------------------------------------


def evolved(contract: TableContract = IMU_CONTRACT, **last_column: object) -> TableContract:
    """The contract with one more column at its end."""
    column = replace(contract.columns[-1], **{"name": "tilt_deg", "required": False, **last_column})
    return replace(contract, version="1.1.0", columns=(*contract.columns, column))


def test_a_column_is_added_in_one_merge_and_old_rows_have_null_there(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(lake, [A], run_id="run1", count=5)
    before = lake.at()
    contract = evolved()
    assert [str(difference) for difference in differences(before, [contract])] == ["ingest.imu: column tilt_deg added"]
    assert apply(lake, [contract]) == ["ingest.imu: column tilt_deg added"]
    (commit,) = lake.repository.log("main", stop_at=before.commit_id)
    assert commit.metadata["maintenance"] == "contracts apply"
    found = lake.at().query("SELECT tilt_deg, count(*) AS n FROM ingest.imu GROUP BY tilt_deg", limit=5)
    assert found.to_pylist() == [{"tilt_deg": None, "n": 5}]
    assert apply(lake, [contract]) == []
    assert before.scan(IMU).num_rows == 5

    # This process's contracts are the old ones still, like those of a server that runs.
    with pytest.raises(FleetError, match=r"tilt_deg.*fleet down.*fleet up"):
        publish(lake, [B], run_id="run2", count=5)
    monkeypatch.setitem(load_tables(), IMU, contract)
    for snapshot in (before, lake.at()):  # also at a commit that did not have it
        found = snapshot.scan(IMU, ["sequence", "tilt_deg"])
        assert (found["sequence"].null_count, found["tilt_deg"].null_count) == (0, 5)
    monkeypatch.setitem(load_tables(), IMU, evolved(evolved(), name="roll_deg"))
    with pytest.raises(FleetError, match=r"roll_deg.*fleet contracts apply"):
        publish(lake, [B], run_id="run3", count=5)


def test_a_breaking_change_is_refused_and_says_what_breaks(lake: Lake) -> None:
    publish(lake, [A], run_id="run1", count=5)
    before = lake.at().commit_id
    first, *rest = IMU_CONTRACT.columns
    number = next(column for column in rest if column.type == "double")
    others = tuple(column for column in rest if column is not number)
    changed = {
        f"column {number.name} is in the lake and not in the contract": replace(IMU_CONTRACT, columns=(first, *others)),
        f"column {number.name} is double in the lake, not string": replace(
            IMU_CONTRACT, columns=(first, *others, replace(number, type="string"))
        ),
        "required column tilt_deg is new": evolved(required=True),
        "it is partitioned by day": replace(IMU_CONTRACT, partition_by=()),
    }
    for what, contract in changed.items():
        with pytest.raises(FleetError, match="cannot become version") as caught:
            apply(lake, [evolved(load_tables()["ingest.gnss"]), contract])
        assert what in str(caught.value)
        assert "new table" in str(caught.value.remedy)
    assert lake.at().commit_id == before


# ---- sweeping --------------------------------------------------------------------------------------------------------


def refuse(contract: TableContract, _: object) -> AuditResult:
    rule = next(rule for rule in contract.rules if rule.blocking)
    return AuditResult(contract.name, 1, [RuleResult(rule, False, 1, [])])


def test_a_refused_branch_stays_a_day_for_a_look_and_is_swept_then(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = Lake(lake.home, lake.repository, auditor=refuse)
    with pytest.raises(AuditFailed) as caught:
        publish(refusing, [A], run_id="run1")
    branch = caught.value.branch
    assert branch in str(caught.value)
    assert list(sweep(lake)) == []
    # What was refused can be looked at.
    assert lake.at(branch).row_count(IMU) == 100
    assert lake.at().row_count(IMU) == 0

    from fleet_assets.lake import sweep as module

    clock = module.time.time
    monkeypatch.setattr(module.time, "time", lambda: clock() + ABANDONED_AFTER_S - 60)
    assert leftovers(lake) == []
    monkeypatch.setattr(module.time, "time", lambda: clock() + ABANDONED_AFTER_S + 60)
    assert list(sweep(lake)) == [f"{branch}: removed, abandoned"]
    assert list(lake.repository.branches()) == ["main"]


def test_branches_of_people_are_not_swept(lake: Lake) -> None:
    for name in ("my-experiment", "tx-notes", "maintain-roof"):
        lake.repository.create_branch(name, "main")
    assert list(sweep(lake, older_than_s=0)) == []


# ---- a server that is away -------------------------------------------------------------------------------------------


def test_a_lake_that_does_not_answer_names_the_remedy(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet_assets.lake import client

    monkeypatch.setattr(client, "_RETRY_FOR_S", 0.0)
    away = Repository("http://127.0.0.1:9", home.access_key_id, home.secret_access_key)
    with pytest.raises(LakeUnreachable, match="does not answer") as caught:
        away.commit_id("main")
    assert "fleet up" in str(caught.value.remedy)
    with pytest.raises(LakeUnreachable, match="does not answer"):
        away.get("main", "x")

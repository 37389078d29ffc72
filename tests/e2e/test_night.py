"""The nightly job on a small lake, through Dagster's queue, as the schedule starts it."""

from __future__ import annotations

import json
import os
import time
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from recordings import land

from fleet_assets import runs
from fleet_assets.contracts.loader import load_tables
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]
Fleet = Callable[..., Any]
DEADLINE_S = 300
LAUNCH = """
mutation Launch($job: String!) {
  launchRun(executionParams: {mode: "default", selector: {
    repositoryLocationName: "fleet_assets.definitions", repositoryName: "__repository__", jobName: $job}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }
"""


def launch(home: Home, job: str) -> str:
    """What the UI's launch pad sends."""
    request = urllib.request.Request(
        f"{home.webserver_url}/graphql",
        data=json.dumps({"query": LAUNCH, "variables": {"job": job}}).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        answer = json.load(response)
    assert answer["data"]["launchRun"]["__typename"] == "LaunchRunSuccess", answer
    return str(answer["data"]["launchRun"]["run"]["runId"])


def files_of(lake: Lake, table: str) -> list[str]:
    return list(lake.at().table(table).file_uris())


def test_the_night_makes_small_files_large_removes_leftovers_and_changes_no_row(fleet_home: Home, fleet: Fleet) -> None:
    fleet("contracts", "apply")
    lake = Lake.open(fleet_home)
    # Two drives of one day that nothing else uses, published one after the other: two files in each table.
    for number in (8, 9):
        land(fleet_home.landing, f"night--20260203T0{number}0000Z")
        assert fleet("run")["ok"]
    assert fleet("status")["landing"]["published"] >= 2  # and a flood would show how far it is
    tables = ("ingest.imu", "ingest.messages", "synchronise.frames")
    before = lake.at()
    assert all(sum("day=2026-02-03" in uri for uri in files_of(lake, table)) == 2 for table in tables)
    # What a run that was killed after its merge leaves, and what a run printed long ago.
    published = next(
        commit.metadata["transaction"] for commit in lake.repository.log("main") if "transaction" in commit.metadata
    )
    lake.repository.create_branch(f"tx-ingest-killed-{published}", before.commit_id)
    old = fleet_home.dagster_home / "logs" / "a-run-of-last-year"
    old.mkdir()
    os.utime(old, (1, 1))

    run_id = launch(fleet_home, "nightly_maintenance")
    with runs.instance_of(fleet_home) as instance:
        deadline = time.monotonic() + DEADLINE_S
        while not (run := instance.get_run_by_id(run_id)).is_finished:
            assert time.monotonic() < deadline, run.status
            time.sleep(1)
        assert run.is_success, runs.failure_of(instance, run_id)
        said = " ".join(entry.user_message for entry in instance.all_logs(run_id) if entry.user_message)

    after = lake.at()
    for table in tables:
        assert sum("day=2026-02-03" in uri for uri in files_of(lake, table)) == 1, table
        assert f"{table}: rewritten in" in said
    for table in load_tables():
        order = [(column, "ascending") for column in load_tables()[table].primary_key]
        assert after.scan(table).sort_by(order).equals(before.scan(table).sort_by(order)), table
    changes = list(lake.repository.log("main", stop_at=before.commit_id))
    assert {commit.metadata.get("maintenance", "").split()[0] for commit in changes} == {"optimise"}
    assert not list(lake.repository.branches("tx-ingest-killed-"))
    assert f"tx-ingest-killed-{published}: removed, published" in said
    assert not old.exists()
    assert fleet("status")["lake"]["held_bytes"] > 0
    # A reader that pinned the commit before still reads it.
    assert before.scan("ingest.imu", drives=["night--20260203T080000Z"]).num_rows > 0

"""kill -9 of the run, Spark and lakeFS: main stays consistent, a repeat ends with the right rows, leftovers are swept."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from typing import Any

import pytest
from lake.conftest import Start, new_lake
from lake.publisher import TABLES, VERSIONS, publish, rows_by_mark

from fleet_assets.lake.lake import Lake
from fleet_assets.lake.sweep import leftovers, sweep
from fleet_assets.services import supervisor
from fleet_assets.services.home import Home
from fleet_assets.services.supervise import read_states

pytestmark = [pytest.mark.services, pytest.mark.slow]
OLD, NEW, NEIGHBOUR = "car1--20260101T080000Z", "car2--20260101T090000Z", "car3--20260101T100000Z"
PATIENCE_S = 180


def assert_consistent(lake: Lake) -> dict[str, set[tuple[float, int]]]:
    """Every drive has the rows of one publication, in all tables, and its versions say so. Gives them."""
    head = lake.at()
    found = [rows_by_mark(lake, table, head.commit_id) for table in TABLES]
    assert all(other == found[0] for other in found)
    assert {drive: len(publications) for drive, publications in found[0].items()} == dict.fromkeys(found[0], 1)
    written = {(drive, table): count for drive, ((_, count),) in found[0].items() for table in TABLES}
    versions = head.versions(list(found[0]))
    assert {key: version.rows for key, version in versions.items()} == written
    assert head.row_count(VERSIONS) == len(written)
    return found[0]


def commits_of(lake: Lake, run_id: str) -> int:
    return sum(commit.metadata.get("run_id") == run_id for commit in lake.repository.log("main"))


@pytest.mark.parametrize("step", range(1, 7))
def test_killed_at_each_step(lake: Lake, start: Start, step: int) -> None:
    publish(lake, [OLD, NEIGHBOUR], run_id="before", mark=1.0)
    publication: dict[str, Any] = {"drives": [OLD, NEW], "run_id": "run", "mark": 2.0, "version": "v2", "count": 7}
    killed = start(lake, [publication], die_at=step)
    assert killed.wait(PATIENCE_S) == -signal.SIGKILL

    old, new = {(1.0, 100)}, {(2.0, 7)}
    before = {OLD: old, NEIGHBOUR: old}
    after = {OLD: new, NEW: new, NEIGHBOUR: old}
    # Step 6 is behind the merge: published, but nobody was told.
    assert assert_consistent(lake) == (after if step == 6 else before)
    found = leftovers(lake, older_than_s=0)
    assert found
    assert all(leftover.branch.startswith("tx-test-run-") for leftover in found)

    assert start(lake, [publication]).wait(PATIENCE_S) == 0
    assert assert_consistent(lake) == after
    assert commits_of(lake, "run") == 1
    assert len(list(sweep(lake, older_than_s=0))) == len(found)
    assert list(lake.repository.branches()) == ["main"]


def test_a_living_run_keeps_its_branches(lake: Lake, start: Start) -> None:
    publication = {"drives": [NEW], "run_id": "run", "mark": 2.0}
    running = start(lake, [publication], pause_s=0.5)
    assert running.stdout is not None
    while json.loads(running.stdout.readline()) != {"step": 3}:
        assert list(sweep(lake, older_than_s=0)) == []
    assert running.wait(PATIENCE_S) == 0
    assert assert_consistent(lake) == {NEW: {(2.0, 100)}}


# The run dies often, for that is what happens most; Spark seldom, for its start takes ten seconds.
VICTIMS = ["run", "lakefs", "run", "spark", "run", "lakefs", "run", "run", "lakefs", "spark"] * 2


@pytest.mark.timeout(1800)  # servers start some twenty times
def test_killed_at_twenty_seeded_moments(spark_home: Home, start: Start) -> None:
    lake = new_lake(spark_home)
    publish(lake, [OLD, NEIGHBOUR], run_id="before", mark=-1.0)
    expected = {NEIGHBOUR: {(-1.0, 100)}, OLD: {(-1.0, 100)}}
    for moment, victim in enumerate(VICTIMS):
        chance = random.Random(moment)
        new = f"new{moment}--20260101T{moment:02d}0000Z"
        publication: dict[str, Any] = {
            "drives": [OLD, new],
            "run_id": f"run{moment}",
            "mark": float(moment),
            "version": f"v{moment}",
            "by_spark": victim == "spark",
        }
        running = start(lake, [publication])
        assert running.stdout is not None
        assert json.loads(running.stdout.readline()) == {"begun": True}
        time.sleep(chance.uniform(0.0, 4.0 if victim == "spark" else 0.6))
        _kill(spark_home, victim, running)
        code = running.wait(PATIENCE_S)
        supervisor.up(spark_home, only=["lakefs", "spark"], bound_to=os.getpid())

        after = {**expected, OLD: {(float(moment), 100)}, new: {(float(moment), 100)}}
        found = assert_consistent(lake)
        where = f"moment {moment}, {victim} killed, run ended with {code}"
        assert found in ((after,) if code == 0 else (expected, after)), where
        expected = after
        publish(lake, **publication)  # the repeat
        assert assert_consistent(lake) == expected, where
        assert commits_of(lake, f"run{moment}") == 1, where
    list(sweep(lake, older_than_s=0))
    assert list(lake.repository.branches()) == ["main"]


def _kill(home: Home, victim: str, running: subprocess.Popen[str]) -> None:
    if victim == "run":
        running.kill()
        return
    pid = read_states(home)[victim].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)

"""Many writers at once: publishers of their own processes, and OPTIMIZE beside them."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest
from lake.conftest import Start, new_lake
from lake.publisher import GNSS, IMU, TABLES, VERSIONS, rows_by_mark

from fleet_assets.lake.lake import Lake
from fleet_assets.lake.optimise import optimise
from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]
PUBLISHERS, PUBLICATIONS = 8, 3
SHARED = "shared--20260101T080000Z"


def drive(publisher: int, number: int) -> str:
    return f"car{publisher}--2026010{1 + number % 2}T0{number}0000Z"


def own(publisher: int) -> list[dict[str, object]]:
    """Publications of one publisher: a drive of its own each time, and one that all of them want."""
    return [
        {"drives": [drive(publisher, n), SHARED], "run_id": f"run{publisher}x{n}", "count": 10 + n, "mark": publisher}
        for n in range(PUBLICATIONS)
    ]


def test_eight_publishers_lose_and_double_nothing(lake: Lake, start: Start) -> None:
    before = lake.at().commit_id
    running = [start(lake, own(publisher)) for publisher in range(PUBLISHERS)]
    assert [process.wait() for process in running] == [0] * PUBLISHERS

    expected = {
        drive(publisher, n): {(float(publisher), 10 + n)}
        for publisher in range(PUBLISHERS)
        for n in range(PUBLICATIONS)
    }
    for table in TABLES:
        found = rows_by_mark(lake, table)
        assert len(found.pop(SHARED)) == 1  # whoever came last: one publication's rows, not two
        assert found == expected, table
    versions = lake.at().scan(VERSIONS, ["drive_id", "table_name"]).to_pylist()
    assert set(Counter(map(str, versions)).values()) == {1}
    assert len(versions) == (PUBLISHERS * PUBLICATIONS + 1) * len(TABLES)

    commits = list(lake.repository.log("main", stop_at=before))
    for newer, older in zip(commits, [*commits[1:], None], strict=True):
        assert newer.parents[0] == (older.id if older else before)  # first parents are one line
    named = Counter(
        name for commit in commits if "drives" in commit.metadata for name in json.loads(commit.metadata["drives"])
    )
    # Who lost a race for the shared drive found its version at the head, and had nothing to add to it.
    assert named.pop(SHARED) >= 1
    assert named == dict.fromkeys(expected, 1)
    assert [branch for branch in lake.repository.branches() if branch != "main"] == []


def test_optimize_beside_publishers_loses_and_doubles_nothing(spark_home: Home, start: Start) -> None:
    lake = new_lake(spark_home)
    publications = [
        {"drives": [drive(0, n % 4)], "run_id": f"first{n}", "mark": n, "version": f"v{n}"} for n in range(12)
    ]
    said: list[str] = []
    stop = threading.Event()

    def keep_optimising() -> None:
        while not stop.is_set():
            said.extend(optimise(lake, TABLES))

    optimiser = threading.Thread(target=keep_optimising)
    optimiser.start()
    try:
        running = [start(lake, publications), start(lake, own(5))]
        ended = [process.wait() for process in running]
    finally:
        stop.set()
        optimiser.join()
    said.extend(optimise(lake, TABLES))
    assert ended == [0, 0]
    assert any("rewritten" in line for line in said)
    expected = {drive(0, n % 4): {(float(n), 100)} for n in range(8, 12)}
    expected |= {drive(5, n): {(5.0, 10 + n)} for n in range(PUBLICATIONS)}
    expected[SHARED] = {(5.0, 10 + PUBLICATIONS - 1)}
    for table in (IMU, GNSS):
        assert rows_by_mark(lake, table) == expected
        # And its work is there: one file per day.
        assert len(lake.at().table(table).file_uris()) == 2

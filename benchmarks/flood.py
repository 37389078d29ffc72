"""Many recordings at once in the landing folder, worked off by the daemon: how long it takes, and the memory of all processes.

In: nothing, or numbers of recordings instead of 1,000. Out: a row per number, with the seconds until all have frames on `main`,
the largest sum of all processes' memory, and in its note the runs. Every run takes at most a hundred drives, in order of their
registration, and `fleet status` counts them on the way; both is asserted.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

from dagster import DagsterInstance

from benchmarks import recordings
from benchmarks.harness import Options, Row, installation
from benchmarks.memory import Watch, peak_row
from fleet_assets import console, runs
from fleet_assets.capture.deliver import deliver
from fleet_assets.errors import FleetError
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.tables import VERSIONS
from fleet_assets.partitions import PER_DRIVE_BACKFILL
from fleet_assets.services.home import Home

_RECORDINGS = (1000,)
_SECONDS = 2.0
_LOOK_S = 5.0
_STALLED_S = 900.0
_APART_NS = 3_600_000_000_000
_SETUP = recordings.Setup(("/camera/front",), 10.0, 5_000, 64 * 20)


def rows(options: Options) -> list[Row]:
    """Each number in an installation of its own, so that none finds the processes of another grown."""
    return [_row(int(count)) for count in options.sizes or _RECORDINGS]


def _row(count: int) -> Row:
    with installation(["lakefs", "spark", "webserver", "daemon"]) as home, runs.instance_of(home) as instance:
        _deliver(home, count)
        began = time.perf_counter()
        with Watch(home) as watch, console.progress("recordings") as advance:
            runs.await_landed(instance, home, advance)
            landed_s = time.perf_counter() - began
            _await_frames(Lake.open(home), count, advance)
        seconds = time.perf_counter() - began
        told = runs.landing(instance, home, Lake.open(home).at())
        assert told["published"] == count, told
        taken = _taken(instance)
    most = max(map(len, taken))
    note = f"registered after {landed_s:.0f} s; {len(taken)} runs of at most {most} drives; {seconds / count:.2f} s a drive"
    return peak_row(f"{count} recordings", seconds, watch, note)


def _await_frames(lake: Lake, count: int, advance: Callable[[int, int], None]) -> None:
    """Until the daemon has published so many drives' frames; nobody asks it to. Raises FleetError when it gets no further."""
    made, since = 0, time.monotonic()
    while made < count:
        time.sleep(_LOOK_S)
        rows = (
            lake.at().scan(VERSIONS, ["drive_id"], predicate="table_name = 'synchronise.frames' AND rows > 0").num_rows
        )
        if rows > made:
            made, since = rows, time.monotonic()
        elif time.monotonic() - since > _STALLED_S:
            raise FleetError(
                f"{made} of {count} drives have frames, and no more came", remedy="See the runs in Dagster's UI."
            )
        advance(made, count)


def _deliver(home: Home, count: int) -> None:
    """An hour apart, of ten vehicles; written where a vehicle uploads to, so that nothing is copied."""
    with console.progress("deliveries") as advance:
        for number in range(count):
            folder = home.landing / f"flood-{number}"
            folder.mkdir(parents=True)
            start_ns = recordings.START_NS + number * _APART_NS
            recordings.write(folder / "drive.mcap", _SECONDS, _SETUP, vehicle=f"flood{number % 10}", start_ns=start_ns)
            deliver(folder, home.landing)
            advance(number + 1, count)


def _taken(instance: DagsterInstance) -> list[list[str]]:
    """The drives of each run, in the order in which runs were begun. Raises AssertionError for a run that is too large or out of
    order."""
    registered = instance.get_dynamic_partitions("drives")
    records = sorted(instance.get_run_records(), key=lambda record: record.create_timestamp)
    taken = [found for record in records if (found := runs.drives_of(record.dagster_run.tags, registered))]
    limit = PER_DRIVE_BACKFILL.max_partitions_per_run
    assert limit is not None
    assert all(len(drives) <= limit for drives in taken), [len(drives) for drives in taken]
    starts = [registered.index(drives[0]) for drives in taken]
    assert all(one <= next_one for one, next_one in pairwise(starts)), starts
    return taken

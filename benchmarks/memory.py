"""Memory of all processes together while recordings of growing size are ingested and synchronised: it must not grow with them.

In: nothing, or sizes in GB instead of 1, 5 and 20. Out: a row per size, of the dense and of the standard set-up, which is some
forty times as long for its bytes, with the seconds that it took; in `peak_mib`, the largest sum of all processes' memory (PSS:
what several share counts once) of this process, lakeFS, Spark and its Python workers, the supervisor and Dagster's servers; in
its note, each at its own most. Recordings are made on the fly, and each is removed before the next.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import psutil

from benchmarks import recordings
from benchmarks.harness import Options, Row, installation
from fleet_assets import console
from fleet_assets.capture.deliver import deliver
from fleet_assets.errors import FleetError
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.services import supervisor
from fleet_assets.services.home import Home
from fleet_assets.synchronise.batch import synchronise_batch

_SIZES_GB = (1.0, 5.0, 20.0)
_SETUPS = {"dense": recordings.DENSE, "standard": recordings.STANDARD}
_PROBE_S = 30.0
_EVERY_S = 0.5
# Dagster's daemon begins a new code server every minute and ends the old one a minute later: a short row would not see that.
_AT_LEAST_S = 150.0


def rows(options: Options) -> list[Row]:
    """Each set-up in an installation of its own. Raises FleetError when the disk has no room."""
    sizes = options.sizes or _SIZES_GB
    return [row for name, setup in _SETUPS.items() for row in _of_setup(name, setup, sizes)]


def _of_setup(name: str, setup: recordings.Setup, sizes: Sequence[float]) -> Iterator[Row]:
    """A short recording first, so that what a process takes once is there."""
    with installation(["lakefs", "spark", "webserver", "daemon"]) as home:
        _hold(home)
        free = shutil.disk_usage(home.root).free
        # As landed, and in the lake: in parts at first, beside the earlier ones.
        needed = 1e9 * (2 * max(sizes) + sum(sizes))
        if free < needed:
            raise FleetError(
                f"{free / 1e9:.0f} GB are free where {needed / 1e9:.0f} GB are needed", remedy="Give smaller sizes."
            )
        probe, _ = recordings.land(home.landing, _PROBE_S, setup, "probe")
        bytes_per_s = probe.stat().st_size / _PROBE_S
        _carry(home, probe)
        for number, size in enumerate(sizes):
            seconds = size * 1e9 / bytes_per_s
            path, _ = recordings.land(home.landing, seconds, setup, f"bench{number}")
            yield _row(home, path, f"{size:g} GB, {name}, {seconds / 60:.0f} minutes")


def _hold(home: Home) -> None:
    """The daemon begins nothing of its own beside what is measured."""
    command = [sys.executable, "-m", "dagster", "sensor", "stop", "landing", "-m", "fleet_assets.definitions"]
    environment = {**os.environ, "DAGSTER_HOME": str(home.dagster_home)}
    subprocess.run(command, env=environment, check=True, capture_output=True)


def _row(home: Home, path: Path, work: str) -> Row:
    began = time.perf_counter()
    with Watch(home) as watch:
        _carry(home, path)
        seconds = time.perf_counter() - began
        time.sleep(max(_AT_LEAST_S - seconds, 0))
    told = ", ".join(f"{name} {part / 2**20:.0f}" for name, part in sorted(watch.peaks.items()))
    return peak_row(work, seconds, watch, f"each at its own most, MiB: {told}")


def peak_row(work: str, seconds: float, watch: Watch, note: str) -> Row:
    """A row that has the memory of all processes, too; said at once, for the next takes long."""
    peak_mib = watch.peak / 2**20
    console.say(f"{work} in {seconds:.0f} s: most at once {peak_mib:.0f} MiB; {note}")
    return {"work": work, "ours_s": seconds, "peers_s": {}, "floor_s": None, "peak_mib": peak_mib, "note": note}


def _carry(home: Home, path: Path) -> None:
    delivered = deliver(path.parent, home.landing)
    for batch in (ingest_batch, synchronise_batch):
        outcome = batch(home, Lake.open(home), [delivered.drive_id], run_id=f"bench-{delivered.drive_id}")
        assert [made.status for made in outcome.drives] == ["published"], (outcome.drives, outcome.audit_summary)
    shutil.rmtree(path.parent)


class Watch:
    """Adds up the memory of the installation's processes and of this one, twice a second."""

    def __init__(self, home: Home) -> None:
        self.peak = 0
        self.peaks: dict[str, int] = {}
        self._home = home
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            parts: dict[str, int] = {}
            for process in _processes(self._home):
                try:
                    name, pss = process.name(), process.memory_full_info().pss
                except psutil.Error:
                    continue  # it has ended meanwhile
                parts[name] = parts.get(name, 0) + pss
            self.peak = max(self.peak, sum(parts.values()))
            for name, part in parts.items():
                self.peaks[name] = max(self.peaks.get(name, 0), part)


def _processes(home: Home) -> list[psutil.Process]:
    """This process, the supervisor and all below them."""
    found = [psutil.Process()]
    pid = supervisor.supervisor_pid(home)
    if pid is not None:
        found.append(psutil.Process(pid))
    return list({below.pid: below for process in found for below in (process, *process.children(True))}.values())

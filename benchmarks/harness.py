"""What every benchmark shares: how a time is taken, the shape of the answer, its chart, and an installation to work in.

In: the name of a benchmark, which is a module of this folder with `rows(options)`. Out: one object,
{"machine": ..., "rows": [{"work", "ours_s", "peers_s": {name: s}, "floor_s", "note"}]}. Times are the shortest of several
calls in this process, on the same data, taken in turn: what else runs on the machine only ever adds to a time.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home

Row = dict[str, Any]
# Modules of this folder that are no benchmarks.
_SHARED = ("harness", "charts", "edge_start", "recordings", "sync_peers")


@dataclass(frozen=True)
class Options:
    """sizes: what the benchmark counts its sizes in (hours, GB), smallest first; empty: its own."""

    sizes: tuple[float, ...] = ()


def names() -> list[dict[str, str]]:
    """Every benchmark with what it measures."""
    found = []
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        # What begins so is a part of `features`, or of `quality`.
        if module.name not in _SHARED and not module.name.startswith(("features_", "quality_")):
            text = importlib.import_module(f"benchmarks.{module.name}").__doc__ or ""
            found.append({"name": module.name, "measures": text.strip().splitlines()[0]})
    return found


def run(name: str, options: Options) -> dict[str, Any]:
    """Runs one benchmark. Raises FleetError for an unknown name, and when the peers are not installed."""
    known = [entry["name"] for entry in names()]
    if name not in known:
        raise FleetError(f"No benchmark is called {name}", remedy=f"There are {', '.join(known)}.")
    before = machine()
    try:
        rows = importlib.import_module(f"benchmarks.{name}").rows(options)
    except ModuleNotFoundError as error:
        raise FleetError(
            f"{error.name} is not installed", remedy="Install the extra `peers`, or `make setup`."
        ) from error
    return {"machine": before, "rows": rows}


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_1min": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def fastest(work: Mapping[str, Callable[[], object]], *, repeats: int = 7, enough_s: float = 5.0) -> dict[str, float]:
    """Shortest seconds of each, called in turn. Who has taken enough_s altogether is not called again; the first call, which
    compiles and fills caches, counts only where there is no other."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, call in work.items():
            if sum(taken[name]) < enough_s:
                started = time.perf_counter()
                call()
                taken[name].append(time.perf_counter() - started)
    return {name: min(times[1:] or times) for name, times in taken.items()}


def row(work: str, times: Mapping[str, float], *, note: str = "") -> Row:
    """One row from times named ours, floor, and anything else for a peer."""
    peers = {name: seconds for name, seconds in times.items() if name not in ("ours", "floor")}
    return {"work": work, "ours_s": times["ours"], "peers_s": peers, "floor_s": times.get("floor"), "note": note}


@contextlib.contextmanager
def installation(servers: Sequence[str]) -> Iterator[Home]:
    """An installation of its own, its servers answering and its tables made; nothing of it is left behind."""
    from fleet_assets.lake.lake import Lake
    from fleet_assets.lake.schema import apply
    from fleet_assets.lake.session import close_sessions
    from fleet_assets.services import supervisor

    # A short path: names of unix sockets below it must stay under 108 bytes.
    root = Path(tempfile.mkdtemp(prefix="fleet-bench-"))
    home = Home.open(root)
    try:
        supervisor.up(home, only=servers, bound_to=os.getpid())
        apply(Lake.open(home))
        yield home
    finally:
        close_sessions()
        supervisor.down(home)
        shutil.rmtree(root)

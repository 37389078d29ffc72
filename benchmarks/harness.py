"""What every benchmark shares: how a time is taken, and the shape of the answer.

In: the name of a benchmark, which is a module of this folder with `rows(home)`. Out: one object,
{"machine": ..., "rows": [{"work", "ours_s", "peers_s": {name: s}, "floor_s", "note"}]}. Times are medians in seconds of calls
in this process, on the same data, taken in turn, so that a drift of the machine hits all alike.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home

Row = dict[str, Any]


def names() -> list[dict[str, str]]:
    """Every benchmark with what it measures."""
    found = []
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name != "harness":
            text = importlib.import_module(f"benchmarks.{module.name}").__doc__ or ""
            found.append({"name": module.name, "measures": text.strip().splitlines()[0]})
    return found


def run(name: str, home: Home) -> dict[str, Any]:
    """Runs one benchmark. Raises FleetError for an unknown name."""
    known = [entry["name"] for entry in names()]
    if name not in known:
        raise FleetError(f"No benchmark is called {name}", remedy=f"There are {', '.join(known)}.")
    return {"machine": machine(), "rows": importlib.import_module(f"benchmarks.{name}").rows(home)}


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


def medians(work: Mapping[str, Callable[[], object]], *, repeats: int = 5) -> dict[str, float]:
    """Median seconds of each, called in turn after one call that does not count."""
    for call in work.values():
        call()
    taken: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(repeats):
        for name, call in work.items():
            started = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in taken.items()}


def row(work: str, times: Mapping[str, float], *, note: str = "") -> Row:
    """One row from times named ours, floor, and anything else for a peer."""
    peers = {name: seconds for name, seconds in times.items() if name not in ("ours", "floor")}
    return {"work": work, "ours_s": times["ours"], "peers_s": peers, "floor_s": times.get("floor"), "note": note}

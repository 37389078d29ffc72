"""Features: building and activating snapshots, look-ups on the edge and through Feast, joins and transforms."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Options, Row
from fleet_assets.services.home import free_ports


def rows(options: Options) -> list[Row]:
    """All rows of benchmarks/features_*.py. Each says in its note whether Numba was loaded."""
    found: list[Row] = []
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith("features_"):
            found += importlib.import_module(f"benchmarks.{module.name}").rows(options)
    return found


def numba_note() -> str:
    return "numba loaded" if "numba" in sys.modules else "without numba"


_IN_TURN, _NOT_TIMED = 200, 10  # calls


def percentiles(
    work: Mapping[str, Callable[[Any], object]], arguments: Iterable[Any]
) -> tuple[dict[str, float], dict[str, float]]:
    """Median and 99th percentile, in seconds, of single calls with each argument. They take turns after some calls each, of
    which the first are not timed: those find the processor's caches as another left them."""
    taken: dict[str, list[float]] = {name: [] for name in work}
    remaining = iter(arguments)
    while block := list(itertools.islice(remaining, _IN_TURN)):
        for name, call in work.items():
            for argument in block[:_NOT_TIMED]:
                call(argument)
            for argument in block[_NOT_TIMED:]:
                started = time.perf_counter()
                call(argument)
                taken[name].append(time.perf_counter() - started)
    p50, p99 = ({name: float(np.percentile(times, q)) for name, times in taken.items()} for q in (50, 99))
    return p50, p99


@contextmanager
def redis_server(folder: Path) -> Iterator[str | None]:
    """A server of Debian's package on a free port; None where there is none."""
    program = shutil.which("redis-server")
    if program is None:
        yield None
        return
    port = free_ports(1)[0]
    command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
        try:
            await_port(port)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()


def await_port(port: int, timeout_s: float = 120.0) -> None:
    import socket

    until = time.monotonic() + timeout_s
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)

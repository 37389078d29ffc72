"""What the supervisor needs to know about a server, and how it knows its own processes.

In: a Home. Out: command, environment and a probe per server; the processes of one installation.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from fleet_assets.services.home import Home

# In the environment of every process that the supervisor starts, and so of all their descendants: "NAME@ROOT". It finds
# the processes of one installation also when whoever started them is gone.
MARK = "FLEET_SERVER"
SUPERVISOR = "supervisor"


@dataclass(frozen=True)
class Answer:
    """What a probe found. hopeless: waiting will not help."""

    ready: bool
    detail: str
    hopeless: bool = False


@dataclass(frozen=True)
class Server:
    """One server of an installation.

    probe: asks the server itself, with its credential; started is the time (s since the epoch) its process was started.
    stop_s: how long a clean stop may take.
    """

    name: str
    address: str
    port: int | None
    command: Sequence[str]
    probe: Callable[[float], Answer]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_s: float = 15.0


def environment(home: Home, name: str, extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of a server: the user's, without settings of other tools that would change what our servers do."""
    strange = ("SPARK_", "PYSPARK_", "LAKEFS_", "DAGSTER_", "HADOOP_", "JDK_JAVA_OPTIONS", "PYTHONWARNINGS")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(strange)}
    return {
        **kept,
        # Python's own interpreter first, so that a server that looks for `python` finds ours.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
        "FLEET_HOME": str(home.root),
        "DAGSTER_HOME": str(home.dagster_home),
        "DO_NOT_TRACK": "1",
        "GX_ANALYTICS_ENABLED": "false",
        "FEAST_USAGE": "False",
        **extra,
        MARK: f"{name}@{home.root}",
    }


def processes(home: Home, name: str | None = None) -> list[psutil.Process]:
    """Live processes of this installation (of one server, with its descendants), but not the caller's own line."""
    mine = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        # Other users' processes do not show their environment, and processes end while we look.
        with contextlib.suppress(psutil.Error, OSError):
            server, _, root = process.environ().get(MARK, "").partition("@")
            alive = process.pid not in mine and process.status() != psutil.STATUS_ZOMBIE
            if alive and root == str(home.root) and (name is None or server == name):
                found.append(process)
    return found


def end(targets: Sequence[psutil.Process], patience_s: float) -> None:
    """Ask processes to end, and after patience_s end them."""
    for process in targets:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, stubborn = psutil.wait_procs(targets, timeout=patience_s)
    for process in stubborn:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=10)

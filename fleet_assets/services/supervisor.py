"""Start and stop an installation's servers, and say how they are.

In: a Home, names of servers. Out: servers that answer, or a FleetError that says what to do; their status. The work is
done by a process of its own (supervise.py); this is what `fleet up | down | status` and tests call.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import psutil

from fleet_assets.errors import FleetError
from fleet_assets.services import cache, jars, java, lakefs, orchestrator
from fleet_assets.services.home import Home, port_is_free
from fleet_assets.services.server import SUPERVISOR, Answer, end, environment, processes
from fleet_assets.services.supervise import (
    DAGSTER,
    NAMES,
    State,
    Wanted,
    read_states,
    read_wanted,
    state_path,
    write_wanted,
)

LEAST_FREE_BYTES = 2 * 1024**3
_TRIES = 3  # a server that ended so often while we wait for it will not come
_PATIENCE_S = 240.0


@dataclass(frozen=True)
class ServiceStatus:
    """One server. ready: it answers. uptime_s: since its last start; restarts: since it last ran steadily."""

    name: str
    ready: bool
    detail: str
    address: str
    pid: int | None
    restarts: int
    uptime_s: int | None
    log: str


def up(
    home: Home,
    only: Sequence[str] | None = None,
    progress: cache.Progress = lambda sentence: None,
    *,
    module: str | None = None,
    bound_to: int | None = None,
) -> None:
    """Start the servers that are not running (all that are not elsewhere, or those named); return when each answers.

    module: the code location of Dagster's servers, a module or a file. bound_to: a process id; the servers end when
    that process has gone.
    Raises FleetError when one cannot be started; the others go on.
    """
    names = tuple(only or (name for name in NAMES if name not in home.elsewhere))
    unknown = sorted(set(names) - set(NAMES))
    if unknown:
        raise FleetError(f"No server is called {', '.join(unknown)}", remedy=f"There are {', '.join(NAMES)}.")
    with open(home.run / "up.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _check_disk(home)
        if "lakefs" in names:
            lakefs.program(progress)
        if "spark" in names:
            java.find()
            jars.folder(progress)
        alive = supervisor_pid(home) is not None
        if not alive:
            # Of an earlier supervisor that was killed: its servers would look like somebody else's on our ports.
            end(leftovers(home), patience_s=10.0)
            state_path(home).unlink(missing_ok=True)
        before = read_wanted(home)
        _check_ports(home, [name for name in names if not (alive and name in before.names)])
        wanted = Wanted(
            names=tuple(name for name in NAMES if name in {*before.names, *names}),
            module=module or (before.module if before.names else orchestrator.CODE_LOCATION),
            bound_to=bound_to if bound_to is not None else before.bound_to,
        )
        # The others start while Dagster's databases are made, which takes seconds.
        write_wanted(
            home, replace(wanted, names=tuple(n for n in wanted.names if n not in DAGSTER or n in before.names))
        )
        if not alive:
            _start_supervisor(home)
        if set(DAGSTER) & set(wanted.names):
            orchestrator.prepare(home)
        write_wanted(home, wanted)
    _await(home, names, progress)


def down(home: Home) -> None:
    """Stop all servers of this installation; also what a killed supervisor left behind."""
    pid = supervisor_pid(home)
    (home.run / "wanted.json").unlink(missing_ok=True)
    if pid is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(pid)
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(90)
    end(processes(home), patience_s=10.0)
    state_path(home).unlink(missing_ok=True)


def status(home: Home) -> list[ServiceStatus]:
    """Every server, asked now."""
    alive = supervisor_pid(home) is not None
    states = read_states(home)
    wanted = read_wanted(home)
    found = []
    for name in NAMES:
        state = states.get(name, State())
        running = alive and state.pid is not None
        asked = running or name in home.elsewhere
        answer = _probe(home, name, state) if asked else Answer(False, _why_not(alive, name, state, wanted))
        found.append(
            ServiceStatus(
                name=name,
                ready=answer.ready,
                detail=answer.detail,
                address=_addresses(home)[name],
                pid=state.pid if running else None,
                restarts=state.restarts,
                uptime_s=int(time.time() - state.started) if running else None,
                log=str(home.logs / f"{name}.log"),
            )
        )
    return found


def supervisor_pid(home: Home) -> int | None:
    """The process that holds the installation's lock, if one does."""
    path = home.run / "supervisor.lock"
    if not path.exists():
        return None
    with open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            content = lock.read().strip()
            return int(content) if content.isdigit() else None
    return None


def leftovers(home: Home) -> list[psutil.Process]:
    """Processes of this installation that no supervisor watches any more."""
    return [] if supervisor_pid(home) is not None else processes(home)


def _addresses(home: Home) -> dict[str, str]:
    return {"lakefs": home.lakefs_url, "spark": home.spark_url, "webserver": home.webserver_url, "daemon": ""}


def _probe(home: Home, name: str, state: State) -> Answer:
    from fleet_assets.services import spark

    if name == "lakefs":
        return lakefs.probe(home)
    if name == "spark":
        return spark.probe(home)
    if name == "webserver":
        return orchestrator.probe_webserver(home)
    return orchestrator.probe_daemon(home, state.started)


def _why_not(alive: bool, name: str, state: State, wanted: Wanted) -> str:
    if state.fault:
        return f"{state.fault}; it is started again"
    if name not in wanted.names:
        return "not started"
    return "is starting" if alive else "not running, though it was: `fleet up` starts it again"


def _check_disk(home: Home) -> None:
    free = shutil.disk_usage(home.root).free
    if free < LEAST_FREE_BYTES:
        raise FleetError(
            f"The disk is full: {free / 1e9:.1f} GB free, {LEAST_FREE_BYTES / 1e9:.0f} GB needed",
            where=str(home.root),
            remedy="Free some space, or point FLEET_HOME at a larger disk.",
        )


def _check_ports(home: Home, names: Sequence[str]) -> None:
    for name, port in ports(home).items():
        if name in names and not port_is_free(port):
            raise FleetError(
                f"Port {port} for {name} is taken by {holder(port)}",
                where=str(home.root / "home.json"),
                remedy=f'End that program, or remove "{name}" from home.json so that another port is chosen.',
            )


def ports(home: Home) -> dict[str, int]:
    """Server -> its port on loopback."""
    return {"lakefs": home.lakefs_port, "spark": home.spark_port, "webserver": home.webserver_port}


def holder(port: int) -> str:
    """Who listens on a port of this machine, in words."""
    for process in psutil.process_iter(["pid", "name"]):
        # What other users' programs listen on is not shown.
        with contextlib.suppress(psutil.Error):
            if any(c.laddr and c.laddr.port == port for c in process.net_connections("tcp")):
                return f"{process.info['name']} (process {process.info['pid']})"
    return "another program"


def _start_supervisor(home: Home) -> None:
    """The launched process forks and returns at once; the supervisor is nobody's child."""
    ended = subprocess.run(
        [sys.executable, "-m", "fleet_assets.services.supervise", str(home.root)],
        env=environment(home, SUPERVISOR, {}),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise FleetError(f"The supervisor does not start: {last}", remedy="Run `fleet doctor`.")


def _await(home: Home, names: Sequence[str], progress: cache.Progress) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    waiting = list(names)
    began, asked = time.monotonic(), time.time()
    answers: dict[str, Answer] = {}
    while waiting:
        states = read_states(home)
        for name in list(waiting):
            state = states.get(name, State())
            answer = answers[name] = _probe(home, name, state) if state.pid else Answer(False, "is starting")
            if answer.ready:
                waiting.remove(name)
                progress(f"{name} answers after {time.monotonic() - began:.1f} s")
            elif answer.hopeless and state.pid and state.started < asked:
                # It failed before we were asked; what it lacked may be there now.
                with contextlib.suppress(psutil.NoSuchProcess):
                    psutil.Process(state.pid).terminate()
            elif answer.hopeless or state.restarts >= _TRIES:
                raise _no_show(home, name, answer.detail if answer.hopeless else state.fault or answer.detail)
        if waiting and time.monotonic() > deadline:
            raise _no_show(home, waiting[0], answers[waiting[0]].detail)
        if waiting and time.monotonic() - began > 5 and supervisor_pid(home) is None:
            raise FleetError(
                "The supervisor has ended", where=str(home.logs / "supervisor.log"), remedy="Run `fleet up` again."
            )
        time.sleep(0.2 if waiting else 0)


def _no_show(home: Home, name: str, why: str) -> FleetError:
    log = home.logs / f"{name}.log"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    last = f"; its log ends in: {lines[-1].strip()[:200]}" if lines else ""
    return FleetError(
        f"{name} does not come up: {why}{last}",
        where=str(log),
        remedy="Read that log, run `fleet doctor`, then `fleet up` again.",
    )

"""The process that starts, watches and stops the servers of one installation.

In: run/wanted.json (which servers, which code location), SIGTERM. Out: running servers, run/state.json, logs. It is
started by supervisor.py, once per installation: `python -m fleet_assets.services.supervise ROOT`.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import psutil

from fleet_assets.errors import FleetError
from fleet_assets.services import lakefs, orchestrator, spark
from fleet_assets.services.home import Home, write_private
from fleet_assets.services.server import SUPERVISOR, Server, end, environment, processes

DAGSTER = ("webserver", "daemon")
NAMES = ("lakefs", "spark", *DAGSTER)
_TICK_S = 0.2
_LONGEST_WAIT_S = 30.0
_STEADY_S = 60.0  # after so long, a server's earlier ends no longer count
_ROTATE_EVERY_S = 5.0
LOG_BYTES = 16 * 1024**2
LOG_FILES = 4


@dataclass
class State:
    """What the supervisor says about one server. Times in s since the epoch."""

    pid: int | None = None
    started: float = 0.0
    restarts: int = 0  # since it last ran steadily
    fault: str | None = None  # how it ended last, or why it could not be started


class Supervisor:
    """Children by name, their state, and when to try again."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self.stop_s: dict[str, float] = {}
        self.states: dict[str, State] = {}
        self.not_before: dict[str, float] = {}
        self.stopping = False
        self.written = ""

    def run(self) -> None:
        """Until SIGTERM or SIGINT, or until the process it is bound to has gone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        next_rotation = 0.0
        try:
            while not self.stopping:
                wanted = read_wanted(self.home)
                self._reap()
                for name in wanted.names:
                    if name not in self.children and time.monotonic() >= self.not_before.get(name, 0.0):
                        self._start(name, wanted.module)
                self._write_state()
                if time.monotonic() >= next_rotation:
                    for log in self.home.logs.glob("*.log"):
                        rotate(log)
                    next_rotation = time.monotonic() + _ROTATE_EVERY_S
                if wanted.bound_to is not None and not psutil.pid_exists(wanted.bound_to):
                    break
                time.sleep(_TICK_S)
        finally:
            self._stop_children()
            state_path(self.home).unlink(missing_ok=True)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.stopping = True

    def _start(self, name: str, module: str) -> None:
        state = self.states.setdefault(name, State())
        try:
            server = describe(self.home, name, module)
            with open(self.home.logs / f"{name}.log", "ab") as log:
                # A session of its own, so that a key press in the user's terminal is not the server's. The log is
                # opened for appending: it goes on when this process is killed, and may be cut while it is written.
                child = subprocess.Popen(
                    server.command,
                    env=environment(self.home, name, server.environment),
                    cwd=self.home.scratch,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        except (OSError, FleetError) as error:
            self._failed(name, str(error))
            return
        self.children[name] = child
        self.stop_s[name] = server.stop_s
        state.pid, state.started = child.pid, time.time()
        say(f"{name} started, process {child.pid}")

    def _reap(self) -> None:
        for name, child in list(self.children.items()):
            code = child.poll()
            state = self.states[name]
            if code is not None:
                del self.children[name]
                how = f"was ended by signal {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
                if time.time() - state.started > _STEADY_S:
                    state.restarts = 0
                self._failed(name, how)
            elif state.restarts and time.time() - state.started > _STEADY_S:
                state.restarts = 0

    def _failed(self, name: str, how: str) -> None:
        state = self.states[name]
        wait_s = min(0.5 * 2**state.restarts, _LONGEST_WAIT_S)
        self.not_before[name] = time.monotonic() + wait_s
        state.pid, state.fault = None, how
        state.restarts += 1
        say(f"{name} {how}; next start in {wait_s:.1f} s")

    def _write_state(self) -> None:
        text = json.dumps({name: asdict(state) for name, state in self.states.items()})
        if text != self.written:
            write_private(state_path(self.home), text)
            self.written = text

    def _stop_children(self) -> None:
        """Those that use the others first. Each gets its time to end; what is left of it then is killed."""
        say("stopping")
        for group in (DAGSTER, ("spark",), ("lakefs",)):
            running = [name for name in group if name in self.children]
            for name in running:
                with contextlib.suppress(ProcessLookupError):
                    self.children[name].terminate()
            deadline = time.monotonic() + max((self.stop_s[name] for name in running), default=0.0)
            for name in running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self.children[name].wait(max(deadline - time.monotonic(), 0.01))
            # What the server left behind: code servers, runs, Python workers; and the server itself if it is stuck.
            for name in group:
                end(processes(self.home, name), patience_s=5.0)
            for name in running:
                self.children[name].wait()
        say("stopped")


def describe(home: Home, name: str, module: str) -> Server:
    """The server of this name. Files that it needs are written; nothing is built or fetched that is already there."""
    from fleet_assets.services import jars

    if name == "lakefs":
        return lakefs.server(home, lakefs.program(say))
    if name == "spark":
        return spark.server(home, jars.folder(say))
    return orchestrator.webserver(home, module) if name == "webserver" else orchestrator.daemon(home, module)


@dataclass(frozen=True)
class Wanted:
    """What supervisor.up asks for. bound_to: the servers end when this process has gone."""

    names: tuple[str, ...] = ()
    module: str = orchestrator.CODE_LOCATION
    bound_to: int | None = None


def read_wanted(home: Home) -> Wanted:
    """What is asked for now."""
    try:
        document = json.loads((home.run / "wanted.json").read_text())
    except FileNotFoundError:
        return Wanted()
    return Wanted(tuple(document["names"]), document["module"], document["bound_to"])


def write_wanted(home: Home, wanted: Wanted) -> None:
    """Ask for these servers."""
    write_private(home.run / "wanted.json", json.dumps(asdict(wanted)))


def state_path(home: Home) -> Path:
    """Where the supervisor says how its servers are."""
    return home.run / "state.json"


def read_states(home: Home) -> dict[str, State]:
    """State per server that was ever started; empty without a supervisor."""
    try:
        return {name: State(**state) for name, state in json.loads(state_path(home).read_text()).items()}
    except FileNotFoundError:
        return {}


def rotate(log: Path, limit_bytes: int = LOG_BYTES, files: int = LOG_FILES) -> None:
    """Cut a log that has grown over the limit; NAME.1 is the newest of the kept parts.

    Its writer keeps the file open, so the file is copied and emptied, not renamed. What is written in between is a line
    or two at most, and lost.
    """
    if not log.exists() or log.stat().st_size <= limit_bytes:
        return
    log.with_name(f"{log.name}.{files}").unlink(missing_ok=True)
    for number in range(files - 1, 0, -1):
        older = log.with_name(f"{log.name}.{number}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number + 1}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)


def say(sentence: str) -> None:
    """A line in the supervisor's own log."""
    sys.stderr.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {sentence}\n")
    sys.stderr.flush()


@contextlib.contextmanager
def sole(home: Home) -> Iterator[IO[str] | None]:
    """The lock that the one supervisor of an installation holds, or None. The kernel frees it when its holder dies."""
    with open(home.run / "supervisor.lock", "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield None
            return
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield lock


def _detach(home: Home) -> None:
    """Leave the caller: no parent, no terminal, output into a log."""
    if os.fork():
        os._exit(0)
    os.setsid()
    log = os.open(home.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)


def main() -> None:
    """Become the supervisor of the installation in argv[1]; end at once if it has one."""
    home = Home.open(Path(sys.argv[1]))
    _detach(home)
    with sole(home) as lock:
        if lock is None:
            return
        leftovers = [p for name in NAMES for p in processes(home, name)]
        if leftovers:
            say(f"ending {len(leftovers)} processes of an earlier supervisor that did not end cleanly")
            end(leftovers, patience_s=10.0)
        state_path(home).unlink(missing_ok=True)
        Supervisor(home).run()


if __name__ == "__main__":
    os.environ.setdefault("FLEET_SERVER", SUPERVISOR)
    main()

"""Is this machine fit, and is this installation whole?

In: a Home. Out: one finding per question, with what was found and what to do about it. Nothing is changed or started.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from fleet_assets.errors import FleetError
from fleet_assets.services import cache, jars, java, lakefs, supervisor
from fleet_assets.services.home import Home, port_is_free


@dataclass(frozen=True)
class Finding:
    """One question. remedy: what to do when it is not ok, else None."""

    name: str
    ok: bool
    detail: str
    remedy: str | None = None


def doctor(home: Home) -> list[Finding]:
    """All findings, the machine first, then the installation, then its servers."""
    statuses = {status.name: status for status in supervisor.status(home)}
    running = {name for name, status in statuses.items() if status.pid is not None}
    return [
        _python(),
        _guarded("java", _java),
        _lakefs(),
        _guarded("spark jars", _jars),
        _disk("disk of the installation", home.root),
        _disk("disk of the cache", cache.folder()),
        _readers(),
        *_secrets(home),
        _lock(home),
        *_ports(home, running),
        *(
            Finding(
                f"{name} answers",
                status.ready,
                status.detail,
                None if status.ready else f"Run `fleet up`; if that does not help, read {status.log}.",
            )
            for name, status in statuses.items()
        ),
    ]


def _readers() -> Finding:
    from fleet_assets.formats.reader import broken_readers, readers

    broken = broken_readers()
    detail = "; ".join(f"{name} ({why})" for name, why in broken.items()) or ", ".join(readers())
    remedy = "Install what it lacks, or uninstall the package that brings it." if broken else None
    return Finding("readers of recordings", not broken, detail, remedy)


def _guarded(name: str, examine: Callable[[], Finding]) -> Finding:
    """An error of the examined thing itself is the finding."""
    try:
        return examine()
    except FleetError as error:
        return Finding(name, False, error.what, error.remedy)


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    ok = sys.version_info[:2] == (3, 11)
    return Finding("python", ok, f"{version} at {sys.executable}", None if ok else "Run `make setup` with Python 3.11.")


def _java() -> Finding:
    program, what = java.find()
    return Finding("java", True, f"{what}, {program}")


def _lakefs() -> Finding:
    for program in (shutil.which("lakefs"), lakefs.cached()):
        version = lakefs.version(Path(program)) if program else None
        if version:
            return Finding("lakefs program", True, f"{version}, {program}")
    half = lakefs.cached()
    detail = f"{half} does not run: it is half-built or damaged" if half.exists() else "not built yet"
    return Finding("lakefs program", False, detail, "Run `make setup`, which builds it.")


def _jars() -> Finding:
    listing = cache.infra("spark", "jars.sha256").read_bytes()
    folder = jars.place(listing)
    if not folder.is_dir():
        return Finding("spark jars", False, "not fetched yet", "Run `make setup`, which fetches them.")
    fault = jars.verify(folder, jars.expected(listing.decode()))
    remedy = f"Remove {folder} and run `make setup`."
    return Finding("spark jars", fault is None, fault or f"complete, {folder}", remedy if fault else None)


def _disk(name: str, folder: Path) -> Finding:
    free = shutil.disk_usage(folder).free
    ok = free >= supervisor.LEAST_FREE_BYTES
    remedy = "Free some space, or move FLEET_HOME or XDG_CACHE_HOME to a larger disk."
    return Finding(name, ok, f"{free / 1e9:.0f} GB free at {folder}", None if ok else remedy)


def _secrets(home: Home) -> Iterator[Finding]:
    """Files that hold a credential: ours to read, and nobody else's."""
    for path in (home.root / "secrets.json", home.run / "spark.properties"):
        if path.exists():
            mode = stat.S_IMODE(path.stat().st_mode)
            ok = mode & 0o077 == 0 and path.stat().st_uid == os.getuid()
            yield Finding(f"mode of {path.name}", ok, f"{mode:04o}", None if ok else f"Run `chmod 600 {path}`.")


def _lock(home: Home) -> Finding:
    pid = supervisor.supervisor_pid(home)
    if pid is not None:
        return Finding("supervisor", True, f"process {pid}")
    left = supervisor.leftovers(home)
    if left:
        pids = ", ".join(str(process.pid) for process in left)
        return Finding(
            "supervisor", False, f"was killed; it left {pids}", "Run `fleet up` or `fleet down`, which end them."
        )
    if (home.run / "wanted.json").exists():
        return Finding(
            "supervisor", False, "was killed, its lock is stale", "Run `fleet up`, which takes the lock over."
        )
    return Finding("supervisor", True, "not running")


def _ports(home: Home, running: set[str]) -> Iterator[Finding]:
    left = {c.laddr.port for process in supervisor.leftovers(home) for c in _connections(process) if c.laddr}
    for name, port in supervisor.ports(home).items():
        if name in running:
            yield Finding(f"port of {name}", True, f"{port}, ours")
        elif port_is_free(port):
            yield Finding(f"port of {name}", True, f"{port}, free")
        elif port in left:
            detail = f"{port} is held by what the supervisor left"
            yield Finding(f"port of {name}", False, detail, "Run `fleet up` or `fleet down`, which end it.")
        else:
            place = home.root / "home.json"
            remedy = f'End that program, or remove "{name}" from {place} so that another port is chosen.'
            yield Finding(f"port of {name}", False, f"{port} is taken by {supervisor.holder(port)}", remedy)


def _connections(process: psutil.Process) -> list[Any]:
    try:
        return list(process.net_connections("tcp"))
    except psutil.Error:
        return []  # it has ended meanwhile

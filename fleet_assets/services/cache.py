"""The user's cache: what is built or fetched once and shared by all installations of a user.

In: XDG_CACHE_HOME (default ~/.cache), names. Out: folders, and a lock so that two builders do not collide.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fleet_assets.errors import FleetError

Progress = Callable[[str], None]


def folder(*names: str) -> Path:
    """A folder of the user's cache, made if need be."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    path = base.joinpath("fleet", *names)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FleetError(
            f"Cannot create {path}: {error.strerror}", remedy="Set XDG_CACHE_HOME to a folder that you may write."
        ) from error
    return path


@contextmanager
def locked(name: str, progress: Progress) -> Iterator[None]:
    """One builder of this name at a time; the kernel gives the lock back when its holder dies."""
    with open(folder() / f"{name}.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            progress(f"Another process prepares {name}; waiting for it.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def infra(*names: str) -> Path:
    """A file of the project's infra/ folder, which holds what servers are built and configured from."""
    path = Path(__file__).resolve().parents[2].joinpath("infra", *names)
    if not path.exists():
        raise FleetError(
            f"{path} is missing", remedy="Local servers need a source checkout: run from one, installed with pip -e."
        )
    return path

"""Which branches belong to a run that is alive.

In: a branch name. Out: a lock on a file in the installation, held as long as the process lives: the system drops it
however the process ends. A run on another machine has no lease here; its branches are judged by their age.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Literal

from fleet_assets.services.home import Home

State = Literal["alive", "dead", "unknown"]


class Lease:
    """Taken on creation; given back by release(), or by the end of the process."""

    def __init__(self, home: Home, branch: str) -> None:
        self.path = _path(home, branch)
        self.path.parent.mkdir(exist_ok=True, mode=0o700)
        self._file: int | None = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def release(self) -> None:
        """Calling it twice is no error."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def state(home: Home, branch: str) -> State:
    """alive: its process holds the lease; dead: it has ended without giving it back; unknown: there is none here."""
    try:
        file = os.open(_path(home, branch), os.O_RDWR)
    except FileNotFoundError:
        return "unknown"
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "alive"
    finally:
        os.close(file)
    return "dead"


def forget(home: Home, branch: str) -> None:
    """Removes what a dead process has left."""
    _path(home, branch).unlink(missing_ok=True)


def _path(home: Home, branch: str) -> Path:
    return home.run / "leases" / branch

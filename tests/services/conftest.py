"""Installations of their own for tests that break things."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fleet_assets.services import supervisor
from fleet_assets.services.home import Home

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


@pytest.fixture(scope="module")
def new_home() -> Iterator[Callable[[], Home]]:
    """Makes installations; their servers end with the module."""
    made: list[Home] = []

    def make() -> Home:
        made.append(Home.open(Path(tempfile.mkdtemp(prefix="fleet-"))))
        return made[-1]

    yield make
    for home in made:
        supervisor.down(home)
        if not os.environ.get("FLEET_KEEP"):
            shutil.rmtree(home.root)


@pytest.fixture(scope="module")
def running(new_home: Callable[[], Home]) -> Home:
    """An installation with all four servers, and a code location of one asset."""
    home = new_home()
    supervisor.up(home, module=STAND_IN, bound_to=os.getpid())
    return home

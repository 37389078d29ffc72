"""Real servers for the tests: one installation per session, started when the first test asks for it.

home: an installation without servers. lakefs_home, spark_home, fleet_home: the same one with lakeFS, with lakeFS and
Spark, with everything. The servers end with the session, also when it is killed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fleet_assets.lake.session import close_sessions
from fleet_assets.services import supervisor
from fleet_assets.services.home import Home

if TYPE_CHECKING:
    from fleet_assets.lake.lake import Lake


@contextmanager
def installation() -> Iterator[Home]:
    """A new installation, which is also what Home.open() finds. Kept with FLEET_KEEP=1, to look at its logs."""
    # A short path: names of unix sockets below it must stay under 108 bytes.
    root = Path(tempfile.mkdtemp(prefix="fleet-"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FLEET_HOME", str(root))
        opened = Home.open(root)
        yield opened
        close_sessions()
        supervisor.down(opened)
    if os.environ.get("FLEET_KEEP"):
        print(f"\nkept {root}")
    else:
        shutil.rmtree(root)


@pytest.fixture(scope="session")
def home() -> Iterator[Home]:
    """The session's installation, without servers."""
    with installation() as opened:
        yield opened


@pytest.fixture(scope="module")
def own_home() -> Iterator[Home]:
    """An installation of the module's own, with lakeFS: what its tests publish is nobody else's."""
    with installation() as opened:
        supervisor.up(opened, only=["lakefs"], bound_to=os.getpid())
        yield opened


@pytest.fixture(scope="module")
def own_lake(own_home: Home) -> Lake:
    """Its lake, with all tables; audits by the rules alone, without Great Expectations."""
    from lake.publisher import judge  # what servers need is not imported for tests without them

    from fleet_assets.lake.lake import Lake
    from fleet_assets.lake.schema import apply

    opened = Lake.open(own_home)
    opened.auditor = judge
    apply(opened)
    return opened


@pytest.fixture(scope="session")
def lakefs_home(home: Home) -> Home:
    """The session's installation, lakeFS answering."""
    supervisor.up(home, only=["lakefs"], bound_to=os.getpid())
    return home


@pytest.fixture(scope="session")
def spark_home(lakefs_home: Home) -> Home:
    """The session's installation, lakeFS and Spark Connect answering."""
    supervisor.up(lakefs_home, only=["lakefs", "spark"], bound_to=os.getpid())
    return lakefs_home


@pytest.fixture(scope="session")
def fleet_home(spark_home: Home) -> Home:
    """The session's installation, all four servers answering."""
    supervisor.up(spark_home, bound_to=os.getpid())
    return spark_home


@pytest.fixture(scope="session")
def fleet(home: Home) -> Callable[..., Any]:
    """The command line in a process of its own: fleet("show", "drives") gives what --json prints.

    exit_code: what it must end with. Progress and errors go to the test's captured stderr.
    """

    def call(*arguments: str | Path, exit_code: int = 0) -> Any:
        command = [sys.executable, "-m", "fleet_assets", *map(str, arguments), "--json"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=600)
        sys.stderr.write(ended.stderr)
        assert ended.returncode == exit_code, f"{command[2:]}: {ended.returncode}\n{ended.stderr}\n{ended.stdout}"
        return json.loads(ended.stdout)

    return call

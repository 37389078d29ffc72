"""A lake of its own for every test: one lakeFS repository each, on the session's server."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from lake import publisher

from fleet_assets.contracts.loader import load_tables
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.schema import apply
from fleet_assets.lake.tables import VERSIONS
from fleet_assets.services.home import Home

Start = Callable[..., "subprocess.Popen[str]"]


# What most tests write; making all tables takes a second.
TABLES = ("ingest.imu", "ingest.gnss", "ingest.ledger", "synchronise.frames", VERSIONS)


def new_lake(home: Home, tables: Iterable[str] = TABLES) -> Lake:
    opened = Lake.open(home, f"test-{secrets.token_hex(5)}")
    lake = Lake(home, opened.repository, auditor=publisher.judge)
    apply(lake, [load_tables()[table] for table in tables])
    return lake


@pytest.fixture
def lake(lakefs_home: Home) -> Lake:
    """A few tables, nothing in them. Rules are judged without Great Expectations."""
    return new_lake(lakefs_home)


@pytest.fixture
def spark_lake(spark_home: Home) -> Lake:
    """All tables, with Spark answering."""
    return new_lake(spark_home, load_tables())


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a publisher in a process of its own; see publisher.main for the arguments."""
    running: list[subprocess.Popen[str]] = []

    def start_one(lake: Lake, publications: list[dict[str, Any]], **plan: Any) -> subprocess.Popen[str]:
        told = {"home": str(lake.home.root), "repository": lake.repository.name, "publications": publications, **plan}
        process = subprocess.Popen(
            [sys.executable, str(Path(publisher.__file__)), json.dumps(told)], stdout=subprocess.PIPE, text=True
        )
        running.append(process)
        return process

    yield start_one
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

"""In this process and in Spark tasks: the same rows, bit for bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator

import pytest
from lake.conftest import new_lake
from recordings import land

from fleet_assets.contracts.loader import load_tables
from fleet_assets.features.batch import features_batch
from fleet_assets.features.replay import OUTPUTS as FEATURES
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home
from fleet_assets.synchronise.batch import OUTPUTS, synchronise_batch

pytestmark = [pytest.mark.services, pytest.mark.slow]
DRIVES = ["spark1--20260301T080000Z", "spark2--20260301T090000Z", "spark3--20260302T080000Z"]


def carried(home: Home, *, parallel: bool) -> Lake:
    """A lake of its own with the drives, from the landing folder to live features."""
    lake = new_lake(home, load_tables())
    batches: list[Callable[..., object]] = [ingest_batch, synchronise_batch, features_batch]
    for batch in batches:
        outcome = batch(home, lake, DRIVES, run_id="run", parallel=parallel)
        assert outcome.published is not None, outcome  # type: ignore[attr-defined]
    return lake


@pytest.fixture
def landed(spark_home: Home) -> Iterator[None]:
    """The drives, where the server's tasks look for them too."""
    folders = [spark_home.landing / land(spark_home.landing, drive, duration_s=6.0).folder for drive in DRIVES]
    yield
    for folder in folders:
        shutil.rmtree(folder)


@pytest.mark.usefixtures("landed")
def test_spark_tasks_give_the_same_bits(spark_home: Home) -> None:
    here, there = carried(spark_home, parallel=False), carried(spark_home, parallel=True)
    tables = [name for name in load_tables() if name.split(".")[0] == "ingest" or name in (*OUTPUTS, *FEATURES)]
    for name in tables:
        order = [(column, "ascending") for column in load_tables()[name].primary_key]
        rows = here.at().scan(name).sort_by(order)
        assert rows.num_rows > 0 or name.endswith("quarantine") or name.startswith("ingest.context"), name
        assert there.at().scan(name).sort_by(order) == rows, name

"""What a data engineer sees in the UI, in a real browser, on the real servers."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dagster import RunsFilter
from playwright.sync_api import Browser, Page, expect
from recordings import land
from ui.browser import PICTURE_BYTES, STAGES, draw, hosts_of, new_page, open_lineage, opened

from fleet_assets import runs
from fleet_assets.contracts.loader import load_tables
from fleet_assets.definitions import defs
from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]
Fleet = Callable[..., Any]


@pytest.fixture(scope="module")
def carried(fleet_home: Home, fleet: Fleet) -> Home:
    """The session's installation, with at least two drives that have frames."""
    fleet("contracts", "apply")
    if sum(bool(drive["frames"]) for drive in fleet("show", "drives")) < 2:
        for drive in ("ui1--20260304T050607Z", "ui2--20260304T050607Z"):
            land(fleet_home.landing, drive)
        assert fleet("run")["ok"]
    return fleet_home


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with opened() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page; whatever it does, no script of it may fail."""
    page = new_page(browser)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors


def test_lineage_has_ten_groups_in_order_of_the_flow(carried: Home, page: Page, tmp_path: Path) -> None:
    hosts = hosts_of(page)
    open_lineage(page, carried)
    boxes = [page.locator("svg").get_by_text(stage, exact=True).first.bounding_box() for stage in STAGES]
    left_edges = [box["x"] for box in boxes if box]
    assert len(left_edges) == len(STAGES)
    assert left_edges == sorted(left_edges)

    picture = tmp_path / "lineage.png"
    draw(page, picture)
    data = picture.read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) > (800, 400)
    assert len(data) < PICTURE_BYTES
    # Nothing is fetched from, or told to, anybody else.
    assert hosts == {f"127.0.0.1:{carried.webserver_port}"}


def test_asset_page_says_what_the_contract_and_the_lake_say(carried: Home, page: Page, fleet: Fleet) -> None:
    contract = load_tables()["synchronise.matches"]
    # The page shows the latest run, and one that published nothing has no plot.
    most = max(fleet("show", "drives"), key=lambda drive: drive["frames"])
    assert fleet("run", "group:synchronise", "--drives", most["drive_id"])["ok"]
    page.goto(f"{carried.webserver_url}/assets/synchronise/matches")
    # The parts of the page come one after the other.
    for part in (contract.description, "Row count", "lakefs_commit", "Delta Lake", contract.columns[-1].description):
        page.get_by_text(part, exact=True).first.wait_for()
    text = page.inner_text("body").replace("\n\n", "\n")
    assert f"Owners\n{contract.owner.removeprefix('team:')}\n" in text
    assert "Kinds\nDelta Lake\nLakeFS\nSpark\n" in text
    for column in contract.columns:
        assert f"\n{column.name}\n" in text
        assert column.description in text
    commit_id = page.get_by_text(f"{carried.lakefs_url}/repositories/fleet/commits/").inner_text().rpartition("/")[2]
    (counted,) = fleet("query", "SELECT count(*) AS n FROM synchronise.matches", "--at", commit_id)
    assert f"Row count\n{counted['n']:,}\n" in text

    page.get_by_text("[Show Markdown]").click()
    plot = page.get_by_alt_text("plot", exact=True)
    plot.wait_for()
    assert plot.evaluate("image => image.naturalWidth") > 100


def test_a_stage_that_is_not_built_yet_says_what_will_come(carried: Home, page: Page) -> None:
    page.goto(f"{carried.webserver_url}/assets/monitor/planned")
    page.get_by_text("Not built yet. Will hold:").first.wait_for()


@pytest.mark.parametrize("name", ["landing", "per_drive_automation", "nightly"])
def test_automation_is_switched_on(carried: Home, page: Page, name: str) -> None:
    page.goto(f"{carried.webserver_url}/automation")
    row = page.locator("div[data-index]", has=page.get_by_text(name, exact=True))  # drawn before its switch is
    expect(row.locator("label[class*=formatSwitch] input")).to_be_checked(timeout=60_000)


def test_drives_are_made_again_from_the_lineage(carried: Home, page: Page, fleet: Fleet) -> None:
    """As the operator's guide says: select a group, Materialize, choose partitions, launch, and see it succeed."""
    found = sorted(fleet("show", "drives"), key=lambda drive: drive["frames"])
    drives = [drive["drive_id"] for drive in found if drive["frames"]][:2]
    with runs.instance_of(carried) as instance:
        known = {backfill.backfill_id for backfill in instance.get_backfills()}
        page.goto(f"{carried.webserver_url}/locations/fleet_assets.definitions/asset-groups/synchronise/lineage")
        page.get_by_role("button", name="Materialize all").click()
        page.get_by_text("Select a partition or create one").click()
        for drive in drives:
            page.get_by_placeholder("Filter partitions").fill(drive)
            page.get_by_role("menuitem", name=drive).click()
        page.keyboard.press("Escape")
        page.locator("span", has_text=re.compile(rf"^{len(drives)} partitions$")).wait_for()
        page.get_by_role("button", name="Launch backfill").click()
        page.get_by_role("dialog").filter(has_text="Launch runs to materialize").wait_for(state="detached")

        (backfill_id,) = {backfill.backfill_id for backfill in instance.get_backfills()} - known
        keys = runs.select("group:synchronise", defs).per_drive
        ended = runs.follow(instance, backfill_id, keys, drives, lambda done, known: None)
        assert ended.ok, ended.failures
        run_ids = {run.run_id for run in instance.get_runs(RunsFilter(tags={runs.BACKFILL_TAG: backfill_id}))}
    page.goto(f"{carried.webserver_url}/runs/b/{backfill_id}")
    expect(page.get_by_text("100% completed")).to_have_count(len(keys), timeout=60_000)
    # And main holds what it made.
    for drive in drives:
        made = {row["table_name"]: row["run_id"] for row in fleet("show", "drive", drive)["versions"]}
        assert {made[key.to_user_string().replace("/", ".")] for key in keys} <= run_ids

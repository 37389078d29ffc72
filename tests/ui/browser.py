"""The UI in a real browser: `python -m ui.browser PICTURE` draws the lineage of a running installation.

In: the webserver of an installation, Chromium. Out: pages; the picture in the README.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlsplit

from playwright.sync_api import Browser, Page, sync_playwright

from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home

STAGES = (
    *("capture", "ingest", "synchronise", "features", "curate"),
    *("train", "evaluate", "package", "deploy", "monitor"),
)
PICTURE_BYTES = 300_000
_MARGIN = 12
_NAMES = ("chromium", "chromium-browser", "google-chrome")  # as in the Makefile


def chromium() -> str:
    """The first of the names that runs; a stub that wants a snap does not."""
    for name in _NAMES:
        program = shutil.which(name)
        if program and subprocess.run([program, "--version"], capture_output=True, check=False).returncode == 0:
            return program
    raise FleetError("There is no Chromium on PATH", remedy="Run `make test-system`.")


@contextmanager
def opened() -> Iterator[Browser]:
    """A browser without a window."""
    # Chromium does not sandbox root's own pages; here they are ours.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=arguments)
        yield browser
        browser.close()


def new_page(browser: Browser, *, width: int = 1600, height: int = 1000) -> Page:
    """A page of its own, with nothing remembered."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(60_000)
    return page


def hosts_of(page: Page) -> set[str]:
    """Grows by every host that the page asks for something; what a page makes itself (data:, blob:) has none."""
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.update(filter(None, [urlsplit(request.url).netloc])))
    return hosts


def open_lineage(page: Page, home: Home) -> None:
    """The whole lineage, and every asset's state shown. All groups are open but ingest: with its many tables the graph would not
    fit the page, and Dagster draws only what does."""
    groups = ",".join(f"global@global:{stage}" for stage in STAGES if stage != "ingest")
    page.goto(f"{home.webserver_url}/asset-groups?expanded={quote(groups, safe='')}")
    _await_lineage(page)


def _await_lineage(page: Page) -> None:
    page.locator("svg foreignObject", has_text="monitor").last.wait_for()
    page.wait_for_load_state("networkidle")


def draw(page: Page, path: Path) -> None:
    """The lineage, as large as it gets, without what is around it."""
    page.get_by_text("Hide navigation").click()
    page.get_by_label("panel_show_right").click()
    page.reload()
    _await_lineage(page)
    # The controls of the zoom lie over the graph.
    controls = page.get_by_label("zoom_in", exact=True).locator("xpath=ancestor::div[.//*[@aria-label='zoom_out']][1]")
    controls.evaluate("element => element.parentElement.style.visibility = 'hidden'")
    boxes = [box for box in (shape.bounding_box() for shape in page.locator("svg foreignObject").all()) if box]
    left, top = min(box["x"] for box in boxes), min(box["y"] for box in boxes)
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    width, height = right - left + 2 * _MARGIN, bottom - top + 2 * _MARGIN
    page.screenshot(path=path, clip={"x": left - _MARGIN, "y": top - _MARGIN, "width": width, "height": height})


def main() -> None:
    home = Home.open()
    with opened() as browser:
        page = new_page(browser, width=2000, height=1700)
        open_lineage(page, home)
        draw(page, Path(sys.argv[1]))
    print(f"{sys.argv[1]}: {Path(sys.argv[1]).stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()

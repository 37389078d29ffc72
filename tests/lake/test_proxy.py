"""A proxy in the environment is none of our servers' business."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fleet_assets.lake.lake import Lake

pytestmark = pytest.mark.services

# A read through each of the ways to lakeFS: its API, S3, and the tables' engine.
READS = """
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home
lake = Lake.open(Home.open())
print(len(list(lake.repository.list("main"))) > 0, lake.at().scan("lake.versions").num_rows)
"""


def test_what_is_on_loopback_is_reached_past_a_proxy(own_lake: Lake) -> None:
    asked: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def answer(self) -> None:
            asked.append(self.path)
            self.send_error(502)

        do_GET = do_HEAD = do_POST = do_PUT = do_CONNECT = answer

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{proxy.server_port}"
        given = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), address)
        kept = {name: value for name, value in os.environ.items() if name.lower() != "no_proxy"}
        ended = subprocess.run(
            [sys.executable, "-c", READS], env={**kept, **given}, capture_output=True, text=True, timeout=300
        )
        proxy.shutdown()
    assert (asked, ended.stdout.split()) == ([], ["True", "0"]), ended.stderr

"""Dagster's webserver and daemon of an installation.

In: a Home, the root dagster.yaml, the module that holds the definitions. Out: DAGSTER_HOME, commands, probes. Dagster
itself is imported only by the servers (webserver.py) and where there is no webserver to ask for the daemon.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import yaml

from fleet_assets.errors import FleetError
from fleet_assets.services.home import Home, write_private
from fleet_assets.services.server import Answer, Server, environment

CODE_LOCATION = "fleet_assets.definitions"
LOCAL_HOSTS = ("127.0.0.1", "localhost")
# Of more drives than this Dagster takes the time of its look for the time of their update, which is then later than that of
# what was made of them in the same run, and so makes that again.
_DRIVES_BY_TIME = 100_000

_LOADED = """{ workspaceOrError { __typename ... on PythonError { message } ... on Workspace {
  locationEntries { loadStatus locationOrLoadError { __typename ... on PythonError { message } } } } } }"""
_HEARTBEATS = "{ instance { daemonHealth { allDaemonStatuses { daemonType required healthy lastHeartbeatTime } } } }"


def webserver(home: Home, module: str) -> Server:
    """The web UI, on loopback, for requests that name a local host only."""
    _write_settings(home)
    return Server(
        name="webserver",
        address=home.webserver_url,
        port=home.webserver_port,
        command=(
            *(sys.executable, "-m", "fleet_assets.services.webserver"),
            *("--port", str(home.webserver_port), "--code", module),
        ),
        probe=lambda started: probe_webserver(home),
    )


def daemon(home: Home, module: str) -> Server:
    """Queue, sensors, schedules and automation."""
    _write_settings(home)
    return Server(
        name="daemon",
        address="",
        port=None,
        command=(
            *(sys.executable, "-m", "dagster._daemon", "run", "--log-format", "json"),
            *("-f" if module.endswith(".py") else "-m", module),
        ),
        probe=lambda started: probe_daemon(home, started),
        environment={"DAGSTER_MAX_PARTITIONS_FOR_DA_TIMESTAMP_FETCH": str(_DRIVES_BY_TIME)},
        stop_s=20.0,
    )


def prepare(home: Home) -> None:
    """Make DAGSTER_HOME and its databases, unless that is done.

    Before any of Dagster's processes starts: two that make the databases at the same time leave them unusable (two
    heads in the version table).
    """
    done = home.dagster_home / "prepared"
    if done.exists():
        return
    _write_settings(home)
    ended = subprocess.run(
        [sys.executable, "-m", "fleet_assets.services.webserver", "--prepare"],
        env=environment(home, "prepare", {}),  # no server: the supervisor, which starts now, ends servers it finds
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode != 0:
        last = (ended.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise FleetError(
            f"Dagster's databases cannot be made: {last}", where=str(home.dagster_home), remedy="Run `fleet doctor`."
        )
    done.touch()


def _write_settings(home: Home) -> None:
    """DAGSTER_HOME/dagster.yaml: the settings of the root file, with folders of its own."""
    source = Path(__file__).resolve().parents[2] / "dagster.yaml"
    try:
        settings = yaml.safe_load(source.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise FleetError(f"{source} cannot be read: {error}", remedy="Restore it from the repository.") from error
    write_private(home.dagster_home / "dagster.yaml", yaml.safe_dump(_rooted(settings, home.dagster_home)))


def _rooted(node: Any, folder: Path) -> Any:
    """The same settings, with every base_dir below .dagster moved to this folder."""
    if not isinstance(node, dict):
        return node
    return {
        key: str(folder / Path(value).relative_to(".dagster")) if key == "base_dir" else _rooted(value, folder)
        for key, value in node.items()
    }


def probe_webserver(home: Home) -> Answer:
    """Whether the UI answers and its code location is loaded."""
    try:
        workspace = _ask(home, _LOADED)["workspaceOrError"]
    except (OSError, ValueError, KeyError) as error:
        return Answer(False, f"does not answer ({type(error).__name__})")
    if workspace["__typename"] == "PythonError":
        return Answer(False, _first_line(workspace["message"]), hopeless=True)
    for entry in workspace["locationEntries"]:
        found = entry["locationOrLoadError"]
        if found and found["__typename"] == "PythonError":
            return Answer(False, f"cannot load its code: {_first_line(found['message'])}", hopeless=True)
        if entry["loadStatus"] != "LOADED":
            return Answer(False, "is loading its code")
    return Answer(True, "answers")


def _first_line(message: str) -> str:
    """What is wrong, without the advice and the stack that follow."""
    line = message.strip().partition("\n")[0]
    return line if len(line) <= 200 else line[:199] + "…"


def probe_daemon(home: Home, started: float) -> Answer:
    """Whether every part of the daemon has given a sign of life since it was started (s since the epoch)."""
    try:
        parts = _ask(home, _HEARTBEATS)["instance"]["daemonHealth"]["allDaemonStatuses"]
        beats = {
            part["daemonType"]: (part["lastHeartbeatTime"] or 0.0, bool(part["healthy"]))
            for part in parts
            if part["required"]
        }
    except (OSError, ValueError, KeyError):
        # No webserver to ask; the instance itself knows, but importing Dagster takes seconds.
        from fleet_assets.services.webserver import heartbeats

        beats = heartbeats(home.dagster_home)
    silent = sorted(name for name, (time_s, healthy) in beats.items() if time_s < started or not healthy)
    return Answer(False, f"no sign of life of {', '.join(silent).lower()}") if silent else Answer(True, "answers")


def _ask(home: Home, query: str) -> dict[str, Any]:
    """A GraphQL query to this installation's webserver; no proxy, whatever the environment says."""
    request = urllib.request.Request(
        f"{home.webserver_url}/graphql",
        data=json.dumps({"query": query}).encode(),
        headers={"Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=15) as response:
        answer = json.load(response)
    if answer.get("errors"):
        raise ValueError(answer["errors"][0].get("message"))
    return dict(answer["data"])

"""An installation: one folder with its ports, secrets, state and logs.

In: FLEET_HOME (default ./.fleet). Out: paths, addresses and credentials of this installation's servers. Created on first
use; two installations on one machine get different ports.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from fleet_assets.errors import FleetError

_PORTS = ("lakefs", "spark", "webserver")


@dataclass(frozen=True)
class Home:
    """root: absolute folder. Ports are on loopback. The keys and the token are this installation's own, and not printed."""

    root: Path
    lakefs_port: int
    spark_port: int
    webserver_port: int
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    spark_token: str = field(repr=False)
    lakefs_encryption_key: str = field(repr=False)
    lakefs_signing_key: str = field(repr=False)

    @classmethod
    def open(cls, root: Path | None = None) -> Home:
        """The installation at root, else at FLEET_HOME, else at ./.fleet."""
        _go_past_proxies()
        folder = Path(root or os.environ.get("FLEET_HOME") or ".fleet").expanduser().absolute()
        return _load(folder)

    # A cluster's servers are elsewhere; the environment names them, and their keys (see secrets.json for the names).
    @property
    def lakefs_url(self) -> str:
        return os.environ.get("FLEET_LAKEFS_URL") or f"http://127.0.0.1:{self.lakefs_port}"

    @property
    def spark_url(self) -> str:
        # The literal host localhost: the Connect client allows a token without TLS for no other.
        return os.environ.get("FLEET_SPARK_URL") or f"sc://localhost:{self.spark_port}"

    @property
    def elsewhere(self) -> tuple[str, ...]:
        """Servers that the environment names, and that are not started here."""
        named = {"lakefs": "FLEET_LAKEFS_URL", "spark": "FLEET_SPARK_URL"}
        return tuple(name for name, variable in named.items() if os.environ.get(variable))

    @property
    def webserver_url(self) -> str:
        return f"http://127.0.0.1:{self.webserver_port}"

    @property
    def dagster_home(self) -> Path:
        return self.root / "dagster"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def landing(self) -> Path:
        return Path(os.environ.get("FLEET_LANDING") or self.root / "landing")

    @property
    def context(self) -> Path:
        """Files of context: weather, zones, vehicles."""
        return Path(os.environ.get("FLEET_CONTEXT") or self.root / "context")

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def releases(self) -> Path:
        """Roots, candidates and the channel; see package/releases.py."""
        return self.data / "releases"

    @property
    def run(self) -> Path:
        """Lock, pid and generated configuration of the running servers."""
        return self.root / "run"


def _go_past_proxies() -> None:
    """Servers on loopback are reached directly, whatever proxy the environment names: for all libraries of this process, and
    for the processes that it starts."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if listed.strip() == "*":
        return
    hosts = [host.strip() for host in listed.split(",") if host.strip()]
    text = ",".join(dict.fromkeys([*hosts, "127.0.0.1", "localhost"]))
    os.environ.update({"no_proxy": text, "NO_PROXY": text})


@lru_cache(maxsize=8)
def _load(root: Path) -> Home:
    _make(root)
    with open(root / "home.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two first uses at once must agree on ports and secrets
        ports = _ports(root / "home.json")
        keys = _read_or_make(root / "secrets.json", _new_secrets)
    try:
        home = Home(
            root=root,
            lakefs_port=int(ports["lakefs"]),
            spark_port=int(ports["spark"]),
            webserver_port=int(ports["webserver"]),
            access_key_id=os.environ.get("FLEET_LAKEFS_ACCESS_KEY_ID") or keys["access_key_id"],
            secret_access_key=os.environ.get("FLEET_LAKEFS_SECRET_ACCESS_KEY") or keys["secret_access_key"],
            spark_token=os.environ.get("FLEET_SPARK_TOKEN") or keys["spark_token"],
            lakefs_encryption_key=keys["lakefs_encryption_key"],
            lakefs_signing_key=keys["lakefs_signing_key"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise FleetError(
            f"{root}/home.json or secrets.json lacks {error}",
            remedy="Restore it from a backup, or point FLEET_HOME at a new folder.",
        ) from error
    for folder in (home.dagster_home, home.logs, home.landing, home.context, home.scratch, home.data, home.run):
        _make(folder)
    return home


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise FleetError(
            f"Cannot create {folder}: {error.strerror}", remedy="Set FLEET_HOME to a folder that you may write."
        ) from error


def _read_or_make(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    if not path.exists():
        _write(path, make())
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise FleetError(
            f"{path} is not JSON", where=str(error), remedy="Restore it, or point FLEET_HOME at a new folder."
        ) from error


def _write(path: Path, content: dict[str, Any]) -> None:
    write_private(path, json.dumps(content, indent=2))


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it, from its first byte on."""
    new = path.with_name(f"{path.name}.{os.getpid()}.new")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    new.rename(path)


def _ports(path: Path) -> dict[str, Any]:
    """Ports of home.json; one that is not in it is chosen now, so removing an entry is how to get another port."""
    ports = _read_or_make(path, dict)
    missing = [name for name in _PORTS if name not in ports]
    if missing:
        ports.update(zip(missing, free_ports(len(missing)), strict=True))
        _write(path, ports)
    return ports


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on now.

    They lie below the ranges from which systems take ports for outgoing connections (32768 and up), or a client's
    connection could hold one of ours while our servers are down.
    """
    ports: list[int] = []
    for _ in range(1000):
        port = 15_000 + secrets.randbelow(17_000)
        if port not in ports and port_is_free(port):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise FleetError("No free port between 15000 and 32000 on 127.0.0.1", remedy="Stop servers that you do not need.")


def port_is_free(port: int) -> bool:
    """Whether a server could listen on this port of 127.0.0.1."""
    with socket.socket() as probe:
        # Servers set this too: a connection of a stopped server that is still in TIME_WAIT is no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _new_secrets() -> dict[str, str]:
    return {
        # lakeFS takes any string; S3 signing wants 3 to 20 characters.
        "access_key_id": "AKIA" + secrets.token_hex(8).upper(),
        "secret_access_key": secrets.token_urlsafe(30),
        "spark_token": secrets.token_urlsafe(30),
        "lakefs_encryption_key": secrets.token_urlsafe(30),
        "lakefs_signing_key": secrets.token_urlsafe(30),
    }

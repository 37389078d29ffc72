"""An installation's folder: chosen once, private, its own."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fleet_assets.errors import FleetError
from fleet_assets.services import home as home_module
from fleet_assets.services.home import Home, free_ports, port_is_free


@pytest.fixture(autouse=True)
def forget() -> None:
    """Home.open keeps what it has read."""
    home_module._load.cache_clear()


def test_the_second_opening_finds_what_the_first_chose(tmp_path: Path) -> None:
    first = Home.open(tmp_path / "a")
    forget_and_open = subprocess.run(
        [sys.executable, "-c", "from fleet_assets.services.home import Home; print(Home.open())"],
        env={"FLEET_HOME": str(tmp_path / "a"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert forget_and_open.stdout.strip() == str(first)


def test_secrets_never_show_in_a_print(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "a")
    shown = repr(home) + str(home)
    for secret in json.loads((home.root / "secrets.json").read_text()).values():
        assert secret not in shown


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "a")
    assert stat.S_IMODE((home.root / "secrets.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(home.root.stat().st_mode) == 0o700


def test_two_installations_share_nothing(tmp_path: Path) -> None:
    one, other = Home.open(tmp_path / "a"), Home.open(tmp_path / "b")
    assert not {one.lakefs_port, one.spark_port, one.webserver_port} & {
        other.lakefs_port,
        other.spark_port,
        other.webserver_port,
    }
    assert one.secret_access_key != other.secret_access_key
    assert one.spark_token != other.spark_token


def test_a_port_removed_from_the_file_is_chosen_anew_and_the_others_stay(tmp_path: Path) -> None:
    before = Home.open(tmp_path / "a")
    ports = json.loads((before.root / "home.json").read_text())
    del ports["spark"]
    (before.root / "home.json").write_text(json.dumps(ports))
    home_module._load.cache_clear()
    after = Home.open(tmp_path / "a")
    assert after.lakefs_port == before.lakefs_port
    assert after.spark_port != before.spark_port


def test_two_first_uses_at_once_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from fleet_assets.services.home import Home; print(Home.open().lakefs_port)"]
    environment = {"FLEET_HOME": str(tmp_path / "a"), "PATH": ""}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    assert len({process.communicate()[0] for process in started}) == 1


@pytest.mark.parametrize("name", ["home.json", "secrets.json"])
def test_a_damaged_file_is_named_with_a_remedy(tmp_path: Path, name: str) -> None:
    Home.open(tmp_path / "a")
    (tmp_path / "a" / name).write_text('{"lakefs": ')
    home_module._load.cache_clear()
    with pytest.raises(FleetError, match=name) as caught:
        Home.open(tmp_path / "a")
    assert caught.value.remedy


def test_a_file_that_lacks_an_entry_is_named(tmp_path: Path) -> None:
    Home.open(tmp_path / "a")
    (tmp_path / "a" / "secrets.json").write_text("{}")
    home_module._load.cache_clear()
    with pytest.raises(FleetError, match="access_key_id"):
        Home.open(tmp_path / "a")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FleetError, match="FLEET_HOME"):
        Home.open(tmp_path / "file" / "a")


def test_ports_are_free_distinct_and_not_those_of_outgoing_connections() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(15_000 <= port < 32_000 for port in ports)


def test_a_port_that_is_listened_on_is_not_free() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not port_is_free(server.getsockname()[1])


def test_a_cluster_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEET_LAKEFS_URL", "https://lake.example")
    monkeypatch.setenv("FLEET_SPARK_URL", "sc://spark.example:15002")
    monkeypatch.setenv("FLEET_SPARK_TOKEN", "theirs")
    home = Home.open(tmp_path / "a")
    assert home.lakefs_url == "https://lake.example"
    assert home.spark_url == "sc://spark.example:15002"
    assert home.spark_token == "theirs"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ({}, "127.0.0.1,localhost"),
        ({"NO_PROXY": "a.example, b.example"}, "a.example,b.example,127.0.0.1,localhost"),
        ({"no_proxy": "localhost", "NO_PROXY": "b.example"}, "localhost,127.0.0.1"),
        ({"no_proxy": "*"}, "*"),
    ],
)
def test_loopback_is_reached_past_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, str], kept: str
) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, given.get(name, ""))
    Home.open(tmp_path)
    assert os.environ["no_proxy"] == kept

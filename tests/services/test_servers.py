"""The four servers of one installation: reachable from here only, by who has the credential only, and whole again."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import stat
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from services.conftest import STAND_IN

from fleet_assets.contracts.loader import load_tables
from fleet_assets.lake.lake import Lake
from fleet_assets.services import lakefs, spark, supervisor
from fleet_assets.services.doctor import doctor
from fleet_assets.services.home import Home
from fleet_assets.services.server import processes
from fleet_assets.services.supervise import NAMES, read_states

pytestmark = pytest.mark.services


def test_all_answer(running: Home) -> None:
    assert {status.name: status.ready for status in supervisor.status(running)} == dict.fromkeys(NAMES, True)


def test_doctor_finds_nothing(running: Home) -> None:
    assert [finding for finding in doctor(running) if not finding.ok] == []


def test_no_secret_is_on_a_command_line_or_in_a_log(running: Home) -> None:
    secrets = json.loads((running.root / "secrets.json").read_text()).values()
    lines = " ".join(" ".join(process.cmdline()) for process in processes(running))
    logs = " ".join(path.read_text(errors="replace") for path in running.logs.iterdir())
    for secret in secrets:
        assert secret not in lines
        assert secret not in logs


def test_files_with_secrets_are_private(running: Home) -> None:
    secrets = [secret.encode() for secret in json.loads((running.root / "secrets.json").read_text()).values()]
    holding = [
        path
        for folder in (running.root, running.run, running.dagster_home, running.logs)
        for path in folder.iterdir()
        if path.is_file() and any(secret in path.read_bytes() for secret in secrets)
    ]
    assert {path.name for path in holding} == {"secrets.json", "spark.properties"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in holding} == {0o600}


def test_lakefs_refuses_another_credential(running: Home) -> None:
    assert not lakefs.probe(running, secret="x" * 40).ready
    assert "credential" in lakefs.probe(running, key_id="AKIA" + "0" * 16).detail


def test_spark_refuses_another_token_and_none(running: Home) -> None:
    assert "token" in spark.probe(running, token="another").detail
    assert not spark.probe(running, token=" ").ready


@pytest.fixture(scope="module")
def task(running: Home) -> subprocess.CompletedProcess[str]:
    """What a task on Spark said of its surroundings."""
    program = f"""
import os
os.environ["SPARK_CONNECT_AUTHENTICATE_TOKEN"] = {running.spark_token!r}
from pyspark.sql import SparkSession
session = SparkSession.builder.remote({running.spark_url!r}).getOrCreate()
def task(batches):
    import sys
    import pyarrow as pa
    from fleet_assets.services.home import Home
    from fleet_assets.services import lakefs
    for batch in batches:
        home = Home.open()
        said = [sys.executable, str(home.root), str(lakefs.probe(home).ready)]
        yield pa.RecordBatch.from_pydict({{"said": said}})
rows = session.range(1, numPartitions=1).mapInArrow(task, "said string").collect()
print("|".join(row.said for row in rows))
session.stop()
"""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


def test_spark_runs_python_with_the_installation_at_hand(running: Home, task: subprocess.CompletedProcess[str]) -> None:
    """A task on the server runs in this interpreter, finds this installation, and reaches lakeFS."""
    assert task.stdout.strip() == f"{sys.executable}|{running.root}|True", task.stderr


def test_every_listening_socket_is_loopback(running: Home, task: subprocess.CompletedProcess[str]) -> None:
    """Also those that Spark opens when it works."""
    assert task.returncode == 0, task.stderr
    listening = [
        (process.name(), connection.laddr.ip)
        for process in processes(running)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN or connection.type.name == "SOCK_DGRAM"
    ]
    assert {re.split("[-.0-9]", name)[0] for name, _ in listening} >= {"java", "lakefs", "python"}
    assert {ip.removeprefix("::ffff:") for _, ip in listening} <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("host", "status"), [("evil.example", 400), ("127.0.0.1", 200), ("localhost", 200), ("evil.example:80", 400)]
)
def test_the_ui_answers_to_local_names_only(running: Home, host: str, status: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.webserver_port, timeout=30)
    connection.request("GET", "/server_info", headers={"Host": host})
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_server_comes_back(running: Home, name: str) -> None:
    pid = read_states(running)[name].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)
    supervisor.up(running, module=STAND_IN)
    status = {status.name: status for status in supervisor.status(running)}[name]
    assert status.ready
    assert status.pid != pid
    assert status.restarts == 1


def test_up_again_changes_nothing(running: Home) -> None:
    before = {process.pid for process in processes(running) if process.name() != "python"}
    supervisor.up(running, module=STAND_IN)
    assert {process.pid for process in processes(running) if process.name() != "python"} == before


def test_the_command_makes_the_tables_of_a_new_lake(running: Home) -> None:
    def up() -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "FLEET_HOME": str(running.root)}
        command = [sys.executable, "-m", "fleet_assets", "up", "--json"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    first, again = up(), up()
    for ended in (first, again):
        assert ended.returncode == 0, ended.stderr
        assert [row["ready"] for row in json.loads(ended.stdout)["servers"]] == [True] * len(NAMES)
    assert f"New lake: {len(load_tables())} tables" in first.stderr
    assert "tables" not in again.stderr
    assert set(Lake.open(running).at().applied) == set(load_tables())


def test_a_killed_supervisor_is_followed_by_one_that_ends_what_it_left(running: Home) -> None:
    pid = supervisor.supervisor_pid(running)
    assert pid is not None
    left = {process.pid for process in processes(running)} - {pid}
    os.kill(pid, signal.SIGKILL)
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=30)
    finding = {finding.name: finding for finding in doctor(running)}["supervisor"]
    assert not finding.ok
    assert "fleet up" in str(finding.remedy)
    supervisor.up(running, module=STAND_IN, bound_to=os.getpid())
    now = {process.pid for process in processes(running)}
    assert not left & now
    assert all(status.ready for status in supervisor.status(running))


def test_down_leaves_no_process_and_up_finds_the_same_installation(running: Home) -> None:
    supervisor.down(running)
    assert processes(running) == []
    assert {status.detail for status in supervisor.status(running)} == {"not started"}
    supervisor.up(running, only=["lakefs"], bound_to=os.getpid())
    assert lakefs.probe(running).ready
    assert Path(running.root, "lakefs", "metadata").is_dir()

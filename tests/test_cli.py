"""The command line: help with examples, one JSON document, exit codes, progress, and errors that name the remedy."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shlex
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer.main
from click import Command, Group
from typer.testing import CliRunner

from benchmarks import harness
from fleet_assets.cli import app
from fleet_assets.console import Exit
from fleet_assets.throw_away import run

COMMAND = [sys.executable, "-m", "fleet_assets"]


def commands(group: Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


ROOT = typer.main.get_command(app)
COMMANDS = dict(commands(ROOT))
NAMES = [" ".join(path) for path in COMMANDS]
# Each starts a process or two: they stay out of `make check`.
in_processes = pytest.mark.slow


def fleet(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "FLEET_HOME": str(home)}
    return subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def one_line(error: str) -> str:
    """The message, as it was before the terminal's width."""
    (line,) = (line for line in error.splitlines() if line.startswith("error: "))
    assert error.endswith(f"{line}\n")
    return line


# ---- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_help_says_what_it_does_and_shows_an_example_that_parses(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told = CliRunner().invoke(app, [*name.split(), "--help"])
    assert told.exit_code == 0
    assert "Example" in told.output
    command = COMMANDS[tuple(name.split())]
    examples = [text for text in re.findall(r"`([^`]+)`", command.help or "") if re.search(rf"\bfleet {name}\b", text)]
    assert examples, command.help
    for example in examples:
        words = shlex.split(example)
        arguments = words[words.index("fleet") + 1 + len(name.split()) :]
        for word in arguments:
            if re.fullmatch(r"\w[\w/]*\.\w+", word):  # a file, which must be there
                Path(word).parent.mkdir(parents=True, exist_ok=True)
                Path(word).touch()
        command.make_context(name, arguments)  # raises for what it does not take


def test_every_command_that_answers_has_json() -> None:
    without = {
        name for name in NAMES if "--json" not in [o for p in COMMANDS[tuple(name.split())].params for o in p.opts]
    }
    assert without == {"demo"}  # a story for people


def test_the_first_page_names_the_exit_codes() -> None:
    told = " ".join(CliRunner().invoke(app, ["--help"]).output.replace("│", " ").split())
    assert "0 done, 1 failed, 2 wrong usage, 3 done and found something to act on" in told
    assert [code.value for code in Exit] == [0, 1, 2, 3]


# ---- exit codes and JSON, without servers ----------------------------------------------------------------------------


@in_processes
@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["query"],
        ["query", "SELECT 1", "--limit", "0"],
        ["show", "drive"],
        ["ingest", "/nowhere/at/all"],
        ["status", "--colour"],
        ["contracts", "check", "--at", "main"],
    ],
    ids=" ".join,
)
def test_wrong_usage_ends_with_2_and_tells_nothing_on_standard_output(arguments: list[str], tmp_path: Path) -> None:
    ended = fleet(*arguments, home=tmp_path)
    assert ended.returncode == Exit.USAGE
    assert ended.stdout == ""
    assert ended.stderr


@in_processes
def test_findings_end_with_3_and_are_one_document(tmp_path: Path) -> None:
    """Servers that do not run, an installation that is not whole, a contract with a mistake."""
    wrong = tmp_path / "wrong.odcs.yaml"
    wrong.write_text("apiVersion: v3.1.0\nkind: DataContract\n")
    home = tmp_path / "home"

    status = fleet("status", "--json", home=home)
    assert status.returncode == Exit.FINDINGS
    said = json.loads(status.stdout)
    assert [row["ready"] for row in said["servers"]] == [False] * 4
    assert said["lake"] is None

    doctor = fleet("doctor", "--json", home=home)
    assert doctor.returncode == Exit.FINDINGS
    findings = json.loads(doctor.stdout)
    assert all(finding["remedy"] for finding in findings if not finding["ok"])
    assert all("\n" not in finding["detail"] for finding in findings)

    check = fleet("contracts", "check", str(wrong), "--json", home=home)
    assert check.returncode == Exit.FINDINGS
    mistakes = json.loads(check.stdout)
    assert mistakes
    assert all(mistake["what"] and "wrong.odcs.yaml" in f"{mistake['what']} {mistake['where']}" for mistake in mistakes)


@in_processes
def test_what_is_well_ends_with_0(tmp_path: Path) -> None:
    for arguments in (["contracts", "check"], ["bench", "list"], ["down"]):
        ended = fleet(*arguments, "--json", home=tmp_path)
        assert ended.returncode == Exit.OK, ended.stderr
        json.loads(ended.stdout)


def test_a_benchmark_is_one_document(monkeypatch: pytest.MonkeyPatch) -> None:
    """A benchmark that times two ways of nothing, through the harness that all of them use."""

    def rows(options: harness.Options) -> list[harness.Row]:
        times = harness.fastest({"ours": lambda: None, "floor": lambda: None, "other": lambda: None}, repeats=1)
        return [harness.row(f"nothing, {options.sizes[0]:g} times", times, note="a note")]

    monkeypatch.setitem(sys.modules, "benchmarks.nothing", SimpleNamespace(rows=rows))
    monkeypatch.setattr(harness, "names", lambda: [{"name": "nothing", "measures": "Nothing."}])
    told = run("bench", "nothing", "--size", "2")
    assert list(told) == ["machine", "rows"]
    assert {"cpu", "cores", "memory_gib", "python"} <= set(told["machine"])
    (row,) = told["rows"]
    assert list(row) == ["work", "ours_s", "peers_s", "floor_s", "note"]
    assert (row["work"], row["note"], set(row["peers_s"])) == ("nothing, 2 times", "a note", {"other"})
    assert all(isinstance(seconds, float) for seconds in (row["ours_s"], row["floor_s"], row["peers_s"]["other"]))


@in_processes
def test_a_recording_that_cannot_be_delivered_costs_no_other_one_anything(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.bin", tmp_path / "bad"
    good.write_bytes(b"payload")
    bad.mkdir()
    given = ["--vehicle", "car7", "--start", "2026-01-02T03:04:05Z", "--json"]
    ended = fleet("ingest", str(bad), str(good), *given, home=tmp_path / "home")
    assert ended.returncode == Exit.FAILED
    (delivered,) = json.loads(ended.stdout)
    assert (delivered["drive_id"], delivered["bytes"]) == ("car7--20260102T030405Z", 7)
    assert "bad holds no file. Give a recording" in one_line(ended.stderr)


@in_processes
def test_progress_in_bytes_and_time_on_a_terminal(tmp_path: Path) -> None:
    recording = tmp_path / "long.bin"
    with open(recording, "wb") as file:
        file.truncate(64 * 1024 * 1024)
    controller, terminal = pty.openpty()
    given = ["--vehicle", "car7", "--start", "2026-01-02T03:04:05Z", "--json"]
    environment = {**os.environ, "FLEET_HOME": str(tmp_path / "home"), "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        [*COMMAND, "ingest", str(recording), *given], env=environment, stdout=subprocess.PIPE, stderr=terminal
    )
    os.close(terminal)
    seen = b""
    while select.select([controller], [], [], 120)[0]:
        try:
            part = os.read(controller, 65536)
        except OSError:  # the other end has been closed
            break
        if not part:
            break
        seen += part
    os.close(controller)
    output, _ = process.communicate()
    assert process.returncode == Exit.OK
    assert json.loads(output)[0]["bytes"] == recording.stat().st_size  # progress is not in the document
    text = seen.decode()
    assert "copying long.bin" in text
    assert re.search(r"\d/67\.1\s*MB|67\.1/67\.1", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))
    assert re.search(r"\d:\d\d:\d\d", text)


# ---- a server that is down -------------------------------------------------------------------------------------------


@in_processes
def test_a_server_that_is_down_is_named_with_the_remedy(tmp_path: Path) -> None:
    """All at once: each waits twenty seconds, for a server that is being restarted."""
    calls = [
        ("show", "drives"),
        ("show", "quarantine"),
        ("query", "SELECT 1 AS one"),
        ("contracts", "apply"),
        ("run",),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        ended = list(pool.map(lambda call: fleet(*call, "--json", home=tmp_path / "home"), calls))
    for call, process in zip(calls, ended, strict=True):
        assert process.returncode == Exit.FAILED, call
        assert process.stdout == "", call
        error = one_line(process.stderr)
        assert "does not answer" in error, call
        assert "fleet up" in error, call

"""What people read: progress without a terminal, values in tables, rows of the lake."""

from __future__ import annotations

import re
import threading

import pytest

from fleet_assets import console, show


def test_progress_without_a_terminal_is_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = iter([0.0, 1.0, 2.0, 11.0, 12.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(now))
    with console.progress("runs") as advance:
        advance(0, 4)
        advance(1, 4)
        advance(2, 4)
        advance(3, 4)
    assert (
        capsys.readouterr().err == "runs: 1 of 4 after 2 s, about 6 s left\nruns: 3 of 4 after 12 s, about 4 s left\n"
    )


def test_waiting_says_how_long_it_has_been_and_ends_with_the_work(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_FIRST_LINE_S", 0.01)
    said = ""
    with console.waiting("query"):
        while "\n" not in said:
            said += capsys.readouterr().err
    assert re.fullmatch(r"query: \d+ s so far", said.strip())
    assert "waiting" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(ZeroDivisionError), console.waiting("query"):
        1 / 0  # noqa: B018
    assert "waiting" not in {thread.name for thread in threading.enumerate()}


def test_cells_are_whole_lines_of_what_they_hold(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"some_name": None, "flag": True, "share": 0.123456, "list": ["a", {"part_of": 1}], "text": "[bold]x[/bold]"}
    console.print_rows([row], title="Title", empty="", as_json=False)
    title, names, _, values, *rest = capsys.readouterr().out.splitlines()
    assert (title, rest) == ("Title", [])
    assert [name.strip() for name in names.split("┃")] == ["some name", "flag", "share", "list", "text"]
    assert [value.strip() for value in values.split("│")] == ["-", "yes", "0.1235", "a; part of 1", "[bold]x[/bold]"]


def test_rows_of_the_lake_are_put_in_words() -> None:
    row = {
        "t_first_ns": 1_767_601_802_384_999_999,
        "t_last_ns": None,
        "longest_gap_ns": 50_000_000,
        "samples": ["{}", "{}"],
        "reasons": [{"reason": "the file is cut off", "count": 0, "first_position": "a: byte 7"}, "rule: why"],
    }
    assert show.for_people(row) == {
        "first": "2026-01-05 08:30:02.384",
        "last": None,
        "longest_gap_ms": 50.0,
        "samples": 2,
        "reasons": ["some x the file is cut off, first at a: byte 7", "rule: why"],
    }

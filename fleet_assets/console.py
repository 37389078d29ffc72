"""What the `fleet` command writes: tables, JSON, progress, errors, exit codes.

In: plain rows. Out: a table for people on a terminal, or one JSON document on standard output with --json; progress and
errors always on standard error, so that output can be piped.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fleet_assets.errors import FleetError

_WIDTH = None if sys.stdout.isatty() else 200  # a pipe has no width; files and tests want whole lines
out = Console(width=_WIDTH)
err = Console(stderr=True, soft_wrap=True)

Advance = Callable[[int, int], None]  # (done, total)
_FIRST_LINE_S = 2.0
_LINE_EVERY_S = 10.0


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    FAILED = 1  # an error, explained on standard error
    USAGE = 2
    FINDINGS = 3  # the command worked and found something to act on


def print_json(document: Any) -> None:
    """One document; what JSON does not know is written as text."""
    sys.stdout.write(json.dumps(document, indent=2, default=str, allow_nan=False) + "\n")


def print_rows(rows: Sequence[Mapping[str, Any]], *, title: str, empty: str, as_json: bool) -> None:
    """Rows with the same keys. empty: the sentence to print when there are none."""
    if as_json:
        print_json(list(rows))
        return
    if not rows:
        out.print(empty, markup=False)
        return
    # Not as the table's own title, which would be filled up to its width.
    out.print(title, style="italic", markup=False, highlight=False)
    table = Table(show_edge=False, pad_edge=False)
    for name in rows[0]:
        table.add_column(name.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    out.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "; ".join(map(_cell, value)) or "-"
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_cell(item)}" for name, item in value.items()) or "-"
    return str(value).replace("[", "\\[")


def say(sentence: str) -> None:
    """A line of progress for people."""
    err.print(sentence, markup=False)


def print_error(error: FleetError) -> None:
    err.print("error: ", style="bold red", end="")
    err.print(str(error), markup=False)


@contextmanager
def progress(what: str, *, in_bytes: bool = False) -> Iterator[Advance]:
    """A bar with counts (or bytes) and time left; a line after two seconds and then every ten where standard error is no
    terminal."""
    if not err.is_terminal:
        yield _lines(what, in_bytes=in_bytes)
        return
    count = DownloadColumn() if in_bytes else MofNCompleteColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield advance


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A line with the time so far, after two seconds and then now and then: for work that does not tell how far it is."""
    ended = threading.Event()

    def tell() -> None:
        began, pause_s = time.monotonic(), _FIRST_LINE_S
        while not ended.wait(pause_s):
            say(f"{what}: {time.monotonic() - began:.0f} s so far")
            pause_s = _LINE_EVERY_S

    teller = threading.Thread(target=tell, name="waiting", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


def _lines(what: str, *, in_bytes: bool) -> Advance:
    began = time.monotonic()
    due = began + _FIRST_LINE_S

    def advance(done: int, total: int) -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due:
            due = now + _LINE_EVERY_S
            count = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if in_bytes else f"{done} of {total}"
            left = f", about {(now - began) * (total - done) / done:.0f} s left" if done else ""
            say(f"{what}: {count} after {now - began:.0f} s{left}")

    return advance

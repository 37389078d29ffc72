"""A C program reads the file that Python wrote, and finds the same."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from features.tables import built, mixed_view, numeric_view, truth

import fleet_assets.edge
from fleet_assets.edge.layout import COLUMN, HEADER, VIEW

SOURCE = Path(fleet_assets.edge.__file__).parent / "c"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    assert compiler, "no C compiler: run `make test-system`"
    path = tmp_path_factory.mktemp("c") / "lookup"
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover"]
    subprocess.run([compiler, *flags, "-o", path, SOURCE / "lookup.c", "-lm"], check=True)
    return path


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60)


def test_it_finds_every_row(program: Path, tmp_path: Path) -> None:
    source = mixed_view(60)
    view = built(tmp_path / "s", numeric_view(5, 2, name="other"), source).view("place")
    out = np.empty(len(view.features))
    for cell, text in [*truth(source), (10**6, "nowhere")]:
        answer = run(program, tmp_path / "s", "place", f"i:{cell}", f"s:{text}")
        assert answer.returncode == 0, answer.stderr
        row = view.find(view.key((cell, text)))
        if row < 0:
            assert answer.stdout == "missing\n"
            continue
        first, *lines = answer.stdout.splitlines()
        assert first == f"event_time_ns {view.event_time_ns(row)}"
        view.fill(row, out)
        assert [line.split(" ")[0] for line in lines] == list(view.features)
        assert np.array_equal([float(line.split(" ")[1]) for line in lines], out, equal_nan=True)


def test_cut_off_and_changed_files_are_refused_or_harmless(program: Path, tmp_path: Path) -> None:
    built(tmp_path / "s", numeric_view(20, 3))
    whole = (tmp_path / "s").read_bytes()
    chosen = random.Random(0)
    for length in [0, 8, 127, 128, 500, len(whole) - 8]:
        (tmp_path / "broken").write_bytes(whole[:length])
        assert run(program, tmp_path / "broken", "place", "i:3").returncode == 1
    structure = HEADER.itemsize + VIEW.itemsize + 3 * COLUMN.itemsize
    for _ in range(60):
        broken = bytearray(whole)
        broken[chosen.randrange(structure)] = chosen.choice([0, 1, 0x7F, 0xFF])
        (tmp_path / "broken").write_bytes(broken)
        answer = run(program, tmp_path / "broken", "place", "i:3")
        assert answer.returncode in (0, 1)
        assert "runtime error" not in answer.stderr
        assert "Sanitizer" not in answer.stderr
    assert run(program, tmp_path / "s", "nowhere", "i:3").returncode == 1

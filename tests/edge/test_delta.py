"""Deltas of any files: what was put in comes out, and a damaged one gives an error or something else, in bounds."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.edge.delta import Steps, patched, write_delta
from fleet_assets.errors import FleetError

BASE = bytes(range(256)) * 8
PIECE = st.tuples(st.integers(-1, len(BASE) - 1), st.integers(0, 300), st.binary(min_size=1, max_size=3))


def write(folder: Path, pieces: list[tuple[int, int, bytes]]) -> bytes:
    """base and delta in the folder; gives the new file."""
    steps, new = Steps(), b""
    for source, length, fresh in pieces:
        piece = BASE[source : source + length] if source >= 0 else fresh * length
        steps.add(source, len(piece))
        new += piece
    (folder / "base").write_bytes(BASE)
    write_delta(folder / "delta", hashlib.sha256(BASE).digest(), new, steps.steps)
    return new


@given(st.lists(PIECE, max_size=30))
@settings(max_examples=100, deadline=None)
def test_the_new_file_comes_out(tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int, bytes]]) -> None:
    folder = tmp_path_factory.mktemp("delta")
    new = write(folder, pieces)
    assert b"".join(patched(folder / "delta", folder / "base", len(new))) == new


@given(st.lists(PIECE, min_size=1, max_size=30), st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_delta_stays_in_bounds(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[tuple[int, int, bytes]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("delta")
    new = write(folder, pieces)
    content = bytearray((folder / "delta").read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    (folder / "delta").write_bytes(content[: data.draw(st.integers(0, len(content)))])
    found = b""
    with suppress(FleetError):
        for piece in patched(folder / "delta", folder / "base", len(new)):
            found += piece
    assert len(found) <= len(new)


def test_a_delta_that_asks_for_memory_is_refused(tmp_path: Path) -> None:
    """It says that it has as many steps as the file has bytes."""
    new = write(tmp_path, [(-1, 3000, b"x")])
    content = bytearray((tmp_path / "delta").read_bytes())
    content[40:48] = len(new).to_bytes(8, "little")
    (tmp_path / "delta").write_bytes(content)
    with pytest.raises(FleetError, match="does not fit"):
        next(patched(tmp_path / "delta", tmp_path / "base", len(new)))

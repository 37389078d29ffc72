"""Real recordings: where they are, and the tests that are skipped without them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet_assets.formats.reader import RecordingFiles

ROOT = Path(os.environ.get("FLEET_SHARED_DATA") or Path(__file__).parents[3] / "shared" / "data")


def shared(name: str) -> Path:
    """The folder of a real recording; skips the test, and says so, when it is not there."""
    folder = ROOT / name
    if not folder.is_dir():
        pytest.skip(f"real recordings are missing: {folder} (set FLEET_SHARED_DATA)")
    return folder


def files_under(folder: Path) -> RecordingFiles:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return RecordingFiles(folder, tuple(names))

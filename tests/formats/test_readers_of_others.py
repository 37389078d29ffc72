"""Readers that other packages bring, as an installed distribution does: by entry point."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleet_assets.formats import reader as module
from fleet_assets.formats.reader import RecordingFiles, UnknownFormat, broken_readers, open_recording, readers
from fleet_assets.services.doctor import doctor
from fleet_assets.services.home import Home

FOREIGN = """
class ForeignReader:
    format = "foreign"

    def __init__(self, files):
        self.files = files

    @classmethod
    def sniff(cls, files):
        return (files.root / files.names[0]).read_bytes().startswith(b"FOREIGN")
"""


@pytest.fixture(autouse=True)
def others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two packages: one with a reader, one whose import fails."""
    for name, code in (("foreign_format", FOREIGN), ("broken_format", "import a_library_that_nobody_has")):
        (tmp_path / f"{name}.py").write_text(code)
        about = tmp_path / f"{name}-1.0.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        entry = f"{name} = {name}:ForeignReader"
        (about / "entry_points.txt").write_text(f"[fleet_assets.formats]\n{entry}\n")
    monkeypatch.syspath_prepend(tmp_path)
    module._installed.cache_clear()
    yield
    module._installed.cache_clear()
    sys.modules.pop("foreign_format", None)


def test_a_reader_of_others_reads_and_a_broken_one_costs_nobody_anything(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"FOREIGN content")
    (tmp_path / "b.bin").write_bytes(b"nothing that anyone knows")
    assert open_recording(RecordingFiles(tmp_path, ("a.bin",))).format == "foreign"
    assert {"mcap", "foreign_format"} <= readers().keys()
    assert list(broken_readers()) == ["broken_format"]
    with pytest.raises(UnknownFormat) as caught:
        open_recording(RecordingFiles(tmp_path, ("b.bin",)))
    assert "reader broken_format cannot be used" in str(caught.value)
    assert "a_library_that_nobody_has" in str(caught.value)


def test_doctor_names_a_reader_that_cannot_be_used(tmp_path: Path) -> None:
    (finding,) = [found for found in doctor(Home.open(tmp_path / "home")) if found.name == "readers of recordings"]
    assert not finding.ok
    assert "a_library_that_nobody_has" in finding.detail
    assert finding.remedy

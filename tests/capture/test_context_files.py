"""Files of context are from anyone: what is wrong in them is told, and what is right is used."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fleet_assets.capture import context_files
from fleet_assets.capture.context_files import ContextFile, read, read_all, summary

STATION = "munich,2026-01-02T03:00:00Z,48.1,11.5,rain"
HEADER = "station,time_utc,latitude_deg,longitude_deg,weather"


def weather(folder: Path, *rows: str | bytes, header: str | bytes = HEADER) -> ContextFile:
    lines = [line if isinstance(line, bytes) else line.encode() for line in (header, *rows)]
    (folder / "weather.csv").write_bytes(b"\n".join(lines) + b"\n")
    return read(folder, "context.weather")


def test_a_right_file(tmp_path: Path) -> None:
    found = weather(tmp_path, STATION, "zürich (A),2026-01-02T03:30:00Z,47.4,8.5,fog", "")
    assert found.error is None
    assert found.refused == {}
    assert found.rows.to_pylist()[1] == {
        "station": "zürich (A)",
        "time_utc": "2026-01-02T03:30:00Z",
        "latitude_deg": 47.4,
        "longitude_deg": 8.5,
        "weather": "fog",
    }
    assert summary(found) == "2 rows"


def test_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    header = b"\xef\xbb\xbf" + ",".join(reversed(HEADER.split(","))).encode() + b",note\r"
    found = weather(tmp_path, b'rain,11.5,48.1,2026-01-02T03:00:00Z,munich,"more, here"\r', header=header)
    assert (found.error, found.refused) == (None, {})
    assert found.rows["station"].to_pylist() == ["munich"]


# Each: a row, and why it is refused.
ROWS = {
    "not a number": ("munich,2026-01-02T03:00:00Z,NaN,11.5,rain", "latitude_deg is no number"),
    "infinite": ("munich,2026-01-02T03:00:00Z,1e999,11.5,rain", "latitude_deg is no number"),
    "formula as number": ("munich,2026-01-02T03:00:00Z,=1+1,11.5,rain", "latitude_deg is no number"),
    "no place": ("munich,2026-01-02T03:00:00Z,,11.5,rain", "latitude_deg is present"),
    "not on Earth": ("munich,2026-01-02T03:00:00Z,99,11.5,rain", "latitude is on Earth"),
    "no such day": ("munich,2026-02-30T03:00:00Z,48,11.5,rain", "time_utc is no time"),
    "local time": ("munich,2026-01-02 03:00,48,11.5,rain", "time_utc is no time"),
    "formula": ('"=HYPERLINK(""http://x"")",2026-01-02T03:00:00Z,48,11.5,rain', "station is plain text"),
    "command": ("@SUM(1),2026-01-02T03:00:00Z,48,11.5,rain", "station is plain text"),
    "nul": ("mun\0ich,2026-01-02T03:00:00Z,48,11.5,rain", "station is plain text"),
    "long text": ("m" * 5000 + ",2026-01-02T03:00:00Z,48,11.5,rain", "station is plain text"),
    "unknown word": ("munich,2026-01-02T03:00:00Z,48,11.5,frogs", "weather is known"),
    "too few fields": ("munich,2026-01-02T03:00:00Z", "the row has 2 fields; the header has 5"),
    "too many fields": ("munich,2026-01-02T03:00:00Z,48,11.5,rain,1,2", "the row has 7 fields; the header has 5"),
}


@pytest.mark.parametrize("case", ROWS)
def test_a_wrong_row_is_refused_with_a_reason_and_costs_no_other(case: str, tmp_path: Path) -> None:
    row, reason = ROWS[case]
    found = weather(tmp_path, STATION, row, STATION.replace("03:00", "04:00"))
    assert found.error is None
    assert found.refused == {reason: (1, 2)}
    assert found.rows["time_utc"].to_pylist() == ["2026-01-02T03:00:00Z", "2026-01-02T04:00:00Z"]
    assert reason in summary(found)


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    found = weather(tmp_path, STATION, STATION, STATION.replace("munich", "bern"), STATION.replace("rain", "fog"))
    assert found.rows["station"].to_pylist() == ["bern"]
    assert found.refused == {
        "the row is there twice": (1, 2),
        "station, time_utc is there twice, with other values": (2, 1),
    }


# Each: the file, and a word of the error.
FILES = {
    "empty": (b"", "station"),
    "no header": (STATION.encode(), "missing"),
    "column missing": (HEADER.replace("weather", "sky").encode() + b"\n", "weather is missing"),
    "column twice": (HEADER.encode() + b",station\n", "twice"),
    "latin-1": (HEADER.encode() + b"\nz\xfcrich,2026-01-02T03:00:00Z,47,8,fog\n", "UTF-8"),
    "latin-1 header": (b"\xff\xfe" + HEADER.encode("utf-16-le"), "UTF-8"),
    "binary": (bytes(range(256)) * 100, "missing"),
    "huge field": (HEADER.encode() + b"\n" + b"m" * 3_000_000 + b",2026-01-02T03:00:00Z,47,8,fog\n", "65536 bytes"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_useless_file_says_why(case: str, tmp_path: Path) -> None:
    content, word = FILES[case]
    (tmp_path / "weather.csv").write_bytes(content)
    found = read(tmp_path, "context.weather")
    assert found.rows.num_rows == 0
    assert found.error is not None
    assert "weather.csv" in found.error.what
    assert word in str(found.error)
    assert found.error.remedy


def test_a_quote_that_is_never_closed_swallows_nothing(tmp_path: Path) -> None:
    found = weather(tmp_path, STATION, '"bern,2026-01-02T03:00:00Z,47,7,fog', STATION.replace("munich", "linz"))
    assert found.rows.num_rows + sum(count for count, _ in found.refused.values()) == 3


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context_files, "MAX_BYTES", 100)
    assert "larger than 100 bytes" in summary(weather(tmp_path, STATION, STATION))


def test_links_and_pipes_are_not_opened(tmp_path: Path) -> None:
    (tmp_path / "weather.csv").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "zones.csv")
    (tmp_path / "vehicles.csv").mkdir()
    (tmp_path / "lanes.csv").mkdir()
    for found in read_all(tmp_path).values():
        assert found.error is not None
        assert found.rows.num_rows == 0


def test_a_file_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    for found in read_all(tmp_path).values():
        assert (found.error, found.sha256, found.rows.num_rows) == (None, "", 0)

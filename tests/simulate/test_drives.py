"""Generated drives: the same bytes for the same arguments, the truth beside them, and faults that ingest finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingest.decoding import decode, faults, ledger, reasons, streams, tables
from synchronise.drives import MS, clocks, frames

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_streams
from fleet_assets.errors import FleetError
from fleet_assets.ingest.decode import WHOLE_RECORDING, DecodedDrive
from fleet_assets.simulate.drives import FAULTS, write_drive
from fleet_assets.synchronise.drive import synchronise_drive
from fleet_assets.synchronise.policy import load_alignment

START = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SECONDS = 30.0  # three chunks, and enough GNSS times to tell UTC
SENT = {"camera_front": 300, "lidar": 300, "radar": 120, "imu": 3000, "gnss": 30, "gnss_time": 30, "bus_vehicle": 1200}


def write(path: Path, *wanted: str, seed: int = 7) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_drive(path, seed=seed, start=START, duration_s=SECONDS, vehicle="car7", faults=wanted)
    return dict(json.loads(path.with_suffix(".truth.json").read_text()))


def decoded_with(tmp_path: Path, *wanted: str) -> DecodedDrive:
    write(tmp_path / "made" / "a.mcap", *wanted)
    return decode(tmp_path, tmp_path / "made" / "a.mcap", start=START.isoformat())


def synchronised(decoded: DecodedDrive) -> dict[str, Any]:
    key = DriveKey.parse(decoded.item.drive_id)
    return synchronise_drive(tables(decoded), str(key), key.day, load_streams(), load_alignment())


def published(decoded: DecodedDrive) -> dict[str, int]:
    return {name: row["published_rows"] for name, row in ledger(decoded).items() if row["published_rows"]}


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    every = [name for name in FAULTS if name != "wrong_content"]
    for wanted in ((), tuple(every), ("wrong_content",)):
        paths = [tmp_path / f"{len(wanted)}-{name}.mcap" for name in ("a", "b", "other")]
        truths = [write(path, *wanted, seed=seed) for path, seed in zip(paths, (7, 7, 8), strict=True)]
        first, second, other = (path.read_bytes() for path in paths)
        assert first == second != other
        assert truths[0] == truths[1]


def test_an_unknown_fault_is_named(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="gremlins"):
        write(tmp_path / "a.mcap", "gremlins")


def test_a_drive_without_faults(tmp_path: Path) -> None:
    decoded = decoded_with(tmp_path)
    assert decoded.accepted
    assert published(decoded) == SENT
    assert all(row["reasons"] == [] for row in ledger(decoded).values())
    for stream, row in streams(decoded).items():
        assert (row["backward_steps"], row["repeated_steps"]) == (0, 0) or stream == "bus_vehicle"
        assert row["gaps"] == 0, stream


@pytest.mark.parametrize("seed", range(5))
def test_clocks_are_told_as_they_truly_are(seed: int, tmp_path: Path) -> None:
    """Within 1 ms; every frame on the true time of its sweep."""
    truth = write(tmp_path / "a.mcap", seed=seed)
    assert truth["faults"] == []
    found = synchronised(decode(tmp_path, tmp_path / "a.mcap", start=START.isoformat()))
    models = clocks(found)
    assert set(models) == set(SENT)
    for stream, (model,) in models.items():
        on_pc = load_streams()[stream].clock_domain == "vehicle_pc"
        offset_ns = truth["vehicle_pc_offset_ns" if on_pc else "logger_offset_ns"]
        assert model["status"] == "ok"
        assert model["offset_ns"] == pytest.approx(offset_ns, abs=MS), stream
    t_ns = np.array([row["t_ns"] for row in frames(found)])
    assert np.abs(t_ns - (int(START.timestamp()) * 1_000_000_000 + np.arange(300) * 100 * MS)).max() < MS
    # The last sweep of the radar is 150 ms before the last frame.
    assert [row["frame"] for row in frames(found) if not row["complete"]] == [299]


def _truncation(decoded: DecodedDrive) -> None:
    assert decoded.accepted
    assert 0 < published(decoded)["imu"] < SENT["imu"]
    assert ledger(decoded)[WHOLE_RECORDING]["reasons"]


def _corrupt_chunk(decoded: DecodedDrive) -> None:
    assert decoded.accepted
    assert 0 < sum(published(decoded).values()) < sum(SENT.values())
    assert any("chunk" in reason for row in ledger(decoded).values() for reason in reasons(row))


def _nan_imu(decoded: DecodedDrive) -> None:
    assert set(faults(decoded)) == {"acceleration x is mostly present"}
    row = ledger(decoded)["imu"]
    assert reasons(row) == {"broke the rule: acceleration x is present": row["refused_rows"]}
    assert 0.28 < row["refused_rows"] / SENT["imu"] < 0.38


def _missing_stream(decoded: DecodedDrive) -> None:
    assert published(decoded) == {name: count for name, count in SENT.items() if name != "lidar"}
    assert "lidar" not in streams(decoded)
    assert {row["key_stream"] for row in frames(synchronised(decoded))} == {"camera_front"}


def _unknown_stream(decoded: DecodedDrive) -> None:
    assert published(decoded) == SENT
    assert reasons(ledger(decoded)["/thermal"]) == {"no contract covers topic /thermal (camera)": 30}


def _stuck_clock(decoded: DecodedDrive) -> None:
    assert streams(decoded)["lidar"]["repeated_steps"] == 299
    found = synchronised(decoded)
    (model,) = clocks(found)["lidar"]
    assert (model["status"], model["offset_ns"]) == ("rejected", None)
    assert {row["key_stream"] for row in frames(found)} == {"camera_front"}
    assert not any(row["complete"] for row in frames(found))


def _duplicate(decoded: DecodedDrive) -> None:
    assert published(decoded) == {**SENT, "imu": 3300}
    assert streams(decoded)["imu"]["repeated_steps"] == 300
    assert (clocks(synchronised(decoded))["imu"][0])["status"] == "ok"


def _wrong_content(decoded: DecodedDrive) -> None:
    assert "recording is readable" in faults(decoded)
    assert published(decoded) == {}


FOUND: dict[str, Callable[[DecodedDrive], None]] = {
    "truncation": _truncation,
    "corrupt_chunk": _corrupt_chunk,
    "nan_imu": _nan_imu,
    "missing_stream": _missing_stream,
    "unknown_stream": _unknown_stream,
    "stuck_clock": _stuck_clock,
    "duplicate": _duplicate,
    "wrong_content": _wrong_content,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_there_and_is_found(fault: str, tmp_path: Path) -> None:
    decoded = decoded_with(tmp_path, fault)
    truth = json.loads((tmp_path / "made" / "a.truth.json").read_text())
    assert truth["faults"] == [fault]
    FOUND[fault](decoded)


def test_faults_come_together(tmp_path: Path) -> None:
    decoded = decoded_with(tmp_path, "nan_imu", "unknown_stream", "truncation")
    assert set(faults(decoded)) == {"acceleration x is mostly present"}
    account = ledger(decoded)
    assert account["/thermal"]["refused_rows"] > 0
    assert account[WHOLE_RECORDING]["reasons"]


def test_the_truth_does_not_travel(tmp_path: Path) -> None:
    """Ingest must not be able to read what it is to find out."""
    write(tmp_path / "a.mcap")
    truth = json.loads((tmp_path / "a.truth.json").read_text())
    assert b"truth" not in (content := (tmp_path / "a.mcap").read_bytes())
    assert str(truth["logger_offset_ns"]).encode() not in content
    decoded = decode(tmp_path, tmp_path / "a.mcap", start=START.isoformat())
    (recording,) = tables(decoded)["ingest.recordings"].to_pylist()
    assert [file["path"] for file in recording["files"]] == ["a.mcap"]

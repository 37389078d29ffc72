"""MF4 whose databases lack something, differ, or are damaged. The frames are read once, without a process."""

from __future__ import annotations

import random
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from formats.fuzz import damaged
from formats.samples import DBC, can_frames, write_mf4

from fleet_assets.errors import FleetError
from fleet_assets.formats import mf4
from fleet_assets.formats.mf4 import Mf4Reader
from fleet_assets.formats.mf4_frames import MAX_PAYLOAD_BYTES, Frames
from fleet_assets.formats.reader import SCHEMAS, RecordingFiles

pytestmark = pytest.mark.slow  # asammdf, which writes the file, takes seconds to import
STATUS = """
BO_ 1 gnss_status: 1 X
 SG_ Satellites : 3|5@1+ (1,0) [0|31] "" X
"""
POSITION = {"Latitude", "Longitude", "PositionAccuracy", "PositionValid"}
IMU = {*(f"Acceleration{axis}" for axis in "XYZ"), "AngularRateX", "AngularRateY", "ImuValid"}
NO_FIXES, NO_IMU, ALL = {"/imu", "/bus/can"}, {"/gnss", "/bus/can"}, {"/imu", "/gnss", "/bus/can"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mf4")
    write_mf4(folder / "a.MF4", can_frames())
    return folder


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = can_frames()
    twice = [(t + 0.007, 0x12, data) for t, identifier, data in rows if identifier in (0x2, 0x3)]  # of a second device
    rows += [*twice, (1.007, 0x1, bytes([12 << 3]))]
    payload = np.frombuffer(b"".join(data.ljust(MAX_PAYLOAD_BYTES, b"\0") for *_, data in rows), dtype=np.uint8)
    frames = Frames(
        0,
        np.array([round(t * 1e9) for t, *_ in rows]),
        np.array([identifier for _, identifier, _ in rows], dtype=np.uint32),
        np.zeros(len(rows), dtype=bool),
        np.array([len(data) for *_, data in rows]),
        payload.reshape(-1, MAX_PAYLOAD_BYTES),
    )
    monkeypatch.setattr(mf4, "read_frames", lambda paths: iter([frames]))


def reader_with(folder: Path, *databases: str) -> Mf4Reader:
    names = [f"{number}.dbc" for number in range(len(databases))]
    for name, text in zip(names, databases, strict=True):
        (folder / name).write_text(text)
    return Mf4Reader(RecordingFiles(folder, ("a.MF4", *names)))


def read(reader: Mf4Reader) -> dict[str, pa.Table]:
    found: dict[str, list[pa.Table]] = {}
    for batch in reader.read():
        found.setdefault(batch.topic, []).append(batch.table)
    return {topic: pa.concat_tables(parts) for topic, parts in found.items()}


def on_bus(tables: dict[str, pa.Table]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in tables["/bus/can"].to_pylist():
        found.setdefault(row["message"], set()).add(row["signal"])
    return found


@pytest.mark.parametrize(
    ("renamed", "topics", "besides"),
    [
        (set(), ALL, {}),
        ({"Epoch"}, NO_FIXES, {"gnss_time": {"TimeValid", "xEpoch"}, "gnss_pos": POSITION, "gnss_status": {"Satellites"}}),
        ({"gnss_time"}, NO_FIXES, {"xgnss_time": {"TimeValid", "Epoch"}, "gnss_pos": POSITION, "gnss_status": {"Satellites"}}),
        ({"TimeValid"}, ALL, {"gnss_time": {"xTimeValid"}}),
        ({"Latitude"}, ALL, {"gnss_pos": {"xLatitude"}}),
        ({"Latitude", "PositionValid"}, ALL, {"gnss_pos": {"xLatitude", "xPositionValid"}}),
        (POSITION, ALL, {"gnss_pos": {f"x{name}" for name in POSITION}}),
        ({"Satellites"}, ALL, {"gnss_status": {"xSatellites"}}),
        ({"AngularRateZ"}, NO_IMU, {"gnss_imu": {*IMU, "xAngularRateZ"}}),
    ],
)  # fmt: skip
def test_a_signal_that_is_not_named(
    folder: Path, renamed: set[str], topics: set[str], besides: dict[str, set[str]]
) -> None:
    """Without its time there is no fix, without an axis no measurement: then all of it is of the bus. Another value is null."""
    text = DBC + STATUS
    for name in renamed:
        text = text.replace(f" {name}", f" x{name}")
    reader = reader_with(folder, text)
    tables = read(reader)
    assert {channel.topic for channel in reader.channels()} == set(tables) == topics
    assert on_bus(tables) == {"vehicle": {"Kind", "Speed", "Steering"}, **besides}
    assert sum(refusal.count for refusal in reader.refusals if refusal.topic != "/bus/can") == 0
    if "/gnss" not in topics:
        return
    columns = {"latitude_deg": "Latitude", "longitude_deg": "Longitude", "valid": "PositionValid"}
    fixes = tables["/gnss"]
    assert fixes["t_gnss_ns"].null_count == 0
    assert {column: fixes[column].null_count for column in columns} == {
        column: fixes.num_rows * (name in renamed) for column, name in columns.items()
    }
    assert fixes["satellites"].to_pylist() == [None, None if "Satellites" in renamed else 12]


def test_messages_of_one_name_that_differ(folder: Path) -> None:
    """A second time message without its Epoch is of the bus; the fixes of the first are as they are."""
    alone = read(reader_with(folder, DBC))
    second = DBC.replace("BO_ 2 ", "BO_ 18 ").replace(" Epoch", " Other")
    tables = read(reader_with(folder, DBC, second))
    assert tables["/gnss"].equals(alone["/gnss"])
    assert on_bus(tables)["gnss_time"] == {"TimeValid", "Other"}


def test_a_position_that_one_of_two_databases_describes_in_part(folder: Path) -> None:
    """What the one lacks is not lost of the other."""
    second = DBC.replace("BO_ 3 ", "BO_ 18 ").replace(" Latitude", " Other")
    fixes = read(reader_with(folder, DBC, second))["/gnss"]
    assert fixes["latitude_deg"].null_count == 0


@pytest.mark.parametrize("factor", ["1e300", "1e6", "-1e6"])
def test_a_signal_that_is_scaled_to_anything(folder: Path, factor: str) -> None:
    text = (DBC + STATUS).replace("(0.001,1577840400)", f"({factor},0)").replace("3|5@1+ (1,0)", "3|5@1+ (1e300,0)")
    fixes = read(reader_with(folder, text))["/gnss"]
    assert fixes.num_rows == fixes["t_gnss_ns"].null_count == fixes["satellites"].null_count == 2


def test_damaged_databases(folder: Path) -> None:
    """An error, or what can be told; of the topics that were announced, and nothing else."""
    content = (DBC + STATUS).encode()
    outcomes = {"error": 0, "read": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(1000):
            (folder / "0.dbc").write_bytes(damaged(content, random.Random(seed)))
            reader = Mf4Reader(RecordingFiles(folder, ("a.MF4", "0.dbc")))
            try:
                topics = {channel.topic for channel in reader.channels()}
                for batch in reader.read():
                    assert batch.topic in topics, seed
                    assert batch.table.schema == SCHEMAS[batch.kind], seed
            except FleetError:
                outcomes["error"] += 1
            else:
                outcomes["read"] += 1
    assert min(outcomes.values()) > 50

"""comma2k19: stamps converted once, bursts as they came, and arrays in every state."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from formats.sample import Sample
from formats.sample_folders import BOOT_S, SEGMENT, comma2k19, npy
from formats.shared_data import files_under, shared
from hypothesis import given
from hypothesis import strategies as st

from fleet_assets.formats.comma2k19 import Comma2k19Reader
from fleet_assets.formats.npy import NpyFile, to_ns
from fleet_assets.formats.reader import RecordingFiles, open_recording
from fleet_assets.formats.rewrite import rewrite_as_mcap


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return comma2k19(tmp_path)


def rows(reader: Comma2k19Reader, topic: str) -> pa.Table:
    return pa.concat_tables([batch.table for batch in reader.read(topics=[topic])])


def replaced(sample: Sample, name: str, content: bytes) -> Comma2k19Reader:
    (sample.files.root / SEGMENT / name).write_bytes(content)
    return Comma2k19Reader(sample.files)


def account(reader: Comma2k19Reader) -> dict[tuple[str | None, str], int]:
    return {(refusal.topic, refusal.reason): refusal.count for refusal in reader.refusals}


@given(st.floats(0, 2**31, allow_subnormal=False))
def test_seconds_are_the_nearest_nanosecond(seconds: float) -> None:
    t_ns, known = to_ns(np.array([seconds]))
    assert known.all()
    assert abs(Decimal(seconds) * 10**9 - int(t_ns[0])) <= Decimal("0.5")


def test_what_is_no_time_is_refused() -> None:
    t_ns, known = to_ns(np.array([np.nan, np.inf, -np.inf, 1e300, -1e10, -1.5, 0.0, 2.0**32]))
    assert known.tolist() == [False, False, False, False, False, False, True, True]
    assert t_ns[known].tolist() == [0, 2**32 * 10**9]


def test_values_are_in_the_axes_of_the_tables(sample: Sample) -> None:
    reader = Comma2k19Reader(sample.files)
    imu, pose, fix, time = (rows(reader, t).to_pylist()[0] for t in ("/imu", "/pose", "/gnss/ublox", "/gnss/time"))
    assert [imu[f"accel_{axis}_mps2"] for axis in "xyz"] == [0.5, -0.25, 9.75]
    assert [imu[f"gyro_{axis}_radps"] for axis in "xyz"] == [0.01, 0.02, -0.125]
    # The body's forward, right, down are -z, -x, y of ECEF: of (1, 2, 3) it is 3 backward, 1 left, 2 down.
    assert [pose[f"velocity_{axis}_mps"] for axis in "xyz"] == pytest.approx([-3.0, 1.0, -2.0])
    assert pose["frame"] == "ecef"
    assert fix["t_gnss_ns"] == 1_533_226_488_299_000_000
    assert time["t_gnss_ns"] == 1_533_226_488_397_000_000
    assert fix["t_host_ns"] == round((BOOT_S + 0.1) * 1e9)


def test_orientation_agrees_with_velocity(sample: Sample) -> None:
    """The orientation that is published turns the velocity in the body back to that in ECEF."""
    pose = rows(Comma2k19Reader(sample.files), "/pose").to_pylist()[0]
    x, y, z, w = (pose[f"orientation_{axis}"] for axis in "xyzw")
    vector = np.array([pose[f"velocity_{axis}_mps"] for axis in "xyz"])
    axis = np.array([x, y, z])
    turned = vector + 2 * np.cross(axis, np.cross(axis, vector) + w * vector)
    assert turned == pytest.approx([1.0, 2.0, 3.0])


def test_signals_of_the_bus_are_merged_by_time(sample: Sample) -> None:
    table = rows(Comma2k19Reader(sample.files), "/bus/vehicle")
    t_ns = table["t_host_ns"].to_numpy()
    assert (np.diff(t_ns) >= 0).all()
    assert Counter(zip(table["signal"].to_pylist(), table["unit"].to_pylist(), strict=True)) == {
        ("speed", "m/s"): 180, ("steering_angle", "deg"): 180, ("front_left", "m/s"): 180, ("front_right", "m/s"): 180,
        ("rear_left", "m/s"): 180, ("rear_right", "m/s"): 180,
    }  # fmt: skip
    assert table["value"].to_pylist()[:6] == [0.0, 10.0, 10.0, 11.0, 12.0, 13.0]


def test_windows_do_not_matter(sample: Sample, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files larger than memory are merged and joined in pieces, with the same result."""
    reader = Comma2k19Reader(sample.files)
    whole = {topic: rows(reader, topic).to_pylist() for topic in sample.rows}
    windows = NpyFile.windows
    monkeypatch.setattr(NpyFile, "windows", lambda self, count: windows(self, 7))
    for topic, expected in whole.items():
        found = rows(reader, topic).to_pylist()
        assert sorted(found, key=str) == sorted(expected, key=str) if topic == "/bus/vehicle" else found == expected
    t_ns = rows(reader, "/bus/vehicle")["t_host_ns"].to_numpy()
    assert (np.diff(t_ns) >= 0).all()


def test_the_gyroscope_is_joined_by_stamp(sample: Sample) -> None:
    t_s = BOOT_S + np.arange(200) / 100
    t_s[50:60] += 0.001
    reader = replaced(sample, "processed_log/IMU/gyro/t", npy(t_s))
    imu = rows(reader, "/imu")
    assert imu.num_rows == 200
    assert imu["gyro_x_radps"].null_count == 10
    assert account(reader)["/imu", "no sample of the accelerometer has the gyroscope's stamp"] == 10


@pytest.mark.parametrize(
    ("name", "content", "reason", "count", "left"),
    [
        ("value", npy(np.ones((150, 3))), "stamps and values differ in number", 50, 150),
        ("value", npy(np.ones((200, 3)))[:-240], "the array is cut off", 10, 190),
        ("value", npy(np.asfortranarray(np.ones((200, 3))))[:-800], "the array is cut off", 100, 100),
        ("value", npy(np.ones((200, 4))), "the array cannot be read", 0, 0),
        ("value", npy(np.array([["a", "b", "c"]] * 200)), "the array cannot be read", 0, 0),
        ("value", npy(np.ones((200, 3), dtype=complex)), "the array cannot be read", 0, 0),
        ("value", npy(np.ones((200, 3))).replace(b"(200, 3)", b"((((((((")[:-1], "the array cannot be read", 0, 0),
        ("value", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70_000, "the array cannot be read", 0, 0),
        ("t", npy(np.full(200, np.nan)), "the stamp is no time", 200, 0),
        ("t", b"", "the array cannot be read", 0, 0),
    ],
)  # fmt: skip
def test_broken_arrays(sample: Sample, name: str, content: bytes, reason: str, count: int, left: int) -> None:
    reader = replaced(sample, f"processed_log/IMU/accelerometer/{name}", content)
    assert sum(batch.table.num_rows for batch in reader.read(topics=["/imu"])) == left
    assert account(reader)["/imu", reason] == count


def test_a_head_that_claims_more_than_memory(sample: Sample) -> None:
    huge = npy(np.ones((200, 3))).replace(b"(200, 3), }           ", b"(99999999999999, 3), }")
    reader = replaced(sample, "processed_log/IMU/accelerometer/value", huge)
    assert sum(batch.table.num_rows for batch in reader.read(topics=["/imu"])) == 200
    assert account(reader)["/imu", "the array is cut off"] == 10**9 - 200


def test_an_array_without_its_partner(sample: Sample) -> None:
    names = tuple(name for name in sample.files.names if not name.endswith("IMU/accelerometer/t"))
    reader = Comma2k19Reader(RecordingFiles(sample.files.root, names))
    list(reader.read())
    assert account(reader)["/imu", "the array that belongs to others is missing"] == 0
    assert account(reader)["/imu", "no sample of the accelerometer has the gyroscope's stamp"] == 200


def test_the_real_minute(tmp_path: Path) -> None:
    reader = open_recording(files_under(shared("comma2k19")))
    assert isinstance(reader, Comma2k19Reader)
    info = reader.info()
    assert (info.vehicle, info.t_start_ns) == ("b0c9d2329ad1606b", 1_533_226_488_299_000_000)
    tables = {topic: rows(reader, topic) for topic in ("/imu", "/pose", "/bus/vehicle", "/gnss/ublox")}
    assert {topic: table.num_rows for topic, table in tables.items()} == {
        "/imu": 6256, "/pose": 1200, "/bus/vehicle": 4974 * 6, "/gnss/ublox": 579,
    }  # fmt: skip
    assert 9.0 < np.mean(tables["/imu"]["accel_z_mps2"].to_numpy()) < 10.5
    # The reference pose moves forward as fast as the wheels say.
    bus = tables["/bus/vehicle"]
    speed = bus.filter(pa.compute.equal(bus["signal"], "speed"))
    told = np.interp(tables["/pose"]["t_host_ns"], speed["t_host_ns"], speed["value"])
    assert np.abs(tables["/pose"]["velocity_x_mps"].to_numpy() - told).max() < 1.0
    rewrite_as_mcap(reader.payloads(), tmp_path / "radar.mcap")
    (batch,) = open_recording(RecordingFiles(tmp_path, ("radar.mcap",))).read()
    t_ns = batch.table["t_host_ns"].to_numpy()
    assert t_ns.size == 10_100
    assert (np.diff(t_ns) == 0).sum() >= 3937  # bursts: no stamp was moved

"""MF4: fixes, signals, several files, damaged files, and the real log."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from formats.samples import DBC, T0_NS, can_frames, write_mf4
from formats.shared_data import files_under, shared

from fleet_assets.errors import FleetError
from fleet_assets.formats import mf4, mf4_frames
from fleet_assets.formats.mf4 import Mf4Reader
from fleet_assets.formats.reader import RecordingFiles, Unreadable
from fleet_assets.kernels.sequence import sequence_facts

pytestmark = pytest.mark.slow  # a pass over MF4 starts a process, which takes seconds
SECOND = 1_000_000_000


def recording(root: Path, *names: str) -> Mf4Reader:
    (root / "device.dbc").write_text(DBC)
    return Mf4Reader(RecordingFiles(root, ("device.dbc", *names)))


def read(reader: Mf4Reader, **arguments: object) -> dict[str, pa.Table]:
    found: dict[str, list[pa.Table]] = {}
    for batch in reader.read(**arguments):  # type: ignore[arg-type]
        found.setdefault(batch.topic, []).append(batch.table)
    return {topic: pa.concat_tables(parts).combine_chunks() for topic, parts in found.items()}


def account(reader: Mf4Reader) -> dict[str, int]:
    return {refusal.reason: refusal.count for refusal in reader.refusals}


def test_signals_and_fixes(tmp_path: Path) -> None:
    write_mf4(tmp_path / "a.MF4", can_frames())
    reader = recording(tmp_path, "a.MF4")
    tables = read(reader)
    assert account(reader) == {"no signal database covers CAN id 0x7e8": 1}
    imu = tables["/imu"].to_pylist()
    assert [row["t_host_ns"] for row in imu] == [T0_NS + n * 10_000_000 for n in range(200)]
    assert imu[0]["t_device_ns"] is None
    assert [imu[5][f"accel_{axis}_mps2"] for axis in "xyz"] == [0.0, 0.0, 9.75]
    assert imu[5]["gyro_y_radps"] == pytest.approx(np.pi / 180)
    fixes = tables["/gnss"].to_pylist()
    assert [row["t_host_ns"] - T0_NS for row in fixes] == [5_000_000, SECOND + 5_000_000]
    assert [row["t_gnss_ns"] for row in fixes] == [(T0_NS // SECOND + n - 4) * SECOND for n in range(2)]
    assert fixes[0]["latitude_deg"] == pytest.approx(55.0)
    assert fixes[0]["longitude_deg"] == pytest.approx(10.0)
    assert (fixes[0]["accuracy_m"], fixes[0]["valid"], fixes[0]["satellites"]) == (2.0, True, None)
    bus = [(row["signal"], row["value"], row["unit"]) for row in tables["/bus/can"].to_pylist()]
    second = [("Kind", 0.0, ""), ("Speed", pytest.approx(29.1), "km/h"), ("Kind", 1.0, ""), ("Steering", -1.0, "deg")]
    assert bus == second * 2
    info = reader.info()
    assert (info.vehicle, info.t_start_ns) == ("ab12cd34", T0_NS)


def test_files_are_one_recording_in_order_of_time(tmp_path: Path) -> None:
    """A fix whose messages lie on both sides of a file's border is whole."""
    frames = can_frames(2)
    border = 1.0055
    write_mf4(tmp_path / "b.MF4", [frame for frame in frames if frame[0] < border])
    later = [(t - border, identifier, data) for t, identifier, data in frames if t >= border]
    write_mf4(tmp_path / "a.MF4", later, start_ns=T0_NS + round(border * SECOND))
    reader = recording(tmp_path, "a.MF4", "b.MF4")
    tables = read(reader)
    assert {topic: table.num_rows for topic, table in tables.items()} == {"/imu": 200, "/gnss": 2, "/bus/can": 8}
    assert tables["/imu"]["sequence"].to_pylist() == list(range(200))
    assert tables["/gnss"]["latitude_deg"].null_count == 0
    assert account(reader) == {"no signal database covers CAN id 0x7e8": 1}


def test_a_damaged_file_costs_the_others_nothing(tmp_path: Path) -> None:
    """Seen with asammdf: one changed byte, and the process is gone. Whatever happens to it, the next file is read."""
    for number in range(3):
        write_mf4(tmp_path / f"{number}.MF4", can_frames(), start_ns=T0_NS + number * 10 * SECOND)
    content = bytearray((tmp_path / "1.MF4").read_bytes())
    content[200:] = bytes(len(content) - 200)
    (tmp_path / "1.MF4").write_bytes(content)
    reader = recording(tmp_path, *(f"{number}.MF4" for number in range(3)))
    tables = read(reader)
    assert tables["/imu"].num_rows == 400
    assert any(refusal.position == "1.MF4" for refusal in reader.refusals)


def circle(path: Path) -> None:
    """The first channel group becomes its own successor. A block's links begin at its byte 24; HD is the block at byte 64."""
    content = bytearray(path.read_bytes())

    def link(block: int, number: int) -> int:
        return int.from_bytes(content[block + 24 + 8 * number : block + 32 + 8 * number], "little")

    group = link(link(64, 0), 1)  # first DG of HD, first CG of it
    assert content[group : group + 4] == b"##CG"
    content[group + 24 : group + 32] = group.to_bytes(8, "little")
    path.write_bytes(content)


def test_a_file_in_a_circle_costs_the_others_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the processor time of one file, however many there are, and it is the one that is named."""
    for number in range(4):
        write_mf4(tmp_path / f"{number}.MF4", can_frames(), start_ns=T0_NS + number * 10 * SECOND)
    circle(tmp_path / "2.MF4")
    monkeypatch.setattr(mf4_frames, "FILE_CPU_S", 1)
    reader = recording(tmp_path, *(f"{number}.MF4" for number in range(4)))
    assert read(reader)["/imu"].num_rows == 600
    assert [(refusal.position, refusal.count) for refusal in reader.refusals if refusal.topic is None] == [("2.MF4", 0)]
    assert "more processor time" in account(reader).popitem()[0]


def test_the_limit_counts_from_each_file_anew() -> None:
    """Three times 1.2 s where 2 s are allowed; then as long as it lasts."""
    script = (
        "import time\n"
        "from fleet_assets.formats.mf4_frames import _renew_limit\n"
        "for busy_s in (1.2, 1.2, 1.2, 60):\n"
        "    _renew_limit(2)\n"
        "    print(busy_s, flush=True)\n"
        "    end = time.process_time() + busy_s\n"
        "    while time.process_time() < end: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (-signal.SIGPROF, ["1.2", "1.2", "1.2", "60"])


def test_a_decoder_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory at all: the child cannot even start, and every file says so."""
    write_mf4(tmp_path / "a.MF4", can_frames())
    monkeypatch.setattr(mf4_frames, "MAX_MEMORY_BYTES", 64 * 1024 * 1024)
    reader = recording(tmp_path, "a.MF4")
    assert read(reader) == {}
    assert [(refusal.position, refusal.count) for refusal in reader.refusals] == [("a.MF4", 0)]
    assert "the decoder stopped in the file" in reader.refusals[0].reason


def test_without_a_database_every_frame_is_refused(tmp_path: Path) -> None:
    write_mf4(tmp_path / "a.MF4", can_frames())
    reader = Mf4Reader(RecordingFiles(tmp_path, ("a.MF4",)))
    assert read(reader) == {}
    assert sum(account(reader).values()) == len(can_frames())


def test_short_frames_are_refused(tmp_path: Path) -> None:
    write_mf4(tmp_path / "a.MF4", [(0.0, 9, b"\1\2\3"), (0.1, 9, bytes(8))])
    reader = recording(tmp_path, "a.MF4")
    assert read(reader)["/imu"].num_rows == 1
    assert account(reader) == {"the frame is too short for gnss_imu": 1}


def test_broken_databases_are_named(tmp_path: Path) -> None:
    write_mf4(tmp_path / "a.MF4", can_frames())
    (tmp_path / "odd.dbc").write_text("BO_ this is no database")
    with pytest.raises(Unreadable) as error:
        read(Mf4Reader(RecordingFiles(tmp_path, ("a.MF4", "odd.dbc"))))
    assert "odd.dbc" in str(error.value)


def test_missing_extra_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mf4, "find_spec", lambda name: None)
    with pytest.raises(FleetError, match="pip install"):
        recording(tmp_path, "a.MF4")


def test_loggers_that_differ_give_no_vehicle(tmp_path: Path) -> None:
    write_mf4(tmp_path / "a.MF4", can_frames(), serial="ONE")
    write_mf4(tmp_path / "b.MF4", can_frames(), serial="TWO", start_ns=T0_NS + 1)
    assert recording(tmp_path, "a.MF4", "b.MF4").info().vehicle is None


def test_the_real_log() -> None:
    reader = Mf4Reader(files_under(shared("canedge_3BA199E2")))
    info = reader.info()
    assert info.vehicle == "3ba199e2"
    assert info.t_start_ns == 1_627_274_454 * SECOND
    tables = read(reader)
    assert {topic: table.num_rows for topic, table in tables.items()} == {
        "/imu": 240_211,
        "/gnss": 2_272,
        "/bus/can": 43_168,
    }
    assert account(reader) == {
        "no signal database covers CAN id 0x7e8": 28_930,
        "no signal database covers CAN id 0x17f00010": 4_780,
    }
    fixes, imu = tables["/gnss"], tables["/imu"]
    valid = fixes.filter(fixes["t_gnss_ns"].is_valid())
    late = (valid["t_gnss_ns"].to_numpy() - valid["t_host_ns"].to_numpy()) / 1e9
    assert np.median(late) == pytest.approx(-4.40, abs=0.05)
    assert sequence_facts(fixes["t_host_ns"].to_numpy(), SECOND, 1.5).gaps == 95
    # 21 steps are exactly 15 ms, a period and a half, and no gaps. In float seconds rounding makes some of them longer:
    # the 1,893 that a count in floats gives (per file, against its own median) are these 1,885 and 8 of the 21.
    t_ns = imu["t_host_ns"].to_numpy()
    assert sequence_facts(t_ns, 10_000_000, 1.5).gaps == 1885
    assert int((np.diff(t_ns) == 15_000_000).sum()) == 21
    for axis in "xyz":
        assert int((imu[f"accel_{axis}_mps2"].to_numpy() == -64).sum()) == 3
    assert fixes["t_device_ns"].null_count == fixes.num_rows

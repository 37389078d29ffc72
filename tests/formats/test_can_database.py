"""Decoding many frames at once against cantools, which decodes them one by one."""

from __future__ import annotations

from pathlib import Path

import cantools.database
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.formats.can_database import CanDatabase, CanSignal, parameter_group


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, bool, bool, float, float]:
    """Start, length, Intel or Motorola, signed, scale, offset: anything that fits into eight bytes."""
    length = draw(st.integers(1, 64))
    first = draw(st.integers(0, 64 - length))
    little = draw(st.booleans())
    start = first if little else first // 8 * 8 + 7 - first % 8
    scale = draw(st.sampled_from([1.0, 0.125, 0.5, -2.0, 1e-6]))
    return start, length, little, draw(st.booleans()), scale, draw(st.sampled_from([0.0, -64.0, 1000.0]))


@given(layout=layouts(), frames=st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=5))
@settings(max_examples=200, deadline=None)
def test_every_layout(layout: tuple[int, int, bool, bool, float, float], frames: list[bytes]) -> None:
    start, length, little, signed, scale, offset = layout
    text = f"""VERSION ""
BU_: X
BO_ 5 m: 8 X
 SG_ s : {start}|{length}@{int(little)}{"-" if signed else "+"} ({scale},{offset}) [0|0] "" X
"""
    reference = cantools.database.load_string(text, database_format="dbc").get_message_by_name("m")  # type: ignore[union-attr]
    ours = CanSignal("s", "", start, length, little, signed, False, scale, offset)
    payload = np.frombuffer(b"".join(frames), dtype=np.uint8).reshape(-1, 8)
    expected = [float(reference.decode(frame, decode_choices=False)["s"]) for frame in frames]
    assert ours.values(payload).tolist() == pytest.approx(expected, rel=1e-12, abs=1e-12)


DBC = """VERSION ""
BU_: X
BO_ 2364540158 EEC1: 8 X
 SG_ EngineSpeed : 24|16@1+ (0.125,0) [0|8031.875] "rpm" X

BO_ 300 multiplexed: 8 X
 SG_ Mode M : 0|8@1+ (1,0) [0|0] "" X
 SG_ A m1 : 8|8@1+ (1,0) [0|0] "" X
 SG_ B m2 : 8|8@1- (1,0) [0|0] "" X
 SG_ Number : 32|32@1- (1,0) [0|0] "" X

BA_DEF_ BO_  "VFrameFormat" ENUM  "StandardCAN","ExtendedCAN","reserved","J1939PG";
BA_DEF_DEF_  "VFrameFormat" "";
BA_ "VFrameFormat" BO_ 2364540158 3;
SIG_VALTYPE_ 300 Number : 1;
"""


@pytest.fixture
def database(tmp_path: Path) -> CanDatabase:
    (tmp_path / "a.dbc").write_text(DBC)
    return CanDatabase.load([tmp_path / "a.dbc"])


def test_multiplexed_and_float_signals(database: CanDatabase) -> None:
    message = database.message(300, False)
    assert message is not None
    number = np.array([1.5, -2.0, np.nan], dtype="<f4").view(np.uint8).reshape(3, 4)
    payload = np.zeros((3, 8), dtype=np.uint8)
    payload[:, 0] = [1, 2, 9]
    payload[:, 1] = [7, 0xFF, 7]
    payload[:, 4:] = number
    decoded = message.decode(payload, np.array([8, 8, 8]))
    assert decoded["A"][1].tolist() == [True, False, False]
    assert decoded["B"][1].tolist() == [False, True, False]
    assert (decoded["A"][0][0], decoded["B"][0][1]) == (7.0, -1.0)
    assert decoded["Number"][0].tolist()[:2] == [1.5, -2.0]
    assert np.isnan(decoded["Number"][0][2])
    assert message.decode(payload, np.array([1, 8, 8]))["A"][1].tolist() == [False, False, False]


def test_j1939_messages_come_from_any_source(database: CanDatabase) -> None:
    for identifier in (0x0CF004FE, 0x18F00400, 0x0CF00421):
        message = database.message(identifier, True)
        assert message is not None
        assert message.name == "EEC1"
    assert database.message(0x0CF004FE, False) is None
    assert database.message(0x0CF005FE, True) is None
    assert parameter_group(0x18EA21F9) == 0xEA00  # to one receiver: 0x21 is its address

"""Labels and poses: many rows to a message, and nothing made up."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from formats.sample_drive import CAR, UNTURNED, UP, Message
from formats.samples import write_mcap
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.formats import cdr, ros2
from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.reader import SCHEMAS, RecordingFiles

T_NS = 1_700_000_000_000_000_005
OBJECTS = "fleet_msgs/msg/ObjectArray"


def read(path: Path, messages: list[Message]) -> tuple[pa.Table, McapReader]:
    """All messages are of one topic."""
    write_mcap(path, messages)
    reader = McapReader(RecordingFiles(path.parent, (path.name,)))
    parts = [batch.table for batch in reader.read()]
    return pa.concat_tables(parts).combine_chunks() if parts else SCHEMAS["label"].empty_table(), reader


def labels(*counts: int) -> list[Message]:
    return [
        Message("/labels", OBJECTS, T_NS + n + 1000, ros2.object_array(T_NS + n, "body", [CAR] * count))
        for n, count in enumerate(counts)
    ]


def test_a_row_per_object_with_the_stamps_of_its_message(tmp_path: Path) -> None:
    table, reader = read(tmp_path / "a.mcap", labels(2, 0, 3))
    assert table["t_device_ns"].to_pylist() == [T_NS] * 2 + [T_NS + 2] * 3
    assert table["t_host_ns"].to_pylist() == [T_NS + 1000] * 2 + [T_NS + 1002] * 3
    assert table["sequence"].to_pylist() == [0, 1, 2, 3, 4]
    assert reader.refusals == []
    row = table.slice(0, 1).to_pylist()[0]
    left, top, right, bottom = CAR.box_px
    told = {name: value for name, value in vars(CAR).items() if name != "box_px"}
    told |= {"left_px": left, "top_px": top, "right_px": right, "bottom_px": bottom}
    assert {name: row[name] for name in told} == told


def test_what_is_not_known_is_null(tmp_path: Path) -> None:
    bare = ros2.object_array(T_NS, "body", [ros2.Object("pedestrian")])
    table, _ = read(tmp_path / "a.mcap", [Message("/labels", OBJECTS, T_NS, bare)])
    (row,) = table.to_pylist()
    known = {name: value for name, value in row.items() if value is not None}
    stamps = {"sequence": 0, "t_device_ns": T_NS, "t_host_ns": T_NS}
    assert known == {**stamps, "class_name": "pedestrian", "moving": False}


def test_times_choose_whole_messages(tmp_path: Path) -> None:
    _, reader = read(tmp_path / "a.mcap", labels(2, 0, 3))
    (batch,) = reader.read(t_from_ns=T_NS + 1002)
    assert batch.table["sequence"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize("count", [5, 2**31, 2**32 - 1])
def test_a_count_of_objects_that_are_not_there(tmp_path: Path, count: int) -> None:
    good = ros2.object_array(T_NS, "body", [CAR])
    at = len(ros2.Body().header(T_NS, "body").bytes())
    at += -at % 4
    bad = good[:at] + count.to_bytes(4, "little") + good[at + 4 :]
    table, reader = read(
        tmp_path / "a.mcap", [Message("/labels", OBJECTS, T_NS + n, d) for n, d in enumerate((bad, good))]
    )
    assert table.num_rows == 1
    assert {refusal.reason: refusal.count for refusal in reader.refusals} == {
        f"the message is shorter than {OBJECTS}": 1
    }


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9)
numbers = st.floats(width=64)
objects = st.builds(
    ros2.Object,
    *(texts, texts, texts, st.booleans()),
    *[numbers] * 9,
    texts,
    st.tuples(numbers, numbers, numbers, numbers),
)


@given(messages=st.lists(st.tuples(texts, st.lists(objects, max_size=4)), max_size=5))
@settings(max_examples=60, deadline=None)
def test_decoding_agrees_with_the_reference(messages: list[tuple[str, list[ros2.Object]]]) -> None:
    """mcap-ros2-support decodes message by message; strings of any length move what follows."""
    from mcap_ros2._dynamic import generate_dynamic

    decode = generate_dynamic(OBJECTS, ros2.DEFINITIONS[OBJECTS])[OBJECTS]
    encoded = [ros2.object_array(T_NS + n, frame, content) for n, (frame, content) in enumerate(messages)]
    lengths = np.array([len(data) for data in encoded], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    found = cdr.object_array(cdr.Cursor.of(data, np.cumsum(lengths) - lengths, lengths))
    expected: list[tuple[int, Any]] = [(n, o) for n, raw in enumerate(encoded) for o in decode(raw).objects]
    assert found.ok.all()
    assert found.message is not None
    assert found.message.tolist() == [n for n, _ in expected]
    for name, values in found.columns.items():
        for value, (_, told) in zip(values.tolist(), expected, strict=True):
            wanted = getattr(told, name)
            assert value == (wanted if wanted != "" else None) or math.isnan(wanted)


def test_poses(tmp_path: Path) -> None:
    rates = np.array([0.1, 0.2, 0.3])
    odometry = ros2.odometry(T_NS, "map", "body", UP + 1, UNTURNED, UP * 2, rates)
    table, _ = read(tmp_path / "a.mcap", [Message("/pose", "nav_msgs/msg/Odometry", T_NS + 1, odometry)])
    (row,) = table.drop_columns(["sequence"]).to_pylist()
    assert list(row.values()) == [T_NS, T_NS + 1, "map", 1, 1, 10.81, 0, 0, 0, 1, 0, 0, 19.62, 0.1, 0.2, 0.3]

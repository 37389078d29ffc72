"""Protobuf and JSON in MCAP: decoded as written, hostile descriptors, hostile messages."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from formats import sample_foxglove as made
from formats.sample import T0_NS, png
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.writer import Writer

from fleet_assets.formats.foxglove import LAYOUTS, Layout
from fleet_assets.formats.json_rows import decode_json
from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.protobuf_rows import decode_protobuf, members
from fleet_assets.formats.reader import RecordingFiles, open_recording
from fleet_assets.formats.rewrite import rewrite_as_mcap
from fleet_assets.kernels.protobuf import BROKEN, find_field


def tables(reader: Any) -> dict[str, pa.Table]:
    found: dict[str, list[pa.Table]] = {}
    for batch in reader.read():
        found.setdefault(batch.topic, []).append(batch.table)
    return {topic: pa.concat_tables(parts) for topic, parts in found.items()}


def written(path: Path, schema: str, kind: str, described: bytes, encoding: str, messages: list[bytes]) -> McapReader:
    with open(path, "wb") as file:
        writer = Writer(file)
        writer.start("", library="test")
        channel = writer.register_channel("/topic", encoding, writer.register_schema(schema, kind, described))
        for number, data in enumerate(messages):
            writer.add_message(channel, T0_NS + number, data, T0_NS + number)
        writer.finish()
    return McapReader(RecordingFiles(path.parent, (path.name,)))


@pytest.mark.parametrize("encoding", ["protobuf", "json"])
def test_values_are_those_that_were_written(tmp_path: Path, encoding: str) -> None:
    made.write(tmp_path / "a.mcap", encoding)
    found = tables(McapReader(RecordingFiles(tmp_path, ("a.mcap",))))
    fix, pose, imu = (found[topic].to_pylist()[1] for topic in ("/gnss", "/pose", "/imu"))
    assert (fix["latitude_deg"], fix["longitude_deg"], fix["altitude_m"]) == (56.0, 10.0, 3.0)
    assert (fix["t_device_ns"], fix["t_host_ns"]) == (T0_NS + 10**9, T0_NS + 10**9 + 3_000_000)
    assert [pose[f"{axis}_m"] for axis in "xyz"] == [1.0, 2.0, 0.5]
    assert (pose["frame"], pose["orientation_z"], pose["orientation_w"]) == ("map", 0.6, 0.8)
    assert pose["velocity_x_mps"] is None
    assert [imu[f"accel_{axis}_mps2"] for axis in "xyz"] == [0.5, 0.0, 9.75]
    assert [imu[f"gyro_{axis}_radps"] for axis in "xyz"] == [0.0, 0.1, 0.2]


def test_images_in_protobuf_stay_where_they_are(tmp_path: Path) -> None:
    made.write(tmp_path / "a.mcap", "protobuf", compression=made.CompressionType.NONE)
    reader = McapReader(RecordingFiles(tmp_path, ("a.mcap",)))
    assert reader.payload_in_place
    row = tables(reader)["/camera/front"].to_pylist()[3]
    content = (tmp_path / "a.mcap").read_bytes()
    message = content[row["message_offset"] :][: row["message_length"]]
    assert row["schema_name"] == "foxglove.CompressedImage"
    assert made.protobuf_classes()[row["schema_name"]].FromString(message).data == png(3)


def test_images_in_json_are_rewritten(tmp_path: Path) -> None:
    made.write(tmp_path / "a.mcap", "json")
    reader = McapReader(RecordingFiles(tmp_path, ("a.mcap",)))
    assert not reader.payload_in_place
    payloads = list(reader.payloads())
    assert len(payloads) == 20
    assert payloads[3].data.endswith(png(3))
    assert payloads[3].t_device_ns == T0_NS + 300_000_000
    rewrite_as_mcap(reader.payloads(), tmp_path / "b.mcap")
    index = tables(open_recording(RecordingFiles(tmp_path, ("b.mcap",))))["/camera/front"]
    assert set(index["schema_name"].to_pylist()) == {"sensor_msgs/msg/CompressedImage"}


def recursive() -> bytes:
    """A message that holds itself, under the name that is read."""
    from google.protobuf.descriptor_pb2 import FileDescriptorSet

    described = FileDescriptorSet()
    made_type = described.file.add(package="foxglove").message_type.add(name="LocationFix")
    for number, name in enumerate(("timestamp", "latitude", "longitude", "altitude"), 1):
        made_type.field.add(name=name, number=number, type=11, label=1, type_name=".foxglove.LocationFix")
    return bytes(described.SerializeToString())


@pytest.mark.parametrize(
    ("described", "why"),
    [
        (b"", "the schema has no single latitude"),
        (b"\xff" * 100, "the schema is no set of descriptors"),
        (bytes(2 * 1024 * 1024), "the schema is larger than a megabyte"),
        (recursive(), "timestamp is no Timestamp"),
    ],
)
def test_hostile_descriptors(tmp_path: Path, described: bytes, why: str) -> None:
    reader = written(tmp_path / "a.mcap", "foxglove.LocationFix", "protobuf", described, "protobuf", [b"\x08\x01"] * 3)
    assert tables(reader) == {}
    assert [(refusal.topic, refusal.reason, refusal.count) for refusal in reader.refusals] == [("/topic", why, 3)]


HOSTILE_JSON = [
    b"", b"[]", b"[" * 100_000, b"{", b'{"timestamp": 1}', b'{"timestamp": {"sec": -1}}', b'{"timestamp": {"sec": 1e3}}',
    b'{"latitude": "north"}', b'{"latitude": ' + b"9" * 5000 + b"}", b'{"latitude": {"x": 1}}', b'\xff{"latitude": 1}',
    b'{"timestamp": {"sec": true}}',
]  # fmt: skip


def test_hostile_json(tmp_path: Path) -> None:
    good = json.dumps({"timestamp": {"sec": 5, "nsec": 6}, "latitude": 1.5}).encode()
    reader = written(tmp_path / "a.mcap", "foxglove.LocationFix", "jsonschema", b"", "json", [*HOSTILE_JSON, good])
    (row,) = tables(reader)["/topic"].to_pylist()
    assert (row["t_device_ns"], row["latitude_deg"], row["longitude_deg"]) == (5_000_000_006, 1.5, None)
    assert [refusal.count for refusal in reader.refusals] == [len(HOSTILE_JSON)]


def test_images_in_json_that_are_none(tmp_path: Path) -> None:
    texts = [b'{"data": "%%%"}', b'{"data": 5}', b'{"format": "\\ud800"}', b"[]", b'{"timestamp": {"sec": 4294967296}}']
    reader = written(tmp_path / "a.mcap", "foxglove.CompressedImage", "jsonschema", b"", "json", texts)
    assert list(reader.payloads()) == []
    assert [refusal.count for refusal in reader.refusals] == [5]


@given(st.lists(st.tuples(st.floats(), st.floats(), st.integers(0, 2**33 - 1), st.integers(0, 10**9 - 1)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_protobuf_agrees_with_the_library(values: list[tuple[float, float, int, int]]) -> None:
    kind = made.protobuf_classes()["foxglove.LocationFix"]
    encoded = []
    for latitude, longitude, seconds, nanos in values:
        message = kind(latitude=latitude, longitude=longitude, frame_id="f" * (nanos % 300))
        message.timestamp.seconds, message.timestamp.nanos = seconds, nanos
        encoded.append(message.SerializeToString())
    layout = LAYOUTS["foxglove.LocationFix"]
    schema = made.descriptors().SerializeToString()
    found = members(schema, "foxglove.LocationFix", layout.time, tuple(layout.columns.values()))
    length = np.array([len(data) for data in encoded], dtype=np.int64)
    data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
    decoded = decode_protobuf(data, np.cumsum(length) - length, length, layout, found)
    assert decoded.ok.all()
    assert decoded.t_device_ns.tolist() == [seconds * 10**9 + nanos for _, _, seconds, nanos in values]
    for column, expected in (("latitude_deg", [v[0] for v in values]), ("longitude_deg", [v[1] for v in values])):
        np.testing.assert_array_equal(decoded.columns[column], np.array(expected, dtype=np.float64))


@given(st.binary(max_size=60), st.integers(1, 40))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_walked_to_their_end(content: bytes, number: int) -> None:
    data = np.frombuffer(content, dtype=np.uint8)
    wire, start, size, _ = find_field(data, np.array([0]), np.array([len(content)]), number)
    assert wire[0] == BROKEN or 0 <= start[0] + size[0] <= len(content)


def test_a_length_beyond_the_message_is_broken() -> None:
    huge = b"\x0a" + b"\xff" * 9 + b"\x01"
    data = np.frombuffer(huge + struct.pack("<d", 1.0), dtype=np.uint8)
    assert find_field(data, np.array([0]), np.array([len(data)]), 1)[0].tolist() == [BROKEN]


def test_json_columns_of_a_layout() -> None:
    data = np.frombuffer(b'{"a": {"b": 1}, "t": "x"}', dtype=np.uint8)
    decoded = decode_json(
        data, np.array([0]), np.array([data.size]), Layout("bus", "stamp", {"value": "a.b", "unit": "t*"})
    )
    assert decoded.columns["value"].to_pylist() == [1.0]
    assert decoded.columns["unit"].to_pylist() == ["x"]

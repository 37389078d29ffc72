"""MCAP: every way a recorder writes it, and every way it breaks."""

from __future__ import annotations

import random
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from formats.samples import Message, counts, drive, write_mcap
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from fleet_assets.formats import ros2
from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.mcap_scan import Damaged, decompress
from fleet_assets.formats.mcap_summary import read_summary
from fleet_assets.formats.reader import PAYLOAD_KINDS, RecordingFiles, Unreadable


def reader_of(path: Path) -> McapReader:
    return McapReader(RecordingFiles(path.parent, (path.name,)))


def read(path: Path, **arguments: object) -> tuple[dict[str, pa.Table], McapReader]:
    reader = reader_of(path)
    found: dict[str, list[pa.Table]] = {}
    for batch in reader.read(**arguments):  # type: ignore[arg-type]
        found.setdefault(batch.topic, []).append(batch.table)
    return {topic: pa.concat_tables(parts).combine_chunks() for topic, parts in found.items()}, reader


def rows(tables: dict[str, pa.Table]) -> dict[str, int]:
    return {topic: table.num_rows for topic, table in tables.items()}


def reasons(reader: McapReader) -> dict[str, int]:
    found: dict[str, int] = {}
    for refusal in reader.refusals:
        found[refusal.reason] = found.get(refusal.reason, 0) + refusal.count
    return found


WAYS = [
    {"compression": compression, "chunked": chunked, "indexed": indexed}
    for compression in (CompressionType.NONE, CompressionType.LZ4, CompressionType.ZSTD)
    for chunked in (True, False)
    for indexed in (True, False)
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(str(v) for v in way.values()))
def test_payload_lies_where_the_row_says(tmp_path: Path, way: dict[str, object]) -> None:
    messages = drive()
    path = write_mcap(tmp_path / "a.mcap", messages, **way)  # type: ignore[arg-type]
    tables, reader = read(path)
    assert rows(tables) == counts(messages)
    assert reader.refusals == []
    content = path.read_bytes()
    kinds = {channel.topic: channel.kind for channel in reader.channels()}
    for topic, table in tables.items():
        expected = [message for message in messages if message.topic == topic]
        assert table["t_host_ns"].to_pylist() == [message.t_host_ns for message in expected]
        assert table["t_device_ns"].to_pylist() == [message.t_host_ns - 3_000_000 for message in expected]
        if kinds[topic] not in PAYLOAD_KINDS:
            continue
        for row, message in zip(table.to_pylist(), expected, strict=True):
            chunk = content
            if row["codec"] != "none":
                stored = content[row["chunk_offset"] : row["chunk_offset"] + row["chunk_length"]]
                chunk = decompress(row["codec"], stored, row["chunk_size"])
            assert chunk[row["message_offset"] : row["message_offset"] + row["message_length"]] == message.data
            assert row["schema_name"] == message.schema


def test_signals_are_decoded(tmp_path: Path) -> None:
    tables, reader = read(write_mcap(tmp_path / "a.mcap", drive()))
    imu, gnss, bus = tables["/imu"], tables["/gnss"], tables["/bus/vehicle"]
    assert imu["accel_z_mps2"].to_pylist() == [n + 9.81 for n in range(200)]
    assert imu["orientation_w"].null_count == 200  # its covariance says: not measured
    assert gnss.select(["latitude_deg", "longitude_deg", "altitude_m", "accuracy_m", "valid"]).to_pylist() == [
        {"latitude_deg": 55.0 + n, "longitude_deg": 10.0, "altitude_m": 3.0, "accuracy_m": 1.5, "valid": True}
        for n in range(2)
    ]
    assert bus["message"].to_pylist() == ["wheel" + "s" * (n % 3) for n in range(40)]
    assert bus["value"].to_pylist() == [float(n) for n in range(40)]
    assert set(bus["unit"].to_pylist()) == {"m/s"}
    assert reader.info().vehicle == "demo1"
    assert dict(reader.info().context) == {"weather": "fog"}


def test_other_tools_open_what_we_write(tmp_path: Path) -> None:
    from mcap_ros2.decoder import DecoderFactory

    from fleet_assets.formats.rewrite import McapFile

    with McapFile(tmp_path / "a.mcap") as target:
        for message in drive(1.0):
            target.write(message.topic, message.schema, message.data, message.t_host_ns)
    with open(tmp_path / "a.mcap", "rb") as file:
        seen = 0
        for schema, channel, message, decoded in make_reader(
            file, decoder_factories=[DecoderFactory()]
        ).iter_decoded_messages():
            seen += 1
            header = decoded.header.stamp
            assert header.sec * 10**9 + header.nanosec == message.log_time - 3_000_000
            if schema.name == "fleet_msgs/msg/Signal":
                assert (decoded.signal, decoded.unit) == ("v", "m/s")
            if channel.topic == "/imu":
                assert decoded.linear_acceleration.z >= 9.81
            if channel.topic == "/labels":
                assert [(o.class_name, o.bottom_px) for o in decoded.objects] == [("vehicle", 40.0)]
            if channel.topic == "/pose":
                assert decoded.twist.twist.linear.z == 9.81
    assert seen == len(drive(1.0))


def test_gnss_from_three_messages(tmp_path: Path) -> None:
    t_ns = 1_700_000_000_000_000_005
    twist = ros2.Body().header(t_ns, "gnss").put("d", 3.0, 4.0, 100.0, 0, 0, 0).bytes()
    messages = [
        Message(
            "/gnss/time", "sensor_msgs/msg/TimeReference", t_ns, ros2.time_reference(t_ns, "gnss", t_ns - 7, "gps")
        ),
        Message("/gnss/velocity", "geometry_msgs/msg/TwistStamped", t_ns, twist),
    ]
    tables, _ = read(write_mcap(tmp_path / "a.mcap", messages))
    assert tables["/gnss/time"]["t_gnss_ns"].to_pylist() == [t_ns - 7]
    assert tables["/gnss/velocity"]["speed_mps"].to_pylist() == [5.0]
    assert tables["/gnss/velocity"]["latitude_deg"].to_pylist() == [None]


def test_nan_is_null(tmp_path: Path) -> None:
    t_ns = 1_700_000_000_000_000_000
    data = ros2.imu(t_ns, "imu", np.array([np.nan, 1.0, np.inf]), np.zeros(3))
    tables, _ = read(write_mcap(tmp_path / "a.mcap", [Message("/imu", "sensor_msgs/msg/Imu", t_ns, data)]))
    row = tables["/imu"].to_pylist()[0]
    assert row["accel_x_mps2"] is None
    assert (row["accel_y_mps2"], row["accel_z_mps2"]) == (1.0, np.inf)


def test_stamps_that_nobody_set(tmp_path: Path) -> None:
    """A header of zero is no stamp; a log time of zero falls back on the publish time."""
    zero = ros2.imu(0, "imu", np.zeros(3), np.zeros(3))
    with open(tmp_path / "a.mcap", "wb") as file:
        writer = Writer(file)
        writer.start("ros2", library="test")
        schema = writer.register_schema("sensor_msgs/msg/Imu", "ros2msg", b"")
        channel = writer.register_channel("/imu", "cdr", schema)
        for log_time, publish_time in ((5, 4), (0, 4), (2**64 - 1, 0)):
            writer.add_message(channel, log_time, zero, publish_time)
        writer.finish()
    tables, _ = read(tmp_path / "a.mcap")
    assert tables["/imu"]["t_device_ns"].to_pylist() == [None] * 3
    assert tables["/imu"]["t_host_ns"].to_pylist() == [5, 4, None]


def test_what_no_decoder_knows_is_counted(tmp_path: Path) -> None:
    t_ns = 1_700_000_000_000_000_000
    good = ros2.imu(t_ns, "imu", np.zeros(3), np.zeros(3))
    messages = [
        Message("/odd", "std_msgs/msg/String", t_ns, b"\0\1\0\0\0\0\0\0"),
        Message("/odd", "std_msgs/msg/String", t_ns, b""),
        Message("/imu", "sensor_msgs/msg/Imu", t_ns, good[:100]),
        Message("/imu", "sensor_msgs/msg/Imu", t_ns, b"\0\0" + good[2:]),
        Message("/imu", "sensor_msgs/msg/Imu", t_ns, b""),
        Message("/imu", "sensor_msgs/msg/Imu", t_ns, good),
    ]
    tables, reader = read(write_mcap(tmp_path / "a.mcap", messages))
    assert rows(tables) == {"/imu": 1}
    assert reasons(reader) == {
        "there is no decoder for std_msgs/msg/String (cdr)": 2,
        "the message is shorter than sensor_msgs/msg/Imu": 1,
        "the message is no little-endian CDR": 2,
    }
    assert {refusal.topic for refusal in reader.refusals} == {"/odd", "/imu"}
    tables, reader = read(write_mcap(tmp_path / "b.mcap", messages, encoding="json"))
    assert tables == {}
    assert sum(reasons(reader).values()) == 6


def chunk_at(path: Path, number: int) -> tuple[int, int]:
    summary = read_summary(path)
    assert summary is not None
    return summary.chunks[number].offset, summary.chunks[number].length


@pytest.mark.parametrize("what", ["content", "checksum", "length", "size", "codec", "opcode"])
@pytest.mark.parametrize("compression", [CompressionType.ZSTD, CompressionType.LZ4, CompressionType.NONE])
def test_a_damaged_chunk_costs_only_itself(tmp_path: Path, what: str, compression: CompressionType) -> None:
    messages = drive()
    path = write_mcap(tmp_path / "a.mcap", messages, compression=compression)
    before, _ = read(path)
    at, length = chunk_at(path, 2)
    content = bytearray(path.read_bytes())
    match what:
        case "content":
            content[at + length - 50] ^= 0xFF
        case "checksum":
            content[at + 9 + 24] ^= 0xFF
        case "length":
            content[at + 1 : at + 9] = struct.pack("<Q", length * 3)
        case "size":
            content[at + 9 + 16 : at + 9 + 24] = struct.pack("<Q", 1 << 60)
        case "codec":
            content[at + 9 + 32] = ord("x") if compression != CompressionType.NONE else 0
            content[at + 9 + 28] = 1
        case "opcode":
            content[at] = 0x66
    path.write_bytes(content)
    tables, reader = read(path)
    missing = len(messages) - sum(rows(tables).values())
    assert 0 < missing < len(messages) / 2 or (
        missing == 0 and what == "length"
    )  # the next chunk's place is in the index
    assert sum(rows(tables).values()) + sum(reasons(reader).values()) == len(messages)
    lost = {r.topic: r.count for r in reader.refusals if r.count}
    for topic, table in before.items():
        left = set(tables[topic]["t_host_ns"].to_pylist())
        assert left <= set(table["t_host_ns"].to_pylist())
        assert lost.get(topic, 0) == table.num_rows - len(left)
    assert any(f"byte {at}" in refusal.position for refusal in reader.refusals)


def test_flips_never_lose_a_message_unseen(tmp_path: Path) -> None:
    """Whatever one byte of the data says: delivered and refused add up to what the summary counts, and nothing is made up."""
    messages = drive()
    path = write_mcap(tmp_path / "a.mcap", messages)
    whole = path.read_bytes()
    before, _ = read(path)
    truth = {topic: set(table["t_host_ns"].to_pylist()) for topic, table in before.items()}
    end = max(offset + length for offset, length in (chunk_at(path, n) for n in range(3)))
    for seed in range(150):
        chance = random.Random(seed)
        damaged = bytearray(whole)
        damaged[chance.randrange(8, end)] ^= chance.randrange(1, 256)
        path.write_bytes(damaged)
        tables, reader = read(path)
        assert sum(rows(tables).values()) + sum(reasons(reader).values()) == len(messages), seed
        for topic, table in tables.items():
            assert set(table["t_host_ns"].to_pylist()) <= truth[topic]


@pytest.mark.parametrize("way", WAYS[::3], ids=lambda way: "-".join(str(v) for v in way.values()))
def test_a_cut_keeps_what_lies_before_it(tmp_path: Path, way: dict[str, object]) -> None:
    messages = drive()
    path = write_mcap(tmp_path / "a.mcap", messages, **way)  # type: ignore[arg-type]
    whole = path.read_bytes()
    before = 0
    for part in (0.1, 0.3, 0.6, 0.9, 1.0):
        path.write_bytes(whole[: int(len(whole) * part)])
        tables, reader = read(path)
        found = sum(rows(tables).values())
        assert found >= before
        assert part == 1.0 or "the file is cut off" in reasons(reader)
        for topic, table in tables.items():
            assert (
                table["t_host_ns"].to_pylist() == [m.t_host_ns for m in messages if m.topic == topic][: table.num_rows]
            )
        before = found
    assert before == len(messages)


def test_not_an_mcap_file(tmp_path: Path) -> None:
    (tmp_path / "a.mcap").write_bytes(b"something else altogether")
    with pytest.raises(Unreadable) as error:
        read(tmp_path / "a.mcap")
    assert "a.mcap" in str(error.value)


def hostile(opcode: int, length: int, content: bytes = b"") -> bytes:
    return b"\x89MCAP0\r\n" + bytes([opcode]) + struct.pack("<Q", length) + content


@pytest.mark.parametrize(
    "content",
    [
        hostile(5, 2**63, b"x" * 50),
        hostile(5, 2**64 - 1, b"x" * 50),
        hostile(6, 40, struct.pack("<QQQIIQ", 0, 1, 2**62, 0, 0, 0)),
        hostile(6, 40, struct.pack("<QQQIIQ", 0, 1, 10, 0, 2**32 - 1, 0)),
        hostile(6, 3, b"abc"),
        hostile(3, 0) + bytes([3]) + bytes(8),
        hostile(4, 16, b"\1\0\0\0" + struct.pack("<III", 2**32 - 1, 0, 0)),
        hostile(12, 4, struct.pack("<I", 2**31)),
        hostile(7, 6, struct.pack("<HI", 1, 2**32 - 1)),
    ],
)
def test_hostile_lengths_allocate_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.mcap").write_bytes(content)
    read(tmp_path / "a.mcap")  # compiled outside of what is measured
    tracemalloc.start()
    tables, reader = read(tmp_path / "a.mcap")
    reader.info()
    reader.channels()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tables == {}
    assert reader.refusals
    assert peak < 16 * 1024 * 1024


def test_a_bomb_is_not_unpacked() -> None:
    import lz4.frame  # type: ignore[import-untyped]
    import zstandard

    big = bytes(64 * 1024 * 1024)
    for codec, stored in (("zstd", zstandard.ZstdCompressor().compress(big)), ("lz4", lz4.frame.compress(big))):
        tracemalloc.start()
        with pytest.raises(Damaged):
            decompress(codec, stored, 1000)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
        tracemalloc.stop()


def test_seeking_reads_only_what_is_wanted(tmp_path: Path) -> None:
    """Damage in a chunk of other times goes unnoticed, because the chunk is not read."""
    messages = drive()
    path = write_mcap(tmp_path / "a.mcap", messages)
    at, length = chunk_at(path, 0)
    content = bytearray(path.read_bytes())
    content[at + length - 50] ^= 0xFF
    path.write_bytes(content)
    middle = messages[len(messages) // 2].t_host_ns
    tables, reader = read(path, topics=["/imu"], t_from_ns=middle)
    assert reader.refusals == []
    assert tables["/imu"]["t_host_ns"].to_pylist() == [
        m.t_host_ns for m in messages if m.topic == "/imu" and m.t_host_ns >= middle
    ]


def test_channels_of_one_topic_may_carry_different_things(tmp_path: Path) -> None:
    sent = drive(2.0)
    one_topic = [replace(m, topic="/imu") if m.topic == "/gnss" else m for m in sent]
    assert one_topic != sent
    write_mcap(tmp_path / "a.mcap", one_topic)
    reader = McapReader(RecordingFiles(tmp_path, ("a.mcap",)))
    found: dict[str, int] = {}
    for batch in reader.read(topics=["/imu"]):
        found[batch.kind] = found.get(batch.kind, 0) + batch.table.num_rows
    assert found == {"imu": counts(sent)["/imu"], "gnss": counts(sent)["/gnss"]}
    assert reader.refusals == []


def test_batches_follow_rows_and_not_chunks(tmp_path: Path) -> None:
    messages = [m for m in drive(60.0) if m.topic == "/imu"]
    path = write_mcap(tmp_path / "a.mcap", messages, chunk_bytes=2_000)
    batches = list(reader_of(path).read())
    assert len(batches) == 1
    assert batches[0].table.num_rows == 6000


@given(
    frames=st.lists(st.text(max_size=9), min_size=1, max_size=8),
    values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_decoding_agrees_with_the_reference(
    tmp_path_factory: pytest.TempPathFactory, frames: list[str], values: list[float]
) -> None:
    """mcap-ros2-support decodes message by message; strings of any length move what follows."""
    from mcap_ros2._dynamic import generate_dynamic

    root = tmp_path_factory.mktemp("cdr")
    decode = generate_dynamic("fleet_msgs/msg/Signal", ros2.DEFINITIONS["fleet_msgs/msg/Signal"])[
        "fleet_msgs/msg/Signal"
    ]
    messages = []
    for number, value in enumerate(values):
        name = frames[number % len(frames)].replace("\0", "")
        data = ros2.signal(10**18 + number, name, name + "m", "s" + name * 2, value, name)
        messages.append(Message("/bus/can", "fleet_msgs/msg/Signal", 10**18 + number, data))
    tables, reader = read(write_mcap(root / "a.mcap", messages))
    assert reader.refusals == []
    for row, message in zip(tables["/bus/can"].to_pylist(), messages, strict=True):
        expected = decode(message.data)
        stamp = expected.header.stamp
        assert row["t_device_ns"] == stamp.sec * 10**9 + stamp.nanosec
        assert (row["message"], row["signal"], row["unit"]) == (expected.message, expected.signal, expected.unit)
        assert row["value"] == expected.value

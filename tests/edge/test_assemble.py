"""Frames as the vehicle makes them are those of the lake's causal policy, with the same features."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from features.drives import generated, made, synchronised

from fleet_assets.edge.assemble import Assembler, Frame
from fleet_assets.edge.feed import LIVE
from fleet_assets.edge.messages import stamp_of
from fleet_assets.edge.recording import Arrived, LiveStream, Recording
from fleet_assets.edge.rig import SENSORS, Rig
from fleet_assets.errors import FleetError
from fleet_assets.formats.mcap_summary import MAGIC
from fleet_assets.kernels.features.records import SOURCES
from fleet_assets.train.recordings import frames
from fleet_assets.train.rig import vehicle_rig

pytestmark = pytest.mark.slow
_STREAMS = {"camera": "camera_front", "lidar": "lidar", "radar": "radar_polar"}


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Frame], dict[str, pa.Table]]:
    decoded, recording = generated(tmp_path_factory.mktemp("drive"))
    tables = synchronised(decoded)
    return recording, list(frames(Recording.open(recording), vehicle_rig())), tables | made(decoded, tables)


def test_the_same_records_belong_to_the_same_frames(
    drive: tuple[Path, list[Frame], dict[str, pa.Table]],
) -> None:
    _, found, tables = drive
    matches = tables["synchronise.matches"]
    matches = matches.filter(pc.equal(matches["policy"], "causal"))
    assert len(found) == pc.count_distinct(matches["frame"]).as_py()
    for number, source in enumerate(SENSORS):
        rows = matches.filter(pc.equal(matches["channel"], _STREAMS[source])).sort_by("frame")
        age_s = np.array([frame.age_s[number] for frame in found])
        expected = -rows["dt_ns"].cast(pa.float64()).to_numpy(zero_copy_only=False) * 1e-9
        assert np.array_equal(np.isnan(age_s), np.isnan(expected))
        # The lake has clock models, the vehicle the sensors' own clock.
        assert np.nanmax(np.abs(age_s - expected)) < 1e-4


def test_live_features_are_those_of_the_lake(drive: tuple[Path, list[Frame], dict[str, pa.Table]]) -> None:
    _, found, tables = drive
    for view in found[0].features:
        rows = tables[f"features.{view}"].sort_by("frame")
        for column, name in enumerate(LIVE[view].FEATURES):
            lake = rows[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            live = np.array([frame.features[view][column] for frame in found])
            assert np.array_equal(live, lake, equal_nan=True), name


def test_a_frame_does_not_see_what_comes_later(drive: tuple[Path, list[Frame], dict[str, pa.Table]]) -> None:
    recording, found, _ = drive
    opened = Recording.open(recording)
    assembler = Assembler(vehicle_rig(), opened.topics)
    until_ns = found[len(found) // 2].t_cut_ns
    early = [frame for topic, kind, data, t_ns in opened.messages() if t_ns <= until_ns
             for frame in assembler.push(topic, kind, data, t_ns)] + assembler.flush()  # fmt: skip
    for before, after in zip(found[: len(found) // 2 + 1], early, strict=False):
        assert before.t_ns == after.t_ns
        for name in ("camera", "lidar", "radar", "age_s", "context"):
            assert np.array_equal(getattr(before, name), getattr(after, name), equal_nan=name in ("age_s", "context"))


def test_a_damaged_recording_gives_what_is_whole(
    drive: tuple[Path, list[Frame], dict[str, pa.Table]], tmp_path: Path
) -> None:
    recording, found, _ = drive
    cut = tmp_path / "cut.mcap"
    whole = recording.read_bytes()
    cut.write_bytes(whole[: 2 * len(whole) // 3])
    opened = Recording.open(cut)
    assembler, given = Assembler(vehicle_rig(), opened.topics), []

    def drive_on() -> None:
        for message in opened.messages():
            given.extend(assembler.push(*message))

    with pytest.raises(FleetError, match="damaged"):
        drive_on()
    assert 0 < len(given) < len(found)
    assert all(np.array_equal(a.lidar, b.lidar) for a, b in zip(given, found, strict=False))


def _driven(messages: Iterable[Arrived], topics: list[str]) -> tuple[Assembler, list[Frame]]:
    assembler = Assembler(vehicle_rig(), topics)
    given = [frame for message in messages for frame in assembler.push(*message)]
    return assembler, given + assembler.flush()


def _stamped(message: bytes, shift_ns: int) -> bytes:
    stamp_ns = stamp_of(message)
    assert stamp_ns is not None
    return message[:4] + struct.pack("<iI", *divmod(stamp_ns + shift_ns, 1_000_000_000)) + message[12:]


def test_messages_of_another_sensor_cost_nothing_else(drive: tuple[Path, list[Frame], dict[str, pa.Table]]) -> None:
    """All three sensors' topics carry what another one says: its records are known by their stamps, and hold nothing."""
    recording, found, _ = drive
    opened = Recording.open(recording)
    says = {"/lidar": "/camera/front", "/camera/front": "/lidar", "/radar/polar": "/lidar"}
    last = {topic: (kind, data) for topic, kind, data, _ in opened.messages() if topic in says}
    swapped = [
        (
            topic,
            last[says[topic]][0],
            _stamped(last[says[topic]][1], stamp_of(data) - stamp_of(last[says[topic]][1])),
            t_ns,
        )
        if topic in says
        else (topic, kind, data, t_ns)
        for topic, kind, data, t_ns in opened.messages()
    ]
    _, given = _driven(swapped, opened.topics)
    assert [frame.t_ns for frame in given] == [frame.t_ns for frame in found]
    assert all(np.isnan(frame.age_s).all() for frame in given)
    assert not any(values.any() for frame in given for values in (frame.camera, frame.lidar, frame.radar))


@pytest.mark.parametrize("shift_ns", [3_600_000_000_000, -5_000_000_000], ids=["one stamp far ahead", "clock set back"])
def test_frames_go_on_when_the_key_sensors_clock_was_set(
    drive: tuple[Path, list[Frame], dict[str, pa.Table]], shift_ns: int
) -> None:
    recording, found, _ = drive
    opened = Recording.open(recording)
    messages = list(opened.messages())
    clouds = [at for at, (topic, *_) in enumerate(messages) if topic == "/lidar"]
    wrong = clouds[20:21] if shift_ns > 0 else clouds[20:]
    for at in wrong:
        topic, kind, data, t_ns = messages[at]
        messages[at] = topic, kind, _stamped(data, shift_ns), t_ns
    assembler, given = _driven(messages, opened.topics)
    assert 5 <= assembler.left_out <= 12  # of a second, in which nobody can tell
    assert len(given) == len(clouds) - assembler.left_out
    after, before = given[21:], found[-len(given[21:]) :]
    assert [frame.t_ns for frame in after] == [frame.t_ns + min(shift_ns, 0) for frame in before]
    assert all(np.array_equal(one.lidar, other.lidar) for one, other in zip(after, before, strict=True))


def test_memory_does_not_grow_while_no_frame_is_due(
    drive: tuple[Path, list[Frame], dict[str, pa.Table]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it changes nothing when what waits is taken in early."""
    recording, found, _ = drive
    opened = Recording.open(recording)
    silent = [message for message in opened.messages() if message[0] != "/lidar"]
    assembler, given = _driven(silent * 12, opened.topics)
    assert not given
    assert len(silent) * 12 > 4096 >= len(assembler._records)
    monkeypatch.setattr("fleet_assets.edge.assemble._MOST_WAITING", 7)
    _, given = _driven(opened.messages(), opened.topics)
    for one, other in zip(given, found, strict=True):
        assert all(np.array_equal(one.features[view], other.features[view], equal_nan=True) for view in other.features)


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mcap"
    for content in (b"", b"no recording at all, but text", bytes(4096)):
        path.write_bytes(content)
        with pytest.raises(FleetError, match="no MCAP"):
            Recording.open(path)
    with pytest.raises(FleetError, match="Cannot read"):
        Recording.open(tmp_path / "missing.mcap")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "broke off"),
        (b"no recording at all, but text", "is damaged"),
        (MAGIC + b"\x01", "broke off"),
        (MAGIC + b"\x05" + (1 << 62).to_bytes(8, "little"), "exceeds limit"),
    ],
)
def test_a_stream_that_is_no_mcap_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(FleetError, match=f"The stream .*{why}.*after message 0"):
        LiveStream(io.BytesIO(content)).topics  # noqa: B018


def test_a_stream_keeps_no_more_than_its_first_seconds(drive: tuple[Path, list[Frame], dict[str, pa.Table]]) -> None:
    recording, _, _ = drive
    with open(recording, "rb") as file:
        stream = LiveStream(file)
        told = Recording.open(recording)
        assert (stream.topics, stream.context) == (told.topics, told.context)
        listened, before = file.tell(), recording.stat().st_size
        arrived = [t_ns for *_, t_ns in stream.messages()]
    assert listened < before
    assert arrived == [t_ns for *_, t_ns in told.messages()]
    assert list(stream.messages()) == []


def test_a_vehicle_without_a_key_sensor_makes_no_frames() -> None:
    with pytest.raises(FleetError, match="set the frames"):
        Assembler(vehicle_rig(), ["/imu", "/radar/polar"])


def test_the_rig_travels_as_a_document() -> None:
    rig = vehicle_rig()
    assert Rig.from_document(rig.to_document(), "model.json") == rig
    assert {stream.source for stream in rig.streams} == set(SOURCES)
    document = rig.to_document()
    for wrong in (
        None, [], {}, {**document, "keys": ["bus"]}, {**document, "streams": []},
        {**document, "streams": [{**document["streams"][0], "topics": ["("]}]},
        {**document, "streams": [{**document["streams"][0], "wait_ns": -1}]},
        {**document, "streams": [{**document["streams"][0], "wait_ns": 1.5}]},
    ):  # fmt: skip
        with pytest.raises(FleetError, match="what to listen to"):
            Rig.from_document(wrong, "model.json")

"""Frames as the vehicle makes them are those of the lake's causal policy, with the same features."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from features.drives import generated, made, synchronised

from fleet_assets.edge.assemble import Assembler, Frame
from fleet_assets.edge.feed import LIVE
from fleet_assets.edge.recording import LiveStream, Recording
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

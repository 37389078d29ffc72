"""RADIATE folders: what they hold, what is missing in them, and the real sample."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from formats.samples import GPS_IMU_TEXT, T0_NS, Sample, radiate
from formats.shared_data import files_under, shared
from mcap_ros2._dynamic import generate_dynamic

from fleet_assets.formats import ros2
from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.radiate import RadiateReader
from fleet_assets.formats.reader import RecordingFiles, open_recording
from fleet_assets.formats.rewrite import rewrite_as_mcap
from fleet_assets.kernels.sequence import sequence_facts


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    return radiate(tmp_path)


def account(reader: RadiateReader) -> dict[tuple[str | None, str], int]:
    return {(refusal.topic, refusal.reason): refusal.count for refusal in reader.refusals}


def everything(reader: RadiateReader) -> Counter[str]:
    found = Counter(payload.topic for payload in reader.payloads())
    for batch in reader.read():
        found[batch.topic] += batch.table.num_rows
    return found


def test_stamps_are_read_as_whole_numbers(sample: Sample) -> None:
    reader = RadiateReader(sample.files)
    batch = next(reader.read(topics=["/gps/imu"]))
    assert batch.table["t_device_ns"].to_pylist() == [T0_NS + n * 25_000_000 for n in range(200)]
    assert batch.table["t_host_ns"].null_count == 200
    assert reader.info().t_start_ns == T0_NS
    assert dict(reader.info().context) == {"sequence": "tiny"}


def test_columns_of_a_gps_imu_file(sample: Sample) -> None:
    found = {batch.topic: batch.table.to_pylist()[0] for batch in RadiateReader(sample.files).read()}
    imu, fix = found["/gps/imu"], found["/gps/imu/fix"]
    assert [imu[f"gyro_{axis}_radps"] for axis in "xyz"] == [-0.1, 0.2, 0.3]
    assert [imu[f"accel_{axis}_mps2"] for axis in "xyz"] == [-0.5, 0.25, -0.05]
    assert [imu[f"orientation_{axis}"] for axis in "xyzw"] == [0.0, 0.0, 1.0, 0.0]
    assert (fix["latitude_deg"], fix["longitude_deg"], fix["altitude_m"]) == (55.9, -3.3, 209.25)
    assert fix["accuracy_m"] == pytest.approx(np.sqrt(0.05))
    assert fix["speed_mps"] is fix["valid"] is fix["t_gnss_ns"] is None  # the format does not say


def test_payload_is_ros2(sample: Sample) -> None:
    found = {payload.topic: payload for payload in RadiateReader(sample.files).payloads()}
    decode = {name: generate_dynamic(name, ros2.DEFINITIONS[name])[name] for name in ros2.DEFINITIONS}
    cloud = decode["sensor_msgs/msg/PointCloud2"](found["/lidar"].data)
    assert (cloud.width, cloud.point_step, [field.name for field in cloud.fields]) == (
        30,
        18,
        ["x", "y", "z", "intensity", "ring"],
    )
    points = np.frombuffer(bytes(cloud.data), dtype=[("xyz", "<f4", 3), ("intensity", "<f4"), ("ring", "<u2")])
    assert points["xyz"][7].tolist() == [6.5, 7.0, -1.0]
    assert points["ring"].tolist() == [row % 32 for row in range(30)]
    image = decode["sensor_msgs/msg/CompressedImage"](found["/camera/left"].data)
    assert image.format == "png"
    assert bytes(image.data) == (sample.files.root / "data/tiny/zed_left/000005.png").read_bytes()
    assert image.header.stamp.sec * 10**9 + image.header.stamp.nanosec == found["/camera/left"].t_device_ns


def test_time_runs_through_all_sensors_and_a_sensor_keeps_its_order(sample: Sample) -> None:
    index = sample.files.root / "data/tiny/zed_right.txt"
    lines = index.read_text().splitlines()
    index.write_text("\n".join([lines[0], lines[2], lines[1], *lines[3:]]))
    reader = RadiateReader(sample.files)
    stamps = [(payload.topic, payload.t_device_ns) for payload in reader.payloads()]
    right = [t_ns for topic, t_ns in stamps if topic == "/camera/right"]
    assert right[1] > right[2]
    others = [t_ns for topic, t_ns in stamps if topic != "/camera/right"]
    assert others == sorted(others)


def test_what_does_not_match_is_refused(sample: Sample) -> None:
    base = sample.files.root / "data/tiny"
    index = base / "velo_lidar.txt"
    again = index.read_text().splitlines()[-1]
    index.write_text(index.read_text() + f"{again}\nFrame: x Time: 1.5\n\nFrame: 000003 Time: 1700000000.1\n")
    (base / "velo_lidar/000004.csv").write_text("1,2,three,4,5\n")
    (base / "velo_lidar/000005.csv").write_text("")
    (base / "velo_lidar/000006.csv").write_text("1,2,3,4,70000\n")
    (base / "zed_right/000001.png").write_bytes((base / "zed_right/000002.png").read_bytes()[:-9])
    (base / "Navtech_Cartesian/2.png").write_bytes(b"")
    (base / "Navtech_Cartesian/thumbs.db").write_bytes(b"")
    (base / "GPS_IMU_Twist/000007.txt").write_text("55.9,north")
    (base / "GPS_IMU_Twist/000008.txt").write_text(GPS_IMU_TEXT.replace("0.0,0.0,1.0", "0.0,0.0,one"))
    (base / "Navtech_Polar").mkdir()
    (base / "Navtech_Polar/000000.png").write_bytes(b"")
    extra = ("Navtech_Cartesian/2.png", "Navtech_Cartesian/thumbs.db", "Navtech_Polar/000000.png", "odd.bin")
    files = RecordingFiles(sample.files.root, (*sample.files.names, *(f"data/tiny/{name}" for name in extra)))
    reader = RadiateReader(files)
    found = everything(reader)
    assert account(reader) == {
        ("/lidar", "the index names a file again"): 1,
        ("/lidar", "the index line cannot be read"): 2,
        ("/lidar", "the file has no stamp in the index"): 2,
        ("/lidar", "the file cannot be read"): 3,
        ("/camera/left", "the index names a file that is not there"): 2,
        ("/camera/right", "the file cannot be read"): 1,
        ("/radar", "two files have the same frame number"): 1,
        ("/radar", "the file's name is no frame of the sensor"): 1,
        ("/radar/polar", "the sensor has no index of stamps"): 1,
        ("/gps/imu", "the file cannot be read"): 2,
        ("/gps/imu/fix", "the file cannot be read"): 2,
        ("/labels", "the label is of a radar frame that has no stamp"): 4,
        (None, "the file belongs to no sensor"): 1,
    }
    assert found == {
        "/lidar": 2,
        "/camera/left": 6,
        "/camera/right": 5,
        "/radar": 3,
        "/gps/imu": 198,
        "/gps/imu/fix": 198,
        "/labels": 2,
    }


@pytest.mark.parametrize(("sensor", "topic"), [("zed_left", "/camera/left"), ("velo_lidar", "/lidar")])
def test_a_stamp_that_no_message_can_carry_costs_its_file_alone(sample: Sample, sensor: str, topic: str) -> None:
    index = sample.files.root / f"data/tiny/{sensor}.txt"
    first, *others = index.read_text().splitlines()

    def found(seconds: int) -> tuple[int, int]:
        index.write_text("\n".join([re.sub(r"Time: \d+", f"Time: {seconds}", first), *others]))
        reader = RadiateReader(sample.files)
        return everything(reader)[topic], account(reader).get((topic, "the file cannot be read"), 0)

    taken, refused = found((1 << 31) - 1)
    assert found(1 << 31) == (taken - 1, refused + 1)


def test_only_delivered_files_count(sample: Sample) -> None:
    """A file beside the recording, which its manifest does not name, is not there."""
    names = tuple(name for name in sample.files.names if "zed_left/" not in name)
    reader = RadiateReader(RecordingFiles(sample.files.root, names))
    assert "/camera/left" not in everything(reader)
    assert not RadiateReader.sniff(RecordingFiles(sample.files.root, ("LICENSE",)))


def test_the_real_sample(tmp_path: Path) -> None:
    reader = open_recording(files_under(shared("radiate_tiny_foggy")))
    assert isinstance(reader, RadiateReader)
    rewrite_as_mcap(reader.payloads(), tmp_path / "a.mcap")
    signals = {batch.topic: batch.table for batch in reader.read()}
    assert account(reader) == {
        ("/lidar", "the file has no stamp in the index"): 18,
        ("/camera/left", "the index names a file that is not there"): 50,
        ("/labels", "the label is of a radar frame that has no stamp"): 367,
    }
    rewritten = McapReader(RecordingFiles(tmp_path, ("a.mcap",)))
    index = {batch.topic: batch.table for batch in rewritten.read()}
    assert {topic: table.num_rows for topic, table in index.items()} == {
        "/lidar": 42,
        "/camera/left": 50,
        "/camera/right": 50,
        "/radar": 18,
        "/radar/polar": 18,
    }
    assert rewritten.refusals == []
    t_ns = signals["/gps/imu"]["t_device_ns"].to_numpy()
    facts = sequence_facts(t_ns, 25_000_000, 1.5)
    assert facts.backward_steps + facts.repeated_steps == 126
    late_ns = int(t_ns[0]) - index["/lidar"]["t_device_ns"][0].as_py()
    assert late_ns / 1e9 == pytest.approx(64.05, abs=0.005)


def test_labels_are_boxes_in_the_vehicle_frame(sample: Sample) -> None:
    """A box of 20 by 40 pixels about (576, 420): dead ahead, turned a quarter to the left."""
    reader = RadiateReader(sample.files)
    (batch,) = reader.read(topics=["/labels"])
    row = batch.table.to_pylist()[0]
    metres = 0.173611
    told = {
        "x_m": 156 * metres,
        "y_m": 0,
        "length_m": 40 * metres,
        "width_m": 20 * metres,
        "yaw_rad": np.pi / 2,
        "left_px": 556,
        "right_px": 596,
        "top_px": 410,
        "bottom_px": 430,
    }
    assert {name: row[name] for name in told} == pytest.approx(told)
    assert (row["track_id"], row["class_name"], row["subtype"]) == ("7", "vehicle", "car")
    assert row["moving"] is row["z_m"] is row["speed_mps"] is None
    assert row["t_device_ns"] == T0_NS + 250_000_000


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("[" * 100_000, {"the file cannot be read"}),
        ("{}", {"the file cannot be read"}),
        ('[1, {}, {"bboxes": 5}]', {"the object has no boxes"}),
        ('[{"bboxes": [{"position": [1, 2]}, {"position": ["a", 2, 3, 4]}]}]', {"the label is no box"}),
        ('[{"bboxes": [{"position": [1, 2, 3, NaN]}, {"position": [1, 2, 3, 1e999]}, 7]}]', {"the label is no box"}),
    ],
)
def test_hostile_labels(sample: Sample, content: str, reasons: set[str]) -> None:
    (sample.files.root / "data/tiny/annotations/annotations.json").write_text(content)
    reader = RadiateReader(sample.files)
    assert list(reader.read(topics=["/labels"])) == []
    assert {refusal.reason for refusal in reader.refusals if refusal.topic == "/labels"} >= reasons

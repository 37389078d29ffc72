"""Small recordings in every format, with what they hold.

In: an empty folder. Out: the files, and the number of records per topic. Same bytes every time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from formats.sample import T0_NS, Sample, png
from formats.sample_bags import rosbag1, rosbag2_mcap, rosbag2_sqlite
from formats.sample_drive import Message, counts, drive
from formats.sample_folders import comma2k19, kitti_raw, kitti_tracking
from formats.sample_foxglove import mcap_json, mcap_protobuf
from mcap.writer import CompressionType, IndexType, Writer

from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.mf4 import Mf4Reader
from fleet_assets.formats.radiate import RadiateReader
from fleet_assets.formats.reader import RecordingFiles
from fleet_assets.formats.rosbag2 import RosBag2Reader


def write_mcap(
    path: Path,
    messages: list[Message],
    *,
    compression: CompressionType = CompressionType.ZSTD,
    chunked: bool = True,
    indexed: bool = True,
    chunk_bytes: int = 16_000,
    encoding: str = "cdr",
    metadata: dict[str, str] | None = None,
) -> Path:
    index_types = IndexType.ALL if indexed else IndexType.NONE
    with open(path, "wb") as file:
        writer = Writer(
            file,
            chunk_size=chunk_bytes,
            compression=compression,
            use_chunking=chunked,
            index_types=index_types,
            repeat_channels=indexed,
            use_statistics=indexed,
            use_summary_offsets=indexed,
        )
        writer.start("ros2", library="test")
        writer.add_metadata("fleet", {"vehicle": "demo1", "weather": "fog", **(metadata or {})})
        schemas: dict[str, int] = {}
        channels: dict[tuple[str, str], int] = {}
        for message in messages:
            if (channel := (message.topic, message.schema)) not in channels:
                if message.schema not in schemas:
                    schemas[message.schema] = writer.register_schema(message.schema, "ros2msg", b"")
                channels[channel] = writer.register_channel(message.topic, encoding, schemas[message.schema])
            writer.add_message(channels[channel], message.t_host_ns, message.data, message.t_host_ns - 1)
        writer.finish()
    return path


def mcap(root: Path) -> Sample:
    messages = drive()
    write_mcap(root / "drive.mcap", messages)
    return Sample(McapReader, RecordingFiles(root, ("drive.mcap",)), counts(messages), "drive.mcap")


def mcap_beside_a_licence(root: Path) -> Sample:
    (root / "LICENSE").write_text("CC BY 4.0\n")
    found = mcap(root)
    return replace(found, files=RecordingFiles(root, ("LICENSE", "drive.mcap")))


def mcap_files(root: Path) -> Sample:
    """A recording that its logger split, drive_10 behind drive_9."""
    messages = drive()
    half = len(messages) // 2
    names = ("drive_9.mcap", "drive_10.mcap")
    for name, part in zip(names, (messages[:half], messages[half:]), strict=True):
        write_mcap(root / name, part)
    (root / "README.md").write_text("A drive.\n")
    return Sample(RosBag2Reader, RecordingFiles(root, (*names, "README.md")), counts(messages), names[0])


GPS_IMU_TEXT = """55.9,-3.3,209.25
0.04,0,0
0,0.06,0
0,0,0.1
0.0,0.0,1.0,0.0
-0.1,0.2,0.3
-0.5,0.25,-0.05
"""


def radiate(root: Path, *, whole: bool = False) -> Sample:
    """5 scans (2 more have no stamp), 6 images a side (the index names 2 more), 3 sweeps (frames 0 to 2), 200 GPS/IMU records,
    two labelled cars (of radar frames 1, 3 and 4: the last two have no stamp). whole: nothing lacks a stamp or a file."""
    base = root / "data" / "tiny"
    names = ["LICENSE", "data/tiny/annotations/annotations.json"]

    def put(name: str, data: bytes) -> None:
        path = base / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        names.append(f"data/tiny/{name}")

    def index(sensor: str, frames: range, period_ns: int) -> None:
        stamps = [T0_NS + n * period_ns for n in frames]
        lines = (f"Frame: {n:06d} Time: {t // 10**9}.{t % 10**9:09d}\n" for n, t in zip(frames, stamps, strict=True))
        put(f"{sensor}.txt", "".join(lines).encode())

    for n in range(7):
        rows = "".join(f"{n}.5,{row},-1.0,12,{row % 32}\n" for row in range(30))
        put(f"velo_lidar/{n:06d}.csv", rows.encode())
    index("velo_lidar", range(0 if whole else 2, 7), 100_000_000)
    for sensor, frames, period_ns in (
        ("zed_left", 6, 66_666_667),
        ("zed_right", 6, 66_666_667),
        ("Navtech_Cartesian", 5 if whole else 3, 250_000_000),
    ):
        for n in range(frames):
            put(f"{sensor}/{n:06d}.png", png(n))
        index(sensor, range(8 if sensor == "zed_left" and not whole else frames), period_ns)
    for n in range(200):
        put(f"GPS_IMU_Twist/{n:06d}.txt", GPS_IMU_TEXT.encode())
    index("GPS_IMU_Twist", range(200), 25_000_000)
    (root / "LICENSE").write_text("free")
    (base / "annotations").mkdir()
    box = {"position": [566.0, 400.0, 20.0, 40.0], "rotation": 90.0}
    cars = [{"id": n, "class_name": "car", "bboxes": [box, [], box, box]} for n in (7, 8)]
    (base / "annotations" / "annotations.json").write_text(json.dumps(cars))
    return Sample(
        RadiateReader,
        RecordingFiles(root, tuple(sorted(names))),
        {"/gps/imu": 200, "/gps/imu/fix": 200, "/labels": 6 if whole else 2},
        "data/tiny/GPS_IMU_Twist.txt",
        payloads={"/lidar": 7 if whole else 5, "/camera/left": 6, "/camera/right": 6, "/radar": 5 if whole else 3},
        refused=0 if whole else 2 + 2 + 2 * 2,
    )


DBC = """VERSION ""
BU_: X
BO_ 2 gnss_time: 6 X
 SG_ TimeValid : 0|1@1+ (1,0) [0|1] "" X
 SG_ Epoch : 8|40@1+ (0.001,1577840400) [1577840400|2677352027] "sec" X

BO_ 3 gnss_pos: 8 X
 SG_ PositionAccuracy : 58|6@1+ (1,0) [0|63] "m" X
 SG_ Latitude : 1|28@1+ (1e-06,-90) [-90|90] "deg" X
 SG_ Longitude : 29|29@1+ (1e-06,-180) [-180|180] "deg" X
 SG_ PositionValid : 0|1@1+ (1,0) [0|1] "" X

BO_ 9 gnss_imu: 8 X
 SG_ AccelerationX : 1|10@1+ (0.125,-64) [-64|63.875] "m/s^2" X
 SG_ AccelerationY : 11|10@1+ (0.125,-64) [-64|63.875] "m/s^2" X
 SG_ AccelerationZ : 21|10@1+ (0.125,-64) [-64|63.875] "m/s^2" X
 SG_ AngularRateX : 31|11@1+ (0.25,-256) [-256|255.75] "deg/s" X
 SG_ AngularRateY : 42|11@1+ (0.25,-256) [-256|255.75] "deg/s" X
 SG_ AngularRateZ : 53|11@1+ (0.25,-256) [-256|255.75] "deg/s" X
 SG_ ImuValid : 0|1@1+ (1,0) [0|1] "" X

BO_ 256 vehicle: 8 X
 SG_ Kind M : 0|4@1+ (1,0) [0|15] "" X
 SG_ Speed m0 : 15|12@0+ (0.1,0) [0|400] "km/h" X
 SG_ Steering m1 : 8|12@1- (0.5,0) [-1000|1000] "deg" X
"""


def can_frames(seconds: int = 2) -> list[tuple[float, int, bytes]]:
    """Time [s], identifier, payload: IMU 100 Hz, fixes 1 Hz, two multiplexed messages a second, one unknown identifier."""
    frames: list[tuple[float, int, bytes]] = []
    for n in range(seconds * 100):
        bits = 1 | 512 << 1 | 512 << 11 | 590 << 21 | 1024 << 31 | 1028 << 42 | 1024 << 53
        frames.append((n / 100, 0x9, bits.to_bytes(8, "little")))
    for n in range(seconds):
        epoch_ms = (T0_NS // 1_000_000_000 + n - 4 - 1_577_840_400) * 1000
        frames.append((n + 0.005, 0x2, (1 | epoch_ms << 8).to_bytes(6, "little")))
        position = 1 | 145_000_000 << 1 | 190_000_000 << 29 | 2 << 58
        frames.append((n + 0.006, 0x3, position.to_bytes(8, "little")))
        frames.append((n + 0.5, 0x100, bytes([0, 0x12, 0x30, 0, 0, 0, 0, 0])))
        frames.append((n + 0.6, 0x100, bytes([1, 0xFE, 0x0F, 0, 0, 0, 0, 0])))
    frames.append((1.9, 0x7E8, bytes(8)))
    return sorted(frames, key=lambda frame: frame[0])


def write_mf4(
    path: Path, frames: list[tuple[float, int, bytes]], *, start_ns: int = T0_NS, serial: str = "AB12CD34"
) -> Path:
    from asammdf import MDF, Signal

    kind = np.dtype(
        [
            ("CAN_DataFrame.BusChannel", "u1"),
            ("CAN_DataFrame.ID", "<u4"),
            ("CAN_DataFrame.IDE", "u1"),
            ("CAN_DataFrame.DataLength", "u1"),
            ("CAN_DataFrame.DataBytes", "u1", (8,)),
        ]
    )
    rows = np.zeros(len(frames), dtype=kind)
    for row, (_, identifier, payload) in zip(rows, frames, strict=True):
        row["CAN_DataFrame.ID"] = identifier
        row["CAN_DataFrame.DataLength"] = len(payload)
        row["CAN_DataFrame.DataBytes"] = np.frombuffer(payload.ljust(8, b"\0"), dtype=np.uint8)
    mdf = MDF(version="4.11")
    mdf.append([Signal(rows, np.array([t for t, *_ in frames]), name="CAN_DataFrame")])
    mdf.header.abs_time = start_ns
    mdf.header.comment = (
        f'<HDcomment><TX/><common_properties><e name="serial number">{serial}</e></common_properties></HDcomment>'
    )
    saved = Path(mdf.save(path, overwrite=True))  # it chooses the suffix itself
    mdf.close()
    return saved.rename(path)


def mf4(root: Path) -> Sample:
    write_mf4(root / "log.MF4", can_frames())
    (root / "device.dbc").write_text(DBC)
    files = RecordingFiles(root, ("device.dbc", "log.MF4"))
    return Sample(Mf4Reader, files, {"/imu": 200, "/gnss": 2, "/bus/can": 8}, "log.MF4", refused=1)


SAMPLES: dict[str, Callable[[Path], Sample]] = {
    "mcap": mcap,
    "mcap_beside_a_licence": mcap_beside_a_licence,
    "mcap_files": mcap_files,
    "mcap_protobuf": mcap_protobuf,
    "mcap_json": mcap_json,
    "radiate": radiate,
    "mf4": mf4,
    "rosbag1": rosbag1,
    "rosbag2_sqlite": rosbag2_sqlite,
    "rosbag2_mcap": rosbag2_mcap,
    "comma2k19": comma2k19,
    "kitti_raw": kitti_raw,
    "kitti_tracking": kitti_tracking,
}

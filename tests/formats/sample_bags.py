"""Small ROS 1 and ROS 2 bags, written by `rosbags`: another implementation than ours.

In: an empty folder. Out: the files, and what they hold.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from formats.sample import Sample
from formats.sample_drive import Message, counts, drive

from fleet_assets.formats.reader import RecordingFiles
from fleet_assets.formats.ros2 import DEFINITIONS
from fleet_assets.formats.rosbag1 import RosBag1Reader
from fleet_assets.formats.rosbag2 import RosBag2Reader

PAYLOADS = ("/camera/front", "/lidar", "/radar")


def typestore() -> Any:
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_HUMBLE)
    for name, definition in DEFINITIONS.items():
        if name.startswith("fleet_msgs/"):
            store.register(get_types_from_msg(definition, name))
    return store


def split(messages: list[Message]) -> dict[str, dict[str, int]]:
    found = counts(messages)
    return {
        "rows": {topic: count for topic, count in found.items() if topic not in PAYLOADS},
        "payloads": {topic: count for topic, count in found.items() if topic in PAYLOADS},
    }


def write_rosbag1(
    path: Path, messages: list[Message], *, compression: str | None = "LZ4", chunk_bytes: int = 20_000
) -> None:
    from rosbags.rosbag1 import Writer

    store = typestore()
    writer = Writer(path)
    if compression is not None:
        writer.set_compression(Writer.CompressionFormat[compression])
    writer.chunk_threshold = chunk_bytes
    with writer:
        connections = {
            topic: writer.add_connection(topic, schema, typestore=store)
            for topic, schema in dict.fromkeys((message.topic, message.schema) for message in messages)
        }
        for message in messages:
            data = store.cdr_to_ros1(message.data, message.schema)
            writer.write(connections[message.topic], message.t_host_ns, data)


def rosbag1(root: Path) -> Sample:
    messages = drive()
    write_rosbag1(root / "drive.bag", messages)
    return Sample(RosBag1Reader, RecordingFiles(root, ("drive.bag",)), main="drive.bag", **split(messages))


def write_rosbag2(path: Path, messages: list[Message], storage: str, *, compress: bool = False) -> RecordingFiles:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    store = typestore()
    writer = Writer(path, version=9, storage_plugin=StoragePlugin[storage])
    if compress:
        writer.set_compression(CompressionMode.MESSAGE, CompressionFormat.ZSTD)
    with writer:
        connections = {
            topic: writer.add_connection(topic, schema, typestore=store)
            for topic, schema in dict.fromkeys((message.topic, message.schema) for message in messages)
        }
        for message in messages:
            writer.write(connections[message.topic], message.t_host_ns, message.data)
    names = sorted(file.relative_to(path.parent).as_posix() for file in path.iterdir())
    return RecordingFiles(path.parent, tuple(names))


def rosbag2_sqlite(root: Path) -> Sample:
    messages = drive()
    files = write_rosbag2(root / "drive", messages, "SQLITE3")
    return Sample(RosBag2Reader, files, main="drive/drive.db3", **split(messages))


def rosbag2_mcap(root: Path) -> Sample:
    messages = drive()
    files = write_rosbag2(root / "drive", messages, "MCAP")
    return Sample(RosBag2Reader, files, counts(messages), "drive/drive.mcap")

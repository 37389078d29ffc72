"""MCAP with Foxglove's messages in protobuf and in JSON, as other recorders write them.

In: an empty folder. Out: the files, and what they hold. The schemas are those of Foxglove, as far as the messages here need them.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from formats.sample import T0_NS, Sample, png
from mcap.writer import CompressionType, Writer

from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.reader import RecordingFiles

SECOND = 1_000_000_000


def messages() -> list[tuple[str, str, int, dict[str, Any]]]:
    """Topic, schema, device stamp, content: camera 10 Hz, fixes 1 Hz, poses 20 Hz, IMU 50 Hz, for two seconds."""
    made: list[tuple[str, str, int, dict[str, Any]]] = []
    for n in range(20):
        t_ns = T0_NS + n * SECOND // 10
        made.append(
            ("/camera/front", "foxglove.CompressedImage", t_ns, {"frame_id": "cam", "format": "png", "data": png(n)})
        )
    for n in range(2):
        fix = {"latitude": 55.0 + n, "longitude": 10.0, "altitude": 3.0}
        made += [("/gnss", "foxglove.LocationFix", T0_NS + n * SECOND, fix)]
    for n in range(40):
        pose = {"position": {"x": 1.0 * n, "y": 2.0, "z": 0.5}, "orientation": {"x": 0.0, "y": 0.0, "z": 0.6, "w": 0.8}}
        made.append(("/pose", "foxglove.PoseInFrame", T0_NS + n * SECOND // 20, {"frame_id": "map", "pose": pose}))
    for n in range(100):
        vectors = {
            "angular_velocity": {"x": 0.0, "y": 0.1, "z": 0.2},
            "linear_acceleration": {"x": 0.5, "y": 0.0, "z": 9.75},
        }
        made.append(("/imu", "sensor_msgs.Imu", T0_NS + n * SECOND // 50, vectors))
    return sorted(made, key=lambda message: (message[2], message[0]))


ROWS = {"/gnss": 2, "/pose": 40, "/imu": 100}


def descriptors() -> Any:
    """A FileDescriptorSet; another implementation than ours makes and writes the messages."""
    from google.protobuf import descriptor_pb2, timestamp_pb2

    double, text, raw, message = 1, 9, 12, 11
    vector = [("x", 1, double, ""), ("y", 2, double, ""), ("z", 3, double, "")]
    stamp = ("timestamp", 1, message, ".google.protobuf.Timestamp")
    types = {
        "foxglove.CompressedImage": [stamp, ("frame_id", 4, text, ""), ("data", 2, raw, ""), ("format", 3, text, "")],
        "foxglove.LocationFix": [
            ("timestamp", 6, message, ".google.protobuf.Timestamp"), ("frame_id", 7, text, ""), ("latitude", 1, double, ""),
            ("longitude", 2, double, ""), ("altitude", 3, double, ""),
        ],
        "foxglove.PoseInFrame": [stamp, ("frame_id", 2, text, ""), ("pose", 3, message, ".foxglove.Pose")],
        "foxglove.Pose": [("position", 1, message, ".foxglove.Vector3"), ("orientation", 2, message, ".foxglove.Quaternion")],
        "foxglove.Vector3": vector,
        "foxglove.Quaternion": [*vector, ("w", 4, double, "")],
        "sensor_msgs.Header": [("stamp", 300, message, ".google.protobuf.Timestamp"), ("frame_id", 2, text, "")],
        "sensor_msgs.Imu": [
            ("header", 1, message, ".sensor_msgs.Header"), ("angular_velocity", 2, message, ".foxglove.Vector3"),
            ("linear_acceleration", 20, message, ".foxglove.Vector3"),
        ],
    }  # fmt: skip
    described = descriptor_pb2.FileDescriptorSet()
    timestamp_pb2.DESCRIPTOR.CopyToProto(described.file.add())
    for package in ("foxglove", "sensor_msgs"):
        depends = ["google/protobuf/timestamp.proto", *(["foxglove.proto"] if package == "sensor_msgs" else [])]
        file = described.file.add(name=f"{package}.proto", package=package, syntax="proto3", dependency=depends)
        for name, fields in types.items():
            if name.startswith(f"{package}."):
                made = file.message_type.add(name=name.split(".")[1])
                for field, number, kind, type_name in fields:
                    made.field.add(name=field, number=number, type=kind, label=1, type_name=type_name or None)
    return described


def protobuf_classes() -> dict[str, Any]:
    from google.protobuf import descriptor_pool, message_factory

    pool = descriptor_pool.DescriptorPool()
    for file in descriptors().file:
        pool.Add(file)
    names = {schema for _, schema, _, _ in messages()}
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names}


def as_protobuf(schema: str, t_ns: int, content: dict[str, Any], classes: dict[str, Any]) -> bytes:
    made = classes[schema](**content)
    stamp = made.header.stamp if schema == "sensor_msgs.Imu" else made.timestamp
    stamp.seconds, stamp.nanos = divmod(t_ns, SECOND)
    return bytes(made.SerializeToString())


def as_json(schema: str, t_ns: int, content: dict[str, Any]) -> bytes:
    sec, nsec = divmod(t_ns, SECOND)
    plain = {
        name: base64.b64encode(value).decode() if isinstance(value, bytes) else value for name, value in content.items()
    }
    if schema == "sensor_msgs.Imu":
        return json.dumps({"header": {"stamp": {"sec": sec, "nanosec": nsec}, "frame_id": "imu"}, **plain}).encode()
    return json.dumps({"timestamp": {"sec": sec, "nsec": nsec}, **plain}).encode()


def write(
    path: Path, encoding: str, *, compression: CompressionType = CompressionType.ZSTD, chunked: bool = True
) -> None:
    """Host stamps are 3 ms late."""
    classes = protobuf_classes() if encoding == "protobuf" else {}
    with open(path, "wb") as file:
        writer = Writer(file, chunk_size=4_000, compression=compression, use_chunking=chunked)
        writer.start("", library="test")
        channels: dict[str, int] = {}
        for topic, schema, t_ns, content in messages():
            if topic not in channels:
                described = descriptors().SerializeToString() if encoding == "protobuf" else b'{"type": "object"}'
                kind = "protobuf" if encoding == "protobuf" else "jsonschema"
                channels[topic] = writer.register_channel(
                    topic, encoding, writer.register_schema(schema, kind, described)
                )
            data = as_protobuf(schema, t_ns, content, classes) if classes else as_json(schema, t_ns, content)
            writer.add_message(channels[topic], t_ns + 3_000_000, data, t_ns + 3_000_000)
        writer.finish()


def mcap_protobuf(root: Path, *, chunked: bool = True) -> Sample:
    write(root / "drive.mcap", "protobuf", chunked=chunked)
    rows = {**ROWS, "/camera/front": 20}
    return Sample(McapReader, RecordingFiles(root, ("drive.mcap",)), rows, "drive.mcap")


def mcap_json(root: Path, *, chunked: bool = True) -> Sample:
    write(root / "drive.mcap", "json", chunked=chunked)
    files = RecordingFiles(root, ("drive.mcap",))
    return Sample(McapReader, files, ROWS, "drive.mcap", payloads={"/camera/front": 20})

"""A recording that is not byte-addressable, rewritten once as MCAP with ROS 2 messages.

In: a reader's payloads. Out: one MCAP file; the same input gives the same bytes. Foxglove and Rerun open it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from itertools import chain
from pathlib import Path

from mcap.writer import CompressionType, Writer

from fleet_assets.errors import FleetError
from fleet_assets.formats.mcap_ros2 import HOST_CLOCK, METADATA_NAME
from fleet_assets.formats.reader import Payload
from fleet_assets.formats.ros2 import DEFINITIONS

_CHUNK_BYTES = 4 * 1024 * 1024


class McapFile:
    """Writes messages in order; channels and schemas come as they are needed. Use as a context manager."""

    def __init__(self, path: Path, metadata: Mapping[str, str] | None = None, *, compress: bool = True) -> None:
        self._file = open(path, "wb")  # noqa: SIM115 - closed in __exit__
        compression = CompressionType.ZSTD if compress else CompressionType.NONE
        self._writer = Writer(self._file, chunk_size=_CHUNK_BYTES, compression=compression)
        # Not the library's own name and version: an upgrade must not change the bytes.
        self._writer.start("ros2", library="fleet")
        if metadata:
            self._writer.add_metadata(METADATA_NAME, dict(metadata))
        self._schemas: dict[str, int] = {}
        self._channels: dict[str, int] = {}
        self._sequence: dict[str, int] = {}

    def write(self, topic: str, schema_name: str, data: bytes, log_time_ns: int) -> None:
        if topic not in self._channels:
            if schema_name not in self._schemas:
                definition = DEFINITIONS.get(schema_name, "").encode()
                self._schemas[schema_name] = self._writer.register_schema(schema_name, "ros2msg", definition)
            self._channels[topic] = self._writer.register_channel(topic, "cdr", self._schemas[schema_name])
        sequence = self._sequence[topic] = self._sequence.get(topic, -1) + 1
        self._writer.add_message(
            self._channels[topic], log_time=log_time_ns, data=data, publish_time=log_time_ns, sequence=sequence
        )

    def __enter__(self) -> McapFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._writer.finish()
        self._file.close()


def rewrite_as_mcap(payloads: Iterable[Payload], path: Path) -> str:
    """Writes the payloads; gives the file's sha256.

    An MCAP log time cannot be left out: without a host clock it repeats the device stamp, so that viewers have a time line,
    and the file's metadata says so; our reader then gives null. Raises FleetError when only some messages have a host stamp,
    or one has no stamp at all.
    """
    rest = iter(payloads)
    first = next(rest, None)
    without_host = first is not None and first.t_host_ns is None
    with McapFile(path, {HOST_CLOCK: "none"} if without_host else None) as target:
        for payload in chain([] if first is None else [first], rest):
            t_ns = payload.t_device_ns if without_host else payload.t_host_ns
            if t_ns is None or (payload.t_host_ns is None) != without_host:
                raise FleetError("A message to rewrite lacks its stamp", where=payload.topic)
            target.write(payload.topic, payload.schema_name, payload.data, t_ns)
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""ROS 1 bags.

In: the `.bag` files of one recording. Out: signals, decoded; cameras, LiDAR and radar as payload, both as ROS 2 messages. Host
stamps are those of the recorder, device stamps the headers'. Messages are converted by `rosbags` with the definitions that it
ships: those in a bag are compared by their checksum and never used, for rosbags would make code of them and run it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from fleet_assets.errors import FleetError
from fleet_assets.formats.can_database import INSTALL
from fleet_assets.formats.reader import (
    PAYLOAD_KINDS,
    Accounted,
    Batch,
    Channel,
    Payload,
    RecordingFiles,
    RecordingInfo,
    Refusals,
    head,
    is_for_people,
)
from fleet_assets.formats.ros2 import DEFINITIONS
from fleet_assets.formats.ros2_rows import Collected, device_stamp, kind_of_type
from fleet_assets.formats.rosbag1_scan import MAGIC, ChunkInfo, Connection, Index, Message, read_index, scan

_MOST_MISSING = 10**9


class RosBag1Reader(Accounted):
    format: ClassVar[str] = "rosbag1"
    payload_in_place: ClassVar[bool] = False

    def __init__(self, files: RecordingFiles) -> None:
        if find_spec("rosbags") is None:
            raise FleetError("ROS 1 bags need rosbags", remedy=INSTALL)
        self._bags = [path for path in files.paths() if head(path, len(MAGIC)) == MAGIC]
        self._others = [name for name in sorted(files.names) if files.root / name not in self._bags]
        super().__init__()

    def _account_for_the_rest(self, log: Refusals) -> None:
        for name in self._others:
            if not is_for_people(name):
                log.add(None, "the file is no bag", name)

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        return any(head(path, len(MAGIC)) == MAGIC for path in files.paths())

    @cached_property
    def _indexes(self) -> dict[Path, Index]:
        return {path: read_index(path) for path in self._bags}

    @cached_property
    def _converter(self) -> _Converter:
        return _Converter()

    def info(self) -> RecordingInfo:
        """t_start_ns: of the first message."""
        first = [
            chunk.t_first_ns for index in self._indexes.values() for chunk in index.chunks if any(chunk.counts.values())
        ]
        if not first:
            first = [m.t_ns for path in self._bags for _, found in scan(path, Index(), Refusals()) for m in found[:1]][
                :1
            ]
        return RecordingInfo(None, min(first, default=None), {})

    def channels(self) -> list[Channel]:
        found: dict[str, Channel] = {}
        for path, index in self._indexes.items():
            connections = index.connections
            if not index.chunks:  # cut off: they are in the chunks
                for known, _ in scan(path, Index(), Refusals()):
                    connections = known
            for number, connection in connections.items():
                kind = _kind(connection)
                if kind is not None:
                    said = sum(chunk.counts.get(number, 0) for chunk in index.chunks) if index.chunks else None
                    before = found.get(connection.topic)
                    if before is not None and said is not None:
                        said = None if before.message_count is None else before.message_count + said
                    found[connection.topic] = Channel(connection.topic, kind, _type(connection), said)
        return list(found.values())

    def payloads(self) -> Iterator[Payload]:
        """In order of the bag."""
        self._payload_log.clear()
        for path in self._bags:
            run = _Run(path, self._indexes[path], self._payload_log, self._converter, (None, None))
            for connection, message in run.messages(lambda c: _kind(c) in PAYLOAD_KINDS):
                data = run.converted(connection, message)
                if data is not None:
                    try:
                        stamp = device_stamp(data)
                    except ValueError as error:
                        self._payload_log.add(connection.topic, str(error), run.place(message))
                        continue
                    yield Payload(connection.topic, stamp, message.t_ns, _type(connection), data)

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """Signals; the other topics come through payloads. What no decoder knows is refused whatever the topics."""
        self._signal_log.clear()
        window = (t_from_ns, t_to_ns)
        collected = Collected(window, self._signal_log)

        def wanted(connection: Connection) -> bool:
            kind = _kind(connection)
            return kind is None or (kind not in PAYLOAD_KINDS and (topics is None or connection.topic in topics))

        for path in self._bags:
            run = _Run(path, self._indexes[path], self._signal_log, self._converter, window)
            for connection, message in run.messages(wanted):
                if _kind(connection) is None:
                    why = f"there is no decoder for {_type(connection)[:200]}"
                    self._signal_log.add(connection.topic, why, run.place(message))
                elif (data := run.converted(connection, message)) is not None:
                    yield from collected.add(
                        connection.topic, _type(connection), message.t_ns, data, run.place(message)
                    )
        yield from collected.flush()


class _Run:
    """One pass over one bag."""

    def __init__(
        self, path: Path, index: Index, log: Refusals, converter: _Converter, window: tuple[int | None, int | None]
    ) -> None:
        self._path = path
        self._index = index
        self._log = log
        self._converter = converter
        self._window = window

    def messages(self, wanted: Callable[[Connection], bool]) -> Iterator[tuple[Connection, Message]]:
        """Messages of the wanted connections; afterwards, those that the index counts and the bag lacks are refused."""
        t_from_ns, t_to_ns = self._window
        known = {number for number, connection in self._index.connections.items() if wanted(connection)}
        missing = {number: sum(chunk.counts.get(number, 0) for chunk in self._index.chunks) for number in known}

        def skip(chunk: ChunkInfo) -> bool:
            outside = (t_to_ns is not None and chunk.t_first_ns >= t_to_ns) or (
                t_from_ns is not None and chunk.t_last_ns < t_from_ns
            )
            return outside or not known & chunk.counts.keys()

        for connections, messages in scan(self._path, self._index, self._log, skip):
            chosen = {number for number, connection in connections.items() if wanted(connection)}
            for message in messages:
                connection = connections.get(message.connection)
                if connection is None:
                    self._log.add(None, "the connection is not declared", self.place(message))
                elif message.connection in chosen:
                    missing[message.connection] = missing.get(message.connection, 0) - 1
                    yield connection, message
        for number, count in missing.items():
            if count > 0 and self._window == (None, None):
                topic = self._index.connections[number].topic
                why = "the index counts messages that are not there"
                self._log.add(topic, why, self._path.name, count if count <= _MOST_MISSING else 0)

    def place(self, message: Message) -> str:
        return f"{self._path.name}: at {message.t_ns} ns"

    def converted(self, connection: Connection, message: Message) -> bytes | None:
        """The message as ROS 2 CDR; None, with a refusal, when it cannot be had."""
        try:
            return self._converter.convert(connection, message.data)
        except ValueError as error:
            self._log.add(connection.topic, str(error), self.place(message))
            return None


class _Converter:
    """ROS 1 messages of the types that are read -> CDR."""

    def __init__(self) -> None:
        from rosbags.typesys import Stores, get_types_from_msg, get_typestore

        self._store = get_typestore(Stores.ROS2_HUMBLE)
        for name, definition in DEFINITIONS.items():
            if name.startswith("fleet_msgs/"):
                self._store.register(get_types_from_msg(definition, name))  # our own definitions
        self._sums: dict[str, str | None] = {}

    def convert(self, connection: Connection, data: bytes) -> bytes:
        """Raises ValueError, which says why not."""
        name = _type(connection)
        if name not in self._sums:
            known = name in self._store.fielddefs
            self._sums[name] = self._store.generate_msgdef(name, ros_version=1)[1] if known else None
        if self._sums[name] is None:
            raise ValueError(f"there is no definition of {name}")
        if connection.md5sum != self._sums[name]:
            raise ValueError(f"the bag's definition of {name} is not the one that is known")
        try:
            return bytes(self._store.ros1_to_cdr(data, name))
        except Exception as error:  # rosbags raises whatever broken bytes lead it to
            raise ValueError(f"the message is no {name}") from error


def _type(connection: Connection) -> str:
    """sensor_msgs/Imu -> sensor_msgs/msg/Imu."""
    package, _, name = connection.type.rpartition("/")
    return f"{package}/msg/{name}"


def _kind(connection: Connection) -> str | None:
    return kind_of_type(connection.topic, _type(connection))

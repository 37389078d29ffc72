"""ROS 2 bags: a folder with `metadata.yaml` and SQLite or MCAP files; and other recordings that are several MCAP files.

In: such a folder. Out: signals, decoded; of cameras, LiDAR and radar where they lie in MCAP files, or out of a database their
payload, to be rewritten as one MCAP file. Host stamps are those of the recorder, device stamps the headers'. Of the YAML only
single lines are looked at, and none of it is interpreted, so that nothing in it can unpack to more. Source: rosbag2's storage
plug-ins.
"""

from __future__ import annotations

import re
import sqlite3
from collections import ChainMap
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import ClassVar
from urllib.parse import quote

from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.mcap_scan import MAX_CHUNK_BYTES, Damaged, decompress_frame
from fleet_assets.formats.mcap_summary import MAGIC as MCAP_MAGIC
from fleet_assets.formats.reader import (
    PAYLOAD_KINDS,
    Accounted,
    Batch,
    Channel,
    Payload,
    RecordingFiles,
    RecordingInfo,
    Refusals,
    Unreadable,
    head,
    is_for_people,
    renumbered,
)
from fleet_assets.formats.ros2_rows import Collected, Window, device_stamp, kind_of_type

SQLITE_MAGIC = b"SQLite format 3\0"
_METADATA = "metadata.yaml"
_MAX_METADATA_BYTES = 4 * 1024 * 1024
_KEY = re.compile(r"^ *(compression_mode|compression_format): *[\"']?(\w*)[\"']? *$", re.MULTILINE)
_FILE = re.compile(r"^ *- *[\"']?([^\s\"']+\.(?:db3|mcap)(?:\.\w+)?)[\"']? *$", re.MULTILINE)
_STEPS_WITHOUT_A_ROW = 2_000  # times 100,000 instructions of SQLite's machine
_MOST_TOPICS = 10_000


class RosBag2Reader(Accounted):
    format: ClassVar[str] = "rosbag2"

    def __init__(self, files: RecordingFiles) -> None:
        self._files = files
        super().__init__()

    @cached_property
    def payload_in_place(self) -> bool:
        """All of it or nothing: a database, or an image in JSON, is rewritten, and with it the rest. Raises as `read`."""
        return all(storage.payload_in_place for storage in self._storages)

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        """A database, MCAP files beside a rosbag2's metadata, or several MCAP files."""
        heads = [head(files.root / name, 32) for name in files.names]
        databases = any(content.startswith(SQLITE_MAGIC) for content in heads)
        described = any(content.startswith(b"rosbag2_bagfile_information:") for content in heads)
        mcap_files = sum(content.startswith(MCAP_MAGIC) for content in heads)
        return databases or mcap_files > 1 or (described and mcap_files == 1)

    @cached_property
    def _settings(self) -> dict[str, str]:
        return dict(_KEY.findall(self._metadata))

    @cached_property
    def _metadata(self) -> str:
        name = next((name for name in sorted(self._files.names) if PurePosixPath(name).name == _METADATA), None)
        if name is None:
            return ""
        return head(self._files.root / name, _MAX_METADATA_BYTES).decode("utf-8", "replace")

    @cached_property
    def _storages(self) -> list[_Database | _Mcap]:
        """Storage files, in order of their names' numbers. Raises Unreadable for a bag whose files are compressed."""
        if self._settings.get("compression_mode", "").upper() == "FILE":
            remedy = "Deliver it without compression of files: ros2 bag convert."
            raise Unreadable("The bag's files are compressed as a whole", where=_METADATA, remedy=remedy)
        packed = self._settings.get("compression_mode", "").upper() == "MESSAGE"
        codec = self._settings.get("compression_format", "") if packed else None
        found: list[_Database | _Mcap] = []
        for name in sorted(self._files.names, key=_number_in):
            begins = head(self._files.root / name, 16)
            if begins.startswith(SQLITE_MAGIC):
                found.append(_Database(self._files.root / name, name, codec))
            elif begins.startswith(MCAP_MAGIC):
                found.append(_Mcap(self._files.root, name))
        return found

    def info(self) -> RecordingInfo:
        """t_start_ns: of the first message. Vehicle and context: of the first MCAP file that says so."""
        told = [storage.info() for storage in self._storages]
        first = [info.t_start_ns for info in told if info.t_start_ns is not None]
        vehicle = next((info.vehicle for info in told if info.vehicle), None)
        return RecordingInfo(vehicle, min(first, default=None), dict(ChainMap(*(dict(info.context) for info in told))))

    def channels(self) -> list[Channel]:
        found: dict[str, Channel] = {}
        for storage in self._storages:
            for channel in storage.channels():
                found.setdefault(channel.topic, Channel(channel.topic, channel.kind, channel.schema_name))
        return list(found.values())

    def payloads(self) -> Iterator[Payload]:
        """In order of the bag; none, when they are read in place."""
        self._payload_log.clear()
        for storage in [] if self.payload_in_place else self._storages:
            yield from storage.payloads(self._payload_log)

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """See Reader.read. Where payload is not in place, its topics come through payloads, and what no decoder knows is refused
        whatever the topics."""
        self._signal_log.clear()
        first: dict[str, int] = {}
        for storage in self._storages:
            read = storage.indexed if isinstance(storage, _Mcap) and self.payload_in_place else storage.signals
            for batch in read(topics, (t_from_ns, t_to_ns), self._signal_log):
                yield renumbered(batch, first)

    def _account_for_the_rest(self, log: Refusals) -> None:
        storages = {storage.name for storage in self._storages}
        present = {PurePosixPath(name).name for name in self._files.names}
        for name in sorted(set(self._files.names) - storages):
            if PurePosixPath(name).name != _METADATA and not is_for_people(name):
                log.add(None, "the file is no part of a bag", name)
        for name in sorted(set(_FILE.findall(self._metadata))):
            if PurePosixPath(name).name not in present:
                log.add(None, "the bag names a file that is not there", name[:200], 0)


def _number_in(name: str) -> tuple[str, int, str]:
    """drive_2.db3 before drive_10.db3."""
    match = re.fullmatch(r"(.*?)_(\d{1,9})(\.\w+)", name)
    return (match[1], int(match[2]), match[3]) if match else (name, -1, "")


class _Mcap:
    """An MCAP file of the bag."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self._reader = McapReader(RecordingFiles(root, (name,)))

    @property
    def payload_in_place(self) -> bool:
        return self._reader.payload_in_place

    def info(self) -> RecordingInfo:
        return self._reader.info()

    def channels(self) -> list[Channel]:
        return self._reader.channels()

    def payloads(self, log: Refusals) -> Iterator[Payload]:
        yield from self._reader.rewritten(log)

    def indexed(self, topics: Collection[str] | None, window: Window, log: Refusals) -> Iterator[Batch]:
        yield from self._reader.indexed(topics, window, log)

    def signals(self, topics: Collection[str] | None, window: Window, log: Refusals) -> Iterator[Batch]:
        yield from self._reader.signals(topics, window, log)


@dataclass(frozen=True)
class _Topic:
    name: str
    schema_name: str
    encoding: str

    @property
    def kind(self) -> str | None:
        return kind_of_type(self.name, self.schema_name) if self.encoding == "cdr" else None


class _Database:
    """An SQLite file of the bag. codec: of messages that are compressed one by one."""

    payload_in_place: ClassVar[bool] = False

    def __init__(self, path: Path, name: str, codec: str | None) -> None:
        self.name = name
        self._path = path
        self._codec = codec

    def _open(self) -> sqlite3.Connection:
        """Raises sqlite3.Error when it is no database, or its tables are not plain ones."""
        connection = sqlite3.connect(f"file:{quote(str(self._path))}?mode=ro&immutable=1", uri=True)
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_CHUNK_BYTES)
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
            plain = connection.execute(
                "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('topics', 'messages') "
                "AND upper(ltrim(sql)) LIKE 'CREATE TABLE%' AND upper(sql) NOT LIKE '%GENERATED%' "
                "AND upper(sql) NOT LIKE '% AS (%'"
            ).fetchone()
            if plain[0] != 2:  # a view or a computed column could run for ever
                raise sqlite3.DatabaseError("it lacks the plain tables topics and messages")
        except BaseException as error:
            connection.close()
            if isinstance(error, UnicodeDecodeError):  # SQLite's own message, which names what is in the file
                raise sqlite3.DatabaseError("its schema is damaged") from error
            raise
        return connection

    def _topics(self, connection: sqlite3.Connection) -> dict[int, _Topic]:
        rows = connection.execute(f"SELECT id, name, type, serialization_format FROM topics LIMIT {_MOST_TOPICS}")
        return {
            number: _Topic(name[:1024], schema_name[:1024], encoding)
            for number, name, schema_name, encoding in rows
            if isinstance(number, int) and all(isinstance(text, str) for text in (name, schema_name, encoding))
        }

    def info(self) -> RecordingInfo:
        try:
            with closing(self._open()) as connection:
                found = connection.execute("SELECT min(timestamp) FROM messages").fetchone()[0]
                return RecordingInfo(t_start_ns=found if isinstance(found, int) and found >= 0 else None)
        except sqlite3.Error:
            return RecordingInfo()

    def channels(self) -> list[Channel]:
        try:
            with closing(self._open()) as connection:
                topics = self._topics(connection).values()
        except sqlite3.Error:
            return []
        return [Channel(topic.name, kind, topic.schema_name) for topic in topics if (kind := topic.kind) is not None]

    def payloads(self, log: Refusals) -> Iterator[Payload]:
        for topic, t_ns, data in self._messages(lambda topic: topic.kind in PAYLOAD_KINDS, (None, None), log):
            try:
                yield Payload(topic.name, device_stamp(data), t_ns, topic.schema_name, data)
            except ValueError as error:
                log.add(topic.name, str(error), f"{self.name}: at {t_ns} ns")

    def signals(self, topics: Collection[str] | None, window: Window, log: Refusals) -> Iterator[Batch]:
        def wanted(topic: _Topic) -> bool:
            chosen = topics is None or topic.name in topics
            return topic.kind is None or (topic.kind not in PAYLOAD_KINDS and chosen)

        collected = Collected(window, log)
        for topic, t_ns, data in self._messages(wanted, window, log):
            place = f"{self.name}: at {t_ns} ns"
            if topic.kind is None:
                log.add(topic.name, f"there is no decoder for {topic.schema_name[:200]} ({topic.encoding[:50]})", place)
            else:
                yield from collected.add(topic.name, topic.schema_name, t_ns, data, place)
        yield from collected.flush()

    def _messages(
        self, wanted: Callable[[_Topic], bool], window: Window, log: Refusals
    ) -> Iterator[tuple[_Topic, int, bytes]]:
        """In order of time where the database has an index for it, else of their rows."""
        steps = 0

        def stuck() -> bool:
            nonlocal steps
            steps += 1
            return steps > _STEPS_WITHOUT_A_ROW

        try:
            with closing(self._open()) as connection:
                connection.set_progress_handler(stuck, 100_000)
                topics = self._topics(connection)
                chosen = [number for number, topic in topics.items() if wanted(topic)]
                if len(chosen) == len(topics):
                    where, values = "1", []
                else:
                    where, values = f"topic_id IN ({','.join('?' * len(chosen))})", list(chosen)
                if window[0] is not None:
                    where, values = f"{where} AND timestamp >= ?", [*values, window[0]]
                if window[1] is not None:
                    where, values = f"{where} AND timestamp < ?", [*values, window[1]]
                indexed = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'timestamp_idx'").fetchone()
                order = "timestamp" if indexed else "rowid"
                query = f"SELECT topic_id, timestamp, data FROM messages WHERE {where} ORDER BY {order}"
                for number, t_ns, data in connection.execute(query, values):
                    steps = 0
                    topic = topics.get(number) if isinstance(number, int) else None
                    if topic is None:
                        log.add(None, "the message is of no topic", f"{self.name}: at {t_ns} ns"[:200])
                    elif not isinstance(t_ns, int) or t_ns < 0 or not isinstance(data, bytes):
                        log.add(topic.name, "the row is no message", self.name)
                    elif (message := self._unpacked(data)) is None:
                        log.add(topic.name, "the message does not decompress", f"{self.name}: at {t_ns} ns")
                    else:
                        yield topic, t_ns, message
        except sqlite3.Error as error:
            log.add(None, f"the database is damaged: {error}"[:200], self.name, 0)

    def _unpacked(self, data: bytes) -> bytes | None:
        if self._codec is None:
            return data
        try:
            return decompress_frame(self._codec, data)
        except Damaged:
            return None

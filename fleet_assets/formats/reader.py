"""The one protocol behind which every recording format is read.

In: the files of a recording. Out: batches of records per topic, and an account of what could not be read. Readers are found
by entry point (group `fleet_assets.formats`), so that others can add theirs, and chosen by content, not by name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import entry_points
from pathlib import Path, PurePosixPath
from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa

from fleet_assets.errors import FleetError

BATCH_ROWS = 65_536
PAYLOAD_KINDS = ("camera", "lidar", "radar")

_STAMPS = [("sequence", pa.int64()), ("t_device_ns", pa.int64()), ("t_host_ns", pa.int64())]
_WHERE = ["chunk_offset", "chunk_length", "chunk_size"]
# Columns of a batch by kind: those of its table in the lake, less what ingest adds (drive, day, stream, object).
SCHEMAS: Mapping[str, pa.Schema] = {
    "imu": pa.schema(
        _STAMPS
        + [
            (f"{what}_{axis}_{unit}", pa.float64())
            for what, unit in (("accel", "mps2"), ("gyro", "radps"))
            for axis in "xyz"
        ]
        + [(f"orientation_{axis}", pa.float64()) for axis in "xyzw"]
    ),
    "gnss": pa.schema(
        [
            *_STAMPS,
            ("t_gnss_ns", pa.int64()),
            ("latitude_deg", pa.float64()),
            ("longitude_deg", pa.float64()),
            ("altitude_m", pa.float64()),
            ("speed_mps", pa.float64()),
            ("heading_deg", pa.float64()),
            ("accuracy_m", pa.float64()),
            ("satellites", pa.int64()),
            ("valid", pa.bool_()),
        ]
    ),
    "bus": pa.schema(
        [*_STAMPS, ("message", pa.string()), ("signal", pa.string()), ("value", pa.float64()), ("unit", pa.string())]
    ),
    "pose": pa.schema(
        [
            *_STAMPS,
            ("frame", pa.string()),
            *((f"{axis}_m", pa.float64()) for axis in "xyz"),
            *((f"orientation_{axis}", pa.float64()) for axis in "xyzw"),
            *((f"velocity_{axis}_mps", pa.float64()) for axis in "xyz"),
            *((f"{turn}_rate_radps", pa.float64()) for turn in ("roll", "pitch", "yaw")),
        ]
    ),
    "label": pa.schema(  # one row per object; a message may hold many, which then share its stamps
        [
            *_STAMPS,
            *((name, pa.string()) for name in ("track_id", "class_name", "subtype")),
            ("moving", pa.bool_()),
            *((f"{name}_m", pa.float64()) for name in ("x", "y", "z", "length", "width", "height")),
            *((name, pa.float64()) for name in ("yaw_rad", "speed_mps", "visible_fraction")),
            ("image_stream", pa.string()),
            *((f"{side}_px", pa.float64()) for side in ("left", "top", "right", "bottom")),
        ]
    ),
    **dict.fromkeys(
        PAYLOAD_KINDS,
        pa.schema(
            [
                *_STAMPS,
                *((name, pa.int64()) for name in _WHERE),
                ("codec", pa.string()),
                ("message_offset", pa.int64()),
                ("message_length", pa.int64()),
                ("schema_name", pa.string()),
            ]
        ),
    ),
}


class UnknownFormat(FleetError):
    """No reader knows this content."""


class Unreadable(FleetError):
    """A reader knows the format, and the content is broken beyond use."""


@dataclass(frozen=True)
class RecordingFiles:
    """names: relative to root, POSIX."""

    root: Path
    names: tuple[str, ...]

    def paths(self, suffix: str = "") -> list[Path]:
        """Files whose name ends so (case does not matter), in order of name."""
        return [self.root / name for name in sorted(self.names) if name.lower().endswith(suffix)]

    def records(self) -> list[str]:
        """Names without a licence and what is to be read by people; of one file alone, whatever it is called."""
        return [name for name in self.names if len(self.names) == 1 or not is_for_people(name)]


@dataclass(frozen=True)
class RecordingInfo:
    """What a recording says about itself; None where it says nothing. t_start_ns: UTC."""

    vehicle: str | None = None
    t_start_ns: int | None = None
    context: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Channel:
    topic: str
    kind: str
    schema_name: str
    message_count: int | None = None


@dataclass
class Refusal:
    """Records that could not be read. topic None: it is not known which. position: where the first one is.

    count 0: something is lost, and nobody can say how many records it was.
    """

    topic: str | None
    reason: str
    position: str
    count: int = 1


class Refusals:
    """Refused records by topic and reason: how many, and where the first is. Bounded, whatever a file holds."""

    MOST = 1000

    def __init__(self) -> None:
        self._known: dict[tuple[str | None, str], Refusal] = {}

    def add(self, topic: str | None, reason: str, position: str, count: int = 1) -> None:
        key = (topic, reason) if len(self._known) < self.MOST else (None, "further reasons")
        known = self._known.get((topic, reason)) or self._known.get(key)
        if known is None:
            self._known[key] = Refusal(key[0], key[1], position, count)
        else:
            known.count += count

    def list(self) -> list[Refusal]:
        return list(self._known.values())

    def clear(self) -> None:
        self._known.clear()


class Accounted(ABC):
    """What readers of several passes have in common: an account per pass, so that one that is repeated does not count twice."""

    def __init__(self) -> None:
        self._payload_log, self._signal_log = Refusals(), Refusals()

    @property
    def refusals(self) -> list[Refusal]:
        rest = Refusals()
        self._account_for_the_rest(rest)
        return [*self._payload_log.list(), *self._signal_log.list(), *rest.list()]

    @abstractmethod
    def _account_for_the_rest(self, log: Refusals) -> None:
        """Refuses what no pass reads."""


@dataclass(frozen=True)
class Batch:
    """At most BATCH_ROWS records of one topic, in the order of the recording; columns as in SCHEMAS[kind].

    file: the MCAP file that they are in, one of `RecordingFiles.names`; None for other formats. What a batch of camera, LiDAR or
    radar says of places is meant in this file.
    """

    topic: str
    kind: str
    table: pa.Table
    file: str | None = None


@dataclass(frozen=True)
class Payload:
    """A message to be rewritten: data is ROS 2 CDR of type schema_name."""

    topic: str
    t_device_ns: int | None
    t_host_ns: int | None
    schema_name: str
    data: bytes


class Reader(Protocol):
    """One format. Refusals grow while reading, and start anew with each pass; read = delivered + refused.

    payload_in_place: the recording is MCAP, every batch says in which file it is, and those of camera, LiDAR and radar where in
    it the bytes lie; otherwise `payloads` gives the bytes, to be rewritten as MCAP once.
    """

    format: ClassVar[str]

    @property
    def payload_in_place(self) -> bool: ...

    @property
    def refusals(self) -> list[Refusal]:
        """What could not be read so far, one entry per topic and reason."""
        ...

    def __init__(self, files: RecordingFiles) -> None: ...

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        """Whether the content is of this format; reads a few kilobytes and raises nothing."""
        ...

    def info(self) -> RecordingInfo: ...

    def channels(self) -> list[Channel]: ...

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """Records of the topics (all) with t_from_ns <= stamp < t_to_ns; sequences count what this call delivers.

        The stamp is the host's, which the topics of a recording share; the device's where a record has no host stamp. A format
        with an index (MCAP, ROS 2 bags) seeks to topics and times; the others read on and leave out what is not asked for.
        Raises Unreadable when the content is broken beyond use.
        """
        ...

    def payloads(self) -> Iterator[Payload]:
        """Messages of the payload topics in order of their stamps; nothing if payload_in_place. All of them, always: they are
        asked for once, to be rewritten, and whoever wants some reads what was rewritten."""
        ...


@lru_cache(maxsize=1)
def _installed() -> tuple[dict[str, type[Reader]], dict[str, str]]:
    found, broken = {}, {}
    for point in entry_points(group="fleet_assets.formats"):
        try:
            found[point.name] = point.load()
        except Exception as error:  # anyone's code; the others still read
            broken[point.name] = f"{point.value}: {type(error).__name__}: {error}"[:300]
    return found, broken


def readers() -> dict[str, type[Reader]]:
    """Installed readers by name."""
    return _installed()[0]


def broken_readers() -> dict[str, str]:
    """Why readers that are installed cannot be used, by name."""
    return _installed()[1]


def open_recording(files: RecordingFiles) -> Reader:
    """The reader whose format the content is. Raises UnknownFormat."""
    for reader in readers().values():
        if reader.sniff(files):
            return reader(files)
    heads = ", ".join(f"{name} ({head(files.root / name)!r})" for name in files.names[:3])
    what = files.names[0] if len(files.names) == 1 else files.root.name
    broken = "".join(f"; reader {name} cannot be used: {why}" for name, why in broken_readers().items())
    raise UnknownFormat(
        f"No reader knows what is in {what}",
        where=f"{len(files.names)} files: {heads}{broken}",
        remedy=f"Formats: {', '.join(readers())}. Others are added by entry point, see docs/extending.md.",
    )


def in_window(t_ns: np.ndarray, t_from_ns: int | None, t_to_ns: int | None) -> np.ndarray:
    """t_ns: int64 [n]. Gives bool [n]: t_from_ns <= t_ns < t_to_ns; None is no limit."""
    keep = np.ones(len(t_ns), dtype=bool)
    if t_from_ns is not None:
        keep &= t_ns >= t_from_ns
    if t_to_ns is not None:
        keep &= t_ns < t_to_ns
    return keep


def batch_table(kind: str, columns: Mapping[str, np.ndarray | pa.Array], keep: np.ndarray, *, first: int) -> pa.Table:
    """Rows where keep, columns in the kind's order, sequences from first; NaN becomes null, missing columns are null."""
    whole = bool(keep.all())
    count = len(keep) if whole else int(keep.sum())
    arrays = []
    for column in SCHEMAS[kind]:
        values = np.arange(first, first + count) if column.name == "sequence" else columns.get(column.name)
        if values is None:
            arrays.append(pa.nulls(count, column.type))
            continue
        if not whole and column.name != "sequence":
            values = values[keep] if isinstance(values, np.ndarray) else values.filter(pa.array(keep))
        if isinstance(values, np.ndarray):
            arrays.append(pa.array(values, type=column.type, from_pandas=True))
        else:
            arrays.append(values.cast(column.type))
    return pa.table(arrays, schema=SCHEMAS[kind])


def renumbered(batch: Batch, delivered: dict[str, int]) -> Batch:
    """The batch with sequences that count on from what was delivered of its topic before; counts it in."""
    first = delivered.get(batch.topic, 0)
    delivered[batch.topic] = first + batch.table.num_rows
    sequence = pa.array(np.arange(first, first + batch.table.num_rows, dtype=np.int64))
    return replace(batch, table=batch.table.set_column(0, batch.table.schema.field(0), sequence))


def is_for_people(name: str) -> bool:
    """Whether a file's name says that it is no record: a licence, or what is to be read first."""
    return PurePosixPath(name).name.startswith(("README", "LICENSE"))


def head(path: Path, count: int = 16) -> bytes:
    """The first bytes of a regular file; none when it cannot be opened."""
    try:
        if not path.is_file():  # a pipe would wait for ever
            return b""
        with open(path, "rb") as file:
            return file.read(count)
    except OSError:
        return b""

"""ASAM MF4 bus logging with DBC signal databases.

In: `.MF4` files of one logger session and the `.dbc` files beside them. Out: IMU and GNSS of a CANmod.gps, and every other
decoded signal as a bus signal. All stamps are the logger's (host); a CAN frame carries no clock of its sensor. Frames that
no database covers are refused, with their identifier.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fleet_assets.errors import FleetError
from fleet_assets.formats.can_database import INSTALL, CanDatabase, CanMessage
from fleet_assets.formats.mf4_fixes import Fixes, Part, can_join, signals_of_fix
from fleet_assets.formats.mf4_frames import Frames, Lost, read_frames
from fleet_assets.formats.mf4_header import MAGICS, Header, read_header
from fleet_assets.formats.reader import (
    BATCH_ROWS,
    Batch,
    Channel,
    Payload,
    RecordingFiles,
    RecordingInfo,
    Refusal,
    Refusals,
    Unreadable,
    batch_table,
    head,
    in_window,
)

IMU_TOPIC, GNSS_TOPIC, BUS_TOPIC = "/imu", "/gnss", "/bus/can"
KINDS = {IMU_TOPIC: "imu", GNSS_TOPIC: "gnss", BUS_TOPIC: "bus"}
IMU_MESSAGE = "gnss_imu"
# Signal of the DBC of the CANmod.gps -> column and factor. Values that the sensor marks as not valid are kept as they are
# (an acceleration of -64): the contract refuses them, and they are counted.
_IMU_SIGNALS = {
    **{f"Acceleration{axis.upper()}": (f"accel_{axis}_mps2", 1.0) for axis in "xyz"},
    **{f"AngularRate{axis.upper()}": (f"gyro_{axis}_radps", np.pi / 180) for axis in "xyz"},
}
# They say nothing that the columns do not say: each is used for its own message, or shows as a refused value.
_FLAGS = {"ImuValid", "TimeValid", "PositionValid", "AltitudeValid", "SpeedValid", "AttitudeValid"}
NOT_RECORDS = re.compile(r"(?i)(.*/)?(LICENSE|README[^/]*|.*\.dbc)")


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    header: Header


class Mf4Reader:
    format: ClassVar[str] = "mf4_dbc"
    payload_in_place: ClassVar[bool] = False

    def __init__(self, files: RecordingFiles) -> None:
        if find_spec("asammdf") is None:
            raise FleetError("MF4 needs asammdf", remedy=INSTALL)
        self._recording = files
        self._log = Refusals()

    @property
    def refusals(self) -> list[Refusal]:
        return self._log.list()

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        return any(head(path, 9).startswith(MAGICS) for path in files.paths())

    @cached_property
    def _files(self) -> list[_File]:
        """The MF4 files in order of time. Raises Unreadable when there is none."""
        found, broken = [], None
        for name in sorted(self._recording.names):
            path = self._recording.root / name
            try:
                if head(path, 9).startswith(MAGICS):
                    found.append(_File(path, name, read_header(path)))
            except Unreadable as error:
                broken = error
        if not found:
            raise broken or Unreadable("The recording has no MF4 file", remedy="Deliver it again.")
        return sorted(found, key=lambda file: (file.header.t_start_ns, file.name))

    @cached_property
    def _database(self) -> CanDatabase:
        return CanDatabase.load(self._recording.paths(".dbc"))

    def info(self) -> RecordingInfo:
        """vehicle: the logger's serial number, if all files have the same."""
        headers = [file.header for file in self._files]
        serials = {header.serial for header in headers}
        serial = serials.pop() if len(serials) == 1 else None
        return RecordingInfo(serial and serial.lower(), headers[0].t_start_ns, headers[0].context)

    def channels(self) -> list[Channel]:
        """What the databases name; whether it was on the bus, reading shows."""
        messages = self._database.messages
        there = {IMU_TOPIC: any(map(_is_imu, messages)), GNSS_TOPIC: can_join(messages), BUS_TOPIC: True}
        return [Channel(topic, KINDS[topic], "CAN") for topic, is_there in there.items() if is_there]

    def payloads(self) -> Iterator[Payload]:
        """A bus has no payload streams."""
        return iter(())

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """See Reader.read; stamps are the logger's."""
        self._log.clear()
        self._account_for_the_rest()
        wanted = set(KINDS if topics is None else topics) & KINDS.keys()
        if not wanted:
            return
        run = _Run(self._files, self._database, self._log, wanted)
        counts = dict.fromkeys(KINDS, 0)
        for topic, columns in run.rows():
            keep = in_window(columns["t_host_ns"], t_from_ns, t_to_ns)
            table = batch_table(KINDS[topic], columns, keep, first=counts[topic])
            counts[topic] += table.num_rows
            for start in range(0, table.num_rows, BATCH_ROWS):
                yield Batch(topic, KINDS[topic], table.slice(start, BATCH_ROWS))

    def _account_for_the_rest(self) -> None:
        used = {file.name for file in self._files}
        for name in sorted(set(self._recording.names) - used):
            path = self._recording.root / name
            if head(path, 9).startswith(MAGICS):
                try:
                    read_header(path)
                except Unreadable as error:
                    self._log.add(None, f"the file cannot be read: {error.what}", name, 0)
            elif not NOT_RECORDS.fullmatch(name):
                self._log.add(None, "the file is no MF4 and no signal database", name)


Columns = dict[str, np.ndarray | pa.Array]


class _Run:
    """One pass over the frames of all files."""

    def __init__(self, files: list[_File], database: CanDatabase, log: Refusals, topics: set[str]) -> None:
        self._files = files
        self._database = database
        self._log = log
        self._topics = topics
        self._fixes = Fixes()
        self._joins = can_join(database.messages)

    def rows(self) -> Iterator[tuple[str, Columns]]:
        """Columns of the wanted topics; all have t_host_ns."""
        for item in read_frames([file.path for file in self._files]):
            file = self._files[item.file]
            if isinstance(item, Lost):
                self._log.add(None, item.reason, file.name, item.count)
                continue
            yield from self._window(item, file)
        yield from self._joined(self._fixes.flush())

    def _window(self, frames: Frames, file: _File) -> Iterator[tuple[str, Columns]]:
        t_ns = file.header.t_start_ns + frames.dt_ns
        key = frames.identifier.astype(np.int64) | frames.extended.astype(np.int64) << 32
        for value in np.unique(key):
            rows = np.flatnonzero(key == value)
            identifier, extended = int(value) & 0xFFFFFFFF, bool(value >> 32)
            message = self._database.message(identifier, extended)
            if message is None:
                self._refuse(f"no signal database covers CAN id {identifier:#x}", file, rows)
                continue
            whole = frames.length[rows] >= message.bytes_needed
            if not whole.all():
                self._refuse(f"the frame is too short for {message.name}", file, rows[~whole])
                rows = rows[whole]
            if rows.size:
                yield from self._message(message, t_ns[rows], frames.payload[rows], frames.length[rows])
        if t_ns.size:
            yield from self._joined(self._fixes.advance(int(t_ns.max())))

    def _refuse(self, reason: str, file: _File, rows: np.ndarray) -> None:
        if BUS_TOPIC in self._topics:
            self._log.add(BUS_TOPIC, reason, f"{file.name}: frame {rows[0]} of a batch", len(rows))

    def _message(
        self, message: CanMessage, t_ns: np.ndarray, payload: np.ndarray, length: np.ndarray
    ) -> Iterator[tuple[str, Columns]]:
        signals = message.decode(payload, length)
        taken: set[str] = set()
        if _is_imu(message):
            taken = _IMU_SIGNALS.keys() | _FLAGS
            if IMU_TOPIC in self._topics:
                scaled = {column: signals[name][0] * factor for name, (column, factor) in _IMU_SIGNALS.items()}
                yield IMU_TOPIC, {"t_host_ns": t_ns, **scaled}
        elif self._joins and (of_fix := signals_of_fix(message)):
            taken = of_fix | _FLAGS
            if GNSS_TOPIC in self._topics:
                self._fixes.add(message.name, Part(t_ns, {name: values for name, (values, _) in signals.items()}))
        if BUS_TOPIC in self._topics:
            yield from _signals(message, t_ns, signals, taken)

    def _joined(self, fixes: Columns) -> Iterator[tuple[str, Columns]]:
        for name, (count, t_ns) in self._fixes.take_unmatched().items():
            self._log.add(GNSS_TOPIC, f"{name} belongs to no time message", f"at {t_ns} ns", count)
        if len(fixes["t_host_ns"]):
            yield GNSS_TOPIC, fixes


def _is_imu(message: CanMessage) -> bool:
    """One that lacks an axis is an ordinary message of the bus."""
    return message.name == IMU_MESSAGE and _IMU_SIGNALS.keys() <= message.signal_names


def _signals(
    message: CanMessage, t_ns: np.ndarray, signals: dict[str, tuple[np.ndarray, np.ndarray]], taken: Collection[str]
) -> Iterator[tuple[str, Columns]]:
    """The other signals of a message, frame by frame, as far as they are in the frame."""
    left = [signal for signal in message.signals if signal.name not in taken]
    if not left:
        return
    here = np.column_stack([signals[signal.name][1] for signal in left]).ravel()
    order = np.tile(np.arange(len(left)), len(t_ns))[here]
    yield (
        BUS_TOPIC,
        {
            "t_host_ns": np.repeat(t_ns, len(left))[here],
            "message": pa.repeat(message.name, len(order)),
            "signal": pa.array([signal.name for signal in left]).take(pa.array(order)),
            "value": np.column_stack([signals[signal.name][0] for signal in left]).ravel()[here],
            "unit": pa.array([signal.unit for signal in left]).take(pa.array(order)),
        },
    )

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
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from fleet_assets.errors import FleetError
from fleet_assets.formats.reader import (
    BATCH_ROWS,
    SCHEMAS,
    Batch,
    Channel,
    Payload,
    RecordingFiles,
    RecordingInfo,
    Refusal,
    Unreadable,
    head,
)

IMU_TOPIC, GNSS_TOPIC, BUS_TOPIC = "/imu", "/gnss", "/bus/can"
_MAGIC = b"MDF     4."
_DEG = np.pi / 180
# Signal -> column and factor, as the DBC of the CANmod.gps names them.
_IMU_SIGNALS = {
    **{f"Acceleration{axis.upper()}": (f"accel_{axis}_mps2", 1.0) for axis in "xyz"},
    **{f"AngularRate{axis.upper()}": (f"gyro_{axis}_radps", _DEG) for axis in "xyz"},
}
_GNSS_SIGNALS = {
    "Latitude": ("latitude_deg", 1.0),
    "Longitude": ("longitude_deg", 1.0),
    "Altitude": ("altitude_m", 1.0),
    "Speed": ("speed_mps", 1.0),
    "Heading": ("heading_deg", 1.0),
    "PositionAccuracy": ("accuracy_m", 1.0),
    "Satellites": ("satellites", 1.0),
    "PositionValid": ("valid", 1.0),
}
# The messages of one fix come within milliseconds; the next fix is a second away.
_FIX_WINDOW_NS = 400_000_000
NOT_RECORDS = re.compile(r"(?i)(.*/)?(LICENSE|README[^/]*|.*\.dbc)")


@dataclass(frozen=True)
class _Message:
    """A decoded CAN message of one file: stamps [n] and signals [n] each."""

    name: str
    t_ns: np.ndarray
    signals: dict[str, np.ndarray]
    units: dict[str, str]


@dataclass(frozen=True)
class _File:
    path: Path
    t_start_ns: int
    serial: str | None
    context: dict[str, str]


class Mf4Reader:
    format: ClassVar[str] = "mf4_dbc"
    payload_in_place: ClassVar[bool] = False

    def __init__(self, files: RecordingFiles) -> None:
        self._files = files
        self.refusals: list[Refusal] = []

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        return any(head(path, len(_MAGIC)) == _MAGIC for path in files.paths())

    @cached_property
    def _sessions(self) -> list[_File]:
        """The MF4 files in order of time; those that cannot be opened are refusals."""
        opened = []
        for path in self._files.paths():
            name = path.relative_to(self._files.root).as_posix()
            if head(path, len(_MAGIC)) == _MAGIC:
                try:
                    with _open(path) as mdf:
                        opened.append(_File(path, int(mdf.header.abs_time), *_comment(mdf.header.comment)))
                except Unreadable as error:
                    self.refusals.append(Refusal(None, f"the file cannot be read: {error.where}", name))
            elif not NOT_RECORDS.fullmatch(name):
                self.refusals.append(Refusal(None, "the file is no MF4 and no signal database", name))
        if not opened:
            raise Unreadable(
                "No MF4 file of the recording can be read", where=self.refusals[0].reason, remedy="Deliver it again."
            )
        return sorted(opened, key=lambda file: (file.t_start_ns, file.path.name))

    def info(self) -> RecordingInfo:
        first = self._sessions[0]
        return RecordingInfo(first.serial and first.serial.lower(), first.t_start_ns, first.context)

    def channels(self) -> list[Channel]:
        kinds = {IMU_TOPIC: "imu", GNSS_TOPIC: "gnss", BUS_TOPIC: "bus"}
        return [Channel(topic, kind, "CAN") for topic, kind in kinds.items()]

    def payloads(self) -> Iterator[Payload]:
        """A bus has no payload streams."""
        return iter(())

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        counts: dict[str, int] = {}
        for file in self._sessions:
            for topic, kind, columns in self._decode(file):
                if topics is not None and topic not in topics:
                    continue
                t_ns = columns["t_host_ns"]
                columns["sequence"] = counts.get(topic, 0) + np.arange(len(t_ns))
                counts[topic] = counts.get(topic, 0) + len(t_ns)
                keep = np.ones(len(t_ns), dtype=bool)
                if t_from_ns is not None:
                    keep &= t_ns >= t_from_ns
                if t_to_ns is not None:
                    keep &= t_ns < t_to_ns
                index = np.flatnonzero(keep)
                for start in range(0, len(index), BATCH_ROWS):
                    yield Batch(topic, kind, _table(kind, columns, index[start : start + BATCH_ROWS]))

    def _decode(self, file: _File) -> Iterator[tuple[str, str, dict[str, Any]]]:
        messages, uncovered = _messages(file, self._files.paths(".dbc"))
        for identifier, count in uncovered:
            why = f"no signal database covers CAN id {identifier:#x}"
            self.refusals.append(Refusal(BUS_TOPIC, why, file.path.name, count))
        imu = [m for m in messages if _IMU_SIGNALS.keys() & m.signals.keys()]
        clock = [m for m in messages if "Epoch" in m.signals]
        fix = [m for m in messages if _GNSS_SIGNALS.keys() & m.signals.keys()]
        for message in imu:
            scaled = {
                column: message.signals[name] * factor
                for name, (column, factor) in _IMU_SIGNALS.items()
                if name in message.signals
            }
            yield IMU_TOPIC, "imu", {"t_host_ns": message.t_ns, **scaled}
        for message in clock:
            yield GNSS_TOPIC, "gnss", _fixes(message, fix)
        taken = {id(m) for m in imu} | ({id(m) for m in (*clock, *fix)} if clock else set())
        for message in messages:
            if id(message) not in taken:
                yield BUS_TOPIC, "bus", _signals(message)


def _fixes(clock: _Message, parts: list[_Message]) -> dict[str, Any]:
    """One row per time message; the other messages of the fix are those nearest to it."""
    told = np.round(clock.signals["Epoch"] * 1000).astype(np.int64) * 1_000_000
    valid = clock.signals.get("TimeValid", np.ones(len(told))) > 0
    columns: dict[str, Any] = {"t_host_ns": clock.t_ns, "t_gnss_ns": pa.array(told, mask=~valid)}
    for message in parts:
        if len(message.t_ns) == 0:
            continue
        right = np.clip(np.searchsorted(message.t_ns, clock.t_ns), 1, max(len(message.t_ns) - 1, 1))
        right = np.minimum(right, len(message.t_ns) - 1)
        left = np.maximum(right - 1, 0)
        nearer_left = clock.t_ns - message.t_ns[left] <= message.t_ns[right] - clock.t_ns
        nearest = np.where(nearer_left, left, right)
        near = np.abs(message.t_ns[nearest] - clock.t_ns) <= _FIX_WINDOW_NS
        for name, (column, factor) in _GNSS_SIGNALS.items():
            if name in message.signals:
                values = np.where(near, message.signals[name][nearest] * factor, np.nan)
                columns[column] = values
    if "valid" in columns:
        columns["valid"] = pa.array(columns["valid"] > 0, mask=np.isnan(columns["valid"]))
    if "satellites" in columns:
        missing = np.isnan(columns["satellites"])
        columns["satellites"] = pa.array(np.where(missing, 0, columns["satellites"]).astype(np.int64), mask=missing)
    return columns


def _signals(message: _Message) -> dict[str, Any]:
    """All signals of a message, row by row in order of time."""
    names = list(message.signals)
    count, width = len(message.t_ns), len(names)
    repeated = pa.array(names * count)
    return {
        "t_host_ns": np.repeat(message.t_ns, width),
        "message": pa.repeat(message.name, count * width),
        "signal": repeated,
        "value": np.column_stack([message.signals[name] for name in names]).ravel(),
        "unit": pa.array([message.units[name] for name in names] * count),
    }


def _table(kind: str, columns: dict[str, Any], index: np.ndarray) -> pa.Table:
    arrays = []
    for field in SCHEMAS[kind]:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(len(index), field.type))
        elif isinstance(values, np.ndarray):
            arrays.append(pa.array(values[index], type=field.type, from_pandas=True))
        else:
            arrays.append(values.take(pa.array(index)).cast(field.type))
    return pa.table(arrays, schema=SCHEMAS[kind])


def _messages(file: _File, databases: list[Path]) -> tuple[list[_Message], list[tuple[int, int]]]:
    """Decoded messages of a file, and (CAN id, frames) of what no database covers."""
    sources: Any = {"CAN": [(str(path), 0) for path in databases]}
    with _open(file.path) as mdf:
        try:
            identifiers = _identifiers(mdf)
            decoded = mdf.extract_bus_logging(sources) if databases else None
        except Exception as error:  # asammdf raises whatever a damaged file leads it to
            raise Unreadable("A file of the recording cannot be read", where=f"{file.path.name}: {error}") from error
        messages, covered = [], set()
        for number, group in enumerate(decoded.groups if decoded else []):
            name = group.channel_group.acq_name or ""
            match = re.search(r"ID=0x([0-9A-Fa-f]+)", name)
            if match:
                covered.add(int(match[1], 16))
            channels = [(n, channel.name) for n, channel in enumerate(group.channels) if channel.name.lower() != "time"]
            signals, units, t_s = {}, {}, np.zeros(0)
            for index, channel in channels:
                signal = decoded.get(group=number, index=index)
                if signal.samples.dtype.kind not in "iufb":  # a named value, such as "Valid": its number
                    signal = decoded.get(group=number, index=index, raw=True)
                if signal.samples.dtype.kind in "iufb":
                    signals[channel] = signal.samples.astype(np.float64)
                    units[channel] = signal.unit or ""
                    t_s = signal.timestamps
            if signals:
                # Float seconds from the start of the file, converted once.
                t_ns = file.t_start_ns + np.round(t_s * 1e9).astype(np.int64)
                messages.append(_Message(name, t_ns, signals, units))
        found, frames = np.unique(identifiers, return_counts=True)
        uncovered = [(int(i), int(n)) for i, n in zip(found, frames, strict=True) if int(i) not in covered]
    return messages, uncovered


def _identifiers(mdf: Any) -> np.ndarray:
    """CAN ids of all data frames of a file."""
    parts = []
    for number, group in enumerate(mdf.groups):
        for index, channel in enumerate(group.channels):
            if channel.name == "CAN_DataFrame.ID" and group.channel_group.cycles_nr:
                parts.append(mdf.get(group=number, index=index).samples.astype(np.int64))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _open(path: Path) -> Any:
    try:
        from asammdf import MDF
    except ImportError as error:
        raise FleetError(
            "MF4 needs asammdf", remedy="Install the extra: pip install 'fleet-assets[formats]'."
        ) from error
    try:
        return MDF(path)
    except Exception as error:  # asammdf raises whatever a damaged file leads it to
        raise Unreadable("An MF4 file cannot be opened", where=f"{path.name}: {error}") from error


def _comment(text: str) -> tuple[str | None, dict[str, str]]:
    """The device's serial number, and what else the logger says about itself."""
    entries = dict(re.findall(r'<e name="([^"]{1,60})">([^<]{0,200})</e>', text or ""))
    serial = entries.get("serial number", "").strip() or None
    wanted = {"firmware version": "firmware", "hardware version": "hardware", "device type": "device_type"}
    return serial, {to: entries[name].strip() for name, to in wanted.items() if name in entries}

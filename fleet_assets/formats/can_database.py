"""Signals of CAN frames, decoded many frames at a time.

In: DBC files; payloads of frames with one identifier. Out: physical values as float64. Sources: the DBC format as cantools
reads it (bit numbering of Intel and Motorola signals), SAE J1939-21 (what of an identifier names the message).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.errors import FleetError
from fleet_assets.formats.reader import Unreadable

MAX_DATABASE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class CanSignal:
    """start, length: bits, as in a DBC. selector: name of the multiplexer and the values at which this signal is there."""

    name: str
    unit: str
    start: int
    length: int
    little_endian: bool
    signed: bool
    floating: bool
    scale: float
    offset: float
    selector: tuple[str, tuple[int, ...]] | None = None

    def raw(self, payload: np.ndarray) -> np.ndarray:
        """payload: uint8 [n, width]. Gives the bits as uint64 [n]; the caller has seen that they are there."""
        if self.little_endian:
            first, shift = divmod(self.start, 8)
            order = range(first, (self.start + self.length - 1) // 8 + 1)
        else:
            begin = self.start // 8 * 8 + 7 - self.start % 8  # counted from the most significant bit of byte 0
            end = begin + self.length - 1
            shift = 7 - end % 8
            order = range(end // 8, begin // 8 - 1, -1)
        bits = np.zeros(len(payload), dtype=np.uint64)
        for place, column in enumerate(order):
            byte = payload[:, column].astype(np.uint64)
            at = 8 * place - shift
            bits |= byte << np.uint64(at) if at >= 0 else byte >> np.uint64(-at)
        return bits & np.uint64((1 << self.length) - 1)

    @property
    def bytes_needed(self) -> int:
        if self.little_endian:
            return (self.start + self.length - 1) // 8 + 1
        return (self.start // 8 * 8 + 7 - self.start % 8 + self.length - 1) // 8 + 1

    def values(self, payload: np.ndarray) -> np.ndarray:
        """Physical values, float64 [n]."""
        bits = self.raw(payload)
        with np.errstate(all="ignore"):  # a float signal may hold any bits
            if self.floating:
                short = self.length == 32
                number = bits.astype(np.uint32).view(np.float32).astype(np.float64) if short else bits.view(np.float64)
            elif self.signed:
                unused = 64 - self.length
                number = ((bits << np.uint64(unused)).view(np.int64) >> np.int64(unused)).astype(np.float64)
            else:
                number = bits.astype(np.float64)
            return number * self.scale + self.offset


@dataclass(frozen=True)
class CanMessage:
    name: str
    signals: tuple[CanSignal, ...]

    @property
    def signal_names(self) -> set[str]:
        return {signal.name for signal in self.signals}

    @property
    def bytes_needed(self) -> int:
        """Bytes that every frame of this message has, whatever its multiplexers select."""
        return max((signal.bytes_needed for signal in self.signals if signal.selector is None), default=0)

    def decode(self, payload: np.ndarray, length: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """payload: uint8 [n, width]; length: bytes used of each.

        Gives values, float64 [n], and where they are there, bool [n]: not in a frame that is too short, nor where the
        multiplexer selects others.
        """
        decoded: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        selected: dict[str, np.ndarray] = {}
        for signal in self.signals:
            here = (length >= signal.bytes_needed) & (payload.shape[1] >= signal.bytes_needed)
            if signal.selector is not None:
                name, wanted = signal.selector
                here &= np.isin(selected[name], wanted) if name in selected else False
            values = np.full(len(payload), np.nan)
            values[here] = signal.values(payload[here])
            decoded[signal.name] = values, here
            choice = np.full(len(payload), -1, dtype=np.int64)
            choice[here] = signal.raw(payload[here]).view(np.int64)
            selected[signal.name] = choice
        return decoded


class CanDatabase:
    """Messages of several DBC files; the first file that names an identifier wins."""

    def __init__(self, messages: dict[tuple[int, bool], CanMessage], groups: dict[int, CanMessage]) -> None:
        self._messages = messages
        self._groups = groups

    def message(self, identifier: int, extended: bool) -> CanMessage | None:
        exact = self._messages.get((identifier, extended))
        return exact or (self._groups.get(parameter_group(identifier)) if extended else None)

    @property
    def messages(self) -> Collection[CanMessage]:
        return self._messages.values()

    @classmethod
    def load(cls, paths: Sequence[Path]) -> CanDatabase:
        """Raises Unreadable, which names the file, when one is no DBC."""
        messages: dict[tuple[int, bool], CanMessage] = {}
        groups: dict[int, CanMessage] = {}
        for path in paths:
            for message in _messages(path):
                converted = CanMessage(message.name, tuple(_in_order(_signal(signal) for signal in message.signals)))
                extended = bool(message.is_extended_frame)
                messages.setdefault((message.frame_id, extended), converted)
                if extended and message.protocol == "j1939":
                    groups.setdefault(parameter_group(message.frame_id), converted)
        return cls(messages, groups)


def parameter_group(identifier: int) -> int:
    """J1939 parameter group of a 29-bit identifier: without priority, source, and destination if it has one."""
    group = identifier >> 8 & 0x3FFFF
    return group if group >> 8 & 0xFF >= 0xF0 else group & 0x3FF00


def _messages(path: Path) -> list[Any]:
    try:
        import cantools.database
    except ImportError as error:
        raise FleetError("A signal database needs cantools", remedy=INSTALL) from error
    if path.stat().st_size > MAX_DATABASE_BYTES:
        raise Unreadable("A signal database is too large", where=path.name, remedy=_REMEDY)
    try:
        database = cantools.database.load_file(path, database_format="dbc", strict=False)
    except Exception as error:  # cantools raises whatever a broken file leads it to
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise Unreadable(
            "A signal database cannot be read", where=f"{path.name}: {first[:200]}", remedy=_REMEDY
        ) from error
    return list(getattr(database, "messages", []))


INSTALL = "Install the extra: pip install 'fleet-assets[formats]'."
_REMEDY = "Deliver a DBC file with the recording that the bus follows."


def _signal(signal: Any) -> CanSignal:
    scale, offset = _number(signal.scale), _number(signal.offset)
    if not (1 <= signal.length <= 64 and signal.start >= 0 and math.isfinite(scale) and math.isfinite(offset)):
        raise Unreadable("A signal database has an impossible signal", where=str(signal.name)[:100], remedy=_REMEDY)
    selector = None
    if signal.multiplexer_ids and signal.multiplexer_signal:
        selector = (signal.multiplexer_signal, tuple(signal.multiplexer_ids))
    return CanSignal(
        name=signal.name,
        unit=signal.unit or "",
        start=signal.start,
        length=signal.length,
        little_endian=signal.byte_order == "little_endian",
        signed=bool(signal.is_signed),
        floating=bool(signal.is_float) and signal.length in (32, 64),
        scale=scale,
        offset=offset,
        selector=selector,
    )


def _number(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer with hundreds of digits
        return math.inf


def _in_order(signals: Any) -> list[CanSignal]:
    """Multiplexers before what they select, else by start bit."""
    known = sorted(signals, key=lambda signal: (signal.start, signal.name))
    depth: dict[str, int] = {}
    by_name = {signal.name: signal for signal in known}

    def level(name: str, seen: int = 0) -> int:
        signal = by_name.get(name)
        if signal is None or signal.selector is None or seen > len(known):
            return 0
        if name not in depth:
            depth[name] = 1 + level(signal.selector[0], seen + 1)
        return depth[name]

    return sorted(known, key=lambda signal: level(signal.name))

"""GNSS fixes out of the messages that a CANmod.gps sends for each.

In: messages of one kind at a time, in order of time. Out: one row per time message, joined with the others of its fix.
Memory holds what arrived within the last second or two.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fleet_assets.formats.can_database import CanMessage

# The messages of one fix come within milliseconds; the next fix is a second away.
WINDOW_NS = 400_000_000
TIME_MESSAGE = "gnss_time"
# What a column can hold: a database that is damaged may scale a signal to anything.
_EPOCH_LIMIT_S, _SATELLITES_LIMIT = 2**63 // 10**9, 2.0**63
# Column, and the flag that says whether its value holds (the position's own flag is a column).
_COLUMNS: dict[str, dict[str, tuple[str, str | None]]] = {
    "gnss_status": {"Satellites": ("satellites", None)},
    "gnss_pos": {
        "Latitude": ("latitude_deg", None),
        "Longitude": ("longitude_deg", None),
        "PositionAccuracy": ("accuracy_m", None),
        "PositionValid": ("valid", None),
    },
    "gnss_altitude": {"Altitude": ("altitude_m", "AltitudeValid")},
    "gnss_attitude": {"Heading": ("heading_deg", "AttitudeValid")},
    "gnss_speed": {"Speed": ("speed_mps", "SpeedValid")},
}
_SIGNALS: dict[str, set[str]] = {TIME_MESSAGE: {"Epoch"}, **{name: set(of) for name, of in _COLUMNS.items()}}
_FLAGS: dict[str, set[str]] = {
    TIME_MESSAGE: {"TimeValid"},
    **{name: {flag for _, flag in of.values() if flag} for name, of in _COLUMNS.items()},
}


def signals_of_fix(message: CanMessage) -> set[str]:
    """What a fix takes of a message, as far as the database names it; nothing: it is an ordinary message of the bus."""
    return _SIGNALS.get(message.name, set()) & message.signal_names


def can_join(messages: Iterable[CanMessage]) -> bool:
    """Whether there can be fixes: without a time message that has its Epoch nothing says which messages are one fix."""
    return any(message.name == TIME_MESSAGE and signals_of_fix(message) for message in messages)


@dataclass(frozen=True)
class Part:
    """Messages of one kind: stamps int64 [n], signals float64 [n] each (NaN: not there)."""

    t_ns: np.ndarray
    signals: dict[str, np.ndarray]

    def joined(self, other: Part) -> Part:
        """Both have the same signals."""
        return Part(
            np.concatenate([self.t_ns, other.t_ns]),
            {name: np.concatenate([values, other.signals[name]]) for name, values in self.signals.items()},
        )

    def with_all(self, defaults: dict[str, float]) -> Part:
        """These signals and no others; the default where a database does not name one."""
        count = len(self.t_ns)
        return Part(
            self.t_ns, {name: self.signals.get(name, np.full(count, value)) for name, value in defaults.items()}
        )

    def only(self, rows: np.ndarray) -> Part:
        return Part(self.t_ns[rows], {name: values[rows] for name, values in self.signals.items()})


_NO_TIME = Part(np.zeros(0, dtype=np.int64), {"Epoch": np.zeros(0), "TimeValid": np.zeros(0)})


class Fixes:
    """Joins each message to the nearest time message within WINDOW_NS, one of a kind per fix."""

    def __init__(self) -> None:
        self._parts: dict[str, Part] = {}
        self._unmatched: dict[str, tuple[int, int]] = {}

    def add(self, name: str, part: Part) -> None:
        """Databases may describe a message of the same name each in its way: a value that one lacks is not there, and without
        a flag a value holds."""
        part = part.with_all({**dict.fromkeys(_SIGNALS[name], np.nan), **dict.fromkeys(_FLAGS[name], 1.0)})
        known = self._parts.get(name)
        self._parts[name] = part if known is None else known.joined(part)

    def advance(self, t_ns: int) -> dict[str, np.ndarray | pa.Array]:
        """Everything up to t_ns has been added: the fixes that are complete."""
        return self._emit(t_ns - 2 * WINDOW_NS)

    def flush(self) -> dict[str, np.ndarray | pa.Array]:
        return self._emit(np.iinfo(np.int64).max)

    def take_unmatched(self) -> dict[str, tuple[int, int]]:
        """Messages that found no fix since the last call, by name: how many, and the stamp of the first."""
        taken, self._unmatched = self._unmatched, {}
        return taken

    def _emit(self, horizon_ns: int) -> dict[str, np.ndarray | pa.Array]:
        clock = self._parts.get(TIME_MESSAGE, _NO_TIME)
        clock = clock.only(np.argsort(clock.t_ns, kind="stable"))
        due = clock.t_ns <= horizon_ns
        columns = _time(clock.only(due))
        for name, of in _COLUMNS.items():
            part = self._parts.get(name)
            if part is None:
                continue
            match = _nearest(part.t_ns, clock.t_ns)
            decided = np.where(match >= 0, due[match] if len(due) else False, part.t_ns <= horizon_ns)
            chosen = _one_each(part.t_ns, clock.t_ns, np.where(decided, match, -1))
            lost = decided.copy()
            lost[chosen[chosen >= 0]] = False
            if lost.any():
                self._unmatched[name] = (int(lost.sum()), int(part.t_ns[lost][0]))
            self._parts[name] = part.only(~decided)
            _take(columns, part, of, chosen[due])
        self._parts[TIME_MESSAGE] = clock.only(~due)
        return columns


def _nearest(t_ns: np.ndarray, clock_ns: np.ndarray) -> np.ndarray:
    """Index of the nearest clock stamp within the window (the earlier of two); -1: none. clock_ns is sorted."""
    if len(clock_ns) == 0:
        return np.full(len(t_ns), -1)
    right = np.clip(np.searchsorted(clock_ns, t_ns), 0, len(clock_ns) - 1)
    left = np.maximum(right - 1, 0)
    nearest = np.where(np.abs(t_ns - clock_ns[left]) <= np.abs(t_ns - clock_ns[right]), left, right)
    return np.where(np.abs(t_ns - clock_ns[nearest]) <= WINDOW_NS, nearest, -1)


def _one_each(t_ns: np.ndarray, clock_ns: np.ndarray, match: np.ndarray) -> np.ndarray:
    """For each clock stamp the index of the nearest message that matched it, or -1."""
    chosen = np.full(len(clock_ns), -1)
    rows = np.flatnonzero(match >= 0)
    # Written from far to near: the nearest stays.
    rows = rows[np.argsort(-np.abs(t_ns[rows] - clock_ns[match[rows]]), kind="stable")]
    chosen[match[rows]] = rows
    return chosen


def _time(clock: Part) -> dict[str, np.ndarray | pa.Array]:
    epoch = clock.signals["Epoch"]
    known = (clock.signals["TimeValid"] > 0) & (np.abs(epoch) < _EPOCH_LIMIT_S)
    told = np.round(np.where(known, epoch, 0) * 1000).astype(np.int64) * 1_000_000  # the signal's step is a millisecond
    return {"t_host_ns": clock.t_ns, "t_gnss_ns": pa.array(told, mask=~known)}


def _take(
    columns: dict[str, np.ndarray | pa.Array], part: Part, of: dict[str, tuple[str, str | None]], chosen: np.ndarray
) -> None:
    for name, (column, flag) in of.items():
        values = np.full(len(chosen), np.nan)
        found = chosen >= 0
        values[found] = part.signals[name][chosen[found]]
        if flag is not None:
            values[found] = np.where(part.signals[flag][chosen[found]] > 0, values[found], np.nan)
        missing = np.isnan(values)
        if column == "valid":
            columns[column] = pa.array(values > 0, mask=missing)
        elif column == "satellites":
            missing |= ~(np.abs(values) < _SATELLITES_LIMIT)
            columns[column] = pa.array(np.where(missing, 0, values).astype(np.int64), mask=missing)
        else:
            columns[column] = values

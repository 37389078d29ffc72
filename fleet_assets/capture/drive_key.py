"""The key of a drive: vehicle and UTC start.

In: `<vehicle>--<YYYYMMDDTHHMMSSZ>`, or its parts. Out: DriveKey, which parses and prints it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from fleet_assets.errors import FleetError

VEHICLE = re.compile(r"[a-z0-9][a-z0-9_]{0,31}")
_KEY = re.compile(rf"(?P<vehicle>{VEHICLE.pattern})--(?P<start>[0-9]{{8}}T[0-9]{{6}}Z)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# What int64 nanoseconds since 1970 can say; no recording is older.
_FIRST, _LAST = _EPOCH, datetime(2261, 12, 31, 23, 59, 59, tzinfo=UTC)


@dataclass(frozen=True, order=True)
class DriveKey:
    """start: UTC, whole seconds, 1970 to 2261. Made by `of` and `parse`, which check. Ordered by vehicle, then start."""

    vehicle: str
    start: datetime

    @classmethod
    def parse(cls, text: str) -> DriveKey:
        """Raises FleetError for anything but a key."""
        match = _KEY.fullmatch(text)
        try:
            if match:
                start = datetime.strptime(match["start"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
                return cls.of(match["vehicle"], start)
        except ValueError:
            pass  # digits that are no date: the same message
        raise FleetError(
            f"{text[:80]!r} is no drive key",
            remedy="Keys look like car7--20260102T030405Z; `fleet show drives` lists them.",
        )

    @classmethod
    def of(cls, vehicle: str, start: datetime) -> DriveKey:
        """Checks the vehicle id; cuts the start to whole seconds. start must have a time zone. Raises FleetError."""
        if not VEHICLE.fullmatch(vehicle):
            raise FleetError(
                f"{vehicle[:80]!r} is no vehicle id",
                remedy="Use up to 32 of a-z, 0-9 and _, not starting with _; `--vehicle` sets it.",
            )
        # Compared before it is converted: the conversion overflows at the ends of the calendar.
        if not _FIRST <= start < _LAST + timedelta(seconds=1):
            raise FleetError(
                f"A drive cannot start at {start.isoformat()}",
                where=f"{vehicle}; {_FIRST:%Y} to {_LAST:%Y}",
                remedy="The logger's clock was wrong; `--start` sets the time.",
            )
        return cls(vehicle, start.astimezone(UTC).replace(microsecond=0))

    def __str__(self) -> str:
        return f"{self.vehicle}--{self.start:%Y%m%dT%H%M%SZ}"

    @property
    def day(self) -> date:
        return self.start.date()

    @property
    def t_start_ns(self) -> int:
        return int((self.start - _EPOCH).total_seconds()) * 1_000_000_000


def utc_of_ns(t_ns: int) -> datetime:
    """UTC of int64 nanoseconds since 1970, cut to microseconds. Raises FleetError beyond the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=t_ns // 1000)
    except OverflowError as error:
        raise FleetError(f"{t_ns} ns is no time that a calendar knows") from error

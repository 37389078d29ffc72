"""Keys say what they mean, in both directions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_assets.capture.drive_key import DriveKey, utc_of_ns
from fleet_assets.errors import FleetError

VEHICLES = st.from_regex(r"[a-z0-9][a-z0-9_]{0,31}", fullmatch=True)
STARTS = st.datetimes(datetime(1970, 1, 2), datetime(2261, 12, 30), timezones=st.just(UTC))


@given(VEHICLES, STARTS)
def test_a_key_is_read_back(vehicle: str, start: datetime) -> None:
    key = DriveKey.of(vehicle, start)
    assert DriveKey.parse(str(key)) == key
    assert key.start == start.replace(microsecond=0)
    assert key.day == start.date()
    assert utc_of_ns(key.t_start_ns) == key.start


@given(st.text(max_size=60))
def test_other_texts_are_refused(text: str) -> None:
    try:
        key = DriveKey.parse(text)
    except FleetError:
        return
    assert str(key) == text


@pytest.mark.parametrize(
    "text",
    [
        "car7--20260132T000000Z",
        "car7--20260102T030405",
        "Car7--20260102T030405Z",
        "_car--20260102T030405Z",
        "car7--20260102T030405Z\n",
        "car7--٢٠٢٦0102T030405Z",
        "car7--19691231T235959Z",
        f"{'a' * 33}--20260102T030405Z",
    ],
)
def test_near_misses(text: str) -> None:
    with pytest.raises(FleetError):
        DriveKey.parse(text)


def test_a_start_is_told_in_utc() -> None:
    east = datetime(2026, 1, 2, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert str(DriveKey.of("car7", east)) == "car7--20260101T233000Z"
    for start in (datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))):
        with pytest.raises(FleetError, match="cannot start at"):
            DriveKey.of("car7", start)
    with pytest.raises(FleetError, match="no time that a calendar knows"):
        utc_of_ns(-(10**23))

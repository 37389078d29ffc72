"""Groups, splits, leaks and caps."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta

import numpy as np

from fleet_assets.curate.splits import DriveFacts, assign, groups, leaks, near_duplicates, over_caps

HOUR_NS = 3_600_000_000_000
SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def drive(start: str, area: str | None = "a", *, cells: tuple[int, ...] = (), **slices: str) -> DriveFacts:
    t_ns = int(datetime.fromisoformat(start).timestamp()) * 10**9
    return DriveFacts(f"car7--{start}", t_ns, t_ns + 60 * 10**9, area, frozenset(cells), slices)


def names(found: list[list[DriveFacts]]) -> list[set[str]]:
    return [{one.drive.removeprefix("car7--2026-01-")[:5] for one in group} for group in found]


def test_one_place_and_day_or_night_is_one_group() -> None:
    drives = [
        drive("2026-01-05T02:00:00Z"), drive("2026-01-05T22:00:00Z"), drive("2026-01-06T03:00:00Z"),
        drive("2026-01-07T10:00:00Z"), drive("2026-01-05T12:00:00Z", "b"), drive("2026-01-05T13:00:00Z", None),
        drive("2026-01-07T11:00:00Z", "c", cells=(1, 2)), drive("2026-01-07T12:00:00Z", "d", cells=(2, 3)),
    ]  # fmt: skip
    assert names(groups(drives, 12 * HOUR_NS)) == [
        {"05T02", "05T22", "06T03"}, {"05T12"}, {"05T13"}, {"07T10"}, {"07T11", "07T12"}
    ]  # fmt: skip


def fleet(days: int) -> list[list[DriveFacts]]:
    start = datetime.fromisoformat("2026-01-05T10:00:00Z")
    lights, weathers = ("day", "dusk", "night"), ("clear", "rain", "fog")
    return [
        [
            drive(
                f"{start + timedelta(days=day):%Y-%m-%dT%H:%M:%SZ}",
                light=lights[day % 3],
                weather=weathers[day // 3 % 3],
            )
        ]
        for day in range(days)
    ]


def test_every_slice_is_in_every_split() -> None:
    found, bridges = assign(fleet(90), SHARES, 7, {})
    assert bridges == []
    counts = Counter(found.values())
    assert counts == {"train": 54, "validation": 18, "test": 18}
    by_slice = Counter((found[one.drive], *pair) for [one] in fleet(90) for pair in one.slices.items())
    for split, share in SHARES.items():
        for key in (("light", "night"), ("weather", "fog"), ("light", "day")):
            assert abs(by_slice[split, *key] - 30 * share) <= 2
    assert Counter(assign(fleet(3), SHARES, 7, {})[0].values()) == {"train": 1, "validation": 1, "test": 1}


def test_splits_depend_on_the_seed_alone() -> None:
    assert assign(fleet(30), SHARES, 7, {}) == assign(fleet(30), SHARES, 7, {})
    assert assign(fleet(30), SHARES, 7, {}) != assign(fleet(30), SHARES, 8, {})


def test_a_drive_keeps_its_split_and_its_group_follows() -> None:
    before, _ = assign(fleet(20), SHARES, 7, {})
    after, _ = assign(fleet(40), SHARES, 8, before)
    assert all(after[name] == split for name, split in before.items())
    late = drive("2026-01-05T11:00:00Z")
    together = groups([fleet(1)[0][0], late], 12 * HOUR_NS)
    found, _ = assign(together, SHARES, 7, {fleet(1)[0][0].drive: "test"})
    assert found[late.drive] == "test"


def test_who_joins_groups_of_different_splits_has_none() -> None:
    one, between, other = (drive(f"2026-01-05T{hour}:00:00Z") for hour in ("01", "12", "23"))
    found, bridges = assign([[one, between, other]], SHARES, 7, {one.drive: "train", other.drive: "test"})
    assert found == {one.drive: "train", other.drive: "test"}
    assert bridges == [between.drive]


def test_leaks_are_found_whatever_made_the_splits() -> None:
    one = drive("2026-01-05T23:50:00Z", "a", cells=(1, 2))
    other = drive("2026-01-06T00:10:00Z", "b", cells=(2, 3))
    later = drive("2026-01-09T00:10:00Z", "b", cells=(2, 3))
    split_of = {one.drive: "train", other.drive: "test", later.drive: "train"}
    assert leaks([one, other, later], split_of, HOUR_NS) == [
        f"{one.drive} (train) and {other.drive} (test) were at one place"
    ]
    assert leaks([one, other, later], split_of | {other.drive: "train"}, HOUR_NS) == []


def test_near_duplicates_are_of_different_splits_and_of_images_that_tell_something() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(-(2**63), 2**63, 6)
    hashes[3] = hashes[0] ^ 0b101
    hashes[4] = hashes[0] ^ 0b1
    hashes[1], hashes[5] = 0, 0b1  # flat images
    rank = np.array([0, 0, 2, 2, 0, 2])
    assert near_duplicates(hashes, rank, 2) == {0: 3, 4: 3}
    assert near_duplicates(hashes, rank, 0) == {}


def test_near_duplicates_are_all_found_however_many_they_are() -> None:
    hashes = np.full(200, 0x0F0F0F0F0F0F0F0F, dtype=np.int64)
    rank = np.arange(200) % 3
    assert near_duplicates(hashes, rank, 0).keys() == set(np.flatnonzero(rank < 2).tolist())


def test_caps_hold_and_what_stays_is_spread_over_the_drives() -> None:
    clips = [(f"d{row % 4}", ["standing"] if row % 10 < 8 else []) for row in range(100)]
    out = over_caps(clips, {"standing": 0.1}, 7)
    kept = [clips[row] for row in range(100) if row not in out]
    assert set(out.values()) == {"standing"}
    assert sum("standing" in scenarios for _, scenarios in kept) == 10
    assert sum(not scenarios for _, scenarios in kept) == 20
    by_drive = Counter(drive for drive, scenarios in kept if scenarios)
    assert max(by_drive.values()) - min(by_drive.values()) <= 2
    assert over_caps(clips, {}, 7) == {}

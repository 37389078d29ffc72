"""Clips never cross what they may not cross."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.curate.clips import ClipRule, cut
from fleet_assets.errors import FleetError

MS = 1_000_000
SINGLE = ClipRule(0, 500 * MS, 150 * MS)


def clips(
    times_ms: list[int],
    rule: ClipRule,
    *,
    usable: list[int] | None = None,
    ends: list[int] | None = None,
    borders: tuple[int, ...] = (),
) -> list[tuple[int, int]]:
    """usable, ends: rows; all unless given. borders: in ms."""

    def mask(rows: list[int] | None) -> np.ndarray:
        return np.ones(len(times_ms), bool) if rows is None else np.isin(np.arange(len(times_ms)), rows)

    first, last = cut(np.array(times_ms) * MS, mask(usable), mask(ends), np.array(borders, dtype=np.int64) * MS, rule)
    return list(zip(first.tolist(), last.tolist(), strict=True))


def test_single_frames_are_a_stride_apart() -> None:
    assert clips(list(range(0, 1500, 100)), SINGLE) == [(0, 0), (5, 5), (10, 10)]
    # Over a gap too: 250 is too near to 0.
    assert clips([0, 250, 350, 450, 550], SINGLE) == [(0, 0), (4, 4)]


def test_windows_end_at_the_nearest_frame() -> None:
    rule = ClipRule(400 * MS, 500 * MS, 150 * MS)
    assert clips([0, 99, 201, 300, 395, 505, 600, 700, 800, 899, 1000], rule) == [(0, 4), (5, 9)]
    assert clips([0, 100, 200, 300, 340], rule) == [(0, 4)]  # the last frame is near enough
    assert clips([0, 100, 200, 300], rule) == []


def test_clips_end_where_they_may() -> None:
    """Labels at every other frame: clips end there, and begin where that makes them end there."""
    assert clips(list(range(0, 1200, 100)), SINGLE, ends=[1, 3, 5, 7, 9, 11]) == [(1, 1), (7, 7)]


@pytest.mark.parametrize("crossed", ["gap", "border", "unusable"])
def test_nothing_is_crossed(crossed: str) -> None:
    rule = ClipRule(400 * MS, 100 * MS, 150 * MS)
    times = [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    if crossed == "gap":
        times = times[:5] + [ms + 100 for ms in times[5:]]
    found = clips(
        times, rule, usable=[0, 1, 2, 3, 4, 6, 7, 8, 9] if crossed == "unusable" else None,
        borders=(450,) if crossed == "border" else (),
    )  # fmt: skip
    assert found == ([(0, 4)] if crossed == "unusable" else [(0, 4), (5, 9)])


@pytest.mark.parametrize("times", [[0, 200, 100], [0, 100, 100]])
def test_broken_order_is_refused(times: list[int]) -> None:
    with pytest.raises(FleetError, match="not in order"):
        clips(times, SINGLE)


def test_nothing_gives_nothing() -> None:
    assert clips([], SINGLE) == []


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(st.integers(1, 300), min_size=1, max_size=60), window=st.integers(0, 800), stride=st.integers(1, 900),
    gap=st.integers(50, 300), borders=st.lists(st.integers(0, 9000), max_size=3), seed=st.integers(0, 99),
)  # fmt: skip
def test_promises(steps: list[int], window: int, stride: int, gap: int, borders: list[int], seed: int) -> None:
    t_ns = np.cumsum(steps) * MS
    random = np.random.default_rng(seed)
    usable, ends = random.random(t_ns.size) < 0.9, random.random(t_ns.size) < 0.7
    edges = np.unique(np.array(borders, dtype=np.int64) * MS)
    first, last = cut(t_ns, usable, ends, edges, ClipRule(window * MS, stride * MS, gap * MS))
    for begin, end in zip(first.tolist(), last.tolist(), strict=True):
        times = t_ns[begin : end + 1]
        assert usable[begin : end + 1].all()
        assert ends[end]
        assert (np.diff(times) <= gap * MS).all()
        assert not ((edges > times[0]) & (edges <= times[-1])).any()
        assert abs(times[-1] - times[0] - window * MS) <= gap * MS
    assert (np.diff(t_ns[first]) >= stride * MS).all()

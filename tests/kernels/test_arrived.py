"""Matching by arrival against loops that try every record."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernels.test_align import bracket, hold, ints, limits, nearest, stamps

from fleet_assets.kernels import align, arrived

# Each record with its arrival, each frame with its deadline.
records = st.lists(st.tuples(stamps, stamps), max_size=80).map(lambda pairs: sorted(pairs, key=lambda pair: pair[0]))
frames = st.lists(st.tuples(stamps, stamps), max_size=40)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    return ints([first for first, _ in pairs]), ints([second for _, second in pairs])


def in_time(pairs: list[tuple[int, int]], deadline: int) -> tuple[list[int], list[int]]:
    """Rows that had arrived, and their stamps."""
    rows = [row for row, (_, arrival) in enumerate(pairs) if arrival <= deadline]
    return rows, [pairs[row][0] for row in rows]


@given(frames, records, limits, limits)
@settings(deadline=None)
def test_nearest_of_what_had_arrived(
    at: list[tuple[int, int]], pairs: list[tuple[int, int]], before: int, after: int
) -> None:
    index, reason = arrived.nearest_arrived(*columns(at), *columns(pairs), np.uint64(before), np.uint64(after))
    for (t, deadline), found, why in zip(at, index.tolist(), reason.tolist(), strict=True):
        rows, t_ns = in_time(pairs, deadline)
        best = nearest(t, t_ns, before, after)
        assert found == (rows[best] if best >= 0 else -1)
        assert why == reason_for(found, pairs, nearest(t, [stamp for stamp, _ in pairs], before, after))


@given(frames, records, limits)
@settings(deadline=None)
def test_hold_of_what_had_arrived(at: list[tuple[int, int]], pairs: list[tuple[int, int]], before: int) -> None:
    index, reason = arrived.hold_arrived(*columns(at), *columns(pairs), np.uint64(before))
    for (t, deadline), found, why in zip(at, index.tolist(), reason.tolist(), strict=True):
        rows, t_ns = in_time(pairs, deadline)
        best = hold(t, t_ns, before)
        assert found == (rows[best] if best >= 0 else -1)
        assert why == reason_for(found, pairs, hold(t, [stamp for stamp, _ in pairs], before))


def reason_for(found: int, pairs: list[tuple[int, int]], whenever: int) -> int:
    if found >= 0:
        return align.OK
    if not pairs:
        return align.EMPTY
    return align.TOLERANCE if whenever < 0 else arrived.LATE


@given(frames, records, limits)
@settings(deadline=None)
def test_bracket_of_what_had_arrived(at: list[tuple[int, int]], pairs: list[tuple[int, int]], limit: int) -> None:
    found = arrived.bracket_arrived(*columns(at), *columns(pairs), np.uint64(limit))
    for (t, deadline), *ours in zip(at, *(column.tolist() for column in found), strict=True):
        rows, t_ns = in_time(pairs, deadline)
        left, right, why = bracket(t, t_ns, limit)
        _, _, whenever = bracket(t, [stamp for stamp, _ in pairs], limit)
        if why == align.OK:
            assert ours == [rows[left], rows[right], align.OK]
        else:
            assert ours == [-1, -1, arrived.LATE if whenever == align.OK else whenever]


@given(frames, records, limits, limits)
@settings(deadline=None)
def test_without_a_deadline_it_is_the_same_as_align(
    at: list[tuple[int, int]], pairs: list[tuple[int, int]], before: int, after: int
) -> None:
    t_frame_ns, never = columns(at)[0], np.full(len(at), 2**63 - 1)
    t_ns, t_arrival_ns = columns(pairs)
    before_ns, after_ns = np.uint64(before), np.uint64(after)
    for ours, theirs in (
        (
            arrived.nearest_arrived(t_frame_ns, never, t_ns, t_arrival_ns, before_ns, after_ns),
            align.nearest(t_frame_ns, t_ns, before_ns, after_ns),
        ),
        (
            arrived.hold_arrived(t_frame_ns, never, t_ns, t_arrival_ns, before_ns),
            align.hold(t_frame_ns, t_ns, before_ns),
        ),
        (
            arrived.bracket_arrived(t_frame_ns, never, t_ns, t_arrival_ns, before_ns),
            align.bracket(t_frame_ns, t_ns, before_ns),
        ),
    ):
        for one, other in zip(ours, theirs, strict=True):
            assert one.tolist() == other.tolist()


@given(st.integers(0, 2**32), st.sampled_from([0, 30, 3000]))
@settings(deadline=None, max_examples=20)
def test_whole_blocks_that_had_not_arrived_are_skipped_rightly(seed: int, wait: int) -> None:
    """Long streams that arrive in order, in bursts, or backwards."""
    random = np.random.default_rng(seed)
    t_ns = np.sort(random.integers(0, 20_000, 3_000))
    orders = (t_ns + random.exponential(20, t_ns.size).astype(np.int64), t_ns // 4000 * 4000 + 4000, t_ns.max() - t_ns)
    t_frame_ns = random.integers(-100, 20_100, 50)
    for t_arrival_ns in orders:
        deadline_ns = t_frame_ns + wait
        late = t_arrival_ns[None, :] > deadline_ns[:, None]
        after = t_ns[None, :] > t_frame_ns[:, None]
        held = np.where(late | after, -1, np.arange(t_ns.size)).max(axis=1)
        wide = np.uint64(2**63)
        assert arrived.hold_arrived(t_frame_ns, deadline_ns, t_ns, t_arrival_ns, wide)[0].tolist() == held.tolist()
        away = np.where(late, 10**9, np.abs(t_ns[None, :] - t_frame_ns[:, None]))
        best = np.where(late.all(axis=1), -1, away.argmin(axis=1))
        index = arrived.nearest_arrived(t_frame_ns, deadline_ns, t_ns, t_arrival_ns, wide, wide)[0]
        assert index.tolist() == best.tolist()


def test_a_record_that_arrives_at_the_deadline_counts() -> None:
    wide = np.uint64(100)
    for arrival, found, why in ((7, 0, align.OK), (8, -1, arrived.LATE)):
        index, reason = arrived.nearest_arrived(ints([5]), ints([7]), ints([5]), ints([arrival]), wide, wide)
        assert (index.tolist(), reason.tolist()) == ([found], [why])


def test_records_out_of_order_are_refused() -> None:
    with pytest.raises(ValueError, match="sorted"):
        arrived.hold_arrived(ints([0]), ints([0]), ints([1, 0]), ints([0, 0]), np.uint64(1))

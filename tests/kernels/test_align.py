"""The compiled matching against loops that try every record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.kernels import align

LOW, HIGH = -(2**63), 2**63 - 1
# Few values and close together, so that ties, repeats and exact hits are common; and the ends of int64.
stamps = st.one_of(
    st.integers(-12, 12), st.sampled_from([LOW, LOW + 1, -1, 0, 1, HIGH - 1, HIGH]), st.integers(LOW, HIGH)
)
# Up to 80, so that a search has some way to go.
records = st.lists(stamps, max_size=80).map(sorted)
frames = st.lists(stamps, max_size=40)
limits = st.one_of(st.integers(0, 8), st.sampled_from([2**63 - 1, 2**63, 2**64 - 1]), st.integers(0, 2**64 - 1))


def ints(values: Sequence[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def nearest(at: int, t_ns: list[int], before: int, after: int) -> int:
    allowed = [row for row, t in enumerate(t_ns) if (at - t <= before if t <= at else t - at <= after)]
    return min(allowed, key=lambda row: (abs(at - t_ns[row]), row), default=-1)


def hold(at: int, t_ns: list[int], before: int) -> int:
    return max((row for row, t in enumerate(t_ns) if t <= at and at - t <= before), default=-1)


def bracket(at: int, t_ns: list[int], limit: int) -> tuple[int, int, int]:
    if not t_ns:
        return -1, -1, align.EMPTY
    if at in t_ns:
        return t_ns.index(at), t_ns.index(at), align.OK
    before = [row for row, t in enumerate(t_ns) if t < at]
    after = [row for row, t in enumerate(t_ns) if t > at]
    if not before or not after:
        return -1, -1, align.TOLERANCE
    if t_ns[after[0]] - t_ns[before[-1]] > limit:
        return -1, -1, align.GAP
    return before[-1], after[0], align.OK


def reasons(index: Sequence[int], t_ns: list[int]) -> list[int]:
    missing = align.TOLERANCE if t_ns else align.EMPTY
    return [align.OK if row >= 0 else missing for row in index]


@given(frames, records, limits, limits)
@settings(deadline=None)
def test_nearest_against_all_records(at: list[int], t_ns: list[int], before: int, after: int) -> None:
    index, reason = align.nearest(ints(at), ints(t_ns), np.uint64(before), np.uint64(after))
    expected = [nearest(t, t_ns, before, after) for t in at]
    assert index.tolist() == expected
    assert reason.tolist() == reasons(expected, t_ns)


@given(frames, records, limits)
@settings(deadline=None)
def test_hold_against_all_records(at: list[int], t_ns: list[int], before: int) -> None:
    index, reason = align.hold(ints(at), ints(t_ns), np.uint64(before))
    expected = [hold(t, t_ns, before) for t in at]
    assert index.tolist() == expected
    assert reason.tolist() == reasons(expected, t_ns)


@given(frames, records, limits)
@settings(deadline=None)
def test_bracket_against_all_records(at: list[int], t_ns: list[int], limit: int) -> None:
    found = align.bracket(ints(at), ints(t_ns), np.uint64(limit))
    assert list(zip(*(column.tolist() for column in found), strict=True)) == [bracket(t, t_ns, limit) for t in at]


@given(frames, records, limits, st.data())
@settings(deadline=None)
def test_linear_stays_between_its_two_values(at: list[int], t_ns: list[int], limit: int, data: st.DataObject) -> None:
    value = st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")))
    values = np.array(data.draw(st.lists(value, min_size=len(t_ns), max_size=len(t_ns))), dtype=np.float64)
    before, after, _ = align.bracket(ints(at), ints(t_ns), np.uint64(limit))
    found = align.interpolate(values, before, after, align.shares(ints(at), ints(t_ns), before, after))
    for t, left, right, value_found in zip(at, before.tolist(), after.tolist(), found.tolist(), strict=True):
        if left < 0:
            assert np.isnan(value_found)
        elif left == right:
            np.testing.assert_equal(value_found, values[left])
        else:
            share = (t - t_ns[left]) / (t_ns[right] - t_ns[left])  # whole numbers of any size: exact
            expected = values[left] * (1 - share) + values[right] * share
            np.testing.assert_allclose(value_found, expected, rtol=1e-9, atol=1e-9)


@given(st.integers(0, 2**32), st.sampled_from([15.0, 100.0, 1000.0]), st.booleans())
@settings(deadline=None, max_examples=20)
def test_a_long_drive_with_jitter_drops_and_bursts(seed: int, rate_hz: float, shuffled: bool) -> None:
    """Searches that start at a guess end where numpy's do."""
    random = np.random.default_rng(seed)
    t_ns = (np.arange(20_000) * (1e9 / rate_hz)).astype(np.int64) + random.integers(0, 4_000_000, 20_000)
    t_ns = np.sort(t_ns[random.random(t_ns.size) > 0.05])
    t_ns[5_000:6_000] = t_ns[5_000]  # a clock that stands still
    at = np.arange(t_ns[0] - 10**9, t_ns[-1] + 10**9, 100_000_000)
    if shuffled:
        random.shuffle(at)
    wide = np.uint64(HIGH)
    right, past = np.searchsorted(t_ns, at), np.searchsorted(t_ns, at, side="right")
    assert align.hold(at, t_ns, wide)[0].tolist() == (past - 1).tolist()
    before, after, _ = align.bracket(at, t_ns, wide)
    inside = (past > 0) & (right < t_ns.size)
    assert before[inside].tolist() == np.where(past > right, right, right - 1)[inside].tolist()
    assert after[inside].tolist() == right[inside].tolist()
    assert (before[~inside] == -1).all()
    index, _ = align.nearest(at, t_ns, wide, wide)
    earlier, later = np.maximum(right - 1, 0), np.minimum(right, t_ns.size - 1)
    best = np.where(np.abs(at - t_ns[earlier]) <= np.abs(t_ns[later] - at), earlier, later)
    assert index.tolist() == np.searchsorted(t_ns, t_ns[best]).tolist()


def test_a_tie_goes_to_the_earlier_row() -> None:
    wide = np.uint64(100)
    assert align.nearest(ints([5]), ints([0, 10]), wide, wide)[0].tolist() == [0]
    assert align.nearest(ints([5]), ints([0, 0, 10, 10]), wide, wide)[0].tolist() == [0]
    assert align.nearest(ints([6]), ints([0, 0, 10, 10]), wide, wide)[0].tolist() == [2]
    assert align.nearest(ints([10]), ints([0, 10, 10]), wide, wide)[0].tolist() == [1]


def test_tolerances_before_and_after_are_apart_and_inclusive() -> None:
    at, t_ns = ints([100]), ints([90, 105])

    def found(before: int, after: int) -> int:
        return int(align.nearest(at, t_ns, np.uint64(before), np.uint64(after))[0][0])

    assert [found(10, 5), found(10, 4), found(9, 5), found(9, 4)] == [1, 0, 1, -1]
    assert align.hold(at, t_ns, np.uint64(10))[0].tolist() == [0]
    assert align.hold(at, t_ns, np.uint64(9))[0].tolist() == [-1]


def test_a_bracket_of_exactly_the_limit_is_no_gap() -> None:
    at, t_ns = ints([4, 14, 20, 31, -1]), ints([0, 10, 21, 30])
    before, after, reason = align.bracket(at, t_ns, np.uint64(10))
    assert before.tolist() == [0, -1, -1, -1, -1]
    assert after.tolist() == [1, -1, -1, -1, -1]
    assert reason.tolist() == [align.OK, align.GAP, align.GAP, align.TOLERANCE, align.TOLERANCE]
    share = align.shares(at, t_ns, before, after)
    assert np.isnan(align.interpolate(np.arange(4.0), before, after, share)[1:]).all()


def test_hold_at_the_last_stamp_there_is() -> None:
    t_ns = ints([LOW, HIGH, HIGH])
    assert align.hold(ints([HIGH, HIGH - 1, LOW]), t_ns, np.uint64(2**64 - 1))[0].tolist() == [2, 0, 0]
    assert align.hold(ints([HIGH - 1]), t_ns, np.uint64(2**64 - 3))[0].tolist() == [-1]


@pytest.mark.parametrize("match", ["nearest", "hold", "bracket"])
def test_records_out_of_order_are_refused(match: str) -> None:
    limits = [np.uint64(1)] * (2 if match == "nearest" else 1)
    with pytest.raises(ValueError, match="sorted"):
        getattr(align, match)(ints([0]), ints([0, 2, 1]), *limits)


# Rotations


def unit(quaternion: np.ndarray) -> np.ndarray:
    scaled = quaternion / np.abs(quaternion).max()
    return np.asarray(scaled / np.linalg.norm(scaled))


def slerp(
    at: np.ndarray, t_ns: np.ndarray, quaternions: np.ndarray, before: np.ndarray, after: np.ndarray
) -> np.ndarray:
    """quaternions: [records, 4]. Gives [frames, 4]."""
    x, y, z, w = np.ascontiguousarray(quaternions.T)
    return align.slerp((x, y, z, w), before, after, align.shares(at, t_ns, before, after)).T


def turned(left: np.ndarray, right: np.ndarray, share: float) -> np.ndarray:
    """left, then a share of the rotation from left to right, by axis and angle: another way than the kernel's."""

    def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        vector = a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])
        return np.array([*vector, a[3] * b[3] - a[:3] @ b[:3]])

    step = times(np.array([*-left[:3], left[3]]), right)
    step = step if step[3] >= 0 else -step
    length = float(np.linalg.norm(step[:3]))
    if length == 0.0:
        return left
    half = np.arctan2(length, step[3]) * share
    return times(left, np.array([*(step[:3] / length * np.sin(half)), np.cos(half)]))


components = st.one_of(st.floats(-1, 1), st.sampled_from([0.0, 1.0, -1.0, 1e-8, float("nan")]))
rotations = st.lists(components, min_size=4, max_size=4)


@given(frames, records, limits, st.data())
@settings(deadline=None)
def test_slerp_against_axis_and_angle(at: list[int], t_ns: list[int], limit: int, data: st.DataObject) -> None:
    drawn = data.draw(st.lists(rotations, min_size=len(t_ns), max_size=len(t_ns)))
    quaternions = np.array(drawn, dtype=np.float64).reshape(-1, 4)
    before, after, _ = align.bracket(ints(at), ints(t_ns), np.uint64(limit))
    found = slerp(ints(at), ints(t_ns), quaternions, before, after)
    signs = data.draw(st.lists(st.sampled_from([1, -1]), min_size=len(t_ns), max_size=len(t_ns)))
    flipped = quaternions * np.array(signs, dtype=np.float64)[:, None]
    other = slerp(ints(at), ints(t_ns), flipped, before, after)
    for t, left, right, rotation, of_flipped in zip(at, before.tolist(), after.tolist(), found, other, strict=True):
        if left < 0 or not all(np.isfinite(quaternions[row]).all() and quaternions[row].any() for row in (left, right)):
            assert np.isnan(rotation).all()
            assert np.isnan(of_flipped).all()
            continue
        assert np.linalg.norm(rotation) == pytest.approx(1)
        assert rotation[3] >= 0
        one, two = unit(quaternions[left]), unit(quaternions[right])
        if abs(one @ two) < 1e-6:
            continue  # half a turn apart: both arcs are as short
        share = 0.0 if left == right else (t - t_ns[left]) / (t_ns[right] - t_ns[left])
        expected = turned(one, two, share)
        # q and -q are the same rotation.
        assert abs(rotation @ expected) == pytest.approx(1, abs=1e-12)
        assert abs(rotation @ of_flipped) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("sign", [1, -1])
def test_slerp_takes_the_shorter_arc(sign: int) -> None:
    """A yaw of 0 and 60 degrees: 20 degrees at a third, whatever the signs."""
    yaw = np.radians([0.0, 60.0])
    quaternions = np.stack([np.zeros(2), np.zeros(2), np.sin(yaw / 2), np.cos(yaw / 2)], axis=1)
    quaternions[1] *= sign * 5  # of any length
    (found,) = slerp(ints([10]), ints([0, 30]), quaternions, ints([0]), ints([1]))
    assert found == pytest.approx([0, 0, np.sin(np.radians(10)), np.cos(np.radians(10))])


def test_slerp_of_tiny_and_huge_values() -> None:
    quaternions = np.array([[0, 0, 0, 1e-300], [0, 0, 1e300, 1e300]])
    (found,) = slerp(ints([15]), ints([0, 30]), quaternions, ints([0]), ints([1]))
    assert found == pytest.approx([0, 0, np.sin(np.radians(22.5)), np.cos(np.radians(22.5))])

"""What is remembered: which earlier frame, and how the vehicle moved since."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fleet_assets.edge.inputs import CONTEXT, SPEED, YAW_RATE
from fleet_assets.edge.memory import LAG, MEMORY_INPUTS, Lag, Memory, earlier_rows, motion_of


def _context(speed_mps: float, yaw_rate_radps: float) -> np.ndarray:
    context = np.full(len(CONTEXT), np.nan, dtype=np.float32)
    context[[SPEED, YAW_RATE]] = speed_mps, yaw_rate_radps
    return context


def _memory(value: float) -> np.ndarray:
    return np.full((1, *MEMORY_INPUTS["earlier"]), value, dtype=np.float32)


def test_the_earlier_frame_is_the_one_nearest_to_the_lag() -> None:
    random = np.random.default_rng(0)
    t_ns = np.cumsum(random.integers(20_000_000, 900_000_000, 300))
    expected = []
    for now in t_ns.tolist():
        near = [
            (abs(now - LAG.wanted_ns - then), row)
            for row, then in enumerate(t_ns.tolist())
            if LAG.least_ns <= now - then <= LAG.most_ns
        ]
        expected.append(min(near)[1] if near else -1)
    assert earlier_rows(t_ns, LAG).tolist() == expected
    assert -1 in expected[5:]
    assert len(set(expected)) > 100


@pytest.mark.parametrize(("speed_mps", "yaw_rate"), [(12.0, 0.0), (8.0, 0.4), (0.0, -0.5), (-2.0, 0.1)])
def test_dead_reckoning_is_where_the_vehicle_went(speed_mps: float, yaw_rate: float) -> None:
    """Against a thousand small steps at constant speed and yaw rate."""
    x = y = yaw = 0.0
    step_s = 0.6 / 1000
    for _ in range(1000):
        x += speed_mps * step_s * math.cos(yaw + yaw_rate * step_s / 2)
        y += speed_mps * step_s * math.sin(yaw + yaw_rate * step_s / 2)
        yaw += yaw_rate * step_s
    context = _context(speed_mps, yaw_rate)[None]
    (found,) = motion_of(context, context, np.array([0.6]))
    assert found == pytest.approx([x, y, yaw, 0.6, 1.0], abs=0.02)


@pytest.mark.parametrize("unknown", [np.nan, np.inf, 3e38])
def test_motion_that_is_not_known_leaves_nothing_to_remember(unknown: float) -> None:
    known = _context(5.0, 0.1)
    assert motion_of(known[None], known[None], np.array([0.6])).all()
    for other in (_context(unknown, 0.1), _context(5.0, unknown)):
        for before, now in ((known, other), (other, known), (other, other)):
            assert not motion_of(before[None], now[None], np.array([0.6])).any()


def test_a_drive_remembers_the_frame_of_its_lag() -> None:
    memory, context = Memory(LAG), _context(10.0, 0.0)
    for number in range(30):
        t_ns = number * 100_000_000
        recalled = memory.recall(t_ns, context)
        there = number >= 4  # the first at 0.4 s, then up to 0.6 s
        assert recalled["motion"][0, 4] == there
        if there:
            back = min(number, 6)
            assert recalled["earlier"].max() == number - back
            assert recalled["motion"][0, 0] == pytest.approx(back)
        memory.keep(t_ns, context, _memory(number))


def test_gaps_and_clocks_that_begin_anew_are_not_crossed() -> None:
    memory, context = Memory(LAG), _context(10.0, 0.0)
    memory.keep(10**10, context, _memory(1))
    assert memory.recall(10**10 + LAG.most_ns, context)["motion"].any()
    assert not memory.recall(10**10 + LAG.most_ns + 1, context)["motion"].any()
    assert not memory.recall(10**9, context)["motion"].any()
    memory.keep(10**9, context, _memory(2))
    assert memory.recall(10**9 + LAG.wanted_ns, context)["earlier"].max() == 2


def test_frames_that_come_fast_are_kept_in_bounds() -> None:
    memory, context, kept = Memory(LAG), _context(10.0, 0.0), []
    for number in range(2000):
        kept.append(memory.recall(number * 1_000_000, context)["motion"][0, 3])
        memory.keep(number * 1_000_000, context, _memory(0))
    assert len(memory._kept) <= 32
    assert kept[700:] == pytest.approx([LAG.wanted_ns * 1e-9] * 1300, abs=0.02)


def test_a_model_without_a_lag_is_given_nothing() -> None:
    memory = Memory(None)
    memory.keep(0, _context(1, 0), None)
    assert memory.recall(LAG.wanted_ns, _context(1, 0)) == {}


@pytest.mark.parametrize(
    "wrong",
    [{"wanted_ns": 0.6}, {"wanted_ns": True}, {"least_ns": 0}, {"least_ns": 700_000_000}, {"most_ns": 10**12}, {"most_ns": None}],
)  # fmt: skip
def test_a_lag_that_is_none_is_refused(wrong: dict[str, object]) -> None:
    assert Lag.from_document(LAG.to_document()) == LAG
    with pytest.raises((TypeError, ValueError)):
        Lag.from_document({**LAG.to_document(), **wrong})

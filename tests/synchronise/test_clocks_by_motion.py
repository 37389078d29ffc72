"""Clock models by motion that two streams see, against offsets that the test made, and what motion does not tell.

One stream knows the logger's clock, the other has a clock of its own and no arrival.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synchronise.drives import MS, SECOND, T0_NS

from fleet_assets.contracts.loader import load_streams
from fleet_assets.synchronise.clock import Evidence, Motion, estimate
from fleet_assets.synchronise.clock_model import ClockModel, Stamps


def town(seed: int) -> np.ndarray:
    """Turns, no two alike: time, length [s], rate [rad/s]."""
    return np.random.default_rng(seed).uniform((2, 0.4, -0.4), (88, 2.5, 0.4), (25, 3))


TOWN = town(5)


def yaw_rate(t_s: np.ndarray, turns: np.ndarray = TOWN) -> np.ndarray:
    return sum((rate * np.exp(-(((t_s - at) / length) ** 2)) for at, length, rate in turns), np.zeros_like(t_s))


def by_correlation(
    random: np.random.Generator,
    offset_s: float,
    *,
    scale: float = 1.0,
    turns: np.ndarray | None = None,
    from_s: float = 20.0,
    seconds: float = 40.0,
) -> ClockModel:
    t_s, mine_s = np.arange(0, 90, 0.01), np.arange(from_s, from_s + seconds, 0.025)
    seen = yaw_rate(mine_s) if turns is None else yaw_rate(mine_s, turns)
    device = T0_NS + np.round((mine_s - offset_s) * SECOND).astype(np.int64)
    host = T0_NS + np.round(t_s * SECOND).astype(np.int64)
    contracts = load_streams()
    evidence = Evidence(
        {"imu": Stamps(contracts["imu"], None, host), "gps_imu": Stamps(contracts["gps_imu"], device, None)},
        motion={
            "imu": Motion("imu", host, scale * yaw_rate(t_s) + random.normal(0, 0.002, t_s.size)),
            "gps_imu": Motion("gps_imu", device, scale * seen + 0.01 + random.normal(0, 0.002, mine_s.size)),
        },
    )
    return {model.stream: model for model in estimate(evidence, None).models}["gps_imu"]


@given(st.integers(0, 2**32), st.floats(-1000, 1000))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_offset_by_motion_that_both_see(seed: int, offset_s: float) -> None:
    model = by_correlation(np.random.default_rng(seed), offset_s)
    assert (model.status, model.method) == ("ok", "correlation")
    assert model.offset_ns == pytest.approx(offset_s * SECOND, abs=5 * MS)
    assert model.confidence > 0.95


def test_offset_by_motion_within_a_millisecond() -> None:
    """Where the scene tells: 95 of 100 town drives, in the middle of what both saw."""
    off_ns = []
    for seed in range(100):
        model = by_correlation(np.random.default_rng(seed), 3.1237 * seed)
        assert model.ok
        middle_ns = np.array([(model.t_from_ns + model.t_to_ns) // 2])
        off_ns.append(abs(int((model.apply(middle_ns) - middle_ns)[0]) - 3.1237 * seed * SECOND))
    assert np.percentile(off_ns, 95) < MS


@pytest.mark.parametrize(
    ("scene", "evidence"),
    [
        ({"scale": 0.01}, "no lag is better than another"),  # a straight road
        ({"from_s": 87.0}, "correlation"),  # 3 s in common
        ({"seconds": 15.0}, "shorter than 20 s"),
    ],
    ids=["straight road", "no overlap", "short"],
)
def test_what_motion_does_not_tell_is_insufficient(scene: dict[str, float], evidence: str) -> None:
    model = by_correlation(np.random.default_rng(1), 7.0, **scene)  # type: ignore[arg-type]
    assert (model.status, model.offset_ns, model.confidence) == ("insufficient", None, 0.0)
    assert evidence in model.evidence


@pytest.mark.parametrize("seed", range(20))
def test_the_motion_of_another_drive_tells_nothing(seed: int) -> None:
    """With an overlap of 5 s and a correlation of 0.8, a third of them would be taken for the same drive."""
    model = by_correlation(np.random.default_rng(seed), 7.0, turns=town(100 + seed))
    assert (model.status, model.offset_ns) == ("insufficient", None)
    assert "next best" in model.evidence


def test_turns_that_repeat_do_not_tell_which_is_which() -> None:
    t_s = np.arange(0, 60, 0.01)
    stamps = T0_NS + np.round(t_s * SECOND).astype(np.int64)
    turns = 0.3 * np.sin(t_s)
    contracts = load_streams()
    model = estimate(
        Evidence(
            {
                "imu": Stamps(contracts["imu"], None, stamps),
                "gps_imu": Stamps(contracts["gps_imu"], stamps[2000:5000], None),
            },
            motion={
                "imu": Motion("imu", stamps, turns),
                "gps_imu": Motion("gps_imu", stamps[2000:5000], turns[2000:5000]),
            },
        ),
        None,
    ).models[0]
    assert (model.stream, model.status) == ("gps_imu", "insufficient")
    assert "next best" in model.evidence


def test_a_stray_stamp_makes_no_grid_of_years() -> None:
    device = np.array([0, *(T0_NS + np.arange(500) * 25 * MS)])
    host = T0_NS + np.arange(6000) * 10 * MS
    motion = {
        "imu": Motion("imu", host, np.sin(np.arange(6000))),
        "gps_imu": Motion("gps_imu", device, np.sin(np.arange(501))),
    }
    contracts = load_streams()
    streams = {"imu": Stamps(contracts["imu"], None, host), "gps_imu": Stamps(contracts["gps_imu"], device, None)}
    model = estimate(Evidence(streams, motion=motion), None).models[0]
    assert (model.stream, model.status) == ("gps_imu", "insufficient")
    assert "more than a day" in model.evidence


# Speed, where no yaw rate is seen


def by_speed(scale_mps: float) -> ClockModel:
    """A bus on the logger's clock, and a receiver of 10 Hz on its own."""
    random = np.random.default_rng(3)
    t_s, mine_s = np.arange(0, 90, 0.02), np.arange(20, 65, 0.1)
    host = T0_NS + np.round(t_s * SECOND).astype(np.int64)
    device = T0_NS + np.round((mine_s - 12.5) * SECOND).astype(np.int64)
    contracts = load_streams()
    evidence = Evidence(
        {"bus_vehicle": Stamps(contracts["bus_vehicle"], None, host), "gnss": Stamps(contracts["gnss"], device, None)},
        speed={
            "bus_vehicle": Motion(
                "bus_vehicle", host, 10 + scale_mps * yaw_rate(t_s) + random.normal(0, 0.05, t_s.size)
            ),
            "gnss": Motion("gnss", device, 10 + scale_mps * yaw_rate(mine_s) + random.normal(0, 0.05, mine_s.size)),
        },
    )
    return {model.stream: model for model in estimate(evidence, None).models}["gnss"]


def test_offset_by_speed_that_both_see() -> None:
    model = by_speed(20.0)
    assert (model.status, model.method) == ("ok", "correlation")
    assert model.offset_ns == pytest.approx(12.5 * SECOND, abs=5 * MS)
    assert "speed against bus_vehicle" in model.evidence
    assert model.skew_error_ppm is not None
    assert abs(model.skew_ppm) < 3 * model.skew_error_ppm
    assert 5 < model.skew_error_ppm < 50  # 45 s do not tell what the clock's maker does


def test_at_a_steady_speed_no_lag_is_better_than_another() -> None:
    model = by_speed(0.2)
    assert (model.status, model.offset_ns) == ("insufficient", None)
    assert "speed varies by less than 0.5: no lag is better than another" in model.evidence

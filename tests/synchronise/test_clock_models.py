"""Clock models against clocks that the test made: offset, skew, jumps, and what nobody can tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synchronise.drives import MS, SECOND, T0_NS

from fleet_assets.contracts.loader import load_streams
from fleet_assets.simulate.clocks import delays, draw_clocks, steady
from fleet_assets.synchronise.clock import NO_TIME, Evidence, Motion, estimate
from fleet_assets.synchronise.clock_model import ClockModel, Stamps, on_reference

seeds = st.integers(0, 2**32)


@dataclass
class Clock:
    """A stream as it really was (t_ns), and what its clocks showed."""

    t_ns: np.ndarray
    device: np.ndarray
    host: np.ndarray


def clock(
    random: np.random.Generator,
    *,
    seconds: float = 60.0,
    rate_hz: float = 10.0,
    offset_ns: int = 0,
    skew_ppm: float = 0.0,
    drops: float = 0.0,
    delay_ns: float = 0.3 * MS,
) -> Clock:
    """device = (t - offset) running fast by skew; host = t + a delay that is never negative."""
    t_ns = T0_NS + np.round(np.arange(int(seconds * rate_hz)) * SECOND / rate_hz).astype(np.int64)
    t_ns = t_ns[random.random(t_ns.size) >= drops]
    drift = np.round((t_ns - T0_NS) * skew_ppm * 1e-6).astype(np.int64)
    delay = random.exponential(delay_ns, t_ns.size).astype(np.int64)
    return Clock(t_ns, t_ns - offset_ns + drift, t_ns + delay)


def models_of(stream: str, device: np.ndarray | None, host: np.ndarray | None) -> list[ClockModel]:
    return estimate(Evidence({stream: Stamps(load_streams()[stream], device, host)}), None).models


@given(seeds, st.integers(-(10**12), 10**12), st.floats(-80, 80), st.sampled_from([0.0, 0.3]))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_offset_and_skew_by_arrival(seed: int, offset_ns: int, skew_ppm: float, drops: float) -> None:
    """Ten minutes: within 1 ms and 0.1 ppm."""
    true = clock(np.random.default_rng(seed), seconds=600, offset_ns=offset_ns, skew_ppm=skew_ppm, drops=drops)
    (model,) = models_of("lidar", true.device, true.host)
    assert (model.status, model.method, model.segment) == ("ok", "arrival", 0)
    assert model.skew_ppm == pytest.approx(-skew_ppm / (1 + skew_ppm * 1e-6), abs=0.1)
    assert np.abs(model.apply(true.device) - true.t_ns).max() < MS
    assert model.residual_p95_ns is not None
    assert 0 < model.residual_p95_ns < 2 * MS


@given(seeds, st.sampled_from([-3600, -1, -0.03, 0.03, 1, 3600]), st.floats(-50, 50))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_a_jump_starts_a_segment(seed: int, jump_s: float, skew_ppm: float) -> None:
    random = np.random.default_rng(seed)
    true = clock(random, seconds=120, offset_ns=5 * SECOND, skew_ppm=skew_ppm, drops=0.02)
    at = int(random.integers(100, true.t_ns.size - 100))
    true.device[at:] += round(jump_s * SECOND)
    models = models_of("lidar", true.device, true.host)
    assert [(m.segment, m.first_row, m.rows, m.status) for m in models] == [
        (0, 0, at, "ok"),
        (1, at, true.t_ns.size - at, "ok"),
    ]
    assert [(m.t_from_ns, m.t_to_ns) for m in models] == [
        (true.device[0], true.device[at - 1]),
        (true.device[at], true.device[-1]),
    ]
    t_ns, known = on_reference(models, true.device)
    assert known.all()
    assert np.abs(t_ns - true.t_ns).max() < MS


@given(seeds)
@settings(deadline=None, derandomize=True, max_examples=25)
def test_lost_records_and_late_arrival_are_no_jumps(seed: int) -> None:
    random = np.random.default_rng(seed)
    true = clock(random, seconds=120, rate_hz=100.0, drops=0.2)
    kept = np.ones(true.t_ns.size, dtype=bool)
    for _ in range(5):  # the bus falls silent; the logger stalls, and what was waiting comes at once
        start = int(random.integers(0, true.t_ns.size - 500))
        kept[start : start + 300] = False
        stall = slice(start + 300, start + 400)
        true.host[stall] = np.maximum(true.host[stall], true.host[stall.stop])
    (model,) = models_of("imu", true.device[kept], true.host[kept])
    assert (model.status, model.rows) == ("ok", int(kept.sum()))
    assert np.abs(model.apply(true.device) - true.t_ns).max() < MS


def test_records_that_are_overtaken_are_no_jumps() -> None:
    true = clock(np.random.default_rng(0), offset_ns=3 * SECOND)
    late = np.random.default_rng(1).random(true.t_ns.size) < 0.1
    true.host[late] += 250 * MS
    order = np.argsort(true.host)
    (model,) = models_of("lidar", true.device[order], true.host[order])
    assert (model.status, model.rows) == ("ok", true.t_ns.size)
    assert np.abs(model.apply(true.device) - true.t_ns).max() < MS


@pytest.mark.parametrize("stray_s", [90, -90])
def test_a_segment_of_few_pairs_is_not_known(stray_s: int) -> None:
    true = clock(np.random.default_rng(0))
    true.device[300:310] += stray_s * SECOND  # ten stray stamps
    models = models_of("lidar", true.device, true.host)
    assert [(m.rows, m.status) for m in models] == [(300, "ok"), (10, "insufficient"), (290, "ok")]
    assert "needs 20" in models[1].evidence
    t_ns, known = on_reference(models, true.device)
    assert np.flatnonzero(~known).tolist() == list(range(300, 310))
    assert np.abs(t_ns - true.t_ns)[known].max() < MS


@pytest.mark.parametrize("fault", ["stuck", "five minutes an hour", "random"])
def test_what_is_no_clock_is_rejected(fault: str) -> None:
    random = np.random.default_rng(0)
    true = clock(random)
    device = {
        "stuck": np.full_like(true.device, T0_NS),
        "five minutes an hour": T0_NS + (true.device - T0_NS) // 12,
        "random": T0_NS + random.integers(0, 60 * SECOND, true.device.size),
    }[fault]
    (model,) = models_of("lidar", device, true.host)
    assert (model.status, model.offset_ns, model.confidence) == ("rejected", None, 0.0)
    assert model.evidence


def test_few_pairs_are_insufficient() -> None:
    true = clock(np.random.default_rng(0), seconds=1.9)
    (model,) = models_of("lidar", true.device, true.host)
    assert (model.status, model.offset_ns) == ("insufficient", None)
    assert "19 pairs" in model.evidence


def test_a_drive_without_stamps_has_no_models() -> None:
    empty = np.zeros(0, dtype=np.int64)
    assert (
        models_of("lidar", empty, None)
        == models_of("lidar", None, None)
        == estimate(Evidence({}), "lidar").models
        == []
    )


# UTC


def gnss(difference_ns: np.ndarray, known: np.ndarray | None = None) -> ClockModel:
    """The model of a receiver on the logger's clock that tells UTC = host + difference."""
    host = T0_NS + np.arange(difference_ns.size) * SECOND
    told = host + difference_ns.astype(np.int64)
    if known is not None:
        told[~known] = NO_TIME
    stamps = Stamps(load_streams()["gnss"], None, host)
    (model,) = estimate(Evidence({"gnss": stamps}, {"gnss": told}), None).models
    return model


@given(seeds, st.integers(-(10**11), 10**11), st.floats(0, 0.3))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_utc_by_reference_with_outliers_and_missing_times(seed: int, offset_ns: int, outliers: float) -> None:
    random = np.random.default_rng(seed)
    difference = offset_ns + random.normal(0, 20 * MS, 600)
    stray = random.random(600) < outliers
    difference[stray] += random.choice([-1, 1], 600)[stray] * random.uniform(10, 1e6, 600)[stray] * SECOND
    model = gnss(difference, random.random(600) < 0.8)
    assert (model.status, model.method) == ("ok", "reference")
    assert model.offset_ns == pytest.approx(offset_ns, abs=10 * MS)
    assert model.spread_ns == pytest.approx(1.349 * 20 * MS, rel=0.3)
    assert model.confidence == pytest.approx(1 - stray.mean(), abs=0.1)


@pytest.mark.parametrize(
    ("difference", "why"),
    [(np.zeros(9), "too few"), (np.linspace(-5, 5, 600) * SECOND, "no agreement")],
    ids=["nine times", "scattered"],
)
def test_without_utc_the_loggers_clock_is_the_reference(difference: np.ndarray, why: str) -> None:
    model = gnss(difference)
    assert (model.status, model.method, model.offset_ns) == ("ok", "shared", 0), why
    assert "no GNSS time: the logger's clock is the reference" in model.evidence


@given(seeds)
@settings(deadline=None, derandomize=True, max_examples=10)
def test_a_device_clock_reaches_utc_through_the_logger(seed: int) -> None:
    random = np.random.default_rng(seed)
    lidar = clock(random, offset_ns=40 * SECOND)
    fixes = clock(random, rate_hz=1.0, delay_ns=0)
    utc = fixes.t_ns - 4 * SECOND
    contracts = load_streams()
    streams = {
        "gnss": Stamps(contracts["gnss"], None, fixes.host),
        "lidar": Stamps(contracts["lidar"], lidar.device, lidar.host),
    }
    fix, scan = estimate(Evidence(streams, {"gnss": utc}), "lidar").models
    assert (fix.stream, fix.offset_ns, fix.method) == ("gnss", -4 * SECOND, "reference")
    assert (scan.stream, scan.method) == ("lidar", "arrival")
    assert np.abs(scan.apply(lidar.device) - (lidar.t_ns - 4 * SECOND)).max() < MS
    assert "UTC from 60 of 60" in scan.evidence


# Correlation: one stream knows the logger's clock, the other has a clock of its own and no arrival.


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


@given(seeds, st.floats(-1000, 1000))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_offset_by_motion_that_both_see(seed: int, offset_s: float) -> None:
    model = by_correlation(np.random.default_rng(seed), offset_s)
    assert (model.status, model.method) == ("ok", "correlation")
    assert model.offset_ns == pytest.approx(offset_s * SECOND, abs=5 * MS)
    assert model.confidence > 0.95


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


# The simulated fleet's clocks, whose truth is known


def simulated(seed: int, seconds: int, *, logger_skew_ppm: float = 0.0) -> tuple[Evidence, dict[str, Clock]]:
    """A LiDAR of 10 Hz on the sensors' clock and a receiver that tells UTC every second, as the simulator's clocks show them."""
    random = np.random.default_rng(seed)
    clocks = draw_clocks(random, T0_NS)
    if logger_skew_ppm:
        clocks["logger"] = steady(T0_NS, 3 * SECOND, logger_skew_ppm)
    true, streams = {}, {}
    for stream, domain, rate_hz in (("lidar", "vehicle_pc", 10), ("gnss_time", "logger", 1)):
        t_ns = T0_NS + np.arange(seconds * rate_hz) * SECOND // rate_hz
        host = clocks["logger"].shows(np.maximum.accumulate(t_ns + delays(random, t_ns.size)))
        true[stream] = Clock(t_ns, clocks[domain].shows(t_ns), host)
        streams[stream] = Stamps(load_streams()[stream], true[stream].device, host)
    return Evidence(streams, {"gnss_time": true["gnss_time"].t_ns}), true


SEEDS = range(100)


@pytest.mark.parametrize(("seconds", "skew_is_known"), [(20, False), (600, True)])
def test_clocks_of_the_simulated_fleet(seconds: int, skew_is_known: bool) -> None:
    """Within 1 ms, and within 0.1 ppm where the drive is long enough to tell; 95 of 100."""
    off_ns, off_ppm, claimed_ppm = [], [], []
    for seed in SEEDS:
        evidence, true = simulated(seed, seconds)
        for model in estimate(evidence, "lidar").models:
            assert model.ok
            told_ns = model.apply(true[model.stream].device) - true[model.stream].t_ns
            off_ns.append(np.abs(told_ns).max())
            if model.stream == "lidar":
                (slope, _) = np.polyfit(true["lidar"].device - T0_NS, told_ns, 1)
                off_ppm.append(abs(slope) * 1e6)
                assert model.skew_error_ppm is not None
                claimed_ppm.append(model.skew_error_ppm)
    assert np.percentile(off_ns, 95) < MS
    # What a model says about itself is true, and on the safe side.
    assert np.mean(np.array(off_ppm) <= 2 * np.array(claimed_ppm)) >= 0.95
    if skew_is_known:
        assert np.percentile(off_ppm, 95) < 0.1
        assert np.percentile(claimed_ppm, 95) < 0.1
    else:
        assert np.percentile(claimed_ppm, 5) > 0.1


@pytest.mark.parametrize("skew_ppm", [-40.0, -1.0, 1.0, 40.0])
def test_a_logger_that_runs_fast_or_slow_is_told_by_the_receiver(skew_ppm: float) -> None:
    """Ten minutes; all streams and arrivals come to UTC."""
    off_ns, off_ppm = [], []
    for seed in SEEDS[:30]:
        evidence, true = simulated(seed, 600, logger_skew_ppm=skew_ppm)
        found = estimate(evidence, "lidar")
        assert found.logger is not None
        off_ppm.append(abs(found.logger.skew_ppm - skew_ppm))
        told = {model.stream: model.apply(true[model.stream].device) for model in found.models}
        off_ns += [np.abs(told[stream] - true[stream].t_ns).max() for stream in told]
        arrived = found.logger.apply(true["lidar"].host) - true["lidar"].t_ns
        assert -MS < arrived.min() < MS
    assert np.percentile(off_ns, 95) < MS
    assert np.percentile(off_ppm, 95) < 0.1


def test_offset_by_motion_within_a_millisecond() -> None:
    """Where the scene tells: 95 of 100 town drives, in the middle of what both saw."""
    off_ns = []
    for seed in SEEDS:
        model = by_correlation(np.random.default_rng(seed), 3.1237 * seed)
        assert model.ok
        middle_ns = np.array([(model.t_from_ns + model.t_to_ns) // 2])
        off_ns.append(abs(int((model.apply(middle_ns) - middle_ns)[0]) - 3.1237 * seed * SECOND))
    assert np.percentile(off_ns, 95) < MS


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

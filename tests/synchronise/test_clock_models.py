"""Clock models by arrival and UTC, against clocks that the test made: offset, skew, jumps, and what nobody can tell."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synchronise.drives import MS, SECOND, T0_NS

from fleet_assets.contracts.loader import load_streams
from fleet_assets.simulate.clocks import delays, draw_clocks, steady
from fleet_assets.synchronise.clock import NO_TIME, Evidence, estimate
from fleet_assets.synchronise.clock_model import ClockModel, Stamps, median_ns, on_reference

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


@given(st.lists(st.one_of(st.integers(-5, 5), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=9))
@settings(deadline=None)
def test_a_median_is_exact_at_the_ends_of_int64_too(values: list[int]) -> None:
    assert median_ns(np.array(values, dtype=np.int64)) == math.floor(statistics.median(map(Fraction, values)))


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

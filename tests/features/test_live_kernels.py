"""Live kernels: what they say of motion and sensors, and that they say it bit for bit the same in every way of asking."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from features.live import MS, SECOND, T0_NS, digest, features, frame_cuts, random_records, replayed, stream

from fleet_assets.edge.feed import LIVE, Feed
from fleet_assets.kernels.features.lane_cell import M_PER_DEG
from fleet_assets.kernels.features.records import RECORD

FRAMES = 20_000


def speeds(values: np.ndarray, rate_hz: float = 20.0) -> np.ndarray:
    return stream("speed", rate_hz, np.asarray(values, dtype=np.float64)[:, None])


# ---- what they say ---------------------------------------------------------------------------------------------------


def test_steady_speed() -> None:
    (found,) = features("ego_motion", speeds(np.full(400, 10.0)), [T0_NS + 19 * SECOND])
    assert found["speed_mps"] == 10.0
    assert found["accel_mps2"] == 0.0
    assert found["stopped_s"] == 0.0
    assert found["distance_m_10s"] == pytest.approx(95, abs=6)  # nine full seconds and the running one
    assert found["braking_events_10s"] == 0.0
    assert np.isnan(found["yaw_rate_radps"])
    assert np.isnan(found["steering_events_10s"])


def stuck(device_ns: np.ndarray) -> np.ndarray:
    return np.full_like(device_ns, T0_NS)


def set_back(device_ns: np.ndarray) -> np.ndarray:
    return np.where(device_ns < T0_NS + 3 * SECOND, device_ns, device_ns - 3600 * SECOND)


@pytest.mark.parametrize("clock", [stuck, set_back])
def test_a_clock_that_stands_still_or_is_set_back_costs_no_motion(clock: Callable[[np.ndarray], np.ndarray]) -> None:
    angles = stream("steering", 50.0, np.linspace(0, 90, 1000)[:, None])
    turning = stream("imu", 100.0, np.tile([0.0, 0.0, 9.81, 0.0, 0.0, 0.2], (2000, 1)))
    records = np.concatenate([speeds(10.0 + 0.05 * np.arange(400)), angles, turning])  # 1 m/s^2
    records["t_host_ns"] += np.random.default_rng(0).integers(0, 5 * MS, records.size)
    records["t_device_ns"] = clock(records["t_device_ns"])
    cuts = [T0_NS + second * SECOND + 10 * MS for second in range(2, 20)]
    for number, found in enumerate(features("ego_motion", records, cuts), start=2):
        assert found["speed_mps"] == pytest.approx(10 + number, abs=0.11)
        assert found["accel_mps2"] == pytest.approx(1, abs=0.15)
        assert found["yaw_rate_radps"] == pytest.approx(0.2, abs=0.01)
        assert found["steering_rate_degps"] == pytest.approx(4.5, abs=0.8)
        assert found["speed_max_mps_10s"] == pytest.approx(10 + number, abs=0.11)
    assert found["distance_m_10s"] == pytest.approx(10 * 24.5, rel=0.1)


def test_a_record_told_twice_or_overtaken_does_not_count() -> None:
    steady = speeds(np.full(100, 10.0))
    late = steady[20:80:10].copy()
    late["t_host_ns"] += 60 * MS  # a period later, and overtaken by the next
    late["values"][:, 0] = 12.0
    late["t_host_ns"][::2] -= 50 * MS  # told twice
    (found,) = features("ego_motion", np.concatenate([steady, late]), [T0_NS + 5 * SECOND])
    assert (found["accel_mps2"], found["speed_max_mps_10s"]) == (0.0, 10.0)


def test_braking_is_counted_once_and_leaves_the_window() -> None:
    ramp = np.concatenate([np.full(100, 20.0), 20.0 - np.arange(60) * 0.25, np.full(400, 5.0)])  # 5 m/s^2 for 3 s
    before, during, later = features(
        "ego_motion", speeds(ramp), [T0_NS + 4 * SECOND, T0_NS + 9 * SECOND, T0_NS + 25 * SECOND]
    )
    assert before["braking_events_10s"] == 0.0
    assert during["braking_events_10s"] == 1.0
    assert during["hardest_braking_mps2_10s"] == pytest.approx(-5, abs=0.1)
    assert (later["braking_events_10s"], later["hardest_braking_mps2_10s"]) == (0.0, pytest.approx(0, abs=1e-3))


def test_a_silent_sensor_is_not_known() -> None:
    fresh, stale = features("ego_motion", speeds(np.full(20, 10.0)), [T0_NS + SECOND, T0_NS + 3 * SECOND])
    assert fresh["speed_mps"] == 10.0
    assert np.isnan(stale["speed_mps"])
    assert stale["speed_max_mps_10s"] == 10.0


def test_standing() -> None:
    moving_then_standing = np.concatenate([np.full(20, 3.0), np.zeros(100)])
    (found,) = features("ego_motion", speeds(moving_then_standing), [T0_NS + 5 * SECOND + MS])
    assert found["stopped_s"] == pytest.approx(4.0)
    assert np.isnan(found["path_curvature_per_m"])


def test_curve() -> None:
    imu = np.zeros((500, 6))
    imu[:, 2], imu[:, 5] = 9.81, 0.2
    records = np.concatenate([speeds(np.full(100, 10.0)), stream("imu", 100.0, imu)])
    (found,) = features("ego_motion", records, [T0_NS + 4 * SECOND])
    assert found["yaw_rate_radps"] == pytest.approx(0.2)
    assert found["path_curvature_per_m"] == pytest.approx(0.02)
    assert found["lateral_accel_mps2"] == pytest.approx(2.0)
    assert found["vertical_accel_mps2"] == pytest.approx(9.81)


def test_rate_and_silence() -> None:
    records = stream("lidar", 10.0, np.arange(200)[:, None].astype(float))
    records = records[(records["sequence"] < 120) | (records["sequence"] >= 125)]
    before, with_gap, silent = features(
        "sensor_health", records, [T0_NS + 11 * SECOND, T0_NS + 15 * SECOND, T0_NS + 23 * SECOND]
    )
    assert before["lidar_rate_hz"] == pytest.approx(10, rel=0.02)
    assert with_gap["lidar_rate_hz"] == pytest.approx(9.5, rel=0.03)
    assert with_gap["lidar_silence_s_10s"] == pytest.approx(0.6)
    assert silent["lidar_silence_s_10s"] == pytest.approx(3.099, abs=0.01)
    assert np.isnan(silent["camera_rate_hz"])


def test_delay_is_told_against_the_best() -> None:
    records = stream("imu", 100.0, np.random.default_rng(0).normal(0, 1, (1000, 6)), delay_ms=3)
    records["t_host_ns"][500:] += 20 * MS
    early, late = features("sensor_health", records, [T0_NS + 4 * SECOND, T0_NS + 9 * SECOND])
    assert early["imu_delay_ms"] == 0.0
    assert late["imu_delay_ms"] == pytest.approx(20, rel=0.05)


def test_stuck_sensor() -> None:
    values = np.random.default_rng(0).normal(0, 1, (300, 6))
    values[100:] = values[100]
    (found,) = features("sensor_health", stream("imu", 100.0, values), [T0_NS + 3 * SECOND])
    assert found["imu_stuck_s"] == pytest.approx(1.99)


def test_blind_sensors() -> None:
    camera = np.tile([1.0, 0.02, 0.001, 0.0, 0.0], (30, 1))
    lidar = np.tile([1.0, 3.0, 4.0, 5.0, 0.5, 0.1], (30, 1))
    records = np.concatenate([stream("camera", 10.0, camera), stream("lidar", 10.0, lidar)])
    (found,) = features("sensor_health", records, [T0_NS + 2 * SECOND])
    assert (found["camera_blind"], found["lidar_blind"]) == (1.0, 1.0)


def test_fog_and_rain() -> None:
    def scene(contrast: float, far_m: float, near: float) -> dict[str, float]:
        camera = np.tile([1.0, 0.5, contrast, 0.02, 0.0], (30, 1))
        lidar = np.tile([1.0, 500.0, 20.0, far_m, near, 0.4], (30, 1))
        records = np.concatenate([stream("camera", 10.0, camera), stream("lidar", 10.0, lidar)])
        return features("scene_context", records, [T0_NS + 2 * SECOND])[0]

    clear, fog, rain = scene(0.2, 70, 0.05), scene(0.04, 15, 0.1), scene(0.15, 50, 0.5)
    assert clear["fog_estimate"] < 0.1 < 0.5 < fog["fog_estimate"]
    assert clear["rain_estimate"] == 0.0
    assert rain["rain_estimate"] == 1.0
    assert fog["visibility_m"] < clear["visibility_m"] == pytest.approx(80)


def fixes(*places: tuple[float, float], heading_deg: float = np.nan, speed_mps: float = np.nan) -> np.ndarray:
    """One a second, east and north of a place [m]."""
    rows = [
        (48 + north / M_PER_DEG, 11 + east / M_PER_DEG / np.cos(np.radians(48)), speed_mps, heading_deg, 1.5)
        for east, north in places
    ]
    return stream("gnss", 1.0, np.array(rows))


def heading(records: np.ndarray, after_s: float) -> float:
    return features("position", records, [T0_NS + round(after_s * SECOND)])[0]["heading_deg"]


def test_heading_is_the_way_from_an_earlier_fix() -> None:
    records = fixes((0, 0), (3, 0), (8, 0), (8, -12), (8, -13), (9, -13))
    assert np.isnan(heading(records, 1.5))  # 3 m are too near
    assert heading(records, 2.5) == pytest.approx(90, abs=0.01)
    assert heading(records, 3.5) == pytest.approx(180, abs=0.01)
    assert heading(records, 5.5) == pytest.approx(180, abs=0.01)  # it stands


def test_heading_is_not_known_after_a_leap() -> None:
    assert np.isnan(heading(fixes((0, 0), (10, 0), (500, 0)), 2.5))
    assert heading(fixes((0, 0), (10, 0), (500, 0), (510, 10)), 3.5) == pytest.approx(45, abs=0.01)


def test_a_receivers_own_heading_counts_while_it_moves() -> None:
    moving, standing = (fixes((0, 0), (10, 0), heading_deg=300.0, speed_mps=speed) for speed in (8.0, 0.1))
    assert heading(moving, 0.5) == 300.0
    assert np.isnan(heading(standing, 1.5))
    assert heading(fixes((0, 0), heading_deg=-60.0), 0.5) == 300.0


def test_a_fix_that_is_no_place_is_none() -> None:
    (found,) = features("position", stream("gnss", 1.0, np.array([[95.0, 11.0, 1.0, 0.0, 1.0]])), [T0_NS + SECOND])
    assert np.isnan(list(found.values())).all()


# ---- the same bits ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def records() -> np.ndarray:
    return random_records(7, 100_000)


@pytest.fixture(scope="module")
def cuts(records: np.ndarray) -> np.ndarray:
    return frame_cuts(records, FRAMES)


@pytest.fixture(scope="module")
def whole(records: np.ndarray, cuts: np.ndarray) -> dict[str, np.ndarray]:
    return replayed(records, cuts)


def same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return all(one[view].tobytes() == other[view].tobytes() for view in LIVE)


def test_as_a_vehicle_asks(records: np.ndarray, cuts: np.ndarray, whole: dict[str, np.ndarray]) -> None:
    """Frame by frame, with what has arrived since the last: more than a million values, bit for bit."""
    assert sum(values.size for values in whole.values()) > 1_000_000
    feed, at = Feed(), np.searchsorted(records["t_host_ns"], cuts, side="right")
    parts: dict[str, list[np.ndarray]] = {view: [] for view in LIVE}
    for frame in range(FRAMES):
        begin = at[frame - 1] if frame else 0
        for view, values in feed.push(records[begin : at[frame]], cuts[frame : frame + 1]).items():
            parts[view].append(values)
    assert same_bits({view: np.concatenate(values) for view, values in parts.items()}, whole)


def test_record_by_record(records: np.ndarray, cuts: np.ndarray, whole: dict[str, np.ndarray]) -> None:
    none = np.zeros(0, dtype=np.int64)
    count, feed = 2_000, Feed()
    for row in range(count):
        feed.push(records[row : row + 1], none)
    cut = np.flatnonzero(cuts >= records["t_host_ns"][count - 1])[:1]
    rest = records[count:][records["t_host_ns"][count:] <= cuts[cut[0]]]
    found = feed.push(rest, cuts[cut])
    assert all(found[view].tobytes() == whole[view][cut].tobytes() for view in LIVE)


def test_later_records_change_nothing(records: np.ndarray, cuts: np.ndarray, whole: dict[str, np.ndarray]) -> None:
    half = cuts[FRAMES // 2]
    without = replayed(records[records["t_host_ns"] <= half], cuts[: FRAMES // 2 + 1])
    assert same_bits(without, {view: values[: FRAMES // 2 + 1] for view, values in whole.items()})


def test_without_numba(records: np.ndarray, cuts: np.ndarray, whole: dict[str, np.ndarray]) -> None:
    """The driver as Python: the kernels hold nothing that only numba does."""
    first = cuts[:50]
    until = records[records["t_host_ns"] <= first[-1]]
    for view, kernel in LIVE.items():
        out = np.empty((first.size, len(kernel.FEATURES)))
        kernel.replay.py_func(np.zeros(1, dtype=kernel.STATE), until, first, out)
        assert out.tobytes() == whole[view][:50].tobytes()


def test_no_records() -> None:
    found = replayed(np.zeros(0, dtype=RECORD), np.array([T0_NS], dtype=np.int64))
    assert all(np.isnan(values).all() for values in found.values())


@pytest.mark.slow
def test_on_any_processor(tmp_path: Path) -> None:
    """Compiled for a processor without any extension, beside this machine's own."""
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    script = Path(__file__).with_name("live.py")
    done = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == digest()

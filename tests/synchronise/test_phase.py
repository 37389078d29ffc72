"""The phase of a sensor that scans: what it does to the time of a sweep, and what stamps show of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synchronise.drives import MS, SECOND, T0_NS, clocks, frames, matches, rows, synchronise

from fleet_assets.contracts.loader import load_streams
from fleet_assets.synchronise.phase import phase_of

LIDAR = load_streams()["lidar"]


def camera_and_lidar(
    phase: float, *, camera_hz: float = 10.0, locked: bool = True, jitter_ns: float = 0.2 * MS
) -> tuple[np.ndarray, np.ndarray]:
    """A LiDAR of 10 Hz, stamped at the end of its sweep, that looks ahead after a share of it; the camera exposes then."""
    random = np.random.default_rng(0)
    end_ns = T0_NS + SECOND + np.arange(100) * 100 * MS
    ahead_ns = end_ns - round((1 - phase) * 100 * MS)
    period_ns = SECOND / camera_hz * (1 if locked else 1.013)
    camera_ns = ahead_ns[0] + np.round(np.arange(round(10 * camera_hz)) * period_ns).astype(np.int64)
    return np.sort(camera_ns + random.normal(0, jitter_ns, camera_ns.size).astype(np.int64)), end_ns


@pytest.mark.parametrize("stamp_point", ["start of sweep", "middle of sweep", "end of sweep"])
@given(st.floats(0, 1))
@settings(deadline=None, derandomize=True, max_examples=15)
def test_a_sweep_belongs_to_the_time_at_which_it_looks_ahead(stamp_point: str, phase: float) -> None:
    """Whatever its stamp marks, and however far into the sweep that is."""
    contract = replace(LIDAR, stamp_point=stamp_point, phase=phase)
    start_ns = T0_NS + np.arange(30) * 100 * MS
    stamped_ns = start_ns + {"start of sweep": 0, "middle of sweep": 50 * MS, "end of sweep": 100 * MS}[stamp_point]
    camera = rows("camera_front", None, t_host_ns=start_ns + round(phase * 100 * MS))
    found = synchronise(
        rows("lidar", None, t_host_ns=stamped_ns), camera, streams={**load_streams(), "lidar": contract}
    )
    assert all(abs(row["dt_ns"]) <= 1 for row in matches(found, "camera_front"))
    assert all(row["complete"] for row in frames(found))


def test_a_sweep_may_take_as_long_as_int64_can_say() -> None:
    longest_ns = np.iinfo(np.int64).max
    found = phase_of(LIDAR, np.array([0, longest_ns]), np.zeros(0, dtype=np.int64))
    assert found is not None
    assert found.period_ns == longest_ns


@given(st.floats(0.05, 0.95), st.sampled_from([10.0, 20.0, 30.0]))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_the_phase_is_told_by_a_camera_that_keeps_its_distance(phase: float, camera_hz: float) -> None:
    """A camera of 30 Hz exposes three times in a sweep: the exposure nearest to the contract's phase counts."""
    camera_ns, lidar_ns = camera_and_lidar(phase, camera_hz=camera_hz)
    found = phase_of(LIDAR, lidar_ns, camera_ns)
    assert found is not None
    assert found.period_ns == 100 * MS
    apart = round((phase - 0.5) * camera_hz / 10) * 10 / camera_hz  # whole exposures
    near_the_edge = (
        abs(abs((phase - 0.5 - apart) * camera_hz / 10) - 0.5) < 0.02
    )  # as near to the exposure on the other side
    if not near_the_edge:
        assert found.off == pytest.approx(phase - 0.5 - apart, abs=0.005)
        assert found.share == pytest.approx(0.5 + found.off)


def test_a_camera_that_runs_freely_shows_no_phase() -> None:
    camera_ns, lidar_ns = camera_and_lidar(0.5, locked=False)
    found = phase_of(LIDAR, lidar_ns, camera_ns)
    assert found is not None
    assert (found.period_ns, found.share, found.off) == (100 * MS, None, None)


@pytest.mark.parametrize("count", [0, 1])
def test_without_sweeps_or_exposures_nothing_is_shown(count: int) -> None:
    camera_ns, lidar_ns = camera_and_lidar(0.5)
    assert phase_of(LIDAR, lidar_ns[:count], camera_ns) is None
    found = phase_of(LIDAR, lidar_ns, camera_ns[:count])
    assert found is not None
    assert found.share is None
    assert phase_of(load_streams()["camera_front"], camera_ns, camera_ns) is None


def test_without_a_phase_in_the_contract_the_stamps_tell_it_alone() -> None:
    camera_ns, lidar_ns = camera_and_lidar(0.7)
    found = phase_of(replace(LIDAR, phase=None), lidar_ns, camera_ns)
    assert found is not None
    assert found.off is None
    assert found.share == pytest.approx(0.7, abs=0.005)


def drive(phase: float, period_ns: int = 100 * MS) -> dict[str, pa.Table]:
    camera_ns, lidar_ns = camera_and_lidar(phase)
    lidar_ns = lidar_ns[0] + (lidar_ns - lidar_ns[0]) // (100 * MS) * period_ns
    return synchronise(rows("camera_front", None, t_host_ns=camera_ns), rows("lidar", None, t_host_ns=lidar_ns))


def test_a_phase_that_is_not_the_contracts_is_reported_with_the_figure() -> None:
    (model,) = clocks(drive(0.8))["lidar"]
    assert model["phase"] == pytest.approx(0.8, abs=0.005)
    assert model["phase_off"] == pytest.approx(0.3, abs=0.005)
    assert "looks ahead after 0.80 of a sweep, the contract says 0.5" in model["evidence"]
    (model,) = clocks(drive(0.52))["lidar"]
    assert model["phase_off"] == pytest.approx(0.02, abs=0.005)
    assert "looks ahead" not in model["evidence"]
    (camera,) = clocks(drive(0.8))["camera_front"]
    assert camera["scan_period_ns"] is camera["phase"] is None


def test_a_sweep_that_takes_longer_than_the_contract_says_is_reported() -> None:
    (model,) = clocks(drive(0.5, 110 * MS))["lidar"]
    assert model["scan_period_ns"] == 110 * MS
    assert "a sweep every 110.0 ms, the contract says 100" in model["evidence"]


def test_a_message_cannot_leave_before_its_sweep_has_ended() -> None:
    """Stamped at its start, a sweep of 100 ms arrives at least 100 ms later: that is no offset of the clock."""
    start_ns = T0_NS + np.arange(50) * 100 * MS
    contract = replace(LIDAR, stamp_point="start of sweep")
    table = rows("lidar", start_ns - 3 * SECOND, t_host_ns=start_ns + 100 * MS)
    (model,) = clocks(synchronise(table, streams={**load_streams(), "lidar": contract}))["lidar"]
    assert model["offset_ns"] == 3 * SECOND


def test_a_sweep_that_comes_in_several_records_is_one() -> None:
    camera_ns, lidar_ns = camera_and_lidar(0.5)
    found = phase_of(LIDAR, np.repeat(lidar_ns, 20), camera_ns)
    assert found is not None
    assert found.period_ns == 100 * MS
    assert phase_of(LIDAR, np.repeat(lidar_ns[:1], 20), camera_ns) is None

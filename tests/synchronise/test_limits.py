"""Drives beyond the limits of the policy have no frames, and a row that says why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from synchronise.drives import MS, SECOND, T0_NS, clocks, rows, synchronise

from fleet_assets.synchronise.policy import load_alignment

SHIPPED = load_alignment()


def drive(
    *, camera: int = 100, late_ms: float = 0.0, speed_mps: float = 20.0, camera_off_ms: int = 40
) -> list[pa.Table]:
    """100 sweeps; so many camera images, off by so much; arrival of every second image late by up to late_ms."""
    ahead_ns = T0_NS + np.arange(100) * 100 * MS
    device = ahead_ns[:camera] + camera_off_ms * MS
    host = device + (np.random.default_rng(0).uniform(0, 1, camera) * late_ms * MS).astype(np.int64)
    host[:: max(camera // 30, 1)] = device[:: max(camera // 30, 1)]
    motion_ns = T0_NS + np.arange(1000) * 10 * MS
    names = ["speed"] * 1000
    return [
        rows("lidar", None, t_host_ns=ahead_ns + 50 * MS),
        rows("camera_front", device, t_host_ns=host),
        rows("imu", None, t_host_ns=motion_ns, gyro_z_radps=np.full(1000, 0.1)),
        rows("bus_vehicle", None, t_host_ns=motion_ns, message=names, signal=names, value=np.full(1000, speed_mps)),
    ]


def test_a_drive_within_bounds_has_frames() -> None:
    found = synchronise(*drive(), alignment=SHIPPED)
    assert found["synchronise.quarantine"].num_rows == 0
    assert found["synchronise.frames"].num_rows == 200


@pytest.mark.parametrize(
    ("tables", "limits", "rule", "count", "figure"),
    [
        (drive(camera=45), {}, "complete_share", 55, 0.45),
        # (20 m/s + 0.1 rad/s x 60 m) x 40 ms
        (drive(), {"misalignment_m": 1.0}, "misalignment_m", 100, 1.04),
        (drive(late_ms=100), {"residual_ns": 20 * MS}, "residual_ms", 1, 95.0),
    ],
    ids=["complete", "misalignment", "residual"],
)
def test_a_drive_beyond_a_limit_has_none_and_says_by_how_much(
    tables: list[pa.Table], limits: dict[str, float], rule: str, count: int, figure: float
) -> None:
    alignment = replace(SHIPPED, limits=replace(SHIPPED.limits, **limits))
    found = synchronise(*tables, alignment=alignment)
    assert found["synchronise.frames"].num_rows == found["synchronise.matches"].num_rows == 0
    (row,) = found["synchronise.quarantine"].to_pylist()
    assert (row["rule"], row["rows"]) == (rule, count)
    assert row["figure"] == pytest.approx(figure, abs=2.5 if rule == "residual_ms" else 0.011)
    assert row["limit"] in (0.5, 1.0, 20.0)
    assert row["reason"].strip()
    # What is known of the clocks stays, as evidence.
    assert set(clocks(found)) == {"lidar", "camera_front", "imu", "bus_vehicle"}


def test_a_drive_without_frames_breaks_no_limit() -> None:
    found = synchronise(rows("gnss", None, t_host_ns=np.array([T0_NS, T0_NS + SECOND])), alignment=SHIPPED)
    assert found["synchronise.quarantine"].num_rows == 0

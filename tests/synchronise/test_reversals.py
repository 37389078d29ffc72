"""Stamps that run backwards and come twice, in any order of the recording, against loops that try every record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synchronise.drives import MS, SECOND, T0_NS, UNBOUNDED, frames, matches, rows, synchronise
from synchronise.test_clock_models import clock, models_of

from fleet_assets.contracts.loader import load_streams

# A few hundredths of a second, in any order: repeats, steps back and exact hits are common.
ticks = st.lists(st.integers(0, 60), min_size=1, max_size=30)
Record = tuple[int, int]  # stamp, sequence


def nearest(at: int, records: list[Record], before: int, after: int) -> Record | None:
    """Of what is equally near the earlier one; of one stamp the first that was recorded."""
    allowed = [(t, row) for t, row in records if -before <= t - at <= after]
    return min(allowed, key=lambda record: (abs(record[0] - at), record), default=None)


def hold(at: int, records: list[Record], before: int) -> Record | None:
    """The last; of one stamp the last that was recorded."""
    return max(((t, row) for t, row in records if 0 <= at - t <= before), default=None)


def bracket(at: int, records: list[Record], limit: int) -> tuple[Record, Record] | None:
    if hits := [record for record in records if record[0] == at]:
        return min(hits), min(hits)
    before, after = [r for r in records if r[0] < at], [r for r in records if r[0] > at]
    if not before or not after or min(after)[0] - max(before)[0] > limit:
        return None
    return max(before), min(after)


@given(ticks, ticks, ticks, ticks)
@settings(deadline=None, derandomize=True, max_examples=25)
def test_alignment_of_streams_that_run_backwards(
    key: list[int], camera: list[int], imu: list[int], bus: list[int]
) -> None:
    """On the logger's clock alone: every policy, every frame, and motion too. What had arrived is what its stamp says."""
    ahead_ns = {name: load_streams()[name].ahead_ns for name in ("lidar", "camera_front", "imu", "bus_vehicle")}
    host = {
        name: T0_NS + np.array(drawn) * 10 * MS
        for name, drawn in {"lidar": key, "camera_front": camera, "imu": imu, "bus_vehicle": bus}.items()
    }
    found = synchronise(
        rows("lidar", None, t_host_ns=host["lidar"]),
        rows("camera_front", None, t_host_ns=host["camera_front"]),
        rows("imu", None, t_host_ns=host["imu"], accel_x_mps2=np.arange(float(len(imu)))),
        rows("bus_vehicle", None, t_host_ns=host["bus_vehicle"]),
    )
    records = {name: [(t + ahead_ns[name], row) for row, t in enumerate(t_ns.tolist())] for name, t_ns in host.items()}
    at = sorted(records["lidar"])
    for policy in UNBOUNDED.policies:
        made = frames(found, policy.name)
        assert [row["t_ns"] for row in made] == [t for t, _ in at]
        for name, contract in ((name, load_streams()[name]) for name in host):
            how, limit_ns = policy.channels[contract.kind], contract.gap_limit_ns or UNBOUNDED.gap_limit_without_rate_ns
            for (t, row), frame, match in zip(at, made, matches(found, name, policy.name), strict=True):
                deadline = host["lidar"][row] + how.wait_ns if how.wait_ns is not None else 2**62
                seen = [record for record in records[name] if host[name][record[1]] <= deadline]
                if how.method == "nearest":
                    best = nearest(t, seen, how.before_ns, how.after_ns)
                elif how.method == "hold":
                    best = hold(t, seen, how.before_ns)
                else:
                    pair = bracket(t, seen, int(limit_ns))
                    best = pair[0] if pair else None
                    assert match["bracket_ns"] == (pair[1][0] - pair[0][0] if pair else None)
                    if name == "imu" and not policy.causal:
                        assert frame["accel_x_mps2"] == (between(t, *pair) if pair else None)
                assert (match["sequence"], match["dt_ns"]) == ((best[1], best[0] - t) if best else (None, None))


def between(at: int, before: Record, after: Record) -> Any:
    """Each record's value is its sequence."""
    share = (at - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    return pytest.approx(before[1] * (1 - share) + after[1] * share)


@given(st.integers(0, 2**32), st.floats(-80, 80), st.floats(0, 0.5), st.integers(1, 15), st.integers(-(10**12), 10**12))
@settings(deadline=None, derandomize=True, max_examples=30)
def test_a_clock_whose_records_run_backwards(
    seed: int, skew_ppm: float, late: float, block: int, offset_ns: int
) -> None:
    """Twelve seconds at 10 Hz. Up to half of the records are late by up to 0.9 s and overtaken, some come twice, and whole blocks
    were written the wrong way round: one segment, with the highest line below all pairs, as a search of all lines finds it."""
    random = np.random.default_rng(seed)
    true = clock(random, seconds=12, offset_ns=offset_ns, skew_ppm=skew_ppm)
    # Not at the ends: a few late records alone are as before or after a jump.
    lags = (random.random(true.t_ns.size) < late) & (np.abs(true.t_ns - true.t_ns[60]) < 3.5 * SECOND)
    true.host[lags] += int(random.integers(0, 900 * MS))
    order = np.argsort(true.host, kind="stable")
    order = np.concatenate([part[::-1] for part in np.split(order, range(block, order.size, block))])
    order = np.repeat(order, random.choice([1, 1, 1, 2], order.size))
    device, host = true.device[order], true.host[order]
    (model,) = models_of("lidar", device, host)
    assert (model.status, model.method, model.segment, model.rows) == ("ok", "arrival", 0, order.size)
    assert (model.t_from_ns, model.t_to_ns) == (device.min(), device.max())

    x, y = (device - device.min()) / MS, (host - device - (host - device).min()) / MS
    x, y = np.unique(np.stack([x, y], axis=1), axis=0).T
    left, right = np.triu_indices(x.size, 1)
    left, right = left[x[left] < x[right]], right[x[left] < x[right]]
    slope = (y[right] - y[left]) / (x[right] - x[left])
    below = (y - y[left, None] - slope[:, None] * (x - x[left, None]) >= -1e-7).all(axis=1)
    middle = 0.5 * x[-1]
    best = (y[left] + slope * (middle - x[left]))[below].max()
    middle_ns = np.array([device.min() + round(middle * MS)])
    delay_ns = load_streams()["lidar"].until_end_ns
    told = (model.apply(middle_ns) - middle_ns)[0] + delay_ns - (host - device).min()
    assert told / MS == pytest.approx(best, abs=1e-5)

"""Matching records to frames: our kernels beside pandas and numpy, and a copy of the stamps as the floor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.harness import Row, medians, row
from fleet_assets.kernels import align
from fleet_assets.services.home import Home

_FRAMES = 200_000
_TOLERANCE_NS = 50_000_000
_FLOOR = "floor: copy of both stamps"


def rows(home: Home) -> list[Row]:
    """Nearest, hold and linear over 200,000 frames, for streams of 15 Hz to 1 kHz."""
    return [_nearest(15.0), _nearest(100.0), _nearest(1000.0), _hold(100.0), _linear(100.0)]


def _stamps(rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """Frames at 10 Hz; records with a phase, 20 ppm of skew, jitter and 0.5 % of drops."""
    random = np.random.default_rng(0)
    frames = np.arange(_FRAMES, dtype=np.int64) * 100_000_000
    period_ns = 1e9 / rate_hz
    count = int(_FRAMES * rate_hz / 10)
    records = (np.arange(count) * period_ns * (1 + 20e-6) + period_ns / 3).astype(np.int64)
    records += random.integers(0, int(period_ns / 4), count)
    return frames, records[random.random(count) > 0.005]


def _floor(frames: np.ndarray, records: np.ndarray) -> Callable[[], None]:
    to_frames, to_records = np.empty_like(frames), np.empty_like(records)

    def copy() -> None:
        np.copyto(to_frames, frames)
        np.copyto(to_records, records)

    return copy


def _by_pandas(frames: np.ndarray, records: np.ndarray, direction: str) -> Callable[[], object]:
    import pandas as pd

    left, right = pd.DataFrame({"t": frames}), pd.DataFrame({"t": records, "i": np.arange(records.size)})
    return lambda: pd.merge_asof(left, right, on="t", direction=direction, tolerance=_TOLERANCE_NS)  # type: ignore[arg-type]


def _nearest(rate_hz: float) -> Row:
    frames, records = _stamps(rate_hz)
    tolerance = np.uint64(_TOLERANCE_NS)

    def by_numpy() -> np.ndarray:
        right = np.searchsorted(records, frames)
        earlier, later = np.maximum(right - 1, 0), np.minimum(right, records.size - 1)
        before, after = np.abs(frames - records[earlier]), np.abs(records[later] - frames)
        best = np.where(before <= after, earlier, later)
        return np.where(np.minimum(before, after) <= _TOLERANCE_NS, best, -1)

    assert np.array_equal(align.nearest(frames, records, tolerance, tolerance)[0], by_numpy())
    times = medians(
        {
            "ours": lambda: align.nearest(frames, records, tolerance, tolerance),
            "pandas.merge_asof": _by_pandas(frames, records, "nearest"),
            "numpy.searchsorted": by_numpy,
            "floor": _floor(frames, records),
        }
    )
    return row(f"nearest, {_FRAMES} frames in {records.size} records", times, note=_FLOOR)


def _hold(rate_hz: float) -> Row:
    frames, records = _stamps(rate_hz)

    def by_numpy() -> np.ndarray:
        left = np.searchsorted(records, frames, side="right") - 1
        return np.where((left >= 0) & (frames - records[left] <= _TOLERANCE_NS), left, -1)

    assert np.array_equal(align.hold(frames, records, np.uint64(_TOLERANCE_NS))[0], by_numpy())
    times = medians(
        {
            "ours": lambda: align.hold(frames, records, np.uint64(_TOLERANCE_NS)),
            "pandas.merge_asof": _by_pandas(frames, records, "backward"),
            "numpy.searchsorted": by_numpy,
            "floor": _floor(frames, records),
        }
    )
    return row(f"hold, {_FRAMES} frames in {records.size} records", times, note=_FLOOR)


def _linear(rate_hz: float) -> Row:
    frames, records = _stamps(rate_hz)
    values = np.sin(records / 1e9)

    def ours() -> np.ndarray:
        before, after, _ = align.bracket(frames, records, np.uint64(_TOLERANCE_NS))
        return align.interpolate(frames, records, values, before, after)

    times = medians(
        {"ours": ours, "numpy.interp": lambda: np.interp(frames, records, values), "floor": _floor(frames, records)}
    )
    note = f"numpy.interp goes through float and over gaps; {_FLOOR}"
    return row(f"linear, {_FRAMES} frames in {records.size} records", times, note=note)

"""Matching records to frames: our kernels beside pandas.merge_asof, and numpy's bare search as the floor."""

from __future__ import annotations

import numpy as np

from benchmarks.harness import Row, medians, row
from fleet_assets.kernels import align
from fleet_assets.services.home import Home

_FRAMES = 200_000
_TOLERANCE_NS = 50_000_000


def rows(home: Home) -> list[Row]:
    """Nearest, hold and linear over 200,000 frames, for streams of 15 Hz to 1 kHz."""
    return [_nearest(15.0), _nearest(100.0), _nearest(1000.0), _hold(100.0), _linear(100.0)]


def _stamps(rate_hz: float) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    frames = np.arange(_FRAMES, dtype=np.int64) * 100_000_000
    period_ns = round(1e9 / rate_hz)
    count = int(_FRAMES * rate_hz / 10)
    records = np.arange(count, dtype=np.int64) * period_ns + random.integers(0, period_ns // 4, count)
    return frames, records


def _nearest(rate_hz: float) -> Row:
    import pandas as pd

    frames, records = _stamps(rate_hz)
    left, right = pd.DataFrame({"t": frames}), pd.DataFrame({"t": records, "i": np.arange(records.size)})
    tolerance = np.uint64(_TOLERANCE_NS)
    times = medians(
        {
            "ours": lambda: align.nearest(frames, records, tolerance, tolerance),
            "pandas.merge_asof": lambda: pd.merge_asof(
                left, right, on="t", direction="nearest", tolerance=_TOLERANCE_NS
            ),
            "floor": lambda: np.searchsorted(records, frames),
        }
    )
    return row(f"nearest, {_FRAMES} frames in {records.size} records", times, note="floor: numpy.searchsorted alone")


def _hold(rate_hz: float) -> Row:
    import pandas as pd

    frames, records = _stamps(rate_hz)
    left, right = pd.DataFrame({"t": frames}), pd.DataFrame({"t": records, "i": np.arange(records.size)})
    times = medians(
        {
            "ours": lambda: align.hold(frames, records, np.uint64(_TOLERANCE_NS)),
            "pandas.merge_asof": lambda: pd.merge_asof(left, right, on="t", tolerance=_TOLERANCE_NS),
            "floor": lambda: np.searchsorted(records, frames),
        }
    )
    return row(f"hold, {_FRAMES} frames in {records.size} records", times, note="floor: numpy.searchsorted alone")


def _linear(rate_hz: float) -> Row:
    frames, records = _stamps(rate_hz)
    values = np.sin(records / 1e9)

    def ours() -> np.ndarray:
        before, after, _ = align.bracket(frames, records, np.uint64(_TOLERANCE_NS))
        return align.interpolate(frames, records, values, before, after)

    times = medians({"ours": ours, "numpy.interp": lambda: np.interp(frames, records, values)})
    return row(
        f"linear, {_FRAMES} frames in {records.size} records",
        times,
        note="numpy.interp goes through float and over gaps",
    )

"""Clips: the unit that is selected, split and sampled. A single frame is a clip of one.

In: a drive's frames in order, which of them may be used, and where a clock began anew. Out: first and last frame of each clip. A
clip never crosses a gap, a frame that may not be used, or a border.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.errors import FleetError
from fleet_assets.synchronise.clock_model import Line


@dataclass(frozen=True)
class ClipRule:
    """window_ns: from the first frame of a clip to its last, to the nearest frame; 0: one frame. stride_ns: from the start of a
    clip to that of the next, at least. largest_gap_ns: between frames of a clip."""

    window_ns: int
    stride_ns: int
    largest_gap_ns: int


def cut(
    t_ns: np.ndarray, usable: np.ndarray, ends: np.ndarray, borders_ns: np.ndarray, rule: ClipRule
) -> tuple[np.ndarray, np.ndarray]:
    """First and last row of each clip, int64 [clips] each.

    t_ns: int64 [frames], of one drive. usable: bool [frames]. ends: bool [frames], at which frames a clip may end. borders_ns:
    int64, times that no clip may hold inside. Raises FleetError when the frames are not in order.
    """
    check_order(t_ns)
    first, last = [], []
    start_ns = t_ns[0] if t_ns.size else 0
    for begin, end in _runs(t_ns, usable, borders_ns, rule.largest_gap_ns):
        times = t_ns[begin:end]
        start_ns = max(start_ns, times[0])
        while start_ns <= times[-1]:
            at = int(np.searchsorted(times, start_ns))
            to = _nearest(times, times[at] + rule.window_ns, rule.largest_gap_ns // 2)
            if to is None:
                break
            if ends[begin + to]:
                first.append(begin + at)
                last.append(begin + to)
                start_ns = times[at] + rule.stride_ns
            else:
                start_ns = times[at] + 1  # the next frame
    return np.array(first, dtype=np.int64), np.array(last, dtype=np.int64)


def _nearest(times: np.ndarray, wanted_ns: int, beyond_ns: int) -> int | None:
    """The frame nearest to a time, of two the earlier; None when the time is more than beyond_ns after the last."""
    if wanted_ns > times[-1] + beyond_ns:
        return None
    after = min(int(np.searchsorted(times, wanted_ns)), times.size - 1)
    before = max(after - 1, 0)
    return before if abs(wanted_ns - times[before]) <= abs(times[after] - wanted_ns) else after


def check_order(t_ns: np.ndarray, what: str = "The frames of a drive") -> None:
    """Raises FleetError when a time is not later than the one before it."""
    steps = np.diff(t_ns)
    if (steps <= 0).any():
        at = int(np.argmax(steps <= 0)) + 1
        raise FleetError(
            f"{what} are not in order", where=f"row {at}: {int(t_ns[at])} ns after {int(t_ns[at - 1])} ns",
            remedy="Sort them by time, and give each frame once.",
        )  # fmt: skip


def borders_of(clock_models: pa.Table) -> np.ndarray:
    """Times on the reference clock at which a stream's clock began anew, int64. clock_models: rows of one drive."""
    jumped = clock_models.filter(
        pc.and_(pc.greater(clock_models["segment"], 0), pc.equal(clock_models["status"], "ok"))
    )
    found = [
        Line(row["t_anchor_ns"], row["offset_ns"], row["skew_ppm"]).apply(np.array([row["t_from_ns"]]))[0]
        for row in jumped.to_pylist()
    ]
    return np.unique(np.array(found, dtype=np.int64))


def _runs(t_ns: np.ndarray, usable: np.ndarray, borders_ns: np.ndarray, largest_gap_ns: int) -> list[tuple[int, int]]:
    """Rows begin to end - 1 of frames that follow each other."""
    segment = np.searchsorted(borders_ns, t_ns, side="right")
    together = (np.diff(t_ns) <= largest_gap_ns) & (np.diff(segment) == 0) & usable[1:] & usable[:-1]
    edges = np.flatnonzero(~together) + 1
    bounds = np.concatenate([[0], edges, [t_ns.size]])
    return [(int(a), int(b)) for a, b in pairwise(bounds) if b > a and usable[a]]

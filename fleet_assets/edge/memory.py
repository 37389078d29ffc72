"""What a model remembers of an earlier frame of the same drive.

In: frames in order of time, with their context; of a model that remembers, what it made of each (its output `memory`). Out: per
frame the memory of one earlier frame, and how the vehicle moved since, by dead reckoning. A memory rests on its own frame alone,
so nothing drifts, and a frame that was wrong is soon forgotten. Training, evaluation and the vehicle use this one code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fleet_assets.edge.inputs import GRID_CELLS, GRID_X_M, SPEED, YAW_RATE
from fleet_assets.kernels.align import nearest

# Where the vehicle is now, on the ground of the earlier frame: ahead, left, turned to the left; how long ago that frame was; and
# 1, or all is 0 where there is none.
MOTION = ("x_m", "y_m", "yaw_rad", "age_s", "there")
# What a model that remembers takes beside INPUTS, and gives beside its result: names and shapes, without the frames.
MEMORY_INPUTS = {"earlier": (40, GRID_CELLS, GRID_CELLS), "motion": (len(MOTION),)}
MEMORY_OUTPUTS = {"memory": MEMORY_INPUTS["earlier"]}
_FARTHEST_M = 2 * (GRID_X_M[1] - GRID_X_M[0])
_LONGEST_NS = 10_000_000_000
_MOST_KEPT = 32  # of 0.4 MB each


@dataclass(frozen=True)
class Lag:
    """Of the frames between least_ns and most_ns ago the one nearest to wanted_ns ago is remembered."""

    wanted_ns: int
    least_ns: int
    most_ns: int

    def to_document(self) -> dict[str, int]:
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Lag:
        """Raises KeyError, TypeError or ValueError for what is none."""
        lag = cls(document["wanted_ns"], document["least_ns"], document["most_ns"])
        if any(type(value) is not int for value in asdict(lag).values()):
            raise TypeError("a lag is told in whole nanoseconds")
        if not 0 < lag.least_ns <= lag.wanted_ns <= lag.most_ns <= _LONGEST_NS:
            raise ValueError("no lag of a memory")
        return lag


# Datasets have a frame about every 0.6 s, some every second; vehicles have ten a second.
LAG = Lag(600_000_000, 350_000_000, 1_100_000_000)


def earlier_rows(t_ns: np.ndarray, lag: Lag) -> np.ndarray:
    """int64 [n]: for each frame of one drive the row of the earlier frame, -1 where there is none. t_ns: int64 [n], ascending."""
    before_ns, after_ns = np.uint64(lag.most_ns - lag.wanted_ns), np.uint64(lag.wanted_ns - lag.least_ns)
    index, _ = nearest(t_ns - lag.wanted_ns, t_ns, before_ns, after_ns)
    return index


def motion_of(before: np.ndarray, now: np.ndarray, age_s: np.ndarray) -> np.ndarray:
    """float32 [n, 5] of MOTION: along an arc, at the mean of the speeds and yaw rates that two frames know.

    before, now: float32 [n, features], context of the earlier frame and of the frame. age_s: float64 [n], between them. Where the
    motion is not known, or beyond anything a grid could overlap, nothing is remembered: zero.
    """
    with np.errstate(invalid="ignore"):
        speed_mps, yaw_rate_radps = (
            0.5 * (before[:, column].astype(np.float64) + now[:, column]) for column in (SPEED, YAW_RATE)
        )
    way_m, yaw_rad = speed_mps * age_s, yaw_rate_radps * age_s
    known = (np.abs(way_m) <= _FARTHEST_M) & (np.abs(yaw_rad) <= np.pi)  # a NaN is not
    way_m, yaw_rad = np.where(known, way_m, 0.0), np.where(known, yaw_rad, 0.0)
    x_m, y_m = way_m * np.cos(yaw_rad / 2), way_m * np.sin(yaw_rad / 2)
    return np.stack([x_m, y_m, yaw_rad, age_s * known, known], axis=1).astype(np.float32)


def nothing(count: int) -> dict[str, np.ndarray]:
    """MEMORY_INPUTS of so many frames without an earlier one."""
    return {name: np.zeros((count, *shape), dtype=np.float32) for name, shape in MEMORY_INPUTS.items()}


class Memory:
    """Of one drive, frame by frame. lag: of the model; of a model that does not remember, None, and there is nothing to keep."""

    def __init__(self, lag: Lag | None) -> None:
        self._lag = lag
        self._kept: deque[tuple[int, np.ndarray, np.ndarray]] = deque(maxlen=_MOST_KEPT)

    def recall(self, t_ns: int, context: np.ndarray) -> dict[str, np.ndarray]:
        """MEMORY_INPUTS of the frame at t_ns, [1, ...] each; empty for a model that does not remember. context: float32
        [features]."""
        if self._lag is None:
            return {}
        if self._kept and self._kept[-1][0] >= t_ns:
            self._kept.clear()  # time began anew
        row = int(earlier_rows(np.array([*(one[0] for one in self._kept), t_ns], dtype=np.int64), self._lag)[-1])
        if row < 0:
            return nothing(1)
        then_ns, before, memory = self._kept[row]
        motion = motion_of(before[None], context[None], np.array([(t_ns - then_ns) * 1e-9]))
        return {"earlier": memory, "motion": motion}

    def keep(self, t_ns: int, context: np.ndarray, memory: np.ndarray | None) -> None:
        """memory: what the model gave for the frame, [1, ...]. Of frames that come faster than they can be kept, some are."""
        if self._lag is None or memory is None:
            return
        if not self._kept or t_ns - self._kept[-1][0] >= self._lag.most_ns // _MOST_KEPT:
            self._kept.append((t_ns, context, memory))

"""Frames to train and judge on.

In: what edge/inputs.py makes of the messages of each frame, and labels. Out: FrameSet, which can be cut and joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from fleet_assets.edge.objects import Objects


@dataclass(frozen=True)
class FrameSet:
    """Frames, by drive, then by time. Inputs are as edge/inputs.py gives them; a sensor without a record is all zero.

    camera: uint8 [n, 64, 256, 3]. lidar: float32 [n, channels, 96, 96], bird's eye. radar: float32 [n, 2, 64, 48], polar, power
    and velocity. context: float32 [n, features], NaN where unknown. age_s: float32 [n, 3], of the record of camera, LiDAR and
    radar at the frame's time, NaN where there is none. t_ns: int64 [n]. drive: int32 [n], index into drives. slices: category
    per frame, text [n] (light, weather, region). truth: what was labelled inside the grid.
    """

    camera: np.ndarray
    lidar: np.ndarray
    radar: np.ndarray
    context: np.ndarray
    age_s: np.ndarray
    t_ns: np.ndarray
    drive: np.ndarray
    drives: tuple[str, ...]
    slices: dict[str, np.ndarray]
    truth: Objects

    def __post_init__(self) -> None:
        arrays = (self.camera, self.lidar, self.radar, self.context, self.age_s, self.drive, *self.slices.values())
        if any(len(values) != len(self) for values in arrays):
            raise ValueError(f"{len(self)} frames, and arrays of {[len(values) for values in arrays]}")
        if (np.diff(self.drive) < 0).any() or ((np.diff(self.drive) == 0) & (np.diff(self.t_ns) <= 0)).any():
            raise ValueError("frames must be sorted by drive, then by time")
        if len(self) and not 0 <= self.drive.min() <= self.drive.max() < len(self.drives):
            raise ValueError("a frame is of a drive that is not listed")

    def __len__(self) -> int:
        return int(self.t_ns.size)

    def only(self, frames: np.ndarray) -> FrameSet:
        """Some of the frames, in their order: bool [n]. The drives stay listed."""
        rows = np.flatnonzero(frames)
        number = np.full(len(self), -1, dtype=np.int32)
        number[rows] = np.arange(rows.size, dtype=np.int32)
        truth = self.truth.only(frames[self.truth.frame])
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in ("camera", "lidar", "radar", "context", "age_s", "t_ns", "drive")},
            slices={name: values[rows] for name, values in self.slices.items()},
            truth=replace(truth, frame=number[truth.frame]),
        )  # fmt: skip

    def of_drives(self, names: Sequence[str]) -> FrameSet:
        """The frames of some drives. Raises ValueError for one that is not listed."""
        wanted = [self.drives.index(name) for name in names]
        return self.only(np.isin(self.drive, wanted))

    @staticmethod
    def concat(parts: Sequence[FrameSet]) -> FrameSet:
        """Sets of different drives, one behind the other."""
        drives = tuple(name for part in parts for name in part.drives)
        if len(set(drives)) != len(drives):
            raise ValueError("a drive is in two of the sets")
        first = np.cumsum([0, *(len(part.drives) for part in parts[:-1])])

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        return FrameSet(
            **{name: joined(name) for name in ("camera", "lidar", "radar", "context", "age_s", "t_ns")},
            drive=np.concatenate([part.drive + np.int32(at) for part, at in zip(parts, first, strict=True)]),
            drives=drives,
            slices={name: np.concatenate([part.slices[name] for part in parts]) for name in parts[0].slices},
            truth=Objects.concat([part.truth for part in parts], [len(part) for part in parts]),
        )

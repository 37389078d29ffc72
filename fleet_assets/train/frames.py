"""Frames to train and judge on.

In: what edge/inputs.py makes of the messages of each frame, and labels. Out: FrameSet, which can be cut and joined.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np

from fleet_assets.edge.objects import Objects
from fleet_assets.errors import FleetError

_ARRAYS = ("camera", "lidar", "radar", "context", "age_s", "t_ns", "drive")


@dataclass(frozen=True)
class FrameSet:
    """Frames, by drive, then by time. Inputs are as edge/inputs.py gives them; a sensor without a record is all zero.

    camera: uint8 [n, *CAMERA_SHAPE]. lidar: float32 [n, *LIDAR_SHAPE], bird's eye. radar: float32 [n, *RADAR_SHAPE], polar, power
    by velocity. context: float32 [n, features], NaN where unknown. age_s: float32 [n, 3], of the record of camera, LiDAR and
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

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """All of them by name, of slices and truth too; the drives' names are not in them."""
        found = {name: getattr(self, name) for name in _ARRAYS}
        found |= {f"slices.{name}": values.astype(str) for name, values in self.slices.items()}
        return found | {f"truth.{one.name}": getattr(self.truth, one.name) for one in fields(Objects)}

    def only(self, frames: np.ndarray) -> FrameSet:
        """Some of the frames, in their order: bool [n]. The drives stay listed."""
        rows = np.flatnonzero(frames)
        number = np.full(len(self), -1, dtype=np.int32)
        number[rows] = np.arange(rows.size, dtype=np.int32)
        truth = self.truth.only(frames[self.truth.frame])
        return replace(
            self,
            **{name: getattr(self, name)[rows] for name in _ARRAYS},
            slices={name: values[rows] for name, values in self.slices.items()},
            truth=replace(truth, frame=number[truth.frame]),
        )  # fmt: skip

    def of_drives(self, names: Sequence[str]) -> FrameSet:
        """The frames of some drives. Raises ValueError for one that is not listed."""
        wanted = [self.drives.index(name) for name in names]
        return self.only(np.isin(self.drive, wanted))

    def save(self, folder: Path) -> None:
        """Writes an array per file into a new folder, which is there as a whole or not at all."""
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
            new = Path(scratch, "new")
            new.mkdir()
            for name, values in self.arrays.items():
                np.save(new / f"{name}.npy", values, allow_pickle=False)
            (new / "drives.json").write_text(json.dumps(list(self.drives)))
            os.replace(new, folder)

    @classmethod
    def load(cls, folder: Path) -> FrameSet:
        """What `save` wrote; large arrays are mapped, not read. Raises FleetError."""
        try:
            arrays = {
                path.stem: np.load(path, mmap_mode="r", allow_pickle=False) for path in sorted(folder.glob("*.npy"))
            }
            return cls(
                **{name: arrays[name] for name in _ARRAYS},
                drives=tuple(json.loads((folder / "drives.json").read_text())),
                slices={
                    name.partition(".")[2]: np.array(values)
                    for name, values in arrays.items()
                    if name.startswith("slices.")
                },
                truth=Objects(*(np.array(arrays[f"truth.{one.name}"]) for one in fields(Objects))),
            )
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise FleetError(
                f"{folder} holds no frames: {error}", remedy="Materialise train/training_set anew."
            ) from error

    @staticmethod
    def concat(parts: Sequence[FrameSet]) -> FrameSet:
        """Sets one behind the other; the last drive of one may go on in the next. Raises ValueError if the order breaks."""
        drives = tuple(dict.fromkeys(name for part in parts for name in part.drives))

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        number = [np.array([drives.index(name) for name in part.drives], dtype=np.int32) for part in parts]
        return FrameSet(
            **{name: joined(name) for name in _ARRAYS if name != "drive"},
            drive=np.concatenate([new[part.drive] for part, new in zip(parts, number, strict=True)]),
            drives=drives,
            slices={name: np.concatenate([part.slices[name] for part in parts]) for name in parts[0].slices},
            truth=Objects.concat([part.truth for part in parts], [len(part) for part in parts]),
        )

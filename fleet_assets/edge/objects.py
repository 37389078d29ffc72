"""Objects around the vehicle: what a model finds, and what was there.

In: flat arrays, a row per object, sorted by frame. Out: Objects, which can be taken apart by frame and put together again.
Places are in the frame of the vehicle: x forward, y left, metres, origin on the ground.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np

CLASSES = ("vehicle", "pedestrian", "cyclist")


def _none(kind: type) -> np.ndarray:
    return np.zeros(0, dtype=kind)


@dataclass(frozen=True)
class Objects:
    """Arrays [n] each, sorted by frame. class_id: index into CLASSES. confidence: calibrated, 0 to 1; 1 for truth.

    Of truth also how far each is, whether it moves, and the share of it that was seen; a model does not tell these: [0].
    """

    frame: np.ndarray = field(default_factory=lambda: _none(np.int32))
    class_id: np.ndarray = field(default_factory=lambda: _none(np.int8))
    x_m: np.ndarray = field(default_factory=lambda: _none(np.float32))
    y_m: np.ndarray = field(default_factory=lambda: _none(np.float32))
    confidence: np.ndarray = field(default_factory=lambda: _none(np.float32))
    distance_m: np.ndarray = field(default_factory=lambda: _none(np.float32))
    moving: np.ndarray = field(default_factory=lambda: _none(np.bool_))
    visible_fraction: np.ndarray = field(default_factory=lambda: _none(np.float32))

    def __post_init__(self) -> None:
        told = {name: getattr(self, name).size for name in ("class_id", "x_m", "y_m", "confidence")}
        of_truth = {name: getattr(self, name).size for name in ("distance_m", "moving", "visible_fraction")}
        if set(told.values()) != {self.frame.size} or not set(of_truth.values()) <= {0, self.frame.size}:
            raise ValueError(f"{self.frame.size} objects, and {told | of_truth}")
        if (np.diff(self.frame) < 0).any():
            raise ValueError("objects must be sorted by frame")

    def __len__(self) -> int:
        return int(self.frame.size)

    def only(self, rows: np.ndarray) -> Objects:
        """rows: bool [n], or indices in ascending order."""
        return Objects(*(_picked(getattr(self, one.name), rows) for one in fields(self)))

    def of_frames(self, first: int, end: int) -> Objects:
        """Those of the frames first to end - 1, which are numbered from 0 then."""
        low, high = np.searchsorted(self.frame, [first, end])
        found = self.only(np.arange(low, high))
        return Objects(found.frame - np.int32(first), *(getattr(found, one.name) for one in fields(self)[1:]))

    @staticmethod
    def concat(parts: Sequence[Objects], frames: Sequence[int]) -> Objects:
        """Parts one behind the other; frames: how many frames each part has."""
        if not parts:
            return Objects()
        first = np.cumsum([0, *frames[:-1]])
        frame = np.concatenate([part.frame + np.int32(at) for part, at in zip(parts, first, strict=True)])
        rest = (np.concatenate([getattr(part, one.name) for part in parts]) for one in fields(Objects)[1:])
        return Objects(frame.astype(np.int32), *rest)


def _picked(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """An array that truth alone has may be empty."""
    return values[rows] if values.size else values

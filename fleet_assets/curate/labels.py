"""Labels at frames.

In: a drive's labels, the stamps of its sensors, clock models, frames. Out: which objects were labelled at each frame, and at
which frames somebody looked at all. Labels carry the stamps of the sensor that was labelled, so its clock model is theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.synchronise.clock_model import Line

FARTHEST_NS = 60_000_000  # labels of a time further off say nothing about a frame
GAP_NS = 500_000_000  # over a longer silence of the labels, nobody looked
_LEAST_SHARE = 0.5  # of the labels' stamps are those of the labelled sensor


@dataclass(frozen=True)
class LabelsAtFrames:
    """labelled: bool [frames]. rows: int64, rows of the labels, those of one frame together; begin: int64 [frames + 1], where
    each frame's rows begin. t_ns: int64 per label row, on the reference clock."""

    labelled: np.ndarray
    rows: np.ndarray
    begin: np.ndarray
    t_ns: np.ndarray

    @property
    def frame(self) -> np.ndarray:
        """int64 per entry of rows: number of its frame, from 0."""
        return np.repeat(np.arange(self.labelled.size), np.diff(self.begin))


def labels_at(frame_ns: np.ndarray, labels: pa.Table, messages: pa.Table, clock_models: pa.Table) -> LabelsAtFrames:
    """frame_ns: int64 [frames], ascending. labels: rows of ingest.labels of one drive; messages, clock_models: its rows.

    A frame has the labels of the time nearest to it, if that is near enough. A time at which nothing was found has no rows;
    where times are as close as frames, a frame between two of them, at most GAP_NS apart, is one with nothing in it.
    """
    label_ns, known = _on_reference(labels, messages, clock_models)
    if not known.any() or not frame_ns.size:
        return LabelsAtFrames(np.zeros(frame_ns.size, bool), _zeros(0), _zeros(frame_ns.size + 1), label_ns)
    times, number = np.unique(label_ns[known], return_inverse=True)
    order = np.argsort(number, kind="stable")
    first = np.searchsorted(number[order], np.arange(times.size + 1))
    after = np.clip(np.searchsorted(times, frame_ns), 1, max(times.size - 1, 1))
    if times.size == 1:
        nearest = np.zeros(frame_ns.size, dtype=np.int64)
    else:
        nearest = np.where(frame_ns - times[after - 1] <= times[after] - frame_ns, after - 1, after)
    near = np.abs(times[nearest] - frame_ns) <= FARTHEST_NS
    step_ns = float(np.median(np.diff(times))) if times.size > 1 else np.inf
    within = (frame_ns >= times[0]) & (frame_ns <= times[-1])
    if times.size > 1:
        within &= np.diff(times)[after - 1] <= GAP_NS
    labelled = near | (within if step_ns <= 2 * FARTHEST_NS else False)
    count = np.where(near, np.diff(first)[nearest], 0)
    begin = np.concatenate([[0], np.cumsum(count)])
    within_frame = np.arange(begin[-1]) - np.repeat(begin[:-1], count)
    rows = np.flatnonzero(known)[order][np.repeat(first[:-1][nearest], count) + within_frame]
    return LabelsAtFrames(labelled, rows, begin, label_ns)


def _on_reference(labels: pa.Table, messages: pa.Table, clock_models: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """The labels' stamps on the reference clock, int64 [rows], and for which of them it is known."""
    for clock in ("device", "host"):
        column = labels[f"t_{clock}_ns"]
        if not labels.num_rows or column.null_count:
            continue
        stamps = column.to_numpy()
        stream = _labelled_sensor(stamps, messages, f"t_{clock}_ns")
        if stream is not None:
            return _told(stamps, clock_models.filter(pc.equal(clock_models["stream"], stream)))
    return _zeros(labels.num_rows), np.zeros(labels.num_rows, dtype=bool)


def _labelled_sensor(stamps: np.ndarray, messages: pa.Table, column: str) -> str | None:
    """The stream that has most of the stamps, of equals the first by name."""
    known = messages.filter(pc.is_valid(messages[column]))
    times = np.unique(stamps)
    shares: Mapping[str, float] = {
        stream: float(np.isin(times, known.filter(pc.equal(known["stream"], stream))[column].to_numpy()).mean())
        for stream in sorted(pc.unique(known["stream"]).to_pylist())
    }
    best = max(shares, key=lambda stream: shares[stream], default=None)
    return best if best is not None and shares[best] >= _LEAST_SHARE else None


def _told(stamps: np.ndarray, models: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    """Through the segment that holds each stamp."""
    told, known = stamps.copy(), np.zeros(stamps.size, dtype=bool)
    for model in models.sort_by("segment").to_pylist():
        if model["status"] == "ok":
            inside = ~known & (stamps >= model["t_from_ns"]) & (stamps <= model["t_to_ns"])
            line = Line(model["t_anchor_ns"], model["offset_ns"], model["skew_ppm"])
            told[inside] = line.apply(stamps[inside])
            known |= inside
    return told, known


def _zeros(size: int) -> np.ndarray:
    return np.zeros(size, dtype=np.int64)

"""Frames straight from recordings, without a lake: for tests, benchmarks, and judging a model over recorded streams.

In: MCAP files with labels. Out: FrameSet, made by the vehicle's own decoding, alignment, features and pre-processing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from fleet_assets.curate.labels import GAP_NS
from fleet_assets.edge.assemble import Assembler, Frame
from fleet_assets.edge.objects import Objects
from fleet_assets.edge.recording import Recording
from fleet_assets.edge.rig import Rig
from fleet_assets.errors import FleetError
from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.reader import RecordingFiles
from fleet_assets.kernels.align import OK, bracket, nearest
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.rig import vehicle_rig
from fleet_assets.train.truth import labelled_objects

SLICES = ("light", "weather", "region")
WARM_UP_S = 2.0  # what features need to know of the past
_LABEL_NS = np.uint64(50_000_000)  # a label belongs to a frame no further away than this


def frames_of_recordings(paths: Sequence[Path], *, every_s: float = 0.0, rig: Rig | None = None) -> FrameSet:
    """One drive per file, named by it, in order of the paths. every_s: least time between two frames; 0 takes all.

    Raises FleetError for a recording that is damaged, has no labels, or nothing to make frames of.
    """
    rig = rig or vehicle_rig()
    return FrameSet.concat([_frames_of(path, every_s, rig) for path in paths])


def frames(recording: Recording, rig: Rig) -> Iterator[Frame]:
    """All frames of a recording, as the vehicle makes them."""
    return frames_by(Assembler(rig, recording.topics), recording)


def frames_by(assembler: Assembler, recording: Recording) -> Iterator[Frame]:
    """The same, by an assembler that can be asked afterwards what it left out."""
    for topic, schema_name, message, t_host_ns in recording.messages():
        yield from assembler.push(topic, schema_name, message, t_host_ns)
    yield from assembler.flush()


def _frames_of(path: Path, every_s: float, rig: Rig) -> FrameSet:
    recording = Recording.open(path)
    kept: list[Frame] = []
    first_ns = None
    for frame in frames(recording, rig):
        first_ns = frame.t_ns if first_ns is None else first_ns
        late = frame.t_ns - first_ns >= WARM_UP_S * 1e9
        if late and (not kept or frame.t_ns - kept[-1].t_ns >= max(every_s * 1e9 - 1e6, 1)):
            kept.append(frame)
    if not kept:
        raise FleetError(f"{path} is too short for a frame", remedy=f"A drive needs more than {WARM_UP_S:.0f} s.")
    t_ns = np.array([frame.t_ns for frame in kept], dtype=np.int64)
    labelled, truth = truth_at(_labels(path), t_ns)
    slices = {name: recording.context.get(name, "unknown") for name in SLICES}
    whole = stacked(kept, path.stem, slices, truth)
    return whole if labelled.all() else whole.only(labelled)


def stacked(kept: Sequence[Frame], drive: str, slices: Mapping[str, str], truth: Objects) -> FrameSet:
    """Frames of one drive, in order of time. slices: the drive's category of each."""
    return FrameSet(
        camera=np.stack([frame.camera for frame in kept]),
        lidar=np.stack([frame.lidar for frame in kept]),
        radar=np.stack([frame.radar for frame in kept]),
        context=np.stack([frame.context for frame in kept]),
        age_s=np.stack([frame.age_s for frame in kept]),
        t_ns=np.array([frame.t_ns for frame in kept], dtype=np.int64),
        drive=np.zeros(len(kept), dtype=np.int32),
        drives=(drive,),
        slices={name: np.full(len(kept), value) for name, value in slices.items()},
        truth=truth,
    )


def _labels(path: Path) -> pa.Table:
    files = RecordingFiles(path.parent, (path.name,))
    batches = [batch.table for batch in McapReader(files).read(["/labels"]) if batch.topic == "/labels"]
    if not batches:
        raise FleetError(f"{path} has no labels", remedy="Train and judge on recordings that have.")
    return pa.concat_tables(batches)


def truth_at(labels: pa.Table, t_ns: np.ndarray) -> tuple[np.ndarray, Objects]:
    """Which frames were labelled, bool [n], and what was there inside the grid. labels: rows with t_device_ns on the clock
    of the frames, class_name, x_m, y_m, moving, visible_fraction; other classes than CLASSES do not count.

    A frame between two labelled times close together, and without labels of its own, is an empty scene.
    """
    labels = labels.sort_by("t_device_ns")
    stamps = labels["t_device_ns"].to_numpy()
    times = np.unique(stamps)
    index, _ = nearest(t_ns, times, _LABEL_NS, _LABEL_NS)
    _, _, between = bracket(t_ns, times, np.uint64(GAP_NS))
    labelled = (index >= 0) | (between == OK)
    frame, rows = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int64)]
    for number in np.flatnonzero(index >= 0).tolist():
        low, high = np.searchsorted(stamps, [times[index[number]], times[index[number]] + 1])
        frame.append(np.full(high - low, number, dtype=np.int32))
        rows.append(np.arange(low, high))
    return labelled, labelled_objects(np.concatenate(frame), labels.take(pa.array(np.concatenate(rows))))

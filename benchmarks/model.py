"""Inference beside plain PyTorch and plain onnxruntime; frames to learn from beside files and a WebDataset shard; and `release`.

The network has the form of the demo and random weights: a time does not depend on what was learned. One thread each.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks import release
from benchmarks.harness import Options, Row, fastest, row
from fleet_assets.edge.assemble import Assembler
from fleet_assets.edge.inputs import INPUTS
from fleet_assets.edge.model import Model, objects_of
from fleet_assets.edge.recording import Recording
from fleet_assets.simulate.fleet import make_fleet, plan_fleet
from fleet_assets.train.batches import batch_of, rows_of_step, statistics_of
from fleet_assets.train.export import export
from fleet_assets.train.fit import Fitted, Recipe
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.model import make
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig

_BATCH, _SECONDS = 16, 14.0
_NAMES = ("camera", "lidar", "radar", "context", "age_s")


def rows(options: Options) -> list[Row]:
    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (made,) = make_fleet(plan_fleet(1, 7), folder, duration_s=_SECONDS, setup="default")
        frames = frames_of_recordings([made.path])
        fitted = Fitted(make("attention").eval(), statistics_of(frames), Recipe(threads=1), [], "random")
        for name, small in (("int8", True), ("full", False)):
            export(fitted, frames, frames, vehicle_rig(), folder / name, versions={}, quantised=small)
        own = [_inference(fitted, frames, folder), _outside(made.path), _loader(frames, fitted, folder)]
    return [*own, *release.rows(options)]


def _inference(fitted: Fitted, frames: FrameSet, folder: Path) -> Row:
    """Frame by frame, from arrays to objects."""
    ours = Model.open(folder / "int8")
    session = onnxruntime.InferenceSession(str(folder / "full" / "model.onnx"), _one_thread())
    names = [one.name for one in session.get_inputs()]
    unit, zero = np.ones(3), np.zeros(3)

    def prepared(number: int) -> dict[str, np.ndarray]:
        at = slice(number, number + 1)
        return ours.prepare(*(getattr(frames, name)[at] for name in _NAMES))

    def every(work: Callable[[dict[str, np.ndarray]], object]) -> Callable[[], None]:
        def run() -> None:
            for number in range(len(frames)):
                work(prepared(number))

        return run

    def plain(inputs: dict[str, np.ndarray]) -> object:
        return objects_of(*session.run(["heat", "offset"], {name: inputs[name] for name in names}), unit, zero)

    def eager(inputs: dict[str, np.ndarray]) -> object:
        with torch.no_grad():
            heat, offset = fitted.model(*(torch.from_numpy(inputs[name]) for name in INPUTS))
        return objects_of(heat.numpy(), offset.numpy(), unit, zero)

    times = fastest(
        {"ours": every(ours.detect), "onnxruntime float32": every(plain), "pytorch": every(eager)}, repeats=3
    )
    return row(
        f"{len(frames)} frames inferred, one by one", times, note=f"{1e3 * times['ours'] / len(frames):.1f} ms a frame"
    )


def _one_thread() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return options


def _outside(path: Path) -> Row:
    """A whole recording, decoded, aligned, with features and inputs: everything but the network."""
    opened = Recording.open(path)
    messages = list(opened.messages())

    def ours() -> int:
        assembler = Assembler(vehicle_rig(), opened.topics)
        made = sum(len(assembler.push(*message)) for message in messages)
        return made + len(assembler.flush())

    count = ours()
    times = fastest({"ours": ours}, repeats=3)
    return row(
        f"{count} frames assembled from messages", times, note=f"{1e3 * times['ours'] / count:.1f} ms a frame; goal 10"
    )


def _loader(frames: FrameSet, fitted: Fitted, folder: Path) -> Row:
    """Batches in random order, to tensors. A shard gives its own order, which is what makes it fast."""
    frames.save(folder / "set")
    loaded = FrameSet.load(folder / "set")
    files = folder / "files"
    files.mkdir()
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for number in range(len(frames)):
            sink = io.BytesIO()
            arrays: dict[str, Any] = {name: getattr(frames, name)[number] for name in _NAMES}
            np.savez(sink, **arrays)
            (files / f"{number:06d}.npz").write_bytes(sink.getvalue())
            entry = tarfile.TarInfo(f"{number:06d}.npz")
            entry.size = sink.tell()
            sink.seek(0)
            shard.addfile(entry, sink)
    steps = len(frames) // _BATCH

    def learnt(source: FrameSet, rows_: np.ndarray) -> None:
        batch_of(source, rows_, fitted.statistics)

    def ours() -> None:
        for step in range(steps):
            learnt(loaded, rows_of_step(len(frames), _BATCH, 0, step))

    def whole(read: list[dict[str, np.ndarray]], rows_: np.ndarray) -> None:
        arrays = {name: np.stack([one[name] for one in read]) for name in _NAMES}
        chosen = np.zeros(len(frames), dtype=bool)
        chosen[rows_] = True
        piece = frames.only(chosen)
        learnt(FrameSet(**{**piece.__dict__, **arrays}), np.arange(rows_.size))

    def folder_of_files() -> None:
        for step in range(steps):
            rows_ = np.sort(rows_of_step(len(frames), _BATCH, 0, step))
            whole([dict(np.load(files / f"{number:06d}.npz")) for number in rows_], rows_)

    def shard_in_order() -> None:
        with tarfile.open(folder / "shard.tar") as shard:
            read: list[dict[str, np.ndarray]] = []
            for number, entry in enumerate(shard):
                content = shard.extractfile(entry)
                read.append(dict(np.load(io.BytesIO(content.read() if content else b""))))
                if len(read) == _BATCH:
                    whole(read, np.arange(number + 1 - _BATCH, number + 1))
                    read = []

    times = fastest({"ours": ours, "folder of files": folder_of_files, "WebDataset shard": shard_in_order}, repeats=3)
    count = steps * _BATCH
    return row(f"{count} frames loaded in batches of {_BATCH}", times, note=f"{count / times['ours']:.0f} frames/s")

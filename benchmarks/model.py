"""Inference beside plain PyTorch and plain onnxruntime; frames to learn from beside files and WebDataset; and `release`.

The network has the form of the demo and random weights: a time does not depend on what was learned. One thread each.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnxruntime
import torch
from webdataset import TarWriter, WebDataset

from benchmarks import release
from benchmarks.harness import Options, Row, fastest, row
from fleet_assets.edge.assemble import Assembler
from fleet_assets.edge.inputs import INPUTS
from fleet_assets.edge.model import Model, Outputs
from fleet_assets.edge.recording import Recording
from fleet_assets.simulate.fleet import make_fleet, plan_fleet
from fleet_assets.train.batches import batch_of, rows_of_step, statistics_of
from fleet_assets.train.export import export
from fleet_assets.train.fit import Fitted, Recipe
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.model import make
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig

_BATCH, _SECONDS, _INFERRED = 16, 14.0, 24  # so few, so that a call is over before something else runs
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
    """Frame by frame, from arrays to objects. Peers are the network alone: before and behind it, they do as we do."""
    ours = Model.open(folder / "int8")

    def prepared(number: int) -> dict[str, np.ndarray]:
        at = slice(number, number + 1)
        return ours.prepare(*(getattr(frames, name)[at] for name in _NAMES))

    def every(work: Callable[[dict[str, np.ndarray]], object]) -> Callable[[], None]:
        def run() -> None:
            for number in range(_INFERRED):
                work(prepared(number))

        return run

    def plain(model: Path) -> Callable[[dict[str, np.ndarray]], object]:
        session = onnxruntime.InferenceSession(str(model / "model.onnx"), _one_thread())
        names = [one.name for one in session.get_inputs()]

        def run(inputs: dict[str, np.ndarray]) -> object:
            heat, offset = session.run(["heat", "offset"], {name: inputs[name] for name in names})
            return ours.found(Outputs(heat, offset, None))

        return run

    def eager(inputs: dict[str, np.ndarray]) -> object:
        with torch.no_grad():
            heat, offset = fitted.model(*(torch.from_numpy(inputs[name]) for name in INPUTS))
        return ours.found(Outputs(heat.numpy(), offset.numpy(), None))

    times = fastest(
        {
            "ours": every(ours.detect),
            "onnxruntime int8": every(plain(folder / "int8")),
            "onnxruntime float32": every(plain(folder / "full")),
            "pytorch": every(eager),
        },
        repeats=20,
    )
    return row(
        f"{_INFERRED} frames inferred, one by one", times, note=f"{1e3 * times['ours'] / _INFERRED:.1f} ms a frame"
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
    times = fastest({"ours": ours})
    return row(
        f"{count} frames assembled from messages", times, note=f"{1e3 * times['ours'] / count:.1f} ms a frame; goal 10"
    )


def _loader(frames: FrameSet, fitted: Fitted, folder: Path) -> Row:
    """Batches in random order, to tensors. A shard gives its own order, which is what makes it fast. Labels are in memory: what
    is read is sensors."""
    frames.save(folder / "set")
    loaded = FrameSet.load(folder / "set")
    files = folder / "files"
    files.mkdir()
    with TarWriter(str(folder / "shard.tar")) as shard:
        for number in range(len(frames)):
            sink = io.BytesIO()
            arrays: dict[str, Any] = {name: getattr(frames, name)[number] for name in _NAMES}
            np.savez(sink, **arrays)
            (files / f"{number:06d}.npz").write_bytes(sink.getvalue())
            shard.write({"__key__": f"{number:06d}", "npz": sink.getvalue()})
    steps = len(frames) // _BATCH

    def labelled(rows_: np.ndarray) -> tuple[np.ndarray, FrameSet]:
        return rows_, frames.only(np.isin(np.arange(len(frames)), rows_))

    drawn = [labelled(np.sort(rows_of_step(len(frames), _BATCH, 0, step))) for step in range(steps)]
    in_order = [labelled(np.arange(step * _BATCH, (step + 1) * _BATCH)) for step in range(steps)]

    def ours() -> None:
        for step in range(steps):
            batch_of(loaded, rows_of_step(len(frames), _BATCH, 0, step), fitted.statistics)

    def learnt(read: list[dict[str, np.ndarray]], labels: FrameSet) -> None:
        arrays: dict[str, Any] = {name: np.stack([one[name] for one in read]) for name in _NAMES}
        batch_of(replace(labels, **arrays), np.arange(_BATCH), fitted.statistics)

    def folder_of_files() -> None:
        for rows_, labels in drawn:
            learnt([dict(np.load(files / f"{number:06d}.npz")) for number in rows_], labels)

    def shard_in_order() -> None:
        shard = iter(WebDataset(str(folder / "shard.tar"), shardshuffle=False).decode())
        for _, labels in in_order:
            learnt([dict(sample["npz"]) for sample in islice(shard, _BATCH)], labels)

    times = fastest({"ours": ours, "folder of files": folder_of_files, "WebDataset": shard_in_order})
    count = steps * _BATCH
    return row(f"{count} frames loaded in batches of {_BATCH}", times, note=f"{count / times['ours']:.0f} frames/s")

"""The artefact that ships: ONNX in full precision and in int8, with what the vehicle needs to run it.

In: a trained model, frames to calibrate with, validation drives. Out: a folder with model.onnx, model.json and golden.npz,
which edge/model.py opens; evaluation and release take the same one."""

from __future__ import annotations

import json
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fleet_assets.edge import inputs as pre
from fleet_assets.edge.memory import MEMORY_INPUTS, MEMORY_OUTPUTS, nothing
from fleet_assets.edge.model import DESCRIPTION, FORMAT, GOLDEN, MODEL, Model, sigmoid
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.rig import Rig
from fleet_assets.errors import FleetError
from fleet_assets.train.batches import (
    LEAST_JUDGING,
    batch_of,
    earlier_frames,
    fingerprint,
    motion_between,
    normalisation_of,
    refuse_without_memory,
)
from fleet_assets.train.calibrate import PRECISION, Calibration, calibrate
from fleet_assets.train.fit import Fitted, given, weights_hash
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.model import Detector

OPSET = 17
_GOLDEN_FRAMES, _CALIBRATION_FRAMES = 4, 128
# How far a score may be off the golden ones on another machine: seven-bit weights do not saturate on any instruction set, what is
# left is the order of sums.
TOLERANCE = 0.02
# From PyTorch: of full precision any score, of int8 the mean.
FULL_TOLERANCE, QUANTISED_TOLERANCE = 1e-3, 0.02
_PIECE = 64


@dataclass(frozen=True)
class Parity:
    """Largest differences of scores (sigmoid of heat) from PyTorch's, over the frames compared; mean: over all cells."""

    full_max: float
    full_mean: float
    quantised_max: float
    quantised_mean: float

    def check(self) -> None:
        """Raises FleetError beyond FULL_TOLERANCE or QUANTISED_TOLERANCE."""
        if not (self.full_max <= FULL_TOLERANCE and self.quantised_mean <= QUANTISED_TOLERANCE):
            raise FleetError(
                f"ONNX computes something else than PyTorch: a score is off by {self.full_max:.2g}, int8 by "
                f"{self.quantised_mean:.2g} on the mean",
                where=f"allowed {FULL_TOLERANCE:g} and {QUANTISED_TOLERANCE:g}",
                remedy="Train anew; if it stays so, report the versions of torch, onnx and onnxruntime.",
            )


@dataclass(frozen=True)
class Exported:
    """calibration_sha256: of the frames by which int8 was scaled."""

    folder: Path
    parity: Parity
    calibration: Calibration
    calibration_sha256: str
    full_bytes: int
    quantised_bytes: int


def export(
    fitted: Fitted,
    frames: FrameSet,
    validation: FrameSet,
    rig: Rig,
    folder: Path,
    *,
    versions: Mapping[str, Any],
    precision: Mapping[str, float] = PRECISION,
    quantised: bool = True,
) -> Exported:
    """Writes the artefact into a folder that is there or not. frames: of training, by some of which int8 is scaled.
    validation: by which confidence is calibrated and thresholds are chosen, through the artefact itself. Raises FleetError if a
    form remembers and too few of them have an earlier frame, or ONNX does not compute what PyTorch does."""
    refuse_without_memory(validation, fitted.model.lag, LEAST_JUDGING)
    folder.mkdir(parents=True, exist_ok=True)
    scaled_by = _spread(len(frames), _CALIBRATION_FRAMES)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        full, small = Path(scratch, "full.onnx"), Path(scratch, "int8.onnx")
        _to_onnx(fitted, full)
        _quantise(full, small, _inputs(fitted, frames, scaled_by))
        full_bytes, quantised_bytes = full.stat().st_size, small.stat().st_size
        golden = _inputs(fitted, validation, _spread(len(validation), _GOLDEN_FRAMES))
        parity = _parity(fitted, golden, full, small)
        parity.check()
        (folder / MODEL).write_bytes((small if quantised else full).read_bytes())
    about = {
        **versions, "recipe": fitted.recipe.__dict__, "training": fitted.fingerprint, "weights": weights_hash(fitted.model),
        "precision": "int8" if quantised else "float32", "calibration_set": _fingerprint(fitted, frames, scaled_by),
    }  # fmt: skip
    raw = Calibration(np.ones(len(CLASSES)), np.zeros(len(CLASSES)), (0,) * len(CLASSES))
    _describe(folder, fitted, rig, raw, about)
    model = Model.open(folder)
    heat, offset, _ = model.run(golden)
    arrays: dict[str, Any] = {**golden, "heat": heat, "offset": offset}
    np.savez_compressed(folder / GOLDEN, **arrays)
    calibration = calibrate(detections(model, validation, every=True), validation.truth, precision)
    _describe(folder, fitted, rig, calibration, about)
    Model.open(folder).self_test()
    return Exported(folder, parity, calibration, about["calibration_set"], full_bytes, quantised_bytes)


def detections(model: Model, frames: FrameSet, *, every: bool = False) -> Objects:
    """What a model finds in frames, at the shipped thresholds; every: all candidates. In pieces, so that memory stays
    bounded."""
    parts, sizes = [], []
    for start in range(0, len(frames), _PIECE):
        rows = np.arange(start, min(start + _PIECE, len(frames)))
        prepared = inputs_of(model, frames, rows)
        parts.append(model.candidates(prepared) if every else model.detect(prepared))
        sizes.append(rows.size)
    return Objects.concat(parts, sizes)


def inputs_of(model: Model, frames: FrameSet, rows: np.ndarray) -> dict[str, np.ndarray]:
    """What a model is given for some frames; one that remembers, with its own memory of earlier ones, as in the vehicle."""
    inputs = _prepared(model, frames, rows)
    if model.lag is None:
        return inputs
    recalled, before = nothing(rows.size), earlier_frames(frames, rows, model.lag)
    needed, at = np.unique(before[before >= 0], return_inverse=True)
    memory = model.run(_prepared(model, frames, needed) | nothing(needed.size)).memory
    assert memory is not None  # noqa: S101 - it has a lag
    recalled["earlier"][before >= 0] = memory[at]
    recalled["motion"] = motion_between(frames, before, rows)
    return inputs | recalled


def _prepared(model: Model, frames: FrameSet, rows: np.ndarray) -> dict[str, np.ndarray]:
    return model.prepare(
        frames.camera[rows], frames.lidar[rows], frames.radar[rows], frames.context[rows], frames.age_s[rows]
    )


def _spread(count: int, wanted: int) -> np.ndarray:
    """int64: so many rows of them, evenly."""
    return np.unique(np.linspace(0, count - 1, min(wanted, count)).astype(np.int64))


def _inputs(fitted: Fitted, frames: FrameSet, rows: np.ndarray) -> dict[str, np.ndarray]:
    """As inputs_of, with the memory of the model in PyTorch."""
    with torch.no_grad():
        batch = batch_of(frames, rows, fitted.statistics, lag=fitted.model.lag)
        return {name: values.numpy() for name, values in given(fitted.model, batch).items()}


def _fingerprint(fitted: Fitted, frames: FrameSet, rows: np.ndarray) -> str:
    """Of some frames, and of those that are remembered with them."""
    used = np.zeros(len(frames), dtype=np.bool_)
    used[rows] = True
    if fitted.model.lag is not None:
        before = earlier_frames(frames, rows, fitted.model.lag)
        used[before[before >= 0]] = True
    return fingerprint(frames.only(used))


def _taken(model: Detector) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a model's inputs."""
    return {**pre.INPUTS, **(MEMORY_INPUTS if model.lag else {})}


def _to_onnx(fitted: Fitted, path: Path) -> None:
    model = fitted.model.to(memory_format=torch.contiguous_format).eval()
    taken, names = _taken(model), ["heat", "offset", *(MEMORY_OUTPUTS if model.lag else ())]
    example = tuple(torch.zeros(2, *shape) for shape in taken.values())
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the exporter by tracing is announced as old; it is the one whose graphs int8 takes
        torch.onnx.export(
            model, example, str(path), input_names=list(taken), output_names=names, opset_version=OPSET, dynamo=False,
            dynamic_axes={name: {0: "n"} for name in (*taken, *names)},
        )  # fmt: skip


class _Frames:
    """Frames one by one, as onnxruntime's quantiser asks for them."""

    def __init__(self, inputs: dict[str, np.ndarray], names: Sequence[str]) -> None:
        count = len(inputs["health"])
        self._rows: Iterator[dict[str, np.ndarray]] = (
            {name: inputs[name][row : row + 1] for name in names} for row in range(count)
        )

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._rows, None)


def _quantise(full: Path, small: Path, inputs: dict[str, np.ndarray]) -> None:
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = small.with_name("prepared.onnx")
    logging.disable(logging.WARNING)  # it warns, by the root logger, of what is done here on purpose
    try:
        quant_pre_process(str(full), str(prepared), skip_symbolic_shape=True)
        graph = onnx.load(str(prepared), load_external_data=False).graph
        _to_int8(prepared, small, _Frames(inputs, [one.name for one in graph.input]))
    finally:
        logging.disable(logging.NOTSET)


def _to_int8(prepared: Path, small: Path, reader: _Frames) -> None:
    """Convolutions, with what cuts off below them: they take the time. Eight bits for the weights of sensors cost a model of
    attention eight points of average precision for pedestrians, and would tell places on the grid to a fifth of a metre."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        str(prepared), str(small), reader, op_types_to_quantize=["Conv", "Relu"], quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip


def _parity(fitted: Fitted, inputs: dict[str, np.ndarray], full: Path, small: Path) -> Parity:
    import onnxruntime

    with torch.no_grad():
        heat = fitted.model(**{name: torch.from_numpy(values) for name, values in inputs.items()})[0]
    expected = sigmoid(heat.numpy())
    off = []
    for path in (full, small):
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [one.name for one in session.get_inputs()]
        (found,) = session.run(["heat"], {name: inputs[name] for name in names})
        difference = np.abs(sigmoid(found) - expected)
        off += [float(difference.max()), float(difference.mean())]
    return Parity(*off)


def _describe(folder: Path, fitted: Fitted, rig: Rig, calibration: Calibration, versions: Mapping[str, Any]) -> None:
    document = {
        "format": FORMAT,
        "form": fitted.recipe.form,
        "classes": list(CLASSES),
        "context": list(pre.CONTEXT),
        "inputs": {name: list(shape) for name, shape in _taken(fitted.model).items()},
        "normalisation": normalisation_of(fitted.statistics),
        "calibration": {"temperature": calibration.temperature.tolist(), "shift": calibration.shift.tolist()},
        "thresholds_ppm": list(calibration.thresholds_ppm),
        "golden": {"file": GOLDEN, "tolerance": TOLERANCE},
        "rig": rig.to_document(),
        "versions": dict(versions),
        **({"memory": fitted.model.lag.to_document()} if fitted.model.lag else {}),
    }
    (folder / DESCRIPTION).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")

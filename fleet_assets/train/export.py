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
from fleet_assets.edge.model import DESCRIPTION, FORMAT, GOLDEN, MODEL, Model, sigmoid
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.rig import Rig
from fleet_assets.train.batches import fingerprint
from fleet_assets.train.calibrate import PRECISION, Calibration, calibrate
from fleet_assets.train.fit import Fitted, weights_hash
from fleet_assets.train.frames import FrameSet

OPSET = 17
_GOLDEN_FRAMES, _CALIBRATION_FRAMES = 4, 128
# How far a score may be off the golden ones on another machine: seven-bit weights do not saturate on any instruction set, what is
# left is the order of sums.
TOLERANCE = 0.02
_PIECE = 64


@dataclass(frozen=True)
class Parity:
    """Largest differences of scores (sigmoid of heat) from PyTorch's, over the frames compared; mean: over all cells."""

    full_max: float
    full_mean: float
    quantised_max: float
    quantised_mean: float


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
    validation: by which confidence is calibrated and thresholds are chosen, through the artefact itself."""
    folder.mkdir(parents=True, exist_ok=True)
    scaled_by = frames.only(_spread(len(frames), _CALIBRATION_FRAMES))
    some = validation.only(_spread(len(validation), _GOLDEN_FRAMES))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        full, small = Path(scratch, "full.onnx"), Path(scratch, "int8.onnx")
        _to_onnx(fitted, full)
        _quantise(full, small, fitted, scaled_by)
        full_bytes, quantised_bytes = full.stat().st_size, small.stat().st_size
        golden = _inputs(fitted, some)
        parity = _parity(fitted, golden, full, small)
        (folder / MODEL).write_bytes((small if quantised else full).read_bytes())
    about = {
        **versions, "recipe": fitted.recipe.__dict__, "training": fitted.fingerprint, "weights": weights_hash(fitted.model),
        "precision": "int8" if quantised else "float32", "calibration_set": fingerprint(scaled_by),
    }  # fmt: skip
    raw = Calibration(np.ones(len(CLASSES)), np.zeros(len(CLASSES)), (0,) * len(CLASSES))
    _describe(folder, fitted, rig, raw, about)
    model = Model.open(folder)
    heat, offset = model.run(golden)
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
        piece = slice(start, start + _PIECE)
        prepared = model.prepare(
            frames.camera[piece], frames.lidar[piece], frames.radar[piece], frames.context[piece], frames.age_s[piece]
        )
        parts.append(model.candidates(prepared) if every else model.detect(prepared))
        sizes.append(len(prepared["health"]))
    return Objects.concat(parts, sizes)


def _spread(count: int, wanted: int) -> np.ndarray:
    """bool [count]: so many of them, evenly."""
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[np.linspace(0, count - 1, min(wanted, count)).astype(np.int64)] = True
    return chosen


def _inputs(fitted: Fitted, frames: FrameSet) -> dict[str, np.ndarray]:
    return pre.normalised(frames.camera, frames.lidar, frames.radar, frames.context, frames.age_s, fitted.statistics)


def _to_onnx(fitted: Fitted, path: Path) -> None:
    example = tuple(torch.zeros(2, *shape) for shape in pre.INPUTS.values())
    model = fitted.model.to(memory_format=torch.contiguous_format).eval()
    names = ["heat", "offset"]
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # the exporter by tracing is announced as old; it is the one whose graphs int8 takes
        torch.onnx.export(
            model, example, str(path), input_names=list(pre.INPUTS), output_names=names, opset_version=OPSET, dynamo=False,
            dynamic_axes={name: {0: "n"} for name in (*pre.INPUTS, *names)},
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


def _quantise(full: Path, small: Path, fitted: Fitted, frames: FrameSet) -> None:
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = small.with_name("prepared.onnx")
    logging.disable(logging.WARNING)  # it warns, by the root logger, of what is done here on purpose
    try:
        quant_pre_process(str(full), str(prepared), skip_symbolic_shape=True)
        names = [one.name for one in onnx.load(str(prepared), load_external_data=False).graph.input]
        _to_int8(prepared, small, _Frames(_inputs(fitted, frames), names))
    finally:
        logging.disable(logging.NOTSET)


def _to_int8(prepared: Path, small: Path, reader: _Frames) -> None:
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    quantize_static(
        str(prepared), str(small), reader, quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=True, activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
    )  # fmt: skip


def _parity(fitted: Fitted, inputs: dict[str, np.ndarray], full: Path, small: Path) -> Parity:
    import onnxruntime

    with torch.no_grad():
        heat, _ = fitted.model(*(torch.from_numpy(inputs[name]) for name in pre.INPUTS))
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
        "inputs": {name: list(shape) for name, shape in pre.INPUTS.items()},
        "normalisation": {name: values.tolist() for name, values in fitted.statistics.items()},
        "calibration": {"temperature": calibration.temperature.tolist(), "shift": calibration.shift.tolist()},
        "thresholds_ppm": list(calibration.thresholds_ppm),
        "golden": {"file": GOLDEN, "tolerance": TOLERANCE},
        "rig": rig.to_document(),
        "versions": dict(versions),
    }
    (folder / DESCRIPTION).write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")

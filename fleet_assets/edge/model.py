"""The model in the vehicle: `Model.open(folder)`, then `detect(inputs)`.

In: a folder with model.onnx, model.json and golden.npz. Out: Objects with calibrated confidence. Training calibrates,
evaluation judges and the vehicle drives with this one code, on onnxruntime alone."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime

from fleet_assets.edge import inputs as pre
from fleet_assets.edge.memory import MEMORY_INPUTS, MEMORY_OUTPUTS, Lag
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.rig import Rig
from fleet_assets.errors import FleetError
from fleet_assets.kernels.peaks import peaks

MODEL, DESCRIPTION, GOLDEN = "model.onnx", "model.json", "golden.npz"
FORMAT = 1
LEAST_LOGIT, MOST_OBJECTS = -5.0, 100  # a frame
_MODEL_BYTES_LIMIT, _DESCRIPTION_BYTES_LIMIT, _GOLDEN_BYTES_LIMIT = 64 << 20, 1 << 20, 16 << 20
_BATCH = 16
_ANEW = "Take the release anew from its channel."
_STATISTICS = {
    "camera_mean": 3, "camera_std": 3, "lidar_scale": pre.LIDAR_SHAPE[0], "radar_scale": pre.RADAR_SHAPE[0],
    "context_mean": len(pre.CONTEXT), "context_std": len(pre.CONTEXT),
}  # fmt: skip
_POSITIVE = ("camera_std", "lidar_scale", "radar_scale", "context_std")


@dataclass(frozen=True)
class Description:
    """What model.json says. temperature, shift: confidence is the sigmoid of logit / temperature + shift, per class.
    thresholds_ppm: from which confidence a detection counts, per class. tolerance: how far a score may be off the golden
    ones. lag: of a model that remembers, else None. versions: what the model was made from."""

    form: str
    statistics: Mapping[str, np.ndarray]
    temperature: np.ndarray
    shift: np.ndarray
    thresholds_ppm: np.ndarray
    tolerance: float
    rig: Rig
    lag: Lag | None
    versions: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path) -> Description:
        """Raises FleetError if it is not there, or does not fit this program."""
        document = _json(path)

        def fault(what: str) -> FleetError:
            return FleetError(f"{path} is no description of a model: {what}", remedy=_ANEW)

        try:
            if document["format"] != FORMAT or document["classes"] != list(CLASSES):
                raise fault("its format or its classes are not those of this program")
            if document["context"] != list(pre.CONTEXT):
                raise fault("it takes other features than this program gives")
            statistics = {name: _numbers(document["normalisation"][name], size) for name, size in _STATISTICS.items()}
            temperature, shift = (
                _numbers(document["calibration"][name], len(CLASSES)) for name in ("temperature", "shift")
            )
            thresholds = document["thresholds_ppm"]
            tolerance = float(document["golden"]["tolerance"])
            if any(type(value) is not int or not 0 <= value <= 1_000_000 for value in thresholds) or len(
                thresholds
            ) != len(CLASSES):
                raise fault("its thresholds are no shares")
            if not (
                min(temperature) > 0 and all(statistics[name].min() > 0 for name in _POSITIVE) and 0 < tolerance <= 1
            ):
                raise fault("a scale is not positive")
            return cls(
                str(document["form"]), statistics, temperature, shift, np.array(thresholds), tolerance,
                Rig.from_document(document["rig"], str(path)),
                Lag.from_document(document["memory"]) if "memory" in document else None, dict(document["versions"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise fault(f"{type(error).__name__} {error}") from error


def _numbers(values: Any, size: int) -> np.ndarray:
    """float32 [size]. Raises ValueError."""
    found = np.array(values, dtype=np.float32)
    if found.shape != (size,) or not np.isfinite(found).all():
        raise ValueError(f"not {size} numbers")
    return found


def _json(path: Path) -> Any:
    try:
        with open(path, "rb") as file:
            content = file.read(_DESCRIPTION_BYTES_LIMIT + 1)
        if len(content) > _DESCRIPTION_BYTES_LIMIT:
            raise ValueError("too long")
        return json.loads(content)
    except OSError as error:
        raise FleetError(f"Cannot read {path}: {error.strerror}", remedy=_ANEW) from error
    except (ValueError, RecursionError) as error:
        raise FleetError(f"{path} is no description of a model: {error}", remedy=_ANEW) from error


class Outputs(NamedTuple):
    """Of n frames, float32: heat [n, 3, 48, 48] (logits), offset [n, 2, 48, 48], and memory [n, 40, 48, 48] of a model that
    remembers, else None."""

    heat: np.ndarray
    offset: np.ndarray
    memory: np.ndarray | None


_RESULT = {"heat": (len(CLASSES), pre.GRID_CELLS, pre.GRID_CELLS), "offset": (2, pre.GRID_CELLS, pre.GRID_CELLS)}


class Model:
    """One model, loaded. description: what its model.json says."""

    def __init__(self, folder: Path, description: Description, session: onnxruntime.InferenceSession) -> None:
        self.folder, self.description, self._session = folder, description, session

    @classmethod
    def open(cls, folder: Path, *, threads: int = 1) -> Model:
        """Raises FleetError if a file is missing, damaged, or not what this program runs."""
        description, path = Description.read(folder / DESCRIPTION), folder / MODEL
        try:
            with open(path, "rb") as file:
                content = file.read(_MODEL_BYTES_LIMIT + 1)
        except OSError as error:
            raise FleetError(f"Cannot read {path}: {error.strerror}", remedy=_ANEW) from error
        if len(content) > _MODEL_BYTES_LIMIT:
            raise FleetError(f"{path} is larger than a model may be", remedy=_ANEW)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 4  # faults come as exceptions
        try:
            session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has no common kind of its own
            raise FleetError(f"{path} is no model that can be run: {error}", remedy=_ANEW) from error
        asked, given = (MEMORY_INPUTS, MEMORY_OUTPUTS) if description.lag else ({}, {})
        shapes, known = {one.name: tuple(one.shape[1:]) for one in session.get_inputs()}, {**pre.INPUTS, **asked}
        if not shapes or not asked.keys() <= shapes.keys() or any(known.get(name) != shapes[name] for name in shapes):
            raise FleetError(f"{path} takes other inputs than this program gives", remedy=_ANEW)
        if [one.name for one in session.get_outputs()] != [*_RESULT, *given]:
            raise FleetError(f"{path} gives something else than places", remedy=_ANEW)
        return cls(folder, description, session)

    def prepare(
        self, camera: np.ndarray, lidar: np.ndarray, radar: np.ndarray, context: np.ndarray, age_s: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Inputs of n frames, from arrays [n, ...] as edge/assemble.py makes them, by the statistics of training."""
        return pre.normalised(camera, lidar, radar, context, age_s, self.description.statistics)

    @property
    def lag(self) -> Lag | None:
        return self.description.lag

    def run(self, inputs: Mapping[str, np.ndarray]) -> Outputs:
        """inputs: of `prepare`, and for a model that remembers those of edge/memory.py. Raises FleetError if the network gives
        arrays of other shapes than a model's."""
        taken = [one.name for one in self._session.get_inputs()]
        count = len(inputs[taken[0]])
        wanted = {**_RESULT, **(MEMORY_OUTPUTS if self.lag else {})}
        outputs = {name: np.zeros((count, *shape), np.float32) for name, shape in wanted.items()}
        for at in range(0, count, _BATCH):
            piece = slice(at, min(at + _BATCH, count))
            found = self._session.run(list(wanted), {name: inputs[name][piece] for name in taken})
            for values, whole in zip(found, outputs.values(), strict=True):
                if values.shape != whole[piece].shape:
                    raise FleetError(f"{self.folder / MODEL} gives something else than places", remedy=_ANEW)
                whole[piece] = values
        return Outputs(outputs["heat"], outputs["offset"], outputs.get("memory"))

    def candidates(self, inputs: Mapping[str, np.ndarray]) -> Objects:
        """Whatever could be an object, down to a confidence of next to nothing: for curves, and to choose thresholds."""
        return self._objects(self.run(inputs))

    def detect(self, inputs: Mapping[str, np.ndarray]) -> Objects:
        """The objects of n frames, at the shipped thresholds."""
        return self.found(self.run(inputs))

    def found(self, outputs: Outputs) -> Objects:
        """The objects in what `run` gave, at the shipped thresholds."""
        return self.above_thresholds(self._objects(outputs))

    def _objects(self, outputs: Outputs) -> Objects:
        return objects_of(outputs.heat, outputs.offset, self.description.temperature, self.description.shift)

    def above_thresholds(self, found: Objects) -> Objects:
        least = (self.description.thresholds_ppm * 1e-6)[found.class_id]
        return found.only(found.confidence >= least)

    def self_test(self) -> None:
        """Runs the golden inputs. Raises FleetError if a score is further off than the description allows, or there are
        none."""
        golden = read_golden(self.folder / GOLDEN, remembers=self.lag is not None)
        heat, offset, _ = self.run(golden)
        off = max(np.abs(sigmoid(heat) - sigmoid(golden["heat"])).max(), np.abs(offset - golden["offset"]).max())
        if not off <= self.description.tolerance:
            raise FleetError(
                f"{self.folder / MODEL} does not compute what it should: off by {off:.4f}",
                where=f"allowed {self.description.tolerance}",
                remedy="Do not drive with it; report machine and release.",
            )


def objects_of(heat: np.ndarray, offset: np.ndarray, temperature: np.ndarray, shift: np.ndarray) -> Objects:
    """Peaks of a model's outputs, with confidence."""
    frame, class_id, place, logit = peaks(heat, offset, np.float32(LEAST_LOGIT), MOST_OBJECTS)
    confidence = sigmoid(logit / temperature[class_id] + shift[class_id])
    x_m = place[:, 0] * np.float32(pre.CELL_M) + np.float32(pre.GRID_X_M[0])
    y_m = place[:, 1] * np.float32(pre.CELL_M) + np.float32(pre.GRID_Y_M[0])
    return Objects(frame, class_id, x_m, y_m, confidence.astype(np.float32))


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Without overflow."""
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * values)))


def read_golden(path: Path, *, remembers: bool = False) -> dict[str, np.ndarray]:
    """float32 inputs, heat and offset of a few frames. Raises FleetError."""
    shapes = {**pre.INPUTS, **(MEMORY_INPUTS if remembers else {}), **_RESULT}
    try:
        if path.stat().st_size > _GOLDEN_BYTES_LIMIT:
            raise ValueError("too large")
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > _GOLDEN_BYTES_LIMIT:
                raise ValueError("too large")
        with np.load(path, allow_pickle=False) as archive:
            found = {name: archive[name] for name in shapes}
        count = len(found["heat"])
        if not count or any(
            found[name].dtype != np.float32 or found[name].shape != (count, *shape) for name, shape in shapes.items()
        ):
            raise ValueError("other arrays than a model takes and gives")
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FleetError(f"{path} holds no golden vectors: {error}", remedy=_ANEW) from error
    return found

"""Driving with a release: a recording or a live stream through alignment, features, model, to decisions.

In: messages in order of arrival, a release's payload (model/, features/, features.pub). Out: a line of JSON per frame with
what was found and on what it rests; how long everything outside the model took."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.edge.assemble import Assembler, Frame
from fleet_assets.edge.domain import Domain
from fleet_assets.edge.features import Answer, FeatureBundle
from fleet_assets.edge.feed import LIVE
from fleet_assets.edge.inputs import CONTEXT
from fleet_assets.edge.memory import Memory
from fleet_assets.edge.model import Model
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.recording import Arrived, LiveStream, Recording
from fleet_assets.edge.rig import SENSORS
from fleet_assets.edge.warm import warm
from fleet_assets.errors import FleetError
from fleet_assets.signing.keys import KeyRing


@dataclass(frozen=True)
class Decision:
    """What was found in a frame. context: as the model was given it, looked up in the bundle. judged: whether the release was
    judged in the conditions of the drive. relied_on: bool [n], which of what was found may be relied on. outside_ms: spent on
    the frame since the one before, decoding included, without the model."""

    number: int
    frame: Frame
    context: np.ndarray
    found: Objects
    judged: bool
    relied_on: np.ndarray
    model_ms: float
    outside_ms: float

    def line(self) -> str:
        """One line of the decision log. missing: sensors that said nothing for this frame. relied_on: whether anything in it may
        be, and whether each object may."""
        age_ms = {name: _rounded(1e3 * float(age)) for name, age in zip(SENSORS, self.frame.age_s, strict=True)}
        document = {
            "frame": self.number,
            "t_ns": self.frame.t_ns,
            "t_cut_ns": self.frame.t_cut_ns,
            "age_ms": age_ms,
            "missing": [name for name, age in age_ms.items() if age is None],
            "relied_on": self.judged,
            "objects": [
                {
                    "class": CLASSES[kind], "x_m": round(x, 2), "y_m": round(y, 2), "confidence": round(confidence, 4),
                    "relied_on": relied_on,
                }
                for kind, x, y, confidence, relied_on in zip(
                    self.found.class_id.tolist(), self.found.x_m.tolist(), self.found.y_m.tolist(),
                    self.found.confidence.tolist(), self.relied_on.tolist(), strict=True,
                )
            ],
            "model_ms": round(self.model_ms, 2),
            "outside_ms": round(self.outside_ms, 2),
        }  # fmt: skip
        return json.dumps(document, separators=(",", ":"), allow_nan=False)


def _rounded(value: float) -> float | None:
    return round(value, 1) if np.isfinite(value) else None


@dataclass
class Report:
    """Of a drive. domain: where in it the release may be relied on. start_ms: from the command's begin until the first message
    could be taken. model_ms, outside_ms: per frame. left_out: key records that made no frame. fault: why the recording ended
    early."""

    domain: Domain
    start_ms: float = 0.0
    frames: int = 0
    objects: int = 0
    objects_relied_on: int = 0
    left_out: int = 0
    fault: str | None = None
    model_ms: list[float] = field(default_factory=list)
    outside_ms: list[float] = field(default_factory=list)

    def add(self, decision: Decision) -> None:
        self.frames += 1
        self.objects += len(decision.found)
        self.objects_relied_on += int(decision.relied_on.sum())
        self.model_ms.append(decision.model_ms)
        self.outside_ms.append(decision.outside_ms)

    def to_document(self) -> dict[str, Any]:
        def of(values: list[float]) -> dict[str, float]:
            known = np.array(values or [0.0])
            return {f"p{share}": round(float(np.percentile(known, share)), 2) for share in (50, 95, 99)}

        return {
            "start_ms": round(self.start_ms, 1), "frames": self.frames, "objects": self.objects,
            "objects_relied_on": self.objects_relied_on, "left_out": self.left_out, "fault": self.fault,
            "model_ms": of(self.model_ms), "outside_ms": of(self.outside_ms), **self.domain.to_document(),
        }  # fmt: skip


class Context:
    """The context vector of frames, by way of the feature bundle: what the vehicle observes counts over what the bundle
    holds."""

    def __init__(self, bundle: FeatureBundle, drive: str) -> None:
        """Raises FleetError if the bundle lacks a feature that models take, or names another kernel for it than this software
        has: what the vehicle observes would not be what the model was trained on."""
        self._bundle, self._drive = bundle, drive
        self._views: dict[str, tuple[Answer, list[str], list[int]]] = {}
        wanted: dict[str, list[str]] = {}
        for feature in CONTEXT:
            view, _, name = feature.partition(":")
            wanted.setdefault(view, []).append(name)
        for view, names in wanted.items():
            answer = bundle.answer(view)
            missing = [name for name in names if name not in answer.features]
            if missing:
                raise FleetError(
                    f"The bundle has no {view}:{missing[0]}", remedy="Build the release with another bundle."
                )
            self._views[view] = answer, names, [LIVE[view].FEATURES.index(name) for name in names]
        bundle.check_kernels(wanted)
        self._at = [
            (view, self._views[view][0].features.index(name))
            for view, _, name in (one.partition(":") for one in CONTEXT)
        ]

    @classmethod
    def open(cls, slot: Path, drive: str) -> Context:
        """By the bundle in a payload's folder."""
        return cls(FeatureBundle.open(slot / "features", KeyRing.read(slot / "features.pub")), drive)

    def of(self, number: int, frame: Frame) -> np.ndarray:
        """float32 [features] of CONTEXT."""
        for view, (answer, names, columns) in self._views.items():
            values = frame.features[view][columns]
            self._bundle.observe(
                view, (self._drive, number), dict(zip(names, values.tolist(), strict=True)), frame.t_ns
            )
            self._bundle.lookup(view, (self._drive, number), answer, now_ns=frame.t_ns)
        return np.array([self._views[view][0].values[column] for view, column in self._at], dtype=np.float32)


def decisions(
    messages: Iterable[Arrived],
    topics: list[str],
    model: Model,
    context: Context,
    report: Report,
) -> Iterator[Decision]:
    """topics: of the vehicle. messages: live, or of a recording. report: of this drive; is filled. Raises FleetError where the
    messages do."""
    assembler = Assembler(model.description.rig, topics)
    memory = Memory(model.lag)

    def decide(frame: Frame, begun: float) -> Decision:
        known = context.of(report.frames, frame)
        inputs = model.prepare(frame.camera[None], frame.lidar[None], frame.radar[None], known[None], frame.age_s[None])
        inputs |= memory.recall(frame.t_ns, known)
        before = time.perf_counter()
        outputs = model.run(inputs)
        after = time.perf_counter()
        memory.keep(frame.t_ns, known, outputs.memory)
        found = model.found(outputs)
        relied_on = report.domain.holds(found)
        done = time.perf_counter()
        decision = Decision(
            report.frames, frame, known, found, report.domain.relied_on, relied_on,
            1e3 * (after - before), 1e3 * (spent + before - begun + done - after),
        )  # fmt: skip
        report.add(decision)
        return decision

    spent = 0.0  # on messages since the last frame
    for message in messages:
        begun = time.perf_counter()
        for frame in assembler.push(*message):
            decision = decide(frame, begun)
            spent, begun = 0.0, time.perf_counter()
            yield decision
            begun = time.perf_counter()  # whoever takes decisions takes their own time
        spent += time.perf_counter() - begun
    begun = time.perf_counter()
    for frame in assembler.flush():
        decision = decide(frame, begun)
        spent = 0.0
        yield decision
        begun = time.perf_counter()
    report.left_out = assembler.left_out


def infer(
    source: Recording | LiveStream,
    slot: Path,
    domain_of: Callable[[Mapping[str, str]], Domain],
    log: Path,
    *,
    begun_s: float | None = None,
) -> Report:
    """slot: a payload's folder, verified by whoever gives it; domain_of: of its verdict, in a drive of such conditions. log:
    written anew, a line per frame, as it is decided; lines are whole even if the source is damaged, and the report says so.
    begun_s: of `time.perf_counter()` when starting began; now unless given.

    Compiled code is loaded before the first message, or its frame would be late. Raises FleetError if nothing can be inferred
    at all."""
    begun_s = time.perf_counter() if begun_s is None else begun_s
    model = Model.open(slot / "model")
    warm(model)
    context = Context.open(slot, source.name)
    start_ms = 1e3 * (time.perf_counter() - begun_s)  # a live stream may keep us waiting from here on
    report = Report(domain_of(source.context), start_ms)
    try:
        with open(log, "w", encoding="utf-8", buffering=1) as lines:
            for decision in decisions(source.messages(), source.topics, model, context, report):
                lines.write(decision.line() + "\n")
    except OSError as error:
        raise FleetError(f"Cannot write {log}: {error.strerror}", remedy="Give another file, or make room.") from error
    except FleetError as error:
        if not report.frames:
            raise
        report.fault = str(error)
    return report

"""One evaluation, from the artefact that ships to its record.

In: a model's folder, frames of test drives, their recordings, a gate. Out: the record (record.py), and beside it report.json:
what is measured and not gated.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.edge.model import Model
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.payload import BOUND_ARTEFACT, BOUND_MACHINE, artefact_sha256
from fleet_assets.edge.verdict import Verdict
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.candidates import count_candidate
from fleet_assets.evaluate.evidence import NOMINAL, RECALL, Evidence, Scenario
from fleet_assets.evaluate.gate import Judgement, mean_average_precision
from fleet_assets.evaluate.gate_diff import Change, refuse_unapproved
from fleet_assets.evaluate.gate_file import Gate
from fleet_assets.evaluate.record import EVIDENCE, evidence_sha256, read_record, write_record
from fleet_assets.evaluate.regression import regression
from fleet_assets.evaluate.rehearsals import OFFSETS_MS, REHEARSALS, Drives, offset_rehearsals
from fleet_assets.evaluate.table import report_rows
from fleet_assets.services.home import Home
from fleet_assets.signing.roots import Roots
from fleet_assets.synchronise.policy import load_alignment
from fleet_assets.train.bake_off import latency_ms
from fleet_assets.train.batches import LEAST_JUDGING, refuse_without_memory
from fleet_assets.train.export import detections
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.tracking import LEARNS, code_commit, code_sha256

REPORT = "report.json"
_JUDGES = (*LEARNS, "evaluate", "signing")  # whose code a verdict depends on
Recordings = Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class Released:
    """What came before: the record of its verdict, and its model, which is judged again on the same frames."""

    record: Path
    model: Path


@dataclass(frozen=True)
class Evaluated:
    verdict: Verdict
    report: dict[str, Any]


def evaluate(
    home: Home,
    model: Path,
    frames: FrameSet,
    gate: Gate,
    folder: Path,
    *,
    bound_to: Mapping[str, str],
    recordings: Recordings | None = None,
    released: Released | None = None,
    scenarios: Mapping[str, Scenario] | None = None,
) -> Evaluated:
    """Judges a model and writes the record to a new folder.

    bound_to: versions of what the model was made from. recordings: of each drive; the model is judged on what the vehicle's code
    makes of them, which must be the frames, and in the rehearsals that the gate asks for. None: on the frames as they are, for
    who had them made by the vehicle's code (train/recordings.py) and has the recordings no longer. scenarios: those of the gate,
    on these frames.
    Raises FleetError if the gate loosens that of the released model without an approver of the installation's root (before the
    first ceremony, any name), if a scenario means something else by then and has the same version, or if the gate asks for
    rehearsals and there are no recordings.
    """
    approvers, changes = Roots.of(home.releases).approvers(), list[Change]()
    before = read_record(released.record) if released else None
    if before is not None:
        changes = refuse_unapproved(before.gate, gate, approvers)
        _refuse_edited(before.evidence.scenarios, scenarios or {})
    opened = Model.open(model)
    refuse_without_memory(frames, opened.lag, LEAST_JUDGING)
    artefact = artefact_sha256(model)
    drives = None if recordings is None else Drives(recordings, frames, opened.description.rig)
    evidence = _evidence(opened, frames, gate, drives, scenarios or {})
    judgement = Judgement(gate, evidence)
    count = count_candidate(home, artefact, {frames.drives[number] for number in np.unique(frames.drive)})
    bound = {**bound_to, **_judged_by(), BOUND_ARTEFACT: artefact, EVIDENCE: evidence_sha256(evidence)}
    verdict = judgement.verdict(candidates_judged=count, bound_to=bound)
    write_record(folder, gate, evidence, verdict)
    against, not_comparable = (
        _against(released.model, before.verdict, judgement, frames, drives) if released and before else ([], None)
    )
    report: dict[str, Any] = {
        "mean_average_precision": mean_average_precision(judgement.matched()),
        "latency_ms": latency_ms(opened, frames),
        "frames": len(frames),
        "frames_otherwise": drives.otherwise if drives else None,
        "cells": report_rows(judgement.report(verdict)),
        "loosened": [change.row() for change in changes if change.loosens],
        "approvers": approvers,
        "against_released": against,
        "not_comparable": not_comparable,
        "recall_over_offset": _offset_curve(opened, judgement, frames, drives) if drives and gate.rehearsals else [],
        "clock_limits": {**asdict(load_alignment().limits), "curve_ends_ms": max(OFFSETS_MS)},
    }
    (folder / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    return Evaluated(verdict, report)


def _judged_by() -> dict[str, str]:
    """Machine and code of this evaluation."""
    commit = code_commit()
    found = {BOUND_MACHINE: platform.machine(), "code_sha256": code_sha256(_JUDGES)}
    return found | ({"code_commit": commit} if commit else {})


def _nominal(model: Model, frames: FrameSet, drives: Drives | None) -> Objects:
    detect = partial(detections, model, every=True)
    return drives.nominal(detect) if drives else detect(frames)


def _refuse_edited(before: Mapping[str, Scenario], now: Mapping[str, Scenario]) -> None:
    for name in before.keys() & now.keys():
        if before[name].sha256 != now[name].sha256:
            raise FleetError(
                f"Scenario {name} is not what it was when the released model was judged",
                remedy="Give what was changed a new version, and name that in the gate.",
            )


def _evidence(
    model: Model, frames: FrameSet, gate: Gate, drives: Drives | None, scenarios: Mapping[str, Scenario]
) -> Evidence:
    passes = {NOMINAL: _nominal(model, frames, drives)}
    if drives:
        detect = partial(detections, model, every=True)
        passes |= {name: drives.rehearse(REHEARSALS[name], detect) for name in gate.rehearsals}
    return Evidence.of(frames, passes, model.description.thresholds_ppm, scenarios)


def _against(
    released: Path, judged: Verdict, candidate: Judgement, frames: FrameSet, drives: Drives | None
) -> tuple[list[dict[str, Any]], str | None]:
    """On the same frames, as they are: the released model's rehearsals are in its own record. judged: its verdict. No rows, and
    why, if this program cannot run that model: it was made for other inputs, or is damaged, or is not there any more. That is no
    fault of the candidate's."""
    gate = candidate.gate.without_rehearsals()
    try:
        before = Model.open(released)
        if artefact_sha256(released) != judged.bound_to.get(BOUND_ARTEFACT):
            return [], f"Not comparable: {released} does not hold the model that was released"
        found = {NOMINAL: _nominal(before, frames, drives)}
    except FleetError as error:
        return [], f"Not comparable: {error}"
    scenarios = candidate.evidence.scenarios
    old = Judgement(gate, Evidence.of(frames, found, before.description.thresholds_ppm, scenarios))
    differences = regression(old, Judgement(gate, candidate.evidence))
    return [{**asdict(one), "is_worse": one.is_worse} for one in differences], None


def _offset_curve(model: Model, judgement: Judgement, frames: FrameSet, drives: Drives) -> list[dict[str, Any]]:
    """Recall per class over how wrong a sensor's stamps are."""
    detect, rows = partial(detections, model, every=True), []
    gate, scenarios = judgement.gate.without_rehearsals(), judgement.evidence.scenarios
    thresholds_ppm = model.description.thresholds_ppm
    for (sensor, offset_ms), rehearsal in offset_rehearsals().items():
        found = Evidence.of(frames, {NOMINAL: drives.rehearse(rehearsal, detect)}, thresholds_ppm, scenarios)
        hit = Judgement(gate, found).matched().rows(RECALL, found.thresholds_ppm)
        for name in CLASSES:
            chosen = hit.within({"class": name})
            recall = float(hit.hit[chosen].mean()) if chosen.any() else None
            rows.append({"sensor": sensor, "offset_ms": offset_ms, "class": name, "recall": recall})
    return rows

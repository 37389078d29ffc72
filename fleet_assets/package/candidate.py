"""A release candidate: parts that were judged together, in one archive that waits for its approvers.

In: a model's folder, a feature bundle, the verdict on both, and where they come from. Out: an archive in the folder of releases,
the same bytes for the same parts. Parts of different releases are refused.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_assets.edge import payload as parts_of
from fleet_assets.edge.bundle import Manifest, hash_file
from fleet_assets.edge.payload import Payload
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.record import verify
from fleet_assets.package.bom import bill_of_materials
from fleet_assets.package.card import model_card
from fleet_assets.package.evidence import Provenance, empty_fields, evidence_record
from fleet_assets.package.policy import ReleasePolicy
from fleet_assets.package.releases import EVALUATION, Releases
from fleet_assets.signing.files import one_at_a_time
from fleet_assets.signing.keys import KeyRing, PublicKey

BOUND_DATASET = "dataset_commit"  # in a verdict's bound_to


@dataclass(frozen=True)
class Parts:
    """model: folder with model.onnx, model.json and golden.npz. features: folder of a feature bundle; features_key: who signed
    it. evaluation: the record of the evaluation (evaluate/record.py), which holds the verdict."""

    model: Path
    features: Path
    features_key: PublicKey
    evaluation: Path
    provenance: Provenance


def build_candidate(releases: Releases, parts: Parts, hardware: str, policy: ReleasePolicy) -> str:
    """The new candidate's id; building the same again changes nothing.

    A candidate without PASS is built too: it stays as the record of why it did not ship, and nobody can sign it. Raises
    FleetError if the verdict is on other parts, or a field of the evidence record is empty.
    """
    candidates = releases.folder / "candidates"
    candidates.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(candidates), tempfile.TemporaryDirectory(dir=candidates, prefix=".build-") as scratch:
        new = Path(scratch, "candidate")
        new.mkdir()
        _lay_out(Path(scratch, "payload"), parts, hardware, policy)
        parts_of.pack(Path(scratch, "payload"), new / parts_of.ARCHIVE)
        shutil.copytree(parts.evaluation, new / EVALUATION)
        id_ = hash_file(new / parts_of.ARCHIVE)[1]
        if not releases.candidate(id_).exists():
            os.replace(new, releases.candidate(id_))
        return id_


def _lay_out(folder: Path, parts: Parts, hardware: str, policy: ReleasePolicy) -> None:
    """The folder of a payload, checked as a vehicle checks it."""
    folder.mkdir()
    shutil.copytree(parts.model, folder / parts_of.MODEL)
    bundle = Manifest.read(parts.features, KeyRing([parts.features_key]))
    (folder / parts_of.FEATURES).mkdir()
    for name in (parts_of.BUNDLE_MANIFEST, *bundle.files):
        shutil.copyfile(parts.features / name, folder / parts_of.FEATURES / name)
    parts.features_key.write(folder / parts_of.FEATURES_KEY)
    runtime, verdict = policy.runtime(hardware), verify(parts.evaluation)
    evidence = evidence_record(
        statements=policy.statements, provenance=parts.provenance, verdict=verdict, bundle=bundle.signed,
        hardware=hardware, runtime=runtime, integrity=_integrity(folder),
    )  # fmt: skip
    refuse_empty(evidence)
    judged, told = verdict.bound_to.get(BOUND_DATASET), parts.provenance.dataset_commit
    if judged != told:
        raise FleetError(
            "The model was judged on another dataset than it comes from",
            where=f"judged at commit {judged}, told {told}",
            remedy="Judge it on the test drives of its own dataset.",
        )
    _write(folder / parts_of.VERDICT, verdict.to_document())
    _write(folder / parts_of.EVIDENCE, evidence)
    network = hash_file(folder / parts_of.MODEL / "model.onnx")[1]
    (folder / parts_of.BOM).write_bytes(bill_of_materials(verdict, evidence, network))
    (folder / parts_of.CARD).write_text(model_card(verdict, evidence), encoding="utf-8")
    profile = verdict.profile
    _write(
        folder / parts_of.MANIFEST, parts_of.manifest_of(folder, hardware=hardware, profile=profile, runtime=runtime)
    )
    Payload.open(folder).verdict()


def refuse_empty(evidence: Mapping[str, Any]) -> None:
    """Raises FleetError if a field of the record says nothing."""
    empty = empty_fields(evidence)
    if empty:
        raise FleetError(
            f"The evidence record says nothing in {', '.join(empty)}",
            remedy="State it in contracts/policies/release.yaml, or give the provenance whole.",
        )


def _integrity(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hash_file(path)[1] for path in files}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, sort_keys=True, indent=1) + "\n", encoding="utf-8")

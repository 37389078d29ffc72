"""Parts of a release as tests need them: a tiny real network, a real feature bundle, a verdict on both, throw-away keys."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
from evaluate.made import evidence
from evaluate.test_gate_file import TEXT
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array

from fleet_assets.deploy.channel import publish
from fleet_assets.edge import inputs as pre
from fleet_assets.edge.bundle import Manifest
from fleet_assets.edge.feed import LIVE
from fleet_assets.edge.model import FORMAT, Model
from fleet_assets.edge.objects import CLASSES
from fleet_assets.edge.payload import BOUND_ARTEFACT, BOUND_FEATURES, BOUND_MACHINE, artefact_sha256
from fleet_assets.evaluate.gate import Judgement
from fleet_assets.evaluate.gate_file import parse_gate
from fleet_assets.evaluate.record import EVIDENCE, evidence_sha256, write_record
from fleet_assets.features.bundle_build import build_bundle
from fleet_assets.features.identity import in_bundle
from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot
from fleet_assets.package.approve import sign
from fleet_assets.package.candidate import BOUND_DATASET, Parts, build_candidate
from fleet_assets.package.evidence import Provenance
from fleet_assets.package.policy import load_release_policy
from fleet_assets.package.releases import Releases
from fleet_assets.signing.keys import KeyRing, SigningKey
from fleet_assets.throw_away import APPROVERS, Ceremony, hold
from fleet_assets.train.rig import vehicle_rig

HARDWARE = "cpu_x86_64"
DRIVES = {"train": ("car1--20260101T080000Z",), "test": ("car2--20260101T080000Z",)}
OUTPUTS = {"heat": (3, 48, 48), "offset": (2, 48, 48)}
VIEWS = ("ego_motion", "scene_context", "sensor_health")


def make_model(folder: Path, seed: int = 1) -> Path:
    """A network of one layer that sees how old the sensors' records are, with golden vectors."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    nodes, outputs, constants = [], [], []
    for name, shape in OUTPUTS.items():
        weight = random.normal(size=(6, int(np.prod(shape)))).astype(np.float32)
        constants += [from_array(weight, f"{name} weight"), from_array(np.array([0, *shape]), f"{name} shape")]
        nodes.append(helper.make_node("MatMul", ["health", f"{name} weight"], [f"{name} flat"]))
        nodes.append(helper.make_node("Reshape", [f"{name} flat", f"{name} shape"], [name]))
        outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape]))
    health = helper.make_tensor_value_info("health", TensorProto.FLOAT, ["n", 6])
    graph = helper.make_graph(nodes, "tiny", [health], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    (folder / "model.json").write_text(json.dumps(description()))
    golden = {name: np.zeros((2, *shape), np.float32) for name, shape in pre.INPUTS.items()}
    golden["health"] = random.normal(size=(2, 6)).astype(np.float32)
    heat, offset, _ = Model.open(folder).run(golden)
    arrays: dict[str, Any] = {**golden, "heat": heat, "offset": offset}
    np.savez_compressed(folder / "golden.npz", **arrays)
    return folder


def description() -> dict[str, Any]:
    """What goes into model.json: no statistics to speak of."""
    sizes = {"camera": 3, "lidar": pre.LIDAR_SHAPE[0], "radar": pre.RADAR_SHAPE[0], "context": len(pre.CONTEXT)}
    names = ("camera_mean", "camera_std", "lidar_scale", "radar_scale", "context_mean", "context_std")
    return {
        "format": FORMAT, "form": "tiny", "classes": list(CLASSES), "context": list(pre.CONTEXT),
        "normalisation": {name: [1.0] * sizes[name.partition("_")[0]] for name in names},
        "calibration": {"temperature": [1.0] * 3, "shift": [0.0] * 3}, "thresholds_ppm": [400_000, 350_000, 300_000],
        "golden": {"tolerance": 0.001}, "rig": vehicle_rig().to_document(), "versions": {"seed": 1},
    }  # fmt: skip


def make_features(folder: Path, seed: int = 1, **changed: str) -> SigningKey:
    """A bundle in folder/features. changed: what it says otherwise of the first of its kernels."""
    build_snapshot(
        folder / "snapshot", [live_view(name, seed) for name in VIEWS],
        service="test", lakefs_commit="c0ffee", delta_versions={"features.ego_motion": 3},
    )  # fmt: skip
    key = SigningKey.create(folder / "features-key", "a passphrase for tests")
    first, *others = map(in_bundle, VIEWS)
    build_bundle(folder / "snapshot", folder / "features", [key], kernels=[{**first, **changed}, *others])
    return key


def make_parts(folder: Path, *, seed: int = 1, **about: Any) -> Parts:
    """A model and features of their own per seed, and a verdict on both; about: as judged takes it."""
    model = make_model(folder / "model", seed)
    key = make_features(folder, seed)
    provenance = Provenance(
        dataset="city", dataset_commit="c0ffee", drives=DRIVES, code={"version": "0.1.0", "commit": "abc"},
        training={"run": "r1", "form": "attention", "seed": "1"},
    )  # fmt: skip
    parts = Parts(model, folder / "features", key.public, folder / "evaluation", provenance)
    judged(parts, **about)
    return parts


def live_view(name: str, seed: int) -> SnapshotView:
    """One frame of a drive that nobody drives."""
    features = LIVE[name].FEATURES
    row = {"drive_id": ["other"], "frame": [seed], EVENT_TIME: [1], **{feature: [0.5] for feature in features}}
    return SnapshotView(name, 1, ("drive_id", "frame"), features, pa.table(row), 0, "identity")


def judged(
    parts: Parts, *, night: float = 0.9, drives: int = 90, profile: str = "full", seed: int = 0, text: str = TEXT
) -> None:
    """The evaluation of the parts, written anew. night: recall of pedestrians then; it is 0.9 for all else. text: of the gate."""
    found = evidence(
        drives,
        recall=lambda name, light: night if (name, light) == ("pedestrian", "night") else 0.9,
        passes={"camera_missing": lambda name, light: 0.6},
        seed=seed,
    )
    gate = parse_gate(text.replace("profile: full", f"profile: {profile}"), Path("own.yaml"))
    bundle = Manifest.read(parts.features, KeyRing([parts.features_key]))
    bound_to = {
        BOUND_ARTEFACT: artefact_sha256(parts.model), BOUND_FEATURES: bundle.id, EVIDENCE: evidence_sha256(found),
        BOUND_DATASET: parts.provenance.dataset_commit, BOUND_MACHINE: platform.machine(),
    }  # fmt: skip
    shutil.rmtree(parts.evaluation, ignore_errors=True)
    write_record(parts.evaluation, gate, found, Judgement(gate, found).verdict(candidates_judged=1, bound_to=bound_to))


@dataclass(frozen=True)
class World:
    """A folder of releases after its ceremony, and everybody's keys."""

    releases: Releases
    ceremony: Ceremony
    folder: Path

    @property
    def keys(self) -> Mapping[str, SigningKey]:
        return self.ceremony.keys

    @property
    def channel(self) -> Path:
        return self.releases.folder / "channel"


def make_world(folder: Path) -> World:
    releases = Releases(folder / "releases")
    return World(releases, hold(releases, folder / "keys"), folder)


def candidate(world: World, name: str, **about: Any) -> str:
    """A candidate of new parts; about: as make_parts takes it."""
    return build_candidate(world.releases, make_parts(world.folder / name, **about), HARDWARE, load_release_policy())


def approve(world: World, id_: str, now: datetime | None = None) -> None:
    """By two of three holders."""
    for name in APPROVERS[:2]:
        sign(world.releases, id_, world.keys[name], now)


def released(world: World, name: str, now: datetime | None = None, **about: Any) -> str:
    """A candidate, approved and published."""
    id_ = candidate(world, name, **about)
    approve(world, id_, now)
    publish(world.releases, id_, now)
    return id_

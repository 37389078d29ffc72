"""Releases: verifying and signing a candidate, publishing it, updating a vehicle, driving with it, tracing it; bytes of deltas.

The model has the form of the demo and random weights, and detections that are always right: a time does not depend on what was
learned. Peer of the trace: unpacking the archive and reading it there. Floor of verifying and installing: the archive's sha256.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.harness import Options, Row, fastest, row
from fleet_assets.deploy.channel import publish, refresh
from fleet_assets.edge.bundle import Manifest, write_hashed
from fleet_assets.edge.delta import patched
from fleet_assets.edge.feed import LIVE
from fleet_assets.edge.floor import Floor
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.payload import BOUND_ARTEFACT, BOUND_FEATURES, BOUND_MACHINE, artefact_sha256, unpack
from fleet_assets.edge.vehicle import Vehicle
from fleet_assets.evaluate.evidence import NOMINAL, Evidence
from fleet_assets.evaluate.gate import Judgement
from fleet_assets.evaluate.gate_file import gate_path, load_gate
from fleet_assets.evaluate.record import EVIDENCE, evidence_sha256, write_record
from fleet_assets.package.approve import sign, verify_candidate
from fleet_assets.package.candidate import BOUND_DATASET, Parts, build_candidate
from fleet_assets.package.delta import release_delta
from fleet_assets.package.evidence import Provenance
from fleet_assets.package.policy import load_release_policy
from fleet_assets.package.releases import Releases
from fleet_assets.package.tracing import trace_of
from fleet_assets.signing.keys import SigningKey
from fleet_assets.throw_away import APPROVERS, Ceremony, hold

_HARDWARE, _PLACES = "cpu_x86_64", 1_000
_DRIVES, _FRAMES, _OBJECTS = 60, 24, 9  # of the evaluation


def rows(options: Options) -> list[Row]:
    with TemporaryDirectory(prefix="fleet-bench-") as scratch:
        folder = Path(scratch)
        releases = Releases(folder / "releases")
        ceremony = hold(releases, folder / "keys")
        models = [_model(folder / f"model{seed}", seed) for seed in range(2)]
        parts = [
            _parts(folder / f"parts{number}", models[model], changed)
            for number, (model, changed) in enumerate(((0, 0), (0, _PLACES // 100), (1, 0)))
        ]
        ids = [build_candidate(releases, one, _HARDWARE, load_release_policy()) for one in parts]
        found = [_approval(releases, ids[0], ceremony)]
        for name in APPROVERS[1:]:
            sign(releases, ids[0], ceremony.keys[name])
        publish(releases, ids[0])
        found += [_channel(releases), _update(releases, folder), *_drive(folder), _trace(releases, ids[0], folder)]
        first, features, model = (releases.archive(id_) for id_ in ids)
        return [
            *found,
            _delta("the same model, 1 % of the rows of its features changed", first, features, folder),
            _delta("another model, the same features", first, model, folder),
        ]


def _approval(releases: Releases, id_: str, ceremony: Ceremony) -> Row:
    archive, key = releases.archive(id_), ceremony.keys[APPROVERS[0]]
    times = fastest(
        {
            "ours": lambda: sign(releases, id_, key),
            "verifying alone": lambda: verify_candidate(releases, id_),
            "floor": lambda: hashlib.sha256(archive.read_bytes()).digest(),
        }
    )
    return row("verify a candidate and sign it", times, note=f"{_DRIVES * _FRAMES} frames judged anew")


def _channel(releases: Releases) -> Row:
    return row(
        "refresh the channel", fastest({"ours": lambda: refresh(releases)}), note="snapshot and timestamp, on disk"
    )


def _update(releases: Releases, folder: Path) -> Row:
    """The first one compiles what drives call; the others find it in Numba's cache."""
    vehicle = folder / "vehicle"
    archive = next((releases.folder / "channel" / "targets").rglob("*.tar"))

    def ours() -> None:
        shutil.rmtree(vehicle, ignore_errors=True)
        Vehicle.init(vehicle, releases.roots.path(1), _HARDWARE, Floor(profile="demo")).update(
            releases.folder / "channel"
        )

    started = time.perf_counter()
    ours()
    first_s = time.perf_counter() - started
    times = fastest({"ours": ours, "floor": lambda: hashlib.sha256(archive.read_bytes()).digest()})
    return row("update a vehicle, trial run included", times, note=f"the first one, which may compile: {first_s:.1f} s")


def _drive(folder: Path) -> list[Row]:
    """By the vehicle's own command, in a process of its own, on a drive of seven seconds; of three, what the fastest says."""
    [recording] = (folder / "model0").glob("*.mcap")
    command = [sys.executable, "-m", "fleet_assets.edge", "run", "--vehicle", str(folder / "vehicle")]
    driven = [
        json.loads(subprocess.run([*command, "--recording", str(recording)], check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    start_ms = min(one["start_ms"] for one in driven)
    best = min((one["outside_ms"] for one in driven), key=lambda outside: outside["p50"])
    shares = ", ".join(f"{name} {value} ms" for name, value in best.items())
    return [
        row("start of a vehicle, until the first message", {"ours": start_ms / 1e3}, note="caches warm; goal 3 s"),
        row("a frame on a vehicle, without the model", {"ours": best["p50"] / 1e3}, note=f"{shares}; goal 10 ms"),
    ]


def _trace(releases: Releases, id_: str, folder: Path) -> Row:
    def unpacked() -> None:
        with TemporaryDirectory(dir=folder) as scratch:
            unpack(releases.archive(id_), Path(scratch, "payload")).evidence()

    times = fastest({"ours": lambda: trace_of(releases, id_), "unpack and read": unpacked})
    return row("trace a release", times, note="goal: under 50 ms")


def _delta(what: str, old: Path, new: Path, folder: Path) -> Row:
    """What a vehicle does with a delta, and with the whole archive; and the bytes of each. The packed archive would be the least
    without one."""
    file, target, size = folder / f"{new.parent.name}.delta", folder / "new.tar", new.stat().st_size
    release_delta(old, new, file)
    with open(new, "rb") as content:
        whole = content.read()

    def copied() -> None:
        write_hashed(target, iter([new.read_bytes()]))

    times = fastest(
        {
            "ours": lambda: write_hashed(target, patched(file, old, size)),
            "the whole, copied": copied,
            "floor": lambda: hashlib.sha256(whole).digest(),
        }
    )
    small, packed = file.stat().st_size, len(zlib.compress(whole, 6))
    note = f"whole {size} bytes, packed {packed}, delta {small}: {small / size:.1%} of the whole"
    return row(f"take a delta: {what}", times, note=note)


# ---- a release to work with ------------------------------------------------------------------------------------------


def _parts(folder: Path, model: Path, changed: int) -> Parts:
    """changed: rows of each view that are not as in the others."""
    import pyarrow as pa

    from fleet_assets.features.bundle_build import build_bundle
    from fleet_assets.features.identity import in_bundle
    from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot

    views = []
    for name in ("ego_motion", "scene_context", "sensor_health"):
        values = np.random.default_rng(0).normal(size=_PLACES)
        values[:changed] += 1
        features = dict.fromkeys(LIVE[name].FEATURES, values)
        keys = {"drive_id": ["car1"] * _PLACES, "frame": np.arange(_PLACES), EVENT_TIME: np.full(_PLACES, 1)}
        views.append(
            SnapshotView(name, 1, ("drive_id", "frame"), list(features), pa.table({**keys, **features}), 0, "1")
        )
    folder.mkdir()
    build_snapshot(
        folder / "snapshot", views, service="bench", lakefs_commit="c0ffee", delta_versions={"features.x": 1}
    )
    key = SigningKey.create(folder / "key", "a passphrase of a benchmark")
    bundle = build_bundle(folder / "snapshot", folder / "features", [key], kernels=list(map(in_bundle, LIVE)))
    _evaluation(folder / "evaluation", model, bundle)
    provenance = Provenance("bench", "c0ffee", {"train": ("car1",)}, {"version": "0"}, {"seed": "0"})
    return Parts(model, folder / "features", key.public, folder / "evaluation", provenance)


def _model(folder: Path, seed: int) -> Path:
    import torch

    from fleet_assets.simulate.fleet import make_fleet, plan_fleet
    from fleet_assets.train.batches import statistics_of
    from fleet_assets.train.export import export
    from fleet_assets.train.fit import Fitted, Recipe
    from fleet_assets.train.model import make
    from fleet_assets.train.recordings import frames_of_recordings
    from fleet_assets.train.rig import vehicle_rig

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    folder.mkdir()
    (made,) = make_fleet(plan_fleet(1, 7), folder, duration_s=7.0, setup="default")
    frames = frames_of_recordings([made.path])
    fitted = Fitted(make("attention").eval(), statistics_of(frames), Recipe(threads=1), [], f"random {seed}")
    return export(fitted, frames, frames, vehicle_rig(), folder / "model", versions={"seed": seed}).folder


def _evaluation(folder: Path, model: Path, bundle: Manifest) -> None:
    """Detections that are right, in drives by day and by night in turn."""
    count = _DRIVES * _FRAMES * _OBJECTS
    drive = np.repeat(np.arange(_DRIVES, dtype=np.int32), _FRAMES)
    place = np.tile(np.arange(_OBJECTS), drive.size)
    x_m, one = (2.0 + 5.0 * place).astype(np.float32), np.ones(count, dtype=np.float32)
    frame, kind = np.repeat(np.arange(drive.size, dtype=np.int32), _OBJECTS), (place % len(CLASSES)).astype(np.int8)
    truth = Objects(frame, kind, x_m, 0 * x_m, one, x_m, np.ones(count, dtype=np.bool_), one)
    light, same = np.array(["day", "night"])[drive % 2], np.full(drive.size, "clear")
    slices = {"light": light, "weather": same, "region": np.full(drive.size, "munich")}
    evidence = Evidence(
        tuple(f"car{number}" for number in range(_DRIVES)), drive, np.arange(drive.size, dtype=np.int64), slices, truth,
        {NOMINAL: Objects(frame, kind, x_m, 0 * x_m, one)}, (500_000,) * len(CLASSES),
    )  # fmt: skip
    gate = load_gate(gate_path("demo"))
    bound_to = {
        BOUND_ARTEFACT: artefact_sha256(model), BOUND_FEATURES: bundle.id, EVIDENCE: evidence_sha256(evidence),
        BOUND_DATASET: "c0ffee", BOUND_MACHINE: platform.machine(),
    }  # fmt: skip
    verdict = Judgement(gate, evidence).verdict(candidates_judged=1, bound_to=bound_to)
    write_record(folder, gate, evidence, verdict)

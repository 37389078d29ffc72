"""What a candidate is made of, from an installation's folders and a dataset's manifest."""

from __future__ import annotations

from pathlib import Path

from package.parts import HARDWARE, judged, live_view, make_model, make_world

from fleet_assets.edge.bundle import Manifest
from fleet_assets.features.assets import SERVICE
from fleet_assets.features.service_snapshot import bundle_folder, installation_key, service_bundle
from fleet_assets.features.snapshot_build import build_snapshot
from fleet_assets.package.candidate import build_candidate
from fleet_assets.package.gather import gather
from fleet_assets.package.policy import load_release_policy
from fleet_assets.package.tracing import trace_of
from fleet_assets.services.home import Home
from fleet_assets.signing.keys import KeyRing

DATASET = {
    "name": "city",
    "commit_id": "c0ffee",
    "code": {"fleet_assets": "0.1.0", "dataset": "1"},
    "drives": [
        {"drive_id": f"car{number}--20260101T080000Z", "split": split}
        for number, split in enumerate(("train", "test", "train"))
    ],
}


def test_parts_come_from_the_installation(tmp_path: Path) -> None:
    home = Home.open(tmp_path / "home")
    views = [live_view(name, 1) for name in ("ego_motion", "scene_context", "sensor_health")]
    snapshot = tmp_path / "snapshot"
    build_snapshot(snapshot, views, service=SERVICE, lakefs_commit="beef", delta_versions={"features.ego_motion": 3})
    manifest = service_bundle(home, snapshot, bundle_folder(home, SERVICE))
    parts = gather(home, make_model(tmp_path / "model"), tmp_path / "evaluation", DATASET)
    judged(parts)
    world = make_world(home.data)
    id_ = build_candidate(world.releases, parts, HARDWARE, load_release_policy())
    found = trace_of(world.releases, id_)
    assert found["dataset"]["drives"] == {
        "train": ["car0--20260101T080000Z", "car2--20260101T080000Z"], "test": ["car1--20260101T080000Z"],
    }  # fmt: skip
    assert (found["features"]["lakefs_commit"], found["training"]) == ("beef", {"seed": "1"})
    assert {kernel["feature"] for kernel in found["features"]["kernels"]} >= {"ego_motion"}
    assert (
        Manifest.read(parts.features, KeyRing([installation_key(home).public])).id
        == manifest.id
        == found["bound_to"]["features"]
    )

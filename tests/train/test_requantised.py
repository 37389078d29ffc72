"""A model that was quantised anew, of the same weights, is another artefact: nobody judged it, and it gets nowhere."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from package.parts import HARDWARE, World, approve, judged, make_parts, make_world
from package.test_approve import repacked
from train.conftest import Tiny

from fleet_assets.deploy.channel import publish
from fleet_assets.edge.floor import Floor
from fleet_assets.edge.update import UpdateRefused
from fleet_assets.edge.vehicle import Vehicle
from fleet_assets.errors import FleetError
from fleet_assets.package.approve import sign
from fleet_assets.package.candidate import Parts, build_candidate
from fleet_assets.package.policy import load_release_policy
from fleet_assets.throw_away import APPROVERS
from fleet_assets.train.export import export
from fleet_assets.train.rig import vehicle_rig


@pytest.fixture(scope="module")
def requantised(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scaled by the validation drive instead of the training one."""
    folder = tmp_path_factory.mktemp("requantised")
    export(tiny.fitted, tiny.validation, tiny.validation, vehicle_rig(), folder, versions={"code": "test"})
    before, after = (_versions(one) for one in (tiny.exported.folder, folder))
    assert (before["weights"], before["precision"]) == (after["weights"], after["precision"])
    assert before["calibration_set"] != after["calibration_set"]
    assert (tiny.exported.folder / "model.onnx").read_bytes() != (folder / "model.onnx").read_bytes()
    return folder


def _versions(model: Path) -> dict[str, Any]:
    return dict(json.loads((model / "model.json").read_bytes())["versions"])


@pytest.mark.slow
def test_it_is_refused_when_laid_out_at_signing_at_deploy_and_on_the_vehicle(
    tiny: Tiny, requantised: Path, tmp_path: Path
) -> None:
    world = make_world(tmp_path)
    parts = replace(make_parts(tmp_path / "parts"), model=tiny.exported.folder)
    judged(parts)
    id_ = _candidate(world, parts)
    with pytest.raises(FleetError, match="another model"):
        _candidate(world, replace(parts, model=requantised))

    def exchange(payload: Path) -> None:
        shutil.rmtree(payload / "model")
        shutil.copytree(requantised, payload / "model")

    other = repacked(world, id_, exchange)
    with pytest.raises(FleetError, match="another model"):
        sign(world.releases, other, world.keys[APPROVERS[0]])

    approve(world, id_)
    archive, evil = (world.releases.archive(one) for one in (id_, other))
    whole = archive.read_bytes()
    archive.write_bytes(evil.read_bytes())
    with pytest.raises(FleetError, match="was changed"):
        publish(world.releases, id_)
    archive.write_bytes(whole)
    publish(world.releases, id_)

    vehicle = Vehicle.init(tmp_path / "vehicle", world.releases.roots.path(1), HARDWARE, Floor())
    [offered] = (world.channel / "targets").rglob("*.tar")
    content = evil.read_bytes()
    for given in (
        content,
        content[: len(whole)].ljust(len(whole), b"\0"),
    ):  # of whatever size, and of the size that was signed
        offered.write_bytes(given)
        with pytest.raises(UpdateRefused) as caught:
            vehicle.update(world.channel)
        assert caught.value.reason in ("artefact", "endless data")
    offered.write_bytes(whole)
    slot, _ = vehicle.update(world.channel)
    assert slot.release == id_


def _candidate(world: World, parts: Parts) -> str:
    return build_candidate(world.releases, parts, HARDWARE, load_release_policy())

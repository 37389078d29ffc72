"""On-demand views of a bundle: the bits that Feast gives, by the kernels that the bundle names, and by no others."""

from __future__ import annotations

import operator
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fleet_assets.edge import bundle as bundles
from fleet_assets.edge.features import FeatureBundle, Status
from fleet_assets.edge.feed import LIVE
from fleet_assets.errors import FleetError
from fleet_assets.features.bundle_build import build_bundle
from fleet_assets.features.identity import in_bundle
from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot
from fleet_assets.kernels.features.on_demand import ON_DEMAND
from fleet_assets.services.home import Home
from fleet_assets.signing.keys import KeyRing, SigningKey
from fleet_assets.throw_away import run as fleet

SERVICE, VIEW = "perception_context_v1", "driving_margins"
VIEWS = ("ego_motion", "scene_context", "sensor_health")
TRANSFORMS = ["stopping", "driving_margin"]
SOURCES = ["ego_motion", "scene_context"]
DECLARED = {VIEW: {"transforms": TRANSFORMS, "sources": SOURCES}}
KERNELS = [*map(in_bundle, (*VIEWS, *TRANSFORMS))]
ROWS = 300
T_NS = 1_767_225_600_000_000_000


def view(
    name: str, *, rows: int = ROWS, ttl_ns: int = 0, keys: tuple[str, ...] = ("drive_id", "frame")
) -> SnapshotView:
    """Values of every size; one in ten is null."""
    random = np.random.default_rng(len(name))
    features = {
        feature: pa.array(random.normal(8, 6, rows), mask=random.random(rows) < 0.1) for feature in LIVE[name].FEATURES
    }
    columns = {"drive_id": [f"car{row % 3}" for row in range(rows)], "frame": np.arange(rows)}
    rows_ = pa.table({key: columns[key] for key in keys} | {EVENT_TIME: T_NS + np.arange(rows), **features})
    return SnapshotView(name, 1, keys, LIVE[name].FEATURES, rows_, ttl_ns, in_bundle(name)["identity"])


def made(
    folder: Path, key: SigningKey, *views: SnapshotView, kernels: Any = KERNELS, on_demand: Any = DECLARED
) -> Path:
    file = folder.with_suffix(".snapshot")
    build_snapshot(file, views or [*map(view, VIEWS)], service=SERVICE, lakefs_commit="c0ffee", delta_versions={})
    build_bundle(file, folder, [key], kernels=kernels, on_demand=on_demand)
    return folder


def bits(value: float | None) -> bytes | None:
    return None if value is None or np.isnan(value) else struct.pack("<d", value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*experimental:RuntimeWarning")
def test_a_service_on_the_edge_gives_feasts_bits(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundle as the command builds it, with the service's kernels and no others."""
    from fleet_assets.features.registry import apply, feature_store, publish_online

    monkeypatch.setenv("FLEET_KEY_PASSPHRASE", "a passphrase for tests")
    file = tmp_path / "service.snapshot"
    build_snapshot(file, [*map(view, VIEWS)], service=SERVICE, lakefs_commit="c0ffee", delta_versions={})
    public = Path(fleet("features", "bundle", "key", tmp_path / "key")[0]["public"])
    fleet("features", "bundle", "build", file, tmp_path / "bundle", "--key", tmp_path / "key")
    ring = KeyRing.read(public)
    signed = bundles.Manifest.read(tmp_path / "bundle", ring).signed
    by_name = operator.itemgetter("feature")
    assert sorted(signed["kernels"], key=by_name) == sorted(KERNELS, key=by_name)
    assert signed["on_demand"] == DECLARED

    apply()
    store = feature_store(tmp_path / "online")
    publish_online(file, SERVICE, store)
    asked = [{"drive_id": f"car{row % 3}", "frame": row} for row in range(ROWS + 3)]
    told = store.get_online_features(store.get_feature_service(SERVICE), asked).to_dict()
    for compiled in (False, True):
        device = FeatureBundle.open(tmp_path / "bundle", ring, compiled=compiled, on_demand=True)
        keys = [(row["drive_id"], row["frame"]) for row in asked]
        values, status, times_ns, versions = device.lookup_many(VIEW, keys)
        out = device.answer(VIEW)
        assert set(out.features) == {output for name in TRANSFORMS for output in ON_DEMAND[name].outputs}
        for number, key in enumerate(keys):
            device.lookup(VIEW, key, out)
            assert out.values.tobytes() == values[number].tobytes()
            assert out.status.tolist() == status[number].tolist()
            assert (out.event_time_ns, out.versions) == (times_ns[number], versions)
            feast = [bits(told[feature][number]) for feature in out.features]
            assert list(map(bits, out.values.tolist())) == feast
            known = [Status.FRESH if value is not None else Status.NULL for value in feast]
            assert out.status.tolist() == (known if number < ROWS else [Status.MISSING] * 4)
        assert 0.5 < np.isfinite(values).mean() < 1.0


def test_what_the_device_observes_goes_into_it(tmp_path: Path, key: SigningKey, ring: KeyRing) -> None:
    views = [view("ego_motion", rows=3, ttl_ns=1000), view("scene_context", rows=2)]
    device = FeatureBundle.open(made(tmp_path / "b", key, *views), ring, on_demand=True)
    out, now_ns = device.answer(VIEW), T_NS + 5000
    for name, values in (
        ("ego_motion", {"speed_mps": 8.0, "path_curvature_per_m": 0.025}), ("scene_context", {"visibility_m": 60.0}),
    ):  # fmt: skip
        for frame in (0, 2):
            device.observe(name, (f"car{frame}", frame), values, now_ns - 10)
    device.lookup(VIEW, ("car0", 0), out, now_ns)
    assert out.to_dict()["stopping_distance_m"] == 8.0 * 1.2 + 64.0 / 8.0
    assert out.to_dict()["driving_margin"] == pytest.approx(0.2)
    assert set(out.status) == {Status.FRESH}
    assert out.event_time_ns == T_NS
    # A row that nobody observed, and whose motion is stale.
    device.lookup(VIEW, ("car1", 1), out, now_ns)
    assert np.isfinite(out.values).any()
    assert out.status.tolist() == np.where(np.isnan(out.values), Status.NULL, Status.STALE).tolist()
    # A row that only the device knows of one source.
    assert device.lookup(VIEW, ("car2", 2), out, now_ns).values[0] == 8.0 * 1.2 + 64.0 / 8.0
    assert device.lookup(VIEW, ("car1", 99), out, now_ns).status.tolist() == [Status.MISSING] * 4
    assert np.isnan(out.values).all()
    assert out.event_time_ns == 0


def test_another_kernel_is_refused(tmp_path: Path, key: SigningKey, ring: KeyRing) -> None:
    other = [{**one, "identity": "0" * 32} if one["feature"] == "stopping" else one for one in KERNELS]
    bundle = made(tmp_path / "b", key, kernels=other)
    with pytest.raises(FleetError, match="stopping is made by another kernel than the bundle's"):
        FeatureBundle.open(bundle, ring, on_demand=True)
    device = FeatureBundle.open(bundle, ring)  # what is looked up as it lies there needs no kernel
    device.check_kernels(VIEWS)
    with pytest.raises(FleetError, match="Open the bundle with on_demand=True"):
        device.answer(VIEW)
    with pytest.raises(FleetError, match="does not say which kernel makes position"):
        device.check_kernels(["position"])
    elsewhere = [{**one, "kernel": "x"} if one["feature"] == "ego_motion" else one for one in KERNELS]
    with pytest.raises(FleetError, match="ego_motion is made by another kernel"):
        FeatureBundle.open(made(tmp_path / "c", key, kernels=elsewhere), ring).check_kernels(VIEWS)
    unknown = [{**KERNELS[0], "feature": "jerk_at_night"}]
    with pytest.raises(FleetError, match="no kernel for jerk_at_night"):
        FeatureBundle.open(made(tmp_path / "d", key, kernels=unknown), ring).check_kernels(["jerk_at_night"])


@pytest.mark.parametrize(
    ("views", "declared", "why"),
    [
        (VIEWS, {"transforms": ["skidding"], "sources": SOURCES}, "no transform skidding"),
        (VIEWS, {"transforms": ["driving_margin"], "sources": SOURCES}, "needs visibility_margin_m"),
        (("ego_motion",), {"transforms": TRANSFORMS, "sources": SOURCES}, "has no view scene_context"),
        (VIEWS, {"transforms": TRANSFORMS, "sources": []}, "different keys"),
    ],
)
def test_what_cannot_be_computed_is_refused(
    tmp_path: Path, key: SigningKey, ring: KeyRing, views: tuple[str, ...], declared: Any, why: str
) -> None:
    bundle = made(tmp_path / "b", key, *map(view, views), on_demand={VIEW: declared})
    with pytest.raises(FleetError, match=why):
        FeatureBundle.open(bundle, ring, on_demand=True)


def test_sources_of_other_keys_are_refused(tmp_path: Path, key: SigningKey, ring: KeyRing) -> None:
    bundle = made(tmp_path / "b", key, view("ego_motion"), view("scene_context", keys=("frame",)))
    with pytest.raises(FleetError, match="ego_motion and scene_context by different keys"):
        FeatureBundle.open(bundle, ring, on_demand=True)


def test_a_version_of_other_kernels_is_not_taken_up(tmp_path: Path, key: SigningKey, ring: KeyRing) -> None:
    root = tmp_path / "installed"
    root.mkdir()

    def install(bundle: Path) -> None:
        bundles.activate(root, bundles.install(bundle, root, ring).id, ring)

    install(made(tmp_path / "first", key, view("ego_motion", rows=3), view("scene_context", rows=3)))
    device = FeatureBundle.open(root, ring, on_demand=True)
    out = device.answer(VIEW)
    before = device.lookup(VIEW, ("car1", 1), out).values.tolist()
    install(made(tmp_path / "other", key, kernels=[{**one, "identity": "0" * 32} for one in KERNELS]))
    with pytest.raises(FleetError, match="another kernel"):
        device.refresh()
    assert device.lookup(VIEW, ("car1", 1), out).values.tolist() == before
    install(made(tmp_path / "third", key, view("ego_motion", rows=9), view("scene_context", rows=9)))
    assert device.refresh()
    assert device.lookup(VIEW, ("car1", 7), out).versions is device.versions
    with pytest.raises(FleetError, match="other features"):
        device.lookup(VIEW, ("car1", 1), device.answer("ego_motion"))

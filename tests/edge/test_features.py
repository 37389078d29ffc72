"""Look-ups in the vehicle: every path agrees; nothing that was changed is used; versions come and go whole."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from features.tables import T_NS, built, mixed_view, numeric_view, truth
from features.writers import writers

from fleet_assets.edge import bundle as bundles
from fleet_assets.edge import rows as edge_rows
from fleet_assets.edge.features import FeatureBundle, Status
from fleet_assets.errors import FleetError
from fleet_assets.features.bundle_build import build_bundle, build_delta
from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView
from fleet_assets.signing.keys import KeyRing, SigningKey


def made(folder: Path, key: SigningKey, *views: SnapshotView) -> Path:
    """A bundle of these views in folder."""
    built(folder.with_suffix(".snapshot"), *views)
    build_bundle(folder.with_suffix(".snapshot"), folder, [key])
    return folder


def installed(root: Path, bundle: Path, ring: KeyRing) -> str:
    id_ = bundles.install(bundle, root, ring).id
    bundles.activate(root, id_, ring)
    return id_


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "installed"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("compiled", [False, True])
def test_every_row_has_its_values_and_status(tmp_path: Path, key: SigningKey, ring: KeyRing, compiled: bool) -> None:
    source = mixed_view(300, ttl_ns=100)
    opened = FeatureBundle.open(made(tmp_path / "b", key, source), ring, compiled=compiled)
    now_ns, rows = T_NS + 250, truth(source)
    out = opened.answer("place")
    wanted = [*rows, (5, "nowhere")]
    values, status, times, versions = opened.lookup_many("place@v1", wanted, now_ns)
    roads = opened.snapshot.view("place").categories[6]
    for index, key_ in enumerate(wanted):
        opened.lookup("place", key_, out, now_ns)
        assert np.array_equal(out.values, values[index], equal_nan=True)
        assert out.status.tolist() == status[index].tolist()
        assert out.event_time_ns == times[index]
        assert out.versions is versions
        row = rows.get(key_)
        if row is None:
            assert set(out.status) == {Status.MISSING}
            assert np.isnan(out.values).all()
            continue
        for name, value, state in zip(out.features, out.values, out.status, strict=True):
            if row[name] is None:
                assert np.isnan(value)
                assert state == Status.NULL
                continue
            expected = roads.index(row[name]) if name == "road" else row[name].value if name == "seen" else row[name]
            assert value == float(expected)
            assert state == (Status.STALE if now_ns - row[EVENT_TIME] > 100 else Status.FRESH)
    assert versions.views == {"place": 1}
    assert (versions.service, versions.lakefs_commit, versions.delta_versions) == (
        "test",
        "c0ffee",
        {"features.place": 3},
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_integer_keys_of_any_kind_and_size(tmp_path: Path, key: SigningKey, ring: KeyRing, compiled: bool) -> None:
    opened = FeatureBundle.open(made(tmp_path / "b", key, numeric_view(100, 9)), ring, compiled=compiled)
    out = opened.answer("place")
    expected = opened.lookup("place", 30, out).to_dict()
    assert (
        opened.lookup("place", np.int64(30), out).to_dict() == expected == opened.lookup("place", (30,), out).to_dict()
    )
    assert opened.lookup("place", -(2**63), out).status[0] == Status.MISSING
    for wrong in (2**63, 2**64, 1.5, "30", None, True, (1, 2)):
        with pytest.raises(FleetError):
            opened.lookup("place", wrong, out)
    with pytest.raises(FleetError, match="no view nowhere"):
        opened.lookup("nowhere", 1, out)
    values, status, _, _ = opened.lookup_many("place", np.arange(0, 400, 3))
    assert (status[:100] == Status.FRESH).all()
    assert (status[100:] == Status.MISSING).all()
    assert values[10].tolist() == list(expected.values())
    assert opened.lookup_many("place", [])[0].shape == (0, 9)


@pytest.mark.parametrize("compiled", [False, True])
def test_observed_values_count_while_they_are_newer(
    tmp_path: Path, key: SigningKey, ring: KeyRing, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = numeric_view(4, 2, value=1.0)
    opened = FeatureBundle.open(
        made(tmp_path / "b", key, SnapshotView(**{**vars(view), "ttl_ns": 50})), ring, compiled=compiled
    )
    out, now_ns = opened.answer("place"), T_NS + 60
    opened.observe("place", 3, {"f0": 7.0}, T_NS + 20)
    opened.observe("place", 3, {"f0": 6.0}, T_NS + 10)  # late
    opened.observe("place", 6, {"f1": 5.0}, T_NS - 1)  # older than the bundle's
    opened.observe("place", 99, {"f1": 4.0}, T_NS + 55)  # a place that the bundle does not have
    opened.lookup("place", 3, out, now_ns)
    assert out.values.tolist() == [7.0, 1.0]
    assert out.status.tolist() == [Status.FRESH, Status.STALE]
    assert opened.lookup("place", np.int64(6), out, now_ns).values.tolist() == [1.0, 1.0]
    assert opened.lookup("place", 99, out, now_ns).status.tolist() == [Status.MISSING, Status.FRESH]
    values, status, _, _ = opened.lookup_many("place", np.array([3, 99]), now_ns)
    assert values[0].tolist() == [7.0, 1.0]
    assert status[1].tolist() == [Status.MISSING, Status.FRESH]
    with pytest.raises(FleetError, match="no feature f9"):
        opened.observe("place", 3, {"f9": 1.0}, T_NS)
    monkeypatch.setattr(edge_rows, "OBSERVED_LIMIT", 3)
    opened.observe("place", 0, {"f0": 3.0}, T_NS + 70)
    assert opened.lookup("place", 3, out, now_ns).values.tolist() == [1.0, 1.0]  # the oldest went
    assert opened.lookup("place", 0, out, now_ns).values.tolist() == [3.0, 1.0]


# ---- what was changed is not used ------------------------------------------------------------------------------------


def flipped(path: Path, index: int) -> None:
    with open(path, "r+b") as file:
        file.seek(index)
        byte = file.read(1)
        file.seek(index)
        file.write(bytes([byte[0] ^ 1]))


def test_a_flipped_byte_anywhere_is_refused(tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path) -> None:
    bundle = made(tmp_path / "b", key, numeric_view(30, 3))
    id_ = installed(root, bundle, ring)
    for folder, use in (
        (bundle, lambda: bundles.install(bundle, tmp_path / "other", ring)),
        (bundle, lambda: FeatureBundle.open(bundle, ring)),
        (bundles.version_folder(root, id_), lambda: FeatureBundle.open(root, ring)),
    ):
        (tmp_path / "other").mkdir(exist_ok=True)
        for name in (bundles.SNAPSHOT, bundles.MANIFEST):
            size = (folder / name).stat().st_size
            for index in random.Random(0).sample(range(size), 25):
                flipped(folder / name, index)
                with pytest.raises(FleetError):
                    use()
                flipped(folder / name, index)
        use()


def test_opening_hashes_only_what_was_touched(
    tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = installed(root, made(tmp_path / "b", key, numeric_view(30, 3)), ring)
    hashed: list[Path] = []
    honest = bundles.hash_file
    monkeypatch.setattr(bundles, "hash_file", lambda path: (hashed.append(path), honest(path))[1])
    FeatureBundle.open(root, ring)
    assert hashed == []
    snapshot = bundles.version_folder(root, id_) / bundles.SNAPSHOT
    os.utime(snapshot, ns=(1, 1))
    opened = FeatureBundle.open(root, ring)
    assert hashed == [snapshot]
    opened.verify()
    assert hashed == [snapshot] * 2


def test_only_trusted_keys_open(tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path) -> None:
    bundle = made(tmp_path / "b", key, numeric_view(30, 3))
    other = KeyRing([SigningKey.create(tmp_path / "k", "another passphrase").public])
    for use in (lambda: FeatureBundle.open(bundle, other), lambda: bundles.install(bundle, root, other)):
        with pytest.raises(FleetError, match="not signed by a trusted key"):
            use()
    with pytest.raises(FleetError, match="no active bundle"):
        FeatureBundle.open(root, ring)
    assert not (root / "versions").exists()


def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path) -> None:
    from fleet_assets.signing.documents import sign

    bundle = made(tmp_path / "b", key, numeric_view(30, 3))
    signed = json.loads((bundle / bundles.MANIFEST).read_bytes())["signed"]
    for name in ("../x", "/etc/x", ".hidden", "a/b", bundles.STAMPS):
        signed["files"] = {**signed["files"], name: {"bytes": 1, "sha256": "00"}}
        (bundle / bundles.MANIFEST).write_bytes(sign(signed, [key]))
        with pytest.raises(FleetError, match="does not describe"):
            bundles.install(bundle, root, ring)


# ---- versions come and go --------------------------------------------------------------------------------------------


def test_activate_refresh_and_roll_back(tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path) -> None:
    ids = []
    for version in range(6):
        bundle = made(tmp_path / f"b{version}", key, numeric_view(30, 3, value=float(version)))
        ids.append(bundles.install(bundle, root, ring).id)
        assert bundles.install(bundle, root, ring).id == ids[-1]
    bundles.activate(root, ids[0], ring)
    opened = FeatureBundle.open(root, ring)
    out = opened.answer("place")
    for version in range(1, 6):
        bundles.activate(root, ids[version], ring)
        assert opened.lookup("place", 3, out).values[0] == version - 1
        assert opened.refresh()
        assert not opened.refresh()
        assert opened.lookup("place", 3, out).values[0] == version
        assert out.versions.bundle == ids[version]
    assert bundles.rollback(root, ring) == ids[4]
    assert opened.refresh()
    assert opened.lookup("place", 3, out).values[0] == 4
    for _ in range(bundles.KEPT - 1):
        bundles.rollback(root, ring)
    with pytest.raises(FleetError, match="no earlier version"):
        bundles.rollback(root, ring)
    assert not bundles.version_folder(root, ids[0]).exists()  # older than those that are kept


def test_a_version_that_is_repaired_is_taken_up(tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path) -> None:
    first = installed(root, made(tmp_path / "a", key, numeric_view(30, 3, value=1.0)), ring)
    opened = FeatureBundle.open(root, ring)
    out, better = opened.answer("place"), made(tmp_path / "b", key, numeric_view(30, 3, value=2.0))
    second = installed(root, better, ring)
    flipped(bundles.version_folder(root, second) / bundles.SNAPSHOT, 100)
    for _ in range(2):  # for as long as it is damaged, and on with the one before
        with pytest.raises(FleetError, match="not what was signed"):
            opened.refresh()
        assert opened.lookup("place", 3, out).values[0] == 1.0
        assert out.versions.bundle == first
    opened.verify()
    assert installed(root, better, ring) == second
    assert opened.refresh()
    assert opened.lookup("place", 3, out).values[0] == 2.0


def test_an_answer_for_other_features_is_refused_after_a_refresh(
    tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path
) -> None:
    installed(root, made(tmp_path / "a", key, numeric_view(30, 3)), ring)
    for compiled in (False, True):
        opened = FeatureBundle.open(root, ring, compiled=compiled)
        out = opened.answer("place")
        installed(root, made(tmp_path / f"b{compiled}", key, numeric_view(30, 40 + compiled)), ring)
        opened.refresh()
        with pytest.raises(FleetError, match="other features"):
            opened.lookup("place", 3, out)


def test_no_answer_mixes_versions_while_they_change(tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path) -> None:
    ids = {}
    for version in range(4):
        bundle = made(tmp_path / f"b{version}", key, numeric_view(300, 8, value=float(version)))
        ids[bundles.install(bundle, root, ring).id] = version
    bundles.activate(root, next(iter(ids)), ring)
    opened = FeatureBundle.open(root, ring, compiled=True)
    over = threading.Event()

    def change() -> None:
        order = random.Random(1)
        until = time.monotonic() + 3
        while time.monotonic() < until:
            bundles.activate(root, order.choice(list(ids)), ring)
        over.set()

    def refresh() -> None:
        while not over.is_set():
            opened.refresh()

    threads = [threading.Thread(target=change), threading.Thread(target=refresh)]
    for thread in threads:
        thread.start()
    out, seen = opened.answer("place"), set()
    while not over.is_set():
        opened.lookup("place", 33, out)
        seen.add((ids[out.versions.bundle], *out.values.tolist()))
        values, _, _, versions = opened.lookup_many("place", np.arange(0, 90, 3))
        seen.add((ids[versions.bundle], *values.min(axis=0).tolist()))
        seen.add((ids[versions.bundle], *values.max(axis=0).tolist()))
    for thread in threads:
        thread.join()
    assert len(seen) > 1
    assert all(len(set(answer)) == 1 for answer in seen)


@pytest.mark.slow
def test_activations_killed_at_fifty_moments_leave_a_whole_version(tmp_path: Path, root: Path) -> None:
    signer = SigningKey.create(tmp_path / "key", "a passphrase for tests")
    ring = KeyRing([signer.public])
    ids = {}
    for version in range(3):
        bundle = made(tmp_path / f"b{version}", signer, numeric_view(300, 8, value=float(version)))
        ids[installed(root, bundle, ring)] = version
    moments = random.Random(0)
    seen = set()
    with writers(root, "activate") as start:
        for _ in range(50):
            writer = start(0)
            time.sleep(moments.random() * 0.05)
            os.kill(writer, signal.SIGKILL)
            opened = FeatureBundle.open(root, ring)
            values = opened.lookup_many("place", np.arange(0, 900, 3))[0]
            assert set(values.ravel()) == {ids[opened.versions.bundle]}
            seen.add(opened.versions.bundle)
            assert set(bundles.state(root)["previous"]) <= ids.keys()
    assert len(seen) > 1
    bundles.activate(root, min(ids), ring)  # no lock is left behind


# ---- deltas ----------------------------------------------------------------------------------------------------------


def changed(view: SnapshotView, *, drop: int, add: int, edit: int) -> SnapshotView:
    rows = view.rows.slice(drop)
    values = rows["f0"].to_numpy().copy()
    values[:edit] += 1
    rows = rows.set_column(rows.column_names.index("f0"), "f0", pa.array(values))
    more = numeric_view(add, len(view.feature_columns)).rows
    more = more.set_column(0, "cell", pa.array(np.arange(add) * 7 + 1_000_001))
    return SnapshotView(**{**vars(view), "rows": pa.concat_tables([rows, more])})


@pytest.mark.parametrize(
    ("drop", "add", "edit"), [(0, 0, 0), (0, 0, 50), (100, 0, 0), (0, 100, 0), (30, 40, 50), (2000, 5, 0)]
)
def test_a_delta_gives_the_bundle_that_was_signed(
    tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path, drop: int, add: int, edit: int
) -> None:
    view = numeric_view(2000, 20)
    base = made(tmp_path / "base", key, view)
    new = made(tmp_path / "new", key, changed(view, drop=drop, add=add, edit=edit))
    delta = build_delta(base, new, tmp_path / "delta", ring)
    installed(root, base, ring)
    id_ = installed(root, delta, ring)
    there = bundles.version_folder(root, id_) / bundles.SNAPSHOT
    assert there.read_bytes() == (new / bundles.SNAPSHOT).read_bytes()
    if drop + add + edit < 200:
        assert (delta / bundles.DELTA).stat().st_size < (new / bundles.SNAPSHOT).stat().st_size / 3


def test_a_delta_to_texts_and_of_another_schema(tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path) -> None:
    base = made(tmp_path / "base", key, mixed_view(500))
    middle = made(tmp_path / "middle", key, mixed_view(520), numeric_view(10, 2, name="other"))
    last = made(tmp_path / "last", key, numeric_view(9, 9))
    installed(root, base, ring)
    for before, after in ((base, middle), (middle, last)):
        id_ = installed(root, build_delta(before, after, tmp_path / f"to {after.name}", ring), ring)
        there = bundles.version_folder(root, id_) / bundles.SNAPSHOT
        assert there.read_bytes() == (after / bundles.SNAPSHOT).read_bytes()


def test_damaged_and_unfitting_deltas_are_refused(tmp_path: Path, key: SigningKey, ring: KeyRing, root: Path) -> None:
    view = numeric_view(200, 4)
    base, new = made(tmp_path / "base", key, view), made(tmp_path / "new", key, changed(view, drop=3, add=9, edit=9))
    delta = build_delta(base, new, tmp_path / "delta", ring) / bundles.DELTA
    with pytest.raises(FleetError, match="none is active"):
        bundles.install(delta.parent, root, ring)
    installed(root, base, ring)
    whole = delta.read_bytes()
    for index in [*range(60), *range(60, len(whole) - 4, 97)]:  # the last four are a sum that the hash makes needless
        for broken in (whole[:index] + bytes([whole[index] ^ 0x10]) + whole[index + 1 :], whole[:index]):
            delta.write_bytes(broken)
            with pytest.raises(FleetError):
                bundles.install(delta.parent, root, ring)
    delta.write_bytes(whole)
    assert sorted(path.name for path in root.iterdir()) == [".lock", "state.json", "versions"]
    installed(root, made(tmp_path / "third", key, numeric_view(5, 1)), ring)
    with pytest.raises(FleetError, match="does not fit"):
        bundles.install(delta.parent, root, ring)

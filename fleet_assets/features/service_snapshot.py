"""A feature service's snapshot file and bundle, from the lake at one commit.

In: a service of feature_repo/, a snapshot of the lake. Out: the file that online store and vehicles map; the signed bundle that
vehicles install. Of each key the latest row counts.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import FeatureStore

from fleet_assets.edge.bundle import Manifest, activate, install
from fleet_assets.edge.features import FeatureBundle
from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.errors import FleetError
from fleet_assets.features.bundle_build import build_bundle
from fleet_assets.features.catalogue import look_up
from fleet_assets.features.identity import KERNELS, in_bundle
from fleet_assets.features.registry import definitions, feature_store, publish_online
from fleet_assets.features.snapshot_build import EVENT_TIME, Built, SnapshotView, build_snapshot
from fleet_assets.features.source import DeltaSource
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.tables import Snapshot as LakeSnapshot
from fleet_assets.lake.tables import contract_of
from fleet_assets.services.home import Home
from fleet_assets.signing.keys import KeyRing, SigningKey

Value = float | str | None  # of a feature; None where it is not known
_COMPARED = 200  # keys of a view that are looked up in a bundle before it counts


def service_snapshot(snapshot: LakeSnapshot, service: str, path: Path) -> Built:
    """Writes the snapshot file of a service. Raises FleetError for an unknown service, and for one without any row."""
    views = _views_of(service)
    made = [_view(snapshot, view) for view in views]
    tables = sorted({view.batch_source.table for view in views})
    return build_snapshot(
        path,
        made,
        service=service,
        lakefs_commit=snapshot.commit_id,
        delta_versions={table: snapshot.table(table).version() for table in tables},
    )


def _views_of(service: str) -> list[Any]:
    """The views of a service that have rows; what is on demand has none."""
    repo = definitions()
    known = {found.name: found for found in repo.feature_services}
    if service not in known:
        raise FleetError(f"There is no feature service {service}", remedy=f"There are {', '.join(sorted(known))}.")
    views = {view.name: view for view in repo.feature_views}
    return [views[one.name] for one in known[service].feature_view_projections if one.name in views]


def _view(snapshot: LakeSnapshot, view: Any) -> SnapshotView:
    source: DeltaSource = view.batch_source
    keys = [column.name for column in view.entity_columns]
    features = [field.name for field in view.features]
    rows = snapshot.scan(source.table, [*keys, *features, source.timestamp_field])
    return SnapshotView(
        name=view.name,
        version=int(view.tags.get("kernel_version", 1)),
        entity_columns=keys,
        feature_columns=features,
        rows=rows.rename_columns(
            [EVENT_TIME if name == source.timestamp_field else name for name in rows.column_names]
        ),
        ttl_ns=round(view.ttl.total_seconds() * 1e9) if view.ttl else 0,
        identity=view.tags.get("identity") or _identity(source.table),
    )


def _identity(table: str) -> str:
    """Of a view that no live kernel makes: what its contract means."""
    return hashlib.sha256(f"{table}:{contract_of(table).fingerprint}".encode()).hexdigest()[:32]


def snapshot_file(home: Home, service: str) -> Path:
    """Where the snapshot of a service lies."""
    return home.root / "features" / f"{service}.snapshot"


def bundle_folder(home: Home, service: str) -> Path:
    """Where the latest bundle of a service lies."""
    return home.root / "features" / "bundles" / service


def service_bundle(home: Home, file: Path, folder: Path) -> Manifest:
    """Signs a snapshot file as a bundle, in a new folder."""
    return signed_bundle(file, folder, installation_key(home))


def signed_bundle(file: Path, folder: Path, key: SigningKey) -> Manifest:
    """The bundle of a service's snapshot file, in a new folder: with the service's on-demand views, and all its kernels."""
    on_demand = on_demand_of(file)
    transforms = dict.fromkeys(name for about in on_demand.values() for name in about["transforms"])
    kernels = [*kernels_of(file), *map(in_bundle, transforms)]
    return build_bundle(file, folder, [key], kernels=kernels, on_demand=on_demand)


def replace_bundle(fresh: Path, folder: Path) -> None:
    """Puts a bundle in place of the one in the folder. Both are on one file system."""
    with tempfile.TemporaryDirectory(dir=fresh.parent) as gone:
        if folder.exists():
            os.rename(folder, Path(gone, folder.name))
        os.rename(fresh, folder)


def kernels_of(file: Path) -> list[dict[str, str]]:
    """What makes the features of a snapshot file: the kernels of its views, as the definitions name them."""
    defined: list[Any] = definitions().feature_views
    tables = {view.name: view.batch_source.table.split(".")[1] for view in defined}
    views = {view.name: view for view in Snapshot.open(file).views.values()}
    return [
        {**in_bundle(tables[name]), "feature": name, "identity": view.identity}
        for name, view in views.items()
        if tables.get(name) in KERNELS
    ]


def on_demand_of(file: Path) -> dict[str, dict[str, list[str]]]:
    """The on-demand views of a snapshot file's service that kernels make: their transforms and sources. Raises FleetError where
    the service lacks a source."""
    repo, snapshot = definitions(), Snapshot.open(file)
    views = {view.name: view for view in repo.on_demand_feature_views if "kernels" in view.tags}
    service = next((one for one in repo.feature_services if one.name == snapshot.metadata["service"]), None)
    found = {}
    for projection in service.feature_view_projections if service is not None else ():
        if projection.name not in views:
            continue
        view = views[projection.name]
        sources = list(view.source_feature_view_projections)
        absent = [source for source in sources if source not in snapshot.views]
        if absent:
            raise FleetError(f"{view.name} needs {absent[0]}", where=str(file), remedy="Add it to the service.")
        found[view.name] = {
            "transforms": [one.split("@")[0] for one in view.tags["kernels"].split()],
            "sources": sources,
        }
    return found


def installation_key(home: Home) -> SigningKey:
    """The key of this installation, made on first use: its passphrase lies beside it, readable to its owner alone. A fleet has a
    key that is kept elsewhere."""
    folder = home.root / "keys"
    path, phrase = folder / "bundles.pem", folder / "passphrase"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle = os.open(phrase, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(32))
        SigningKey.create(path, phrase.read_text())
    return SigningKey.read(path, phrase.read_text())


def three_ways(home: Home, service: str, view: str, entity: dict[str, Any]) -> dict[str, dict[str, Value]]:
    """The features of a view for one entity: from the lake at the commit of the service's bundle, through Feast's online store,
    and on a vehicle that has installed the bundle. entity: all join keys of the service. Raises FleetError if there is no bundle.
    """
    with _vehicle(home, bundle_folder(home, service)) as device:
        found = look_up(service, entity, ref=device.versions.lakefs_commit, time=None)["features"]
        key = {name: entity[name] for name in device.snapshot.view(view).entities}
        carried = _on_vehicle(device, view, key)
    told = _online(feature_store(), view, list(carried), key)
    return {name: {"lake": found[name], "online": told[name], "vehicle": carried[name]} for name in carried}


def _online(store: FeatureStore, view: str, names: Sequence[str], key: dict[str, Any]) -> dict[str, Value]:
    found = store.get_online_features([f"{view}:{name}" for name in names], [key]).to_dict()
    return {name: found[name][0] for name in names}


def _on_vehicle(device: FeatureBundle, view: str, key: dict[str, Any]) -> dict[str, Value]:
    """As the lake has it: None for what is not known, and a category by its text."""
    stored, answer = device.snapshot.view(view), device.answer(view)
    values = tuple(key.values())
    device.lookup(view, values if len(values) > 1 else values[0], answer)
    found: dict[str, Value] = {name: None if math.isnan(value) else value for name, value in answer.to_dict().items()}
    for index, texts in stored.categories.items():
        code = answer.values[index]
        found[stored.features[index]] = None if math.isnan(code) else texts[int(code)]
    return found


@contextlib.contextmanager
def _vehicle(home: Home, folder: Path) -> Iterator[FeatureBundle]:
    """A device that has installed the bundle, and nothing else."""
    ring = KeyRing([installation_key(home).public])
    with tempfile.TemporaryDirectory(dir=home.scratch, prefix="vehicle-") as root:
        activate(Path(root), install(folder, Path(root), ring).id, ring)
        yield FeatureBundle.open(Path(root), ring)


def bundle_differences(lake: Lake, home: Home, service: str, folder: Path) -> list[str]:
    """Installs a bundle as a vehicle does, into a folder of its own, and looks keys up that the lake has at the bundle's
    commit. Gives what differs, a sentence each."""
    with _vehicle(home, folder) as device:
        snapshot = lake.at(device.versions.lakefs_commit)
        return _differences(snapshot, service, "the bundle", lambda view, _, key: _on_vehicle(device, view, key))


def online_differences(snapshot: LakeSnapshot, home: Home, service: str, file: Path) -> list[str]:
    """As bundle_differences, for what Feast answers once the snapshot file is published: here, to nobody else."""
    with tempfile.TemporaryDirectory(dir=home.scratch, prefix="online-") as folder:
        store = feature_store(Path(folder))
        publish_online(file, service, store)
        return _differences(
            snapshot, service, "the online store", lambda view, names, key: _online(store, view, names, key)
        )


def _differences(
    snapshot: LakeSnapshot,
    service: str,
    where: str,
    look_up: Callable[[str, list[str], dict[str, Any]], Mapping[str, Value]],
) -> list[str]:
    findings = []
    for view in _views_of(service):
        source: DeltaSource = view.batch_source
        keys = [column.name for column in view.entity_columns]
        names = [field.name for field in view.features]
        rows = _some(snapshot.scan(source.table, [*keys, *names, source.timestamp_field]), keys, view)
        for row in rows.to_pylist():
            key = {name: row[name] for name in keys}
            told = look_up(view.name, names, key)
            findings += [
                f"{view.name}:{name} of {tuple(key.values())} is {told[name]} in {where}, {row[name]} in the lake"
                for name in names
                if told[name] != row[name]
            ]
    return findings


def _some(rows: pa.Table, keys: list[str], view: Any) -> pa.Table:
    """Rows all over a view, the latest of each key."""
    ordered = rows.sort_by([*((key, "ascending") for key in keys), (view.batch_source.timestamp_field, "ascending")])
    numbered = ordered.append_column("row", pa.array(range(ordered.num_rows)))
    last = numbered.group_by(keys, use_threads=False).aggregate([("row", "max")])["row_max"]
    return ordered.take(last).take(list(range(0, len(last), max(1, len(last) // _COMPARED))))

"""Features as Dagster sees them.

In: drives that have been synchronised; a map of lanes. Out: live features and visits of places per drive, in one transaction;
publications of places and of lanes; the registry; and the snapshot that is looked up online and the signed bundle for vehicles.
What is not per drive runs by schedule or by hand, never eagerly, and its checks block what comes after it in the same run.
"""

import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg

from fleet_assets.capture.assets import context_files
from fleet_assets.capture.context_files import read, summary
from fleet_assets.contracts.loader import load_tables
from fleet_assets.errors import FleetError
from fleet_assets.features.batch import features_batch
from fleet_assets.features.identity import code_version_of_drives, repo_hash
from fleet_assets.features.places import CONTEXT, VISITS
from fleet_assets.features.replay import INPUTS, OUTPUTS
from fleet_assets.partitions import DRIVES, PER_DRIVE_BACKFILL
from fleet_assets.resources import FleetResource
from fleet_assets.specs import asset_key, column_schema, report, table_check_specs, table_specs

LANES = "features.lane_curvature"
_APPROXIMATES = "declared_approximation"
SERVICE = "perception_context_v1"
REGISTRY, ONLINE, BUNDLE = (dg.AssetKey(["features", name]) for name in ("registry", "online_snapshot", "edge_bundle"))
_OWNERS = ["team:fleet"]
_NIGHTLY = dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=26))  # of what is made each night
_REPLAYED = 10  # drives that are driven again, at most, before a snapshot is made
_SHOWN = 20  # a check names at most so many findings


@dg.multi_asset(
    name="live_features",
    specs=table_specs(OUTPUTS, deps=INPUTS, code_version=code_version_of_drives()),
    check_specs=table_check_specs(OUTPUTS),
    partitions_def=DRIVES,
    backfill_policy=PER_DRIVE_BACKFILL,
)
def live_features(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    drives = list(context.partition_keys)
    context.log.info(f"{len(drives)} drives: {', '.join(drives[:10])}")
    run_id = context.run.root_run_id or context.run.run_id
    outcome = features_batch(fleet.home, fleet.lake, drives, run_id=run_id)
    yield from report(context, fleet.lake, OUTPUTS, outcome, lambda snapshot, drives: {})


@dg.asset(
    key=asset_key(CONTEXT),
    deps=[asset_key(VISITS)],
    group_name="features",
    freshness_policy=_NIGHTLY,
    owners=[load_tables()[CONTEXT].owner],
    kinds={"deltalake", "lakefs"},
    description=load_tables()[CONTEXT].description,
    metadata={"dagster/column_schema": column_schema(load_tables()[CONTEXT]), "dagster/table_name": CONTEXT},
)
def place_context(context: dg.AssetExecutionContext, fleet: FleetResource) -> dg.MaterializeResult:
    from fleet_assets.features.places import publish_places

    published = _time_of_run(context)
    done = publish_places(fleet.lake, published, run_id=context.run.root_run_id or context.run.run_id)
    snapshot = fleet.lake.at()
    return dg.MaterializeResult(
        metadata={
            "dagster/row_count": snapshot.row_count(CONTEXT),
            "rows_published": done.rows.get(CONTEXT, 0) if done else 0,
            "published": published.isoformat(),
            "lakefs_commit": snapshot.commit_id,
        }
    )


@dg.asset(
    key=asset_key(LANES),
    deps=[context_files],
    group_name="features",
    freshness_policy=_NIGHTLY,
    owners=[load_tables()[LANES].owner],
    kinds={"deltalake", "lakefs"},
    description=load_tables()[LANES].description,
    metadata={"dagster/column_schema": column_schema(load_tables()[LANES]), "dagster/table_name": LANES},
    check_specs=[
        dg.AssetCheckSpec(
            _APPROXIMATES,
            asset=asset_key(LANES),
            description="The served form is as near the full form as the policy lane_curvature promises, in every slice.",
            blocking=True,
        ),
        dg.AssetCheckSpec(
            "file",
            asset=asset_key(LANES),
            description="Whether lanes.csv can be used as a whole; else the last map stays.",
        ),
    ],
)
def lane_curvature(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    from fleet_assets.features.lane_policy import load_lane_policy
    from fleet_assets.features.lanes import CONTRACT, lanes_of, measured, publish_lanes, tile_of

    key, file = asset_key(LANES), read(fleet.home.context, CONTRACT)
    lanes, tile, wrong, findings = None, None, [], []
    metadata: dict[str, Any] = {"file": summary(file), "rows_published": 0}
    if file.sha256:
        try:
            lanes = lanes_of(file, load_lane_policy())
            tile = tile_of(lanes)
        except FleetError as error:
            wrong = [str(error)]
    yield _check("file", wrong, dg.AssetCheckSeverity.WARN, asset=key)
    if lanes is not None and tile is not None:
        slices = measured(lanes, tile)
        findings = [str(one) for one in slices if not one.holds]
        metadata |= {"map": lanes.map_version, "cells": tile.lane_cell.size}
        metadata |= {f"error, {one.curve}, {one.fix}": str(one) for one in slices}
    yield _check(_APPROXIMATES, findings, dg.AssetCheckSeverity.ERROR, asset=key)
    if findings:
        raise dg.Failure("The map's lanes are not what is promised; it was not published.", allow_retries=False)
    if lanes is not None and tile is not None:
        run_id = context.run.root_run_id or context.run.run_id
        done = publish_lanes(fleet.lake, lanes, tile, _time_of_run(context), run_id=run_id)
        metadata["rows_published"] = done.rows.get(LANES, 0) if done else 0
    snapshot = fleet.lake.at()
    counted: dict[str, Any] = {"dagster/row_count": snapshot.row_count(LANES), "lakefs_commit": snapshot.commit_id}
    yield dg.MaterializeResult(asset_key=key, metadata={**counted, **metadata})


def _time_of_run(context: dg.AssetExecutionContext) -> datetime:
    """To the second, so that a repeat of the run is the same publication."""
    stats = context.instance.get_run_stats(context.run.run_id)
    return datetime.fromtimestamp(stats.start_time or datetime.now(UTC).timestamp(), UTC).replace(microsecond=0)


@dg.asset(
    key=REGISTRY,
    deps=[asset_key(table) for table in (*OUTPUTS, CONTEXT, LANES)],
    group_name="features",
    freshness_policy=_NIGHTLY,
    owners=_OWNERS,
    kinds={"feast"},
    code_version=repo_hash(),
    description="Feature views and services, applied to the installation's Feast registry.",
)
def registry(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    from fleet_assets.features.registry import apply, feature_store

    apply()
    store = feature_store()
    services = store.list_feature_services()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(repo_hash()),
        metadata={
            "views": len(store.list_feature_views()),
            "services": [service.name for service in services],
            "identities": {view.name: view.tags.get("identity", "") for view in store.list_feature_views()},
        },
    )


_CHECKS = {
    "row_counts": "Every frame has one row in every live table.",
    "one_identity": "All rows are made by the kernels that the definitions name.",
    "as_a_vehicle": "Drives that came or were remade since the last snapshot (the latest of them), driven again frame by frame, "
    "give the same bits: nothing saw later data.",
}
_WRITTEN = "as_in_the_lake"
_WARNINGS = {
    "drift": "Large differences between drives that the last snapshot had and those that came since.",
    "bias": "Large differences between regions, or light conditions, that nobody has signed off.",
}


@dg.asset(
    key=ONLINE,
    deps=[REGISTRY],
    group_name="features",
    freshness_policy=_NIGHTLY,
    owners=_OWNERS,
    kinds={"feast", "numpy"},
    check_specs=[
        *(dg.AssetCheckSpec(name, asset=ONLINE, description=text, blocking=True) for name, text in _CHECKS.items()),
        *(dg.AssetCheckSpec(name, asset=ONLINE, description=text) for name, text in _WARNINGS.items()),
        dg.AssetCheckSpec(_WRITTEN, asset=ONLINE, description="Feast answers what the lake has.", blocking=True),
    ],
    description=f"Snapshot file of {SERVICE}, from one commit: what is looked up online, and goes into the bundle.",
)
def online_snapshot(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    from fleet_assets.features import checks
    from fleet_assets.features.registry import publish_online
    from fleet_assets.features.service_snapshot import online_differences, service_snapshot, snapshot_file

    lake = fleet.lake
    snapshot = lake.at()
    earlier = _last_commit(context)
    drives = checks.drives_of(snapshot)
    came = checks.changed(lake.at(earlier) if earlier else None, snapshot, drives)
    audited = {
        "row_counts": checks.row_counts(snapshot, drives),
        "one_identity": checks.one_identity(snapshot, drives),
        "as_a_vehicle": [finding for drive in came[-_REPLAYED:] for finding in checks.as_a_vehicle(snapshot, drive)],
    }
    for name, findings in audited.items():
        yield _check(name, findings, dg.AssetCheckSeverity.ERROR)
    drifted = checks.drift(lake.at(earlier), snapshot) if earlier else []
    yield _check("drift", list(map(str, drifted)), dg.AssetCheckSeverity.WARN)
    biased = [one for key in ("region", "light") for one in checks.bias(snapshot, key) if not checks.signed_off(one)]
    yield _check("bias", list(map(str, biased)), dg.AssetCheckSeverity.WARN)
    if any(audited.values()):
        raise dg.Failure("The features are not what they should be; no snapshot was made.", allow_retries=False)
    file = snapshot_file(fleet.home, SERVICE)
    # Beside the last good one, which stays when this one is not as it should be.
    fresh = file.with_name(f"{file.name}.new")
    built = service_snapshot(snapshot, SERVICE, fresh)
    findings = online_differences(snapshot, fleet.home, SERVICE, fresh)
    yield _check(_WRITTEN, findings, dg.AssetCheckSeverity.ERROR)
    if findings:
        raise dg.Failure("The online store would not answer what the lake has.", allow_retries=False)
    fresh.replace(file)
    publish_online(file, SERVICE)
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(snapshot.commit_id),
        metadata={
            "service": SERVICE,
            "lakefs_commit": snapshot.commit_id,
            "drives_changed": len(came),
            "drives_driven_again": min(len(came), _REPLAYED),
            "bytes": built.file_bytes,
            "rows": dict(built.rows),
            "schema_hash": built.schema_hash,
            "file": str(file),
        },
    )


@dg.asset(
    key=BUNDLE,
    deps=[ONLINE],
    group_name="features",
    freshness_policy=_NIGHTLY,
    owners=_OWNERS,
    kinds={"ed25519"},
    check_specs=[
        dg.AssetCheckSpec(
            _WRITTEN,
            asset=BUNDLE,
            description="What a vehicle looks up is what the lake has at the bundle's commit.",
        )
    ],
    description=f"Signed bundle of {SERVICE} for vehicles: snapshot, manifest, list of kernels.",
)
def edge_bundle(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    from fleet_assets.features import service_snapshot as made

    folder = made.bundle_folder(fleet.home, SERVICE)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as scratch:
        fresh = Path(scratch, "bundle")
        manifest = made.service_bundle(fleet.home, made.snapshot_file(fleet.home, SERVICE), fresh)
        findings = made.bundle_differences(fleet.lake, fleet.home, SERVICE, fresh)
        yield _check(_WRITTEN, findings, dg.AssetCheckSeverity.ERROR, asset=BUNDLE)
        if findings:
            raise dg.Failure("The bundle does not hold what the lake has; the last one stays.", allow_retries=False)
        made.replace_bundle(fresh, folder)
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(manifest.id),
        metadata={"bundle": manifest.id, "lakefs_commit": manifest.signed["lakefs_commit"], "folder": str(folder)},
    )


nightly_features = dg.ScheduleDefinition(
    name="nightly_features",
    target=dg.AssetSelection.assets(asset_key(CONTEXT), asset_key(LANES), REGISTRY, ONLINE, BUNDLE),
    cron_schedule="0 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Publishes places and lanes, applies the registry, and makes snapshot and bundle.",
)


def _last_commit(context: dg.AssetExecutionContext) -> str | None:
    event = context.instance.get_latest_materialization_event(ONLINE)
    found = event.asset_materialization if event else None
    value = found.metadata.get("lakefs_commit") if found else None
    return str(value.value) if value else None


def _check(
    name: str, findings: list[str], severity: dg.AssetCheckSeverity, asset: dg.AssetKey = ONLINE
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=not findings,
        severity=severity,
        description=f"{len(findings)} findings" if findings else "nothing found",
        metadata={"findings": findings[:_SHOWN]},
    )

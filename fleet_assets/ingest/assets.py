"""Ingest as Dagster sees it: all tables of one reading pass are one multi-asset, in one transaction.

Context is another one: it is made again when a file of context changes, without reading recordings.

In: drives whose recordings have landed, files of context. Out: materialisations of the ingest tables, with their checks.
"""

from collections.abc import Iterator

import dagster as dg

from fleet_assets.capture.context_files import read_all, summary
from fleet_assets.ingest import context_batch as of_context
from fleet_assets.ingest.batch import CODE_VERSION, TABLES, ingest_batch
from fleet_assets.lake.tables import Snapshot
from fleet_assets.partitions import DRIVES, PER_DRIVE_BACKFILL
from fleet_assets.resources import FleetResource
from fleet_assets.specs import asset_key, report, table_check_specs, table_specs


@dg.multi_asset(
    name="ingest",
    specs=table_specs(TABLES, deps=["capture.recordings"], code_version=CODE_VERSION),
    check_specs=table_check_specs(TABLES),
    partitions_def=DRIVES,
    backfill_policy=PER_DRIVE_BACKFILL,
)
def ingest(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    from fleet_assets.ingest.plots import plots

    home, lake = fleet.home, fleet.lake
    drives = list(context.partition_keys)
    context.log.info(f"{len(drives)} drives: {', '.join(drives[:10])}")
    outcome = ingest_batch(home, lake, drives, run_id=context.run.root_run_id or context.run_id)
    yield from report(context, lake, TABLES, outcome, plots)


@dg.multi_asset(
    name="drive_context",
    specs=table_specs(
        of_context.TABLES, deps=[*of_context.INPUTS, "capture.context_files"], code_version=of_context.CODE_VERSION
    ),
    check_specs=[
        *table_check_specs(of_context.TABLES),
        dg.AssetCheckSpec(
            "joined", asset=asset_key(of_context.CONTEXT), description="Shares of drives that sources of context know."
        ),
        dg.AssetCheckSpec(
            "files", asset=asset_key(of_context.CONTEXT), description="Whether the files of context can be used."
        ),
    ],
    partitions_def=DRIVES,
    backfill_policy=PER_DRIVE_BACKFILL,
)
def drive_context(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    home, lake = fleet.home, fleet.lake
    drives = list(context.partition_keys)
    files = read_all(home.context, of_context.FILES)
    run_id = context.run.root_run_id or context.run_id
    outcome = of_context.context_batch(home, lake, drives, run_id=run_id, files=files)
    yield _joined(lake.at(outcome.published.commit_id if outcome.published else "main"))
    yield dg.AssetCheckResult(
        asset_key=asset_key(of_context.CONTEXT),
        check_name="files",
        passed=not any(file.error or file.refused for file in files.values()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={name: summary(file) for name, file in files.items()},
    )
    yield from report(context, lake, of_context.TABLES, outcome, lambda snapshot, drives: {})


def _joined(snapshot: Snapshot) -> dg.AssetCheckResult:
    """A warning where less joined than the contract asks for."""
    found = of_context.joined(snapshot)
    return dg.AssetCheckResult(
        asset_key=asset_key(of_context.CONTEXT),
        check_name="joined",
        passed=all(column.ok for column in found),
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(f"{column.column} {column.share:.0%} of at least {column.limit:.0%}" for column in found),
        metadata={column.column: column.share for column in found},
    )

"""Ingest as Dagster sees it: all tables of one reading pass are one multi-asset, in one transaction.

In: drives whose recordings have landed. Out: materialisations of the ingest tables, with their checks.
"""

from collections.abc import Iterator

import dagster as dg

from fleet_assets.ingest.batch import CODE_VERSION, TABLES, ingest_batch
from fleet_assets.partitions import DRIVES, PER_DRIVE_BACKFILL
from fleet_assets.resources import FleetResource
from fleet_assets.specs import report, table_check_specs, table_specs


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

"""Synchronise as Dagster sees it: clock models, frames and matches in one transaction.

In: drives whose ingested rows were accepted. Out: materialisations of the synchronise tables, with their checks.
"""

from collections.abc import Iterator

import dagster as dg

from fleet_assets.partitions import DRIVES, PER_DRIVE_BACKFILL
from fleet_assets.resources import FleetResource
from fleet_assets.specs import report, table_check_specs, table_specs
from fleet_assets.synchronise.batch import made_by, synchronise_batch
from fleet_assets.synchronise.drive import INPUTS, OUTPUTS


@dg.multi_asset(
    name="synchronise",
    specs=table_specs(OUTPUTS, deps=["ingest.drives", *INPUTS], code_version=made_by()),
    check_specs=table_check_specs(OUTPUTS),
    partitions_def=DRIVES,
    backfill_policy=PER_DRIVE_BACKFILL,
)
def synchronise(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    from fleet_assets.synchronise.plots import plots

    home, lake = fleet.home, fleet.lake
    drives = list(context.partition_keys)
    context.log.info(f"{len(drives)} drives: {', '.join(drives[:10])}")
    outcome = synchronise_batch(home, lake, drives, run_id=context.run.root_run_id or context.run_id)
    yield from report(context, lake, OUTPUTS, outcome, plots)

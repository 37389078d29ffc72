"""Features as Dagster sees them: live features of each drive in one transaction.

In: drives that have been synchronised. Out: materialisations of the feature tables, with their checks.
"""

from collections.abc import Iterator

import dagster as dg

from fleet_assets.features.batch import features_batch
from fleet_assets.features.identity import code_version
from fleet_assets.features.replay import INPUTS, LIVE, OUTPUTS
from fleet_assets.partitions import DRIVES, PER_DRIVE_BACKFILL
from fleet_assets.resources import FleetResource
from fleet_assets.specs import report, table_check_specs, table_specs


@dg.multi_asset(
    name="live_features",
    specs=table_specs(OUTPUTS, deps=INPUTS, code_version=code_version(LIVE)),
    check_specs=table_check_specs(OUTPUTS),
    partitions_def=DRIVES,
    backfill_policy=PER_DRIVE_BACKFILL,
)
def live_features(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    drives = list(context.partition_keys)
    context.log.info(f"{len(drives)} drives: {', '.join(drives[:10])}")
    run_id = context.run.root_run_id or context.run_id
    outcome = features_batch(fleet.home, fleet.lake, drives, run_id=run_id)
    yield from report(context, fleet.lake, OUTPUTS, outcome, lambda snapshot, drives: {})

"""Curation as Dagster sees it.

In: drives that have features. Out: surroundings and scenario hits per drive, in one transaction.
"""

from collections.abc import Iterator

import dagster as dg

from fleet_assets.curate.batch import INPUTS, OUTPUTS, made_by, scenarios_batch
from fleet_assets.partitions import DRIVES, PER_DRIVE_BACKFILL
from fleet_assets.resources import FleetResource
from fleet_assets.specs import report, table_check_specs, table_specs


@dg.multi_asset(
    name="scenarios",
    specs=table_specs(OUTPUTS, deps=INPUTS, code_version=made_by()),
    check_specs=table_check_specs(OUTPUTS),
    partitions_def=DRIVES,
    backfill_policy=PER_DRIVE_BACKFILL,
)
def scenarios(
    context: dg.AssetExecutionContext, fleet: FleetResource
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    run_id = context.run.root_run_id or context.run.run_id
    outcome = scenarios_batch(fleet.home, fleet.lake, list(context.partition_keys), run_id=run_id)
    yield from report(context, fleet.lake, OUTPUTS, outcome, lambda snapshot, drives: {})

"""Curation as Dagster sees it.

In: drives that have features. Out: surroundings and scenario hits per drive, in one transaction; a dataset, and its samples. A
dataset is made by hand or by schedule, never eagerly; a name stands for one dataset for ever.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.batch import INPUTS, OUTPUTS, made_by, scenarios_batch
from fleet_assets.partitions import DRIVES, PER_DRIVE_BACKFILL
from fleet_assets.resources import FleetResource, Profile
from fleet_assets.specs import asset_key, column_schema, last_metadata, report, table_check_specs, table_specs

DATASET, SAMPLES = (dg.AssetKey(["curate", name]) for name in ("dataset", "samples"))
_OWNERS = ["team:fleet"]
_SHOWN = 20  # a check names at most so many findings


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


class DatasetConfig(dg.Config):
    """recipe: a file of contracts/datasets; that of the profile unless given. name: of the dataset; recipe and start of the run
    unless given."""

    recipe: str = ""
    name: str = ""


_CHECKS = {
    "leaks": ("No two splits were at one place at one time.", dg.AssetCheckSeverity.ERROR),
    "label_rates": ("No class is labelled much less often in a slice than elsewhere.", dg.AssetCheckSeverity.WARN),
    "simulation": ("Features of simulated drives are like those of real ones.", dg.AssetCheckSeverity.WARN),
}


@dg.asset(
    key=DATASET,
    deps=[asset_key(table) for table in (*OUTPUTS, *INPUTS)],
    group_name="curate",
    owners=_OWNERS,
    kinds={"deltalake", "lakefs"},
    check_specs=[
        dg.AssetCheckSpec(name, asset=DATASET, description=text, blocking=severity is dg.AssetCheckSeverity.ERROR)
        for name, (text, severity) in _CHECKS.items()
    ],
    description="A dataset: manifest, clips and coverage, from one commit; the only upstream of training.",
    metadata={
        "dagster/column_schema": column_schema(load_tables()["curate.datasets"]),
        "dagster/table_name": "curate.datasets",
    },
)
def dataset(
    context: dg.AssetExecutionContext, fleet: FleetResource, profile: Profile, config: DatasetConfig
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    from fleet_assets.curate.dataset import made_by_run, make, open_dataset, publish
    from fleet_assets.curate.recipe import load_recipe

    run_id = context.run.root_run_id or context.run.run_id
    recipe = config.recipe or profile.name
    name = config.name or f"{recipe}-{_started(context):%Y%m%d-%H%M%S}"
    if made_by_run(fleet.lake, name, run_id):
        manifest, snapshot = open_dataset(fleet.lake, name)
        commit_id, findings = snapshot.commit_id, manifest.document["findings"]
        yield from (_check(check, findings[check]) for check in _CHECKS)
    else:
        made = make(fleet.lake.at(), load_recipe(recipe), name)
        manifest = made.manifest
        yield from (_check(check, manifest.document["findings"][check]) for check in _CHECKS)
        if made.leaks:
            raise dg.Failure("The splits leak; nothing was published.", allow_retries=False)
        commit_id = publish(fleet.lake, made, run_id=run_id)
    yield dg.MaterializeResult(
        data_version=dg.DataVersion(manifest.sha256),
        metadata={
            "dataset": name,
            "recipe": recipe,
            "manifest": manifest.path,
            "lakefs_commit": commit_id,
            "read_at": manifest.commit_id,
            "drives": len(manifest.drives),
            "left_out_drives": len(manifest.document["left_out"]["drives"]),
            "clips": manifest.document["clips"]["rows"],
        },
    )


@dg.asset(
    key=SAMPLES,
    deps=[DATASET],
    group_name="curate",
    owners=_OWNERS,
    kinds={"deltalake", "lakefs", "spark"},
    description=load_tables()["curate.samples"].description,
    metadata={
        "dagster/column_schema": column_schema(load_tables()["curate.samples"]),
        "dagster/table_name": "curate.samples",
    },
)
def samples(context: dg.AssetExecutionContext, fleet: FleetResource) -> dg.MaterializeResult:
    from fleet_assets.curate.samples import samples_batch, samples_tag

    name = dataset_name(context)
    run_id = context.run.root_run_id or context.run.run_id
    outcome = samples_batch(fleet.home, fleet.lake, name, run_id=run_id)
    if outcome.published is None:
        raise dg.Failure(f"The audit refused the samples. {outcome.audit_summary}", allow_retries=False)
    commit_id = fleet.lake.repository.commit_id(samples_tag(name))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(commit_id),
        metadata={
            "dataset": name,
            "lakefs_commit": commit_id,
            "drives_written": sum(one.status == "published" for one in outcome.drives),
            "drives_that_were_there": sum(one.status == "skipped" for one in outcome.drives),
            "rows_written": outcome.published.rows.get("curate.samples", 0),
        },
    )


def dataset_name(context: dg.AssetExecutionContext) -> str:
    """The dataset that was made last: in this run, or before. Raises dg.Failure when there is none."""
    return str(last_metadata(context, DATASET)["dataset"])


def _started(context: dg.AssetExecutionContext) -> datetime:
    """The start of the run, so that its repeat makes the same dataset."""
    stats = context.instance.get_run_stats(context.run.root_run_id or context.run.run_id)
    return datetime.fromtimestamp(stats.start_time or datetime.now(UTC).timestamp(), UTC)


def _check(name: str, findings: list[str]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=DATASET,
        check_name=name,
        passed=not findings,
        severity=_CHECKS[name][1],
        description=f"{len(findings)} findings" if findings else "nothing found",
        metadata={"findings": findings[:_SHOWN]},
    )

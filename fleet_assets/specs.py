"""Asset and check specs made from contracts, and the reporting of what a batch did.

In: table contracts and batch outcomes. Out: Dagster specs, check results and materialisations. The graph says
nothing about a table that its contract does not say.
"""

import base64
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from fleet_assets.automation import PER_DRIVE
from fleet_assets.contracts.loader import TableContract, load_tables
from fleet_assets.lake.batch import BatchOutcome, DriveStatus
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.tables import Snapshot
from fleet_assets.partitions import DRIVES

_SAMPLE_DRIVES = 20  # a check's metadata names at most so many drives
_PLOT_LIMIT_BYTES = 50_000


def asset_key(table: str) -> dg.AssetKey:
    """`ingest.imu` -> AssetKey(["ingest", "imu"])."""
    return dg.AssetKey(table.split("."))


def column_schema(contract: TableContract) -> dg.TableSchema:
    """The contract's columns as the Dagster UI shows them."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.type,
                description=f"{column.description} [{column.unit}]" if column.unit else column.description,
                constraints=dg.TableColumnConstraints(nullable=not column.required),
                tags={"classification": column.classification},
            )
            for column in contract.columns
        ],
    )


def _column_lineage(contract: TableContract) -> dict[str, dg.TableColumnLineage]:
    """Which columns of which assets the contract's columns are made from, as metadata."""

    def dep(source: str) -> dg.TableColumnDep:
        table, column = source.rsplit(".", 1)
        return dg.TableColumnDep(asset_key(table), column)

    deps = {column.name: [dep(source) for source in column.sources] for column in contract.columns if column.sources}
    return {"dagster/column_lineage": dg.TableColumnLineage(deps)} if deps else {}


def table_specs(tables: Sequence[str], *, deps: Sequence[str], code_version: str) -> list[dg.AssetSpec]:
    """One spec per per-drive table; all tables of one reading pass share their upstream."""
    contracts = load_tables()
    return [_table_spec(contracts[table], deps, code_version) for table in tables]


def _table_spec(contract: TableContract, deps: Sequence[str], code_version: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        asset_key(contract.name),
        deps=[asset_key(dep) for dep in deps],
        description=contract.description,
        group_name=contract.stage,
        owners=[contract.owner],
        kinds={"deltalake", "lakefs", "spark"},
        code_version=code_version,
        partitions_def=DRIVES,
        automation_condition=PER_DRIVE,
        freshness_policy=_freshness(contract),
        metadata={
            "dagster/column_schema": column_schema(contract),
            "dagster/table_name": contract.name,
            "contract": f"{contract.name} {contract.version}",
            "retention_class": contract.retention_class,
            "residency": contract.residency,
        },
    )


def _freshness(contract: TableContract) -> dg.FreshnessPolicy | None:
    if contract.freshness_hours is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=contract.freshness_hours))


def table_check_specs(tables: Sequence[str]) -> list[dg.AssetCheckSpec]:
    """Per table: *drives* (which were quarantined; a warning) and *table* (the audit of what is to be published).

    Neither blocks through Dagster: the audit stops the publishing itself (design, section 7).
    """
    return [
        spec
        for table in tables
        for spec in (
            dg.AssetCheckSpec(
                "drives",
                asset=asset_key(table),
                description="Drives of the batch that were quarantined or could not be made anew, and why.",
            ),
            dg.AssetCheckSpec(
                "table",
                asset=asset_key(table),
                description="All rules of the contract, run by Great Expectations on the rows to be published.",
            ),
        )
    ]


Plots = Callable[[Snapshot, Sequence[str]], dict[str, bytes]]  # (snapshot, drives) -> table -> png


def report(
    context: dg.AssetExecutionContext, lake: Lake, tables: Sequence[str], outcome: BatchOutcome, plots: Plots
) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    """Check results first; then, if the audit held, one materialisation per table.

    Raises dg.Failure when the audit failed: the checks are then recorded, nothing is materialised and downstream
    does not start.
    """
    for table in tables:
        yield _drives_check(table, outcome)
        yield _table_check(table, outcome)
    if outcome.published is None:
        raise dg.Failure(
            description=f"The audit refused the batch; main is unchanged. {outcome.audit_summary}",
            metadata={"branch": outcome.branch},
            allow_retries=False,
        )
    for drive_id, why in _with_reasons(outcome, "skipped").items():
        context.log.warning(f"{drive_id} is left as it is: {why}")
    for drive in outcome.drives:
        for table in tables:
            context.add_asset_metadata(
                {
                    "status": drive.status,
                    "rows": drive.rows.get(table, 0),
                    **({"reasons": drive.reasons} if drive.reasons else {}),
                    **({"note": drive.note} if drive.note else {}),
                },
                asset_key=asset_key(table),
                partition_key=drive.drive_id,
            )
    commit_id = outcome.published.commit_id
    snapshot = lake.at(commit_id)
    drawn = plots(snapshot, [drive.drive_id for drive in outcome.drives if drive.status == "published"])
    for table in tables:
        yield dg.MaterializeResult(
            asset_key=asset_key(table),
            data_version=dg.DataVersion(commit_id),
            metadata={
                "dagster/row_count": snapshot.row_count(table),
                "dagster/column_schema": column_schema(load_tables()[table]),
                **_column_lineage(load_tables()[table]),
                "rows_published": outcome.published.rows.get(table, 0),
                "lakefs_commit": commit_id,
                "lakefs": dg.MetadataValue.url(lake.commit_url(commit_id)),
                "drives_published": sum(drive.status == "published" for drive in outcome.drives),
                "drives_quarantined": len(_with_reasons(outcome, "quarantined")),
                **_plot(drawn.get(table)),
            },
        )


def _with_reasons(outcome: BatchOutcome, status: DriveStatus) -> dict[str, str]:
    return {
        drive.drive_id: "; ".join(drive.reasons) for drive in outcome.drives if drive.status == status and drive.reasons
    }


def _drives_check(table: str, outcome: BatchOutcome) -> dg.AssetCheckResult:
    quarantined, waiting = _with_reasons(outcome, "quarantined"), _with_reasons(outcome, "skipped")
    said = f"{len(quarantined)} of {len(outcome.drives)} drives quarantined"
    return dg.AssetCheckResult(
        asset_key=asset_key(table),
        check_name="drives",
        passed=not quarantined and not waiting,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{said}, {len(waiting)} left as they are" if waiting else said,
        metadata={
            "quarantined": dict(list(quarantined.items())[:_SAMPLE_DRIVES]),
            "left as they are": dict(list(waiting.items())[:_SAMPLE_DRIVES]),
        },
    )


def _table_check(table: str, outcome: BatchOutcome) -> dg.AssetCheckResult:
    failures = outcome.audit_failures.get(table, [])
    passed = not failures
    if outcome.published is None and passed:
        description = "held, but not published: another table of the same transaction failed"
    else:
        description = "all rules held" if passed else "; ".join(failures)
    return dg.AssetCheckResult(
        asset_key=asset_key(table),
        check_name="table",
        passed=passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=description,
        metadata={"branch": outcome.branch, "failures": failures},
    )


def _plot(png: bytes | None) -> dict[str, Any]:
    if not png:
        return {}
    if len(png) > _PLOT_LIMIT_BYTES:
        raise ValueError(f"plot of {len(png)} bytes; the event log takes at most {_PLOT_LIMIT_BYTES}")
    return {"plot": dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")}


def last_metadata(context: dg.AssetExecutionContext, key: dg.AssetKey) -> dict[str, Any]:
    """Metadata of an asset's last materialisation: of this run, or before. Raises dg.Failure when there is none."""
    event = context.instance.get_latest_materialization_event(key)
    found = event.asset_materialization if event else None
    if found is None:
        raise dg.Failure(f"There is no {key.to_user_string()} yet: materialise it.", allow_retries=False)
    return {name: value.value for name, value in found.metadata.items()}


def coming(stage: str, what: str, *, after: str) -> dg.AssetSpec:
    """An external asset that stands for a stage which is not built yet."""
    return dg.AssetSpec(
        dg.AssetKey([stage, "planned"]),
        deps=[dg.AssetKey(after.split("/"))],
        description=f"Not built yet. Will hold: {what}",
        group_name=stage,
        owners=["team:fleet"],
        kinds={"planned"},
    )

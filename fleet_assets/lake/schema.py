"""Tables on main, made and evolved from the contracts; never by a run.

In: contracts and what main has. Out: created tables and added columns; a difference that would break readers is refused.
"""

from __future__ import annotations

from fleet_assets.contracts.generate import ddl
from fleet_assets.contracts.loader import Column, TableContract, load_tables
from fleet_assets.errors import FleetError
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.maintenance import rewrite
from fleet_assets.lake.session import spark_session
from fleet_assets.lake.tables import Snapshot, open_table


def apply(lake: Lake) -> list[str]:
    """Creates missing tables and adds columns, in one merge. Gives what it did, a line each."""
    lake.ensure()
    snapshot = lake.at()
    missing = [contract for name, contract in load_tables().items() if name not in snapshot.applied]
    additions = {
        contract.name: columns
        for name, contract in load_tables().items()
        if name in snapshot.applied and (columns := _new_columns(snapshot, contract))
    }
    if not missing and not additions:
        return []
    spark = spark_session(lake.home)

    def work(branch: str) -> None:
        for contract in missing:
            spark.sql(ddl(contract, lake.repository.uri(branch, contract.location, "s3a"))).collect()
        for name, columns in additions.items():
            location = lake.repository.uri(branch, load_tables()[name].location, "s3a")
            added = ", ".join(f"`{column.name}` {column.type}" for column in columns)
            spark.sql(f"ALTER TABLE delta.`{location}` ADD COLUMNS ({added})").collect()

    rewrite(lake.repository, lake.home, "contracts apply", work)
    changes = [f"{contract.name} {contract.version} created" for contract in missing]
    return changes + [f"{name}: column {column.name} added" for name, cols in additions.items() for column in cols]


def _new_columns(snapshot: Snapshot, contract: TableContract) -> list[Column]:
    import pyarrow as pa

    present = pa.schema(open_table(snapshot.repository, snapshot.commit_id, contract).schema().to_arrow())
    added = []
    for column in contract.columns:
        if column.name not in present.names:
            if column.required:
                raise _breaking(contract, f"required column {column.name} is new")
            added.append(column)
        elif present.field(column.name).type.to_pandas_dtype() != column.arrow_type.to_pandas_dtype():
            raise _breaking(contract, f"column {column.name} is {present.field(column.name).type} in the lake")
    gone = [name for name in present.names if name not in contract.arrow_schema.names]
    if gone:
        raise _breaking(contract, f"column {gone[0]} is in the lake and not in the contract")
    return added


def _breaking(contract: TableContract, what: str) -> FleetError:
    return FleetError(
        f"The lake's table {contract.name} cannot become version {contract.version}",
        where=what,
        remedy="A change that breaks readers needs a new table: give it a new name, or restore the column.",
    )

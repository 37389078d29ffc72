"""Tables on main, made and evolved from the contracts; never by a run.

In: contracts and what main has. Out: created tables and added columns, in one merge; a difference that would break
readers is refused. Through delta-rs, so that it needs no Spark; `contracts.generate.ddl` is the same table in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from fleet_assets.contracts.generate import DELTA_PROPERTIES
from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.model import Column, TableContract
from fleet_assets.errors import FleetError
from fleet_assets.lake.client import Repository
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.maintenance import rewrite
from fleet_assets.lake.tables import Snapshot, engine_errors, open_table

if TYPE_CHECKING:
    from deltalake import Field

_THREADS = 4


@dataclass
class Difference:
    """What a contract has and the lake has not. relaxed: columns that are no longer required."""

    contract: TableContract
    missing: bool = False
    added: list[Column] = field(default_factory=list)
    relaxed: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        if self.missing:
            return f"{self.contract.name} {self.contract.version} created"
        changes = [f"column {column.name} added" for column in self.added]
        return f"{self.contract.name}: " + ", ".join(
            [*changes, *(f"{name} no longer required" for name in self.relaxed)]
        )


def apply(lake: Lake, contracts: Iterable[TableContract] | None = None) -> list[str]:
    """Creates missing tables and adds columns, in one merge. Gives what it did, a line each.

    contracts: all of the project unless given. Raises FleetError for a difference that would break readers.
    """
    lake.ensure()
    wanted = list(load_tables().values() if contracts is None else contracts)
    if not differences(lake.at(), wanted):
        return []
    done: list[Difference] = []

    def work(branch: str) -> None:
        # Looked at again on the branch: another process may have applied the same meanwhile.
        done[:] = differences(lake.at(branch), wanted)
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda difference: _carry_out(lake.repository, branch, difference), done))

    rewrite(lake.repository, lake.home, "contracts apply", work)
    return [str(difference) for difference in done]


def differences(snapshot: Snapshot, contracts: Iterable[TableContract]) -> list[Difference]:
    """What would be done. Raises FleetError for a difference that would break readers."""
    found = []
    for contract in contracts:
        difference = _difference(snapshot, contract)
        if difference.missing or difference.added or difference.relaxed:
            found.append(difference)
    return found


def _difference(snapshot: Snapshot, contract: TableContract) -> Difference:
    if not snapshot.repository.has(snapshot.commit_id, f"{contract.location}/_delta_log/{0:020d}.json"):
        return Difference(contract, missing=True)
    table = open_table(snapshot.repository, snapshot.commit_id, contract)
    present = pa.schema(table.schema())
    partitions = table.metadata().partition_columns
    if tuple(partitions) != contract.partition_by:
        raise _breaking(contract, f"it is partitioned by {', '.join(partitions) or 'nothing'} in the lake")
    gone = [name for name in present.names if name not in contract.arrow_schema.names]
    if gone:
        raise _breaking(contract, f"column {gone[0]} is in the lake and not in the contract")
    difference = Difference(contract)
    for column in contract.columns:
        if column.name not in present.names:
            if column.required:
                raise _breaking(contract, f"required column {column.name} is new, and rows that are there have none")
            difference.added.append(column)
            continue
        known = present.field(column.name)
        if not _alike(known.type, column.arrow_type):
            raise _breaking(contract, f"column {column.name} is {known.type} in the lake, not {column.type}")
        if column.required and known.nullable:
            raise _breaking(contract, f"column {column.name} may be null in the lake")
        if not column.required and not known.nullable:
            difference.relaxed.append(column.name)
    return difference


def _alike(a: pa.DataType, b: pa.DataType) -> bool:
    """Same values, whatever an engine calls the members of a list and however it lays out strings."""
    if pa.types.is_struct(a) and pa.types.is_struct(b):
        names = [f.name for f in a.fields] == [f.name for f in b.fields]
        return names and all(_alike(x.type, y.type) for x, y in zip(a.fields, b.fields, strict=True))
    lists = (pa.types.is_list, pa.types.is_large_list)
    if any(is_list(a) for is_list in lists) and any(is_list(b) for is_list in lists):
        return _alike(a.value_type, b.value_type)
    strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    if any(is_string(a) for is_string in strings):
        return any(is_string(b) for is_string in strings)
    return bool(a == b)


def _carry_out(repository: Repository, branch: str, difference: Difference) -> None:
    contract = difference.contract
    with engine_errors(f"Table {contract.name} could not be changed"):
        if difference.missing:
            _create(repository, branch, contract)
            return
        table = open_table(repository, branch, contract)
        if difference.added:
            table.alter.add_columns([_field(column) for column in difference.added])
        for name in difference.relaxed:
            table.alter.drop_column_not_null(name)


def _create(repository: Repository, branch: str, contract: TableContract) -> None:
    from deltalake import DeltaTable, Schema

    DeltaTable.create(
        repository.uri(branch, contract.location),
        Schema([_field(column) for column in contract.columns]),
        partition_by=list(contract.partition_by),
        name=contract.name,
        description=contract.description,
        configuration={
            key: value
            for key, value in DELTA_PROPERTIES.items()
            # The engine turns these two into the protocol; the others are kept as they are.
            if key not in ("delta.minReaderVersion", "delta.minWriterVersion")
        },
        storage_options=repository.storage_options,
        raise_if_key_not_exists=False,
    )


def _field(column: Column) -> Field:
    from deltalake import Field, Schema

    plain = Schema.from_arrow(pa.schema([pa.field(column.name, column.arrow_type, nullable=not column.required)]))
    return Field(
        column.name, plain.fields[0].type, nullable=not column.required, metadata={"comment": column.description}
    )


def _breaking(contract: TableContract, what: str) -> FleetError:
    return FleetError(
        f"The lake's table {contract.name} cannot become version {contract.version}",
        where=what,
        remedy="A change that breaks readers needs a new table: give it a new name, or restore the column.",
    )

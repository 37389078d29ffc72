"""Feast objects from contracts.

In: the name of a feature table. Out: a FeatureView whose fields, owner, description and tags are the contract's, with the
identity of the kernel that computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from feast import Entity, FeatureView, Field
from feast.types import Bool, FeastType, Float64, Int64, String

from fleet_assets.contracts.model import TableContract
from fleet_assets.features.identity import KERNELS, identities
from fleet_assets.features.source import DeltaSource
from fleet_assets.lake.tables import contract_of

TYPES: dict[str, FeastType] = {"double": Float64, "long": Int64, "string": String, "boolean": Bool}
# Columns of feature tables that are no features; join keys are none either.
KEYS_AND_TIMES = {"drive_id", "day", "frame", "vehicle", "t_ns", "available_ns", "t_cut_ns"}


def feature_columns(contract: TableContract, keys: Sequence[str] = ()) -> list[str]:
    """Columns that hold features, in the contract's order."""
    return [column.name for column in contract.columns if column.name not in {*KEYS_AND_TIMES, *keys}]


def feature_view(
    table: str, *, entities: Sequence[Entity], ttl: timedelta, name: str | None = None, description: str = ""
) -> FeatureView:
    """A view over a feature table. ttl 0: a row never expires. description: that of the table unless given."""
    contract = contract_of(table)
    view = name or table.split(".")[1]
    keys = [entity.join_key for entity in entities]
    fields = {column.name: column for column in contract.columns}
    tags = {
        "contract": f"{contract.name} {contract.version}",
        "validated_by": f"Great Expectations, {len(contract.rules)} rules of the contract, before each publication",
        "retention": contract.retention_class,
    }
    kernel = table.split(".")[1]
    if kernel in KERNELS:
        tags |= {"kernel": KERNELS[kernel].__name__, "kernel_version": str(KERNELS[kernel].VERSION)}
        tags["identity"] = identities()[kernel]
    return FeatureView(
        name=view,
        entities=list(entities),
        ttl=ttl,
        schema=[
            Field(name=c, dtype=TYPES[fields[c].type], description=fields[c].description)
            for c in [*keys, *feature_columns(contract, keys)]
        ],
        source=DeltaSource(table=table, name=view),
        description=description or contract.description,
        owner=contract.owner,
        tags=tags,
    )

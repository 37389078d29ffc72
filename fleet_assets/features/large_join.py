"""Point-in-time joins that are too large for this process: the same kernel, in Spark tasks.

In: a question and a view, as in retrieval.py. Out: the view's features, one value per entity row, in their order: the bytes that
the join in this process gives. Spark reads the view's rows at the same commit, brings entity rows and rows of a key together, and
joins each part of the keys in a task. Only the answer comes back, so memory here follows the entity rows and not the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from fleet_assets.errors import FleetError
from fleet_assets.features.point_in_time import as_ns, join
from fleet_assets.features.retrieval import Question, View, keys_of, predicate_of
from fleet_assets.lake.session import spark_session
from fleet_assets.lake.tables import Snapshot, contract_of, drives_predicate
from fleet_assets.services.home import Home

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_PART_ROWS = 1_000_000  # of a table, that one task joins
_ROW, _ASKED, _PART = "_row", "_asked_ns", "_part"


@dataclass(frozen=True)
class LargeJoin:
    """over_rows: what is not more than that, a view's rows and entity rows together, is joined in this process."""

    home: Home
    over_rows: int

    def takes(self, snapshot: Snapshot, view: View, question: Question) -> bool:
        count = question.rows.num_rows
        if count == 0 or snapshot.row_count(view.table) + count <= self.over_rows:
            return False  # which drives are asked for need not be counted
        return self._rows(snapshot, view, question) > self.over_rows

    def values(self, snapshot: Snapshot, view: View, question: Question) -> list[pa.ChunkedArray]:
        """The view's features. Raises FleetError where Spark does not answer, and where two rows of one key say the same time:
        which of them comes first, Spark does not know."""
        from pyspark.errors import PySparkException

        try:
            return self._values(snapshot, view, question)
        except PySparkException as error:
            raise FleetError(
                f"{view.name} could not be joined on Spark",
                where=str(error).splitlines()[0],
                remedy="`fleet status` shows the servers; the folder `logs` of the installation holds what they say.",
            ) from error

    def _values(self, snapshot: Snapshot, view: View, question: Question) -> list[pa.ChunkedArray]:
        spark = spark_session(self.home)
        contract = contract_of(view.table)
        columns = list(view.keys.values())
        table = spark.read.format("delta").load(snapshot.repository.uri(snapshot.commit_id, contract.location, "s3a"))
        where, drives = predicate_of(view, question)
        if drives is not None:
            where = f"({where}) AND {drives_predicate(drives)}"
        rows = table.where(where).select(*view.columns)
        if not set(contract.primary_key) <= set(columns):
            _refuse_ties(rows, view, columns)
        keys = keys_of(view, question)
        asked = pa.table(
            [*keys, pa.array(question.t_ns), pa.array(np.arange(question.rows.num_rows))],
            names=[*columns, _ASKED, _ROW],
        )
        parts = max(2, self._rows(snapshot, view, question) // _PART_ROWS)
        part = f"pmod(xxhash64({', '.join(columns)}), {parts}) AS {_PART}"
        types = {column.name: column.type for column in contract.columns}
        schema = ", ".join(
            [f"{_ROW} long", *(f"`{name}` {types[name]}" for name in dict.fromkeys(view.features.values()))]
        )
        both = (
            spark.createDataFrame(asked)
            .selectExpr("*", part)
            .groupBy(_PART)
            .cogroup(rows.selectExpr("*", part).groupBy(_PART))
        )
        found = both.applyInArrow(_joined(view), schema).toArrow().sort_by(_ROW)
        arrow = contract.arrow_schema
        return [found[column].cast(arrow.field(column).type) for column in view.features.values()]

    def _rows(self, snapshot: Snapshot, view: View, question: Question) -> int:
        drives = predicate_of(view, question)[1]
        if drives is None:
            return snapshot.row_count(view.table) + question.rows.num_rows
        known = snapshot.versions(drives, [view.table])
        return sum(version.rows for version in known.values()) + question.rows.num_rows


def _joined(view: View) -> Callable[[pa.Table, pa.Table], pa.Table]:
    """What a task does with the entity rows and the rows of its part."""

    def joined(asked: pa.Table, rows: pa.Table) -> pa.Table:
        known = join(
            [asked[column] for column in view.keys.values()],
            as_ns(asked[_ASKED], "an entity row"),
            [rows[column] for column in view.keys.values()],
            as_ns(rows[view.time_column], view.table),
            as_ns(rows[view.available_column], view.table) if view.available_column else None,
            view.ttl_ns,
        )
        features = list(dict.fromkeys(view.features.values()))
        return pa.table([asked[_ROW], *known.take(rows, features)], names=[_ROW, *features])

    return joined


def _refuse_ties(rows: DataFrame, view: View, columns: list[str]) -> None:
    times = [view.time_column, *([view.available_column] if view.available_column else [])]
    twice = rows.groupBy(*columns, *times).count().where("count > 1").limit(1).collect()
    if twice:
        key = ", ".join(f"{column} {twice[0][column]}" for column in columns)
        raise FleetError(
            f"{view.table} has {twice[0]['count']} rows of one key and time, and nothing says which counts",
            where=key,
            remedy="Leave one of them in the table.",
        )

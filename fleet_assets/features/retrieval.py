"""Features for entity rows, from one snapshot of the lake.

In: entity rows with a time each, and views. Out: the rows as they were given, with the features of each view as they were
known at each row's time. Only the columns, drives and times that the rows can need are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.errors import FleetError
from fleet_assets.features.point_in_time import Known, as_ns, join
from fleet_assets.lake.tables import Snapshot, contract_of

if TYPE_CHECKING:
    from fleet_assets.features.large_join import LargeJoin

# A predicate names at most so many drives; for more, all rows of the times are read.
_NAMED_DRIVES = 1000


@dataclass(frozen=True)
class View:
    """A feature view as the lake has it.

    keys: name in the entity rows -> column of the table. features: name in the answer -> column. available_column None: a row is
    known from its event time on. ttl_ns 0: no limit.
    """

    name: str
    table: str
    keys: Mapping[str, str]
    features: Mapping[str, str]
    time_column: str
    available_column: str | None
    ttl_ns: int

    @property
    def columns(self) -> list[str]:
        times = [self.time_column, *([self.available_column] if self.available_column else [])]
        return list(dict.fromkeys([*self.keys.values(), *self.features.values(), *times]))


@dataclass(frozen=True)
class Question:
    """Entity rows. time_column: of timestamps, or of int64 nanoseconds."""

    rows: pa.Table
    time_column: str

    @cached_property
    def t_ns(self) -> np.ndarray:
        return as_ns(self.rows[self.time_column], "an entity row")


def answer(snapshot: Snapshot, question: Question, views: Sequence[View], large: LargeJoin | None = None) -> pa.Table:
    """The entity rows with all features, in their order. large: who joins what is too large for this process.

    Raises FleetError for a missing key column, or a name that is twice.
    """
    found = question.rows
    for view in views:
        if large is not None and large.takes(snapshot, view, question):
            columns = large.values(snapshot, view, question)
        else:
            columns = _values(snapshot, view, question)
        for name, values in zip(view.features, columns, strict=True):
            if name in found.column_names:
                raise FleetError(
                    f"Column {name} is there already, and {view.name} has a feature of that name",
                    remedy="Ask for full feature names, or rename the column.",
                )
            found = found.append_column(name, values)
    return found


def _values(snapshot: Snapshot, view: View, question: Question) -> list[pa.ChunkedArray]:
    rows = view_rows(snapshot, view, question)
    return known_rows(view, question, rows).take(rows, list(view.features.values()))


def statuses(snapshot: Snapshot, question: Question, views: Sequence[View]) -> pa.Table:
    """Per view a column of statuses, one per entity row: see point_in_time.STATUSES."""
    columns = {}
    for view in views:
        # Keys and times of all rows: those that are too old or too new say that the key is known.
        rows = snapshot.scan(view.table, replace(view, features={}).columns, drives=_drives(view, question))
        columns[view.name] = known_rows(view, question, rows).statuses
    return pa.table(columns)


def known_rows(view: View, question: Question, rows: pa.Table) -> Known:
    """Which of a view's rows each entity row sees."""
    return join(
        keys_of(view, question),
        question.t_ns,
        [rows[column] for column in view.keys.values()],
        as_ns(rows[view.time_column], view.table),
        as_ns(rows[view.available_column], view.table) if view.available_column else None,
        view.ttl_ns,
    )


def view_rows(snapshot: Snapshot, view: View, question: Question) -> pa.Table:
    """The rows of a view that the question can need."""
    if not question.t_ns.size:
        return contract_of(view.table).arrow_schema.empty_table().select(view.columns)
    where, drives = predicate_of(view, question)
    return snapshot.scan(view.table, view.columns, drives=drives, predicate=where)


def predicate_of(view: View, question: Question) -> tuple[str, list[str] | None]:
    """Which rows of a view the question can need, in SQL; and of which drives, None for all. The question has rows."""
    parts = [f"{view.time_column} <= {int(question.t_ns.max())}"]
    if view.ttl_ns:
        parts.append(f"{view.time_column} >= {int(question.t_ns.min()) - view.ttl_ns}")
    return " AND ".join(parts), _drives(view, question)


def keys_of(view: View, question: Question) -> list[pa.ChunkedArray]:
    """The entity rows' join keys, in the order and types of the view's. Raises FleetError for one that is not there."""
    schema = contract_of(view.table).arrow_schema
    return [_key(question.rows, name, schema.field(column).type, view) for name, column in view.keys.items()]


def _drives(view: View, question: Question) -> list[str] | None:
    """The drives that the entity rows name; None for all."""
    name = next((name for name, column in view.keys.items() if column == "drive_id"), None)
    if name is None or name not in question.rows.column_names or not contract_of(view.table).per_drive:
        return None
    asked = pc.unique(question.rows[name]).drop_null().to_pylist()
    # A key that is no drive matches nothing, and must not break the predicate.
    drives = [drive for drive in asked if _is_drive(drive)]
    return drives if 0 < len(drives) <= _NAMED_DRIVES else None


def _is_drive(text: object) -> bool:
    try:
        DriveKey.parse(str(text))
    except FleetError:
        return False
    return True


def _key(rows: pa.Table, name: str, kind: pa.DataType, view: View) -> pa.ChunkedArray:
    if name not in rows.column_names:
        raise FleetError(
            f"The entity rows have no column {name}, which {view.name} is joined by",
            where=", ".join(rows.column_names),
            remedy="Add it.",
        )
    try:
        return rows[name].cast(kind)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise FleetError(
            f"Column {name} of the entity rows does not fit {view.table}",
            where=str(error),
            remedy=f"Give values of type {kind}.",
        ) from error


def latest(
    rows: pa.Table, keys: Sequence[str], time_column: str, available_column: str | None, until_ns: int
) -> pa.Table:
    """The latest row of each key that was known at until_ns, in order of the keys' first rows."""
    first = _distinct(rows.select(keys))
    known = join(
        [first[key] for key in keys],
        np.full(first.num_rows, until_ns, dtype=np.int64),
        [rows[key] for key in keys],
        as_ns(rows[time_column], "a row"),
        as_ns(rows[available_column], "a row") if available_column else None,
    )
    return rows.take(known.row.drop_null())


def every_key(
    snapshot: Snapshot, views: Sequence[View], time_column: str, start_ns: int | None, end_ns: int
) -> Question:
    """One entity row for every key that any of the views has a row of in the range, at its end. Raises FleetError where the
    views are joined by different keys: which go together, no table says."""
    names = list(views[0].keys)
    for view in views:
        if set(view.keys) != set(names):
            raise FleetError(
                f"{views[0].name} is joined by {', '.join(names)}, {view.name} by {', '.join(view.keys)}",
                remedy="Give the entity rows.",
            )
    parts = []
    for view in views:
        predicate = f"{view.time_column} <= {end_ns}"
        if start_ns is not None:
            predicate += f" AND {view.time_column} >= {start_ns}"
        rows = snapshot.scan(view.table, [view.keys[name] for name in names], predicate=predicate)
        parts.append(rows.rename_columns(names))
    keys = _distinct(pa.concat_tables(parts))
    at = pa.array(np.full(keys.num_rows, end_ns // 1000), pa.timestamp("us", "UTC"))
    return Question(keys.append_column(time_column, at), time_column)


def _distinct(keys: pa.Table) -> pa.Table:
    """Rows without repeats and without nulls, in order of their first."""
    whole = keys.drop_null()
    return whole.group_by(whole.column_names, use_threads=False).aggregate([]).select(keys.column_names)

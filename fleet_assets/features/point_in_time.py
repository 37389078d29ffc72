"""Point-in-time joins of Arrow tables.

In: questions (keys and a time each) and a view's rows. Out: for each question the row that was known then, in the order of the
questions, with a status. Join keys may be any columns; a null key matches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.errors import FleetError
from fleet_assets.kernels.point_in_time import latest_known

STATUSES = ("found", "no such key", "not yet known", "expired")


@dataclass(frozen=True)
class Known:
    """row: int64 [questions], index into the view's rows, null where none was known. status: index into STATUSES."""

    row: pa.Array
    status: np.ndarray

    def take(self, rows: pa.Table, columns: Sequence[str]) -> list[pa.ChunkedArray]:
        """The columns of the rows, one value per question; null where none was known."""
        return [rows[column].take(self.row) for column in columns]

    @property
    def statuses(self) -> pa.Array:
        return pa.DictionaryArray.from_arrays(pa.array(self.status, pa.int8()), pa.array(STATUSES)).cast(pa.string())


def join(
    keys: Sequence[pa.ChunkedArray | pa.Array],
    ask_ns: np.ndarray,
    row_keys: Sequence[pa.ChunkedArray | pa.Array],
    t_ns: np.ndarray,
    available_ns: np.ndarray | None,
    ttl_ns: int = 0,
) -> Known:
    """keys and row_keys: the same join keys on both sides, of the same types. ask_ns, t_ns, available_ns: int64.

    available_ns None: a row is known from its event time on. ttl_ns: 0 for no limit.
    """
    ask_key, row_key, count = encode(keys, row_keys, questions=ask_ns.size, rows=t_ns.size)
    available = t_ns if available_ns is None else available_ns
    row, status = latest_known(ask_key, ask_ns, row_key, t_ns, available, count, ttl_ns)
    return Known(pa.array(row, mask=row < 0), status)


def encode(
    keys: Sequence[pa.ChunkedArray | pa.Array],
    row_keys: Sequence[pa.ChunkedArray | pa.Array],
    *,
    questions: int,
    rows: int,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Join keys as int64 codes below the third value; -1 for a null, and for a row whose key nobody asks for."""
    ask, row, count = np.zeros(questions, dtype=np.int64), np.zeros(rows, dtype=np.int64), 1
    for ours, theirs in zip(keys, row_keys, strict=True):
        values = pc.drop_null(pc.unique(ours))
        ask_part, row_part = _index(ours, values), _index(theirs, values)
        ask = np.where((ask < 0) | (ask_part < 0), -1, ask * len(values) + ask_part)
        row = np.where((row < 0) | (row_part < 0), -1, row * len(values) + row_part)
        count *= len(values)
        if count > max(questions, 1):  # pairs that nobody asks for would make the codes as many as the product
            used = np.unique(ask[ask >= 0])
            ask, row, count = _dense(ask, used), _dense(row, used), len(used)
    return ask, row, count


def _index(column: pa.ChunkedArray | pa.Array, values: pa.Array) -> np.ndarray:
    found = pc.fill_null(pc.index_in(column, value_set=values, skip_nulls=True), -1)
    return np.asarray(found.to_numpy(), dtype=np.int64)


def _dense(codes: np.ndarray, used: np.ndarray) -> np.ndarray:
    if not used.size:
        return np.full(codes.size, -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(used, codes), used.size - 1)
    return np.where(used[at] == codes, at, -1)


def as_ns(column: pa.ChunkedArray | pa.Array, what: str) -> np.ndarray:
    """A column of times as int64 nanoseconds since 1970, UTC. Raises FleetError for a null and for what is no time."""
    if column.null_count:
        first = pc.index(pc.is_null(column), True).as_py()
        raise FleetError(f"{what} has no time", where=f"row {first}", remedy="Give every row its event time.")
    if pa.types.is_integer(column.type):
        return np.asarray(column.cast(pa.int64()).to_numpy(), dtype=np.int64)
    if not pa.types.is_timestamp(column.type):
        raise FleetError(
            f"{what} is of type {column.type}, which is no time",
            remedy="Give timestamps, or whole nanoseconds since 1970 in UTC.",
        )
    try:
        # Naive times are UTC, as everywhere in Feast.
        ns = column.cast(pa.timestamp("ns", column.type.tz)).cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise FleetError(f"{what} holds a time out of range", where=str(error), remedy="Years 1678 to 2262.") from error
    return np.asarray(ns.to_numpy(), dtype=np.int64)

"""How others match records to frames; every function gives a call that is timed, with its tables made beforehand.

In: frames and streams. Out: per stream, rows of the nearest records, -1 where there is none; or columns, NaN where there is none.
Peers interpolate the members of a quaternion, which is nearly right over five milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa

TOLERANCE_NS = 50_000_000
GAP_NS = 200_000_000
LINEAR, HELD = ("imu", "gnss"), ("bus",)  # streams; the others are matched to the nearest record


@dataclass(frozen=True)
class Stream:
    """t_ns [records], sorted; columns: what a match takes along."""

    t_ns: np.ndarray
    columns: Mapping[str, np.ndarray] = field(default_factory=dict)


Streams = Mapping[str, Stream]
Matches = Callable[[], dict[str, np.ndarray]]
Answer = dict[str, dict[str, np.ndarray]]
Job = Callable[[], Answer]


def _method(name: str) -> str:
    return "linear" if name in LINEAR else "hold" if name in HELD else "nearest"


# ---- nearest ---------------------------------------------------------------------------------------------------------


def nearest_by_pandas(frames: np.ndarray, streams: Streams) -> Matches:
    left = pd.DataFrame({"t": frames})
    right = {n: pd.DataFrame({"t": s.t_ns, "row": np.arange(s.t_ns.size)}) for n, s in streams.items()}

    def call() -> dict[str, np.ndarray]:
        found = {}
        for name, table in right.items():
            joined = pd.merge_asof(left, table, on="t", direction="nearest", tolerance=TOLERANCE_NS)  # type: ignore[arg-type]
            found[name] = joined["row"].fillna(-1).to_numpy(dtype=np.int64)
        return found

    return call


def nearest_by_polars(frames: np.ndarray, streams: Streams) -> Matches:
    left = pl.LazyFrame({"t": frames}).set_sorted("t")
    right = {n: pl.LazyFrame({"t": s.t_ns, "row": np.arange(s.t_ns.size)}).set_sorted("t") for n, s in streams.items()}

    def call() -> dict[str, np.ndarray]:
        asked = [left.join_asof(table, on="t", strategy="nearest", tolerance=TOLERANCE_NS) for table in right.values()]
        found = [answer["row"].fill_null(-1).to_numpy() for answer in pl.collect_all(asked)]
        return dict(zip(right, found, strict=True))

    return call


_NEARER = """
    CASE WHEN b.t IS NOT NULL AND f.t - b.t <= {tol} AND (a.t IS NULL OR f.t - b.t <= a.t - f.t) THEN b.{column}
         WHEN a.t IS NOT NULL AND a.t - f.t <= {tol} THEN a.{column} END AS {column}
"""
_BOTH = "FROM frames f ASOF LEFT JOIN {name} b ON f.t >= b.t ASOF LEFT JOIN {name} a ON f.t <= a.t ORDER BY f.t"


def duckdb_tables(frames: np.ndarray, streams: Streams) -> Any:
    """A connection that holds frames and streams as tables."""
    import duckdb

    connection = duckdb.connect()
    tables = {n: {"t": s.t_ns, "row": np.arange(s.t_ns.size), **s.columns} for n, s in streams.items()}
    for name, columns in {"frames": {"t": frames}, **tables}.items():
        connection.register("given", pa.table(columns))
        connection.execute(f"CREATE TABLE {name} AS SELECT * FROM given")
    return connection


def nearest_by_duckdb(connection: Any, streams: Streams) -> Matches:
    """DuckDB joins to the record before or after; the nearer of two joins is the nearest."""
    chosen = _NEARER.format(tol=TOLERANCE_NS, column="row")
    asked = {name: f"SELECT {chosen} {_BOTH.format(name=name)}" for name in streams}
    return lambda: {
        name: np.ma.filled(connection.execute(text).fetchnumpy()["row"], -1) for name, text in asked.items()
    }


# ---- full job --------------------------------------------------------------------------------------------------------


def _between(frames: np.ndarray, joined: Mapping[str, np.ndarray], columns: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Linear, from the columns of the record before and, named after_*, of the one after; NaN over a gap."""
    t_before, t_after = joined["t_record"], joined["after_t_record"]
    width = t_after - t_before
    share = np.where(width > 0, (frames - t_before) / np.where(width > 0, width, 1), 0.0)
    share[~(width <= GAP_NS)] = np.nan
    return {name: joined[name] * (1 - share) + joined[f"after_{name}"] * share for name in columns}


def by_pandas(frames: np.ndarray, streams: Streams) -> Job:
    left = pd.DataFrame({"t": frames})
    right = {name: pd.DataFrame({"t_record": s.t_ns, **s.columns}) for name, s in streams.items()}

    def join(table: pd.DataFrame, direction: Any, tolerance_ns: int) -> dict[str, np.ndarray]:
        on: dict[str, Any] = {"left_on": "t", "right_on": "t_record", "tolerance": tolerance_ns}
        joined = pd.merge_asof(left, table, direction=direction, **on)
        return {name: joined[name].to_numpy(dtype=np.float64) for name in table.columns}

    def call() -> Answer:
        found = {}
        for name, table in right.items():
            columns = streams[name].columns
            if _method(name) == "linear":
                after = {f"after_{k}": v for k, v in join(table, "forward", GAP_NS).items()}
                found[name] = _between(frames, join(table, "backward", GAP_NS) | after, columns)
            else:
                asked = ("backward", GAP_NS) if _method(name) == "hold" else ("nearest", TOLERANCE_NS)
                joined = join(table, *asked)
                found[name] = {column: joined[column] for column in columns}
        return found

    return call


def by_polars(frames: np.ndarray, streams: Streams) -> Job:
    left = pl.LazyFrame({"t": frames}).set_sorted("t")
    right = {n: pl.LazyFrame({"t_record": s.t_ns, **s.columns}).set_sorted("t_record") for n, s in streams.items()}

    def asked(name: str) -> pl.LazyFrame:
        columns = list(streams[name].columns)
        on: dict[str, Any] = {"left_on": "t", "right_on": "t_record", "coalesce": False}
        if _method(name) == "hold":
            return left.join_asof(right[name], strategy="backward", tolerance=GAP_NS, **on).select(columns)
        if _method(name) == "nearest":
            return left.join_asof(right[name], strategy="nearest", tolerance=TOLERANCE_NS, **on).select(columns)
        both = left.join_asof(right[name], strategy="backward", **on).set_sorted("t")
        both = both.join_asof(right[name], strategy="forward", suffix="_after", **on)
        width = pl.col("t_record_after") - pl.col("t_record")
        share = pl.when(width > 0).then((pl.col("t") - pl.col("t_record")) / width).otherwise(0.0)
        return both.select(
            pl.when(width <= GAP_NS).then(pl.col(c) * (1 - share) + pl.col(f"{c}_after") * share).alias(c)
            for c in columns
        )

    def call() -> Answer:
        answers = pl.collect_all([asked(name) for name in streams])
        return {name: _columns(answer) for name, answer in zip(streams, answers, strict=True)}

    return call


def _columns(answer: pl.DataFrame) -> dict[str, np.ndarray]:
    return {name: answer[name].cast(pl.Float64).fill_null(float("nan")).to_numpy() for name in answer.columns}


def by_duckdb(connection: Any, streams: Streams) -> Job:
    def asked(name: str) -> str:
        columns = list(streams[name].columns)
        if _method(name) == "hold":
            held = ", ".join(f"CASE WHEN f.t - b.t <= {GAP_NS} THEN b.{c} END AS {c}" for c in columns)
            return f"SELECT {held} FROM frames f ASOF LEFT JOIN {name} b ON f.t >= b.t ORDER BY f.t"
        if _method(name) == "nearest":
            chosen = ", ".join(_NEARER.format(tol=TOLERANCE_NS, column=c) for c in columns)
            return f"SELECT {chosen} {_BOTH.format(name=name)}"
        share = "CASE WHEN a.t > b.t THEN (f.t - b.t) / (a.t - b.t) ELSE 0.0 END"
        linear = ", ".join(
            f"CASE WHEN a.t - b.t <= {GAP_NS} THEN b.{c} * (1 - {share}) + a.{c} * {share} END AS {c}" for c in columns
        )
        return f"SELECT {linear} {_BOTH.format(name=name)}"

    def call() -> Answer:
        found = {}
        for name in streams:
            answer = connection.execute(asked(name)).fetchnumpy()
            found[name] = {c: np.ma.filled(v.astype(np.float64), np.nan) for c, v in answer.items()}
        return found

    return call


def by_rbyte(frames: np.ndarray, streams: Streams) -> Job:
    """As rbyte's DataFrameAligner does it, column by column: join_asof; or a full join, interpolate_by, and a semi join back.
    It drops frames without a match, here they stay, so that answers can be compared."""
    left = pl.DataFrame({"t": frames}).set_sorted("t")
    right = {n: pl.DataFrame({"t_record": s.t_ns, **s.columns}).set_sorted("t_record") for n, s in streams.items()}

    def column_of(name: str, column: str) -> np.ndarray:
        other = right[name].select("t_record", column)
        if _method(name) == "linear":
            union = left.join(other, how="full", left_on="t", right_on="t_record", coalesce=True)
            joined = union.with_columns(pl.col(column).interpolate_by("t")).join(left, on="t", how="semi").sort("t")
        else:
            asked: Any = ("backward", GAP_NS) if _method(name) == "hold" else ("nearest", TOLERANCE_NS)
            joined = left.join_asof(other, left_on="t", right_on="t_record", strategy=asked[0], tolerance=asked[1])
        return _columns(joined.select(column))[column]

    return lambda: {name: {c: column_of(name, c) for c in stream.columns} for name, stream in streams.items()}


class _View:
    """What rosbag-resurrector's eager engine asks of a topic."""

    def __init__(self, table: pl.DataFrame) -> None:
        self.table = table
        self.message_count = table.height

    def to_polars(self, force: bool = False) -> pl.DataFrame:
        return self.table


def by_resurrector(frames: np.ndarray, streams: Streams) -> Job:
    """Three calls, because one has one method for all topics."""
    from resurrector.core.sync import synchronize

    views = {name: _View(pl.DataFrame({"timestamp_ns": s.t_ns, **s.columns})) for name, s in streams.items()}
    anchor = {"frames": _View(pl.DataFrame({"timestamp_ns": frames}))}
    methods = {"linear": "interpolate", "hold": "sample_and_hold", "nearest": "nearest"}

    def answers() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for mine, theirs in methods.items():
            chosen: Any = {name: view for name, view in views.items() if _method(name) == mine}
            answer = synchronize({**anchor, **chosen}, theirs, TOLERANCE_NS / 1e6, "frames", engine="eager")
            for name in chosen:
                yield name, {c: answer[f"{name}__{c}"].to_numpy() for c in streams[name].columns}

    return lambda: dict(answers())

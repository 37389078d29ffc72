"""Point-in-time join: 100,000 questions, 1,000,000 rows of 10 features; ours beside polars, DuckDB and Feast's own stores."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.harness import Options, Row, fastest, row
from fleet_assets.features.point_in_time import join

QUESTIONS, ROWS, KEYS, FEATURES = 100_000, 1_000_000, 10_000, 10
_NAMES = [f"f{n}" for n in range(FEATURES)]
_DAY_NS = 86_400 * 10**9
_T0_NS = 1_767_225_600 * 10**9


def rows(options: Options) -> list[Row]:
    asked, table = _data()
    expected = _ours(asked, table)()
    calls: dict[str, Callable[[], Any]] = {"ours": _ours(asked, table)}
    wrong = []
    for name, make in (("polars.join_asof", _polars), ("DuckDB ASOF", _duckdb)):
        calls[name] = make(asked, table)
        if _f0(calls[name]()) != _f0(expected):
            wrong.append(name)
    times = fastest(calls)
    notes = [f"numba loaded; rows that differ from ours: {', '.join(wrong) or 'none'}"]
    for kind in ("duckdb", "dask"):
        with tempfile.TemporaryDirectory() as folder:
            by_feast = _feast(asked, table, Path(folder), kind)
            found = by_feast()
            times |= fastest({f"Feast {kind}": by_feast}, repeats=1)
        if found.num_rows != QUESTIONS:
            notes.append(f"Feast {kind} gives {found.num_rows} rows for {QUESTIONS}")
    work = f"point-in-time join, {QUESTIONS} x {ROWS} x {FEATURES} features"
    return [row(work, times, note="; ".join(notes))]


def _data() -> tuple[pa.Table, pa.Table]:
    """Rows in order of time, as a lake has them; questions in any order; times in whole microseconds, some of them ties."""
    random = np.random.default_rng(0)
    t_ns = _T0_NS + np.sort(random.integers(0, 30 * _DAY_NS // 10**6, ROWS)) * 10**6
    table = {"key": random.integers(0, KEYS, ROWS), "t_ns": t_ns}
    table |= {name: random.normal(0, 1, ROWS) for name in _NAMES}
    asked = {
        "key": random.integers(0, KEYS + 100, QUESTIONS),
        "t_ns": _T0_NS + random.integers(0, 31 * _DAY_NS // 10**6, QUESTIONS) * 10**6,
    }
    return pa.table(asked), pa.table(table)


def _f0(found: pa.Table) -> list[float | None]:
    values: list[float | None] = found["f0"].to_pylist()
    return values


def _ours(asked: pa.Table, table: pa.Table) -> Callable[[], pa.Table]:
    ask_ns, t_ns = asked["t_ns"].to_numpy(), table["t_ns"].to_numpy()

    def call() -> pa.Table:
        known = join([asked["key"]], ask_ns, [table["key"]], t_ns, None)
        return pa.table([*asked.columns, *known.take(table, _NAMES)], names=["key", "t_ns", *_NAMES])

    return call


def _polars(asked: pa.Table, table: pa.Table) -> Callable[[], pa.Table]:
    import polars as pl

    left, right = pl.from_arrow(asked), pl.from_arrow(table)
    assert isinstance(left, pl.DataFrame)
    assert isinstance(right, pl.DataFrame)

    def call() -> pa.Table:
        sorted_left = left.with_row_index("row").sort("t_ns")
        joined = sorted_left.join_asof(right.set_sorted("t_ns"), on="t_ns", by="key", check_sortedness=False)
        return joined.sort("row").drop("row").to_arrow()

    return call


def _duckdb(asked: pa.Table, table: pa.Table) -> Callable[[], pa.Table]:
    import duckdb

    connection = duckdb.connect()
    connection.register("asked", asked.append_column("row", pa.array(range(asked.num_rows))))
    connection.register("known", table)
    columns = ", ".join(f"known.{name}" for name in _NAMES)
    sql = (
        f"SELECT asked.key, asked.t_ns, {columns} FROM asked ASOF LEFT JOIN known "
        "ON asked.key = known.key AND asked.t_ns >= known.t_ns ORDER BY asked.row"
    )
    return lambda: connection.sql(sql).to_arrow_table()


def _feast(asked: pa.Table, table: pa.Table, folder: Path, kind: str) -> Callable[[], pa.Table]:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    path = folder / "rows.parquet"
    stamps = table["t_ns"].cast(pa.timestamp("ns", "UTC"))
    pq.write_table(table.drop_columns(["t_ns"]).append_column("t", stamps), path)
    key = Entity(name="key", join_keys=["key"], value_type=ValueType.INT64)
    fields = [Field(name="key", dtype=Int64), *(Field(name=name, dtype=Float64) for name in _NAMES)]
    source = FileSource(name="rows", path=str(path), timestamp_field="t")
    view = FeatureView(name="view", entities=[key], ttl=timedelta(days=365), schema=fields, source=source)
    store = FeatureStore(
        config=RepoConfig(
            project="bench", provider="local", registry=str(folder / "registry.db"), entity_key_serialization_version=3,
            online_store={"type": "sqlite", "path": str(folder / "online.db")}, offline_store={"type": kind},
        )
    )  # fmt: skip
    store.apply([key, source, view])
    frame = pd.DataFrame(
        {"key": asked["key"].to_numpy(), "event_timestamp": pd.to_datetime(asked["t_ns"].to_numpy(), utc=True)}
    )

    def call() -> pa.Table:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return store.get_historical_features(frame, [f"view:{name}" for name in _NAMES]).to_arrow()

    return call

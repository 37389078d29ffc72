"""Tables to build snapshots from: every type, nulls, keys of both kinds, and the truth about them as a dictionary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.features.snapshot_build import EVENT_TIME, SnapshotView, build_snapshot

FEATURES = ("speed_mps", "share", "count", "lane", "wet", "seen", "road")
T_NS = 1_767_225_600_000_000_000
VERSION_ROWS, VERSION_FEATURES = 400, 8


def mixed_view(rows: int, seed: int = 0, *, name: str = "place", version: int = 1, ttl_ns: int = 0) -> SnapshotView:
    """Keys (cell, map): integer and text; one feature of every type, a tenth of the values null."""
    random = np.random.default_rng(seed)

    def nullable(values: Any, kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind, mask=random.random(rows) < 0.1)

    table = pa.table(
        {
            "cell": pa.array(random.permutation(rows).astype(np.int64) * 977 - rows),
            "map": pa.array([f"map {'ä' * (index % 4)}" for index in range(rows)], pa.string()),
            EVENT_TIME: pa.array(T_NS + np.arange(rows)),
            "speed_mps": nullable(random.normal(size=rows), pa.float64()),
            "share": nullable(random.random(rows).astype(np.float32), pa.float32()),
            "count": nullable(random.integers(-(2**62), 2**62, rows), pa.int64()),
            "lane": nullable(random.integers(-9, 9, rows).astype(np.int32), pa.int32()),
            "wet": nullable(random.random(rows) < 0.5, pa.bool_()),
            "seen": nullable(T_NS + np.arange(rows), pa.timestamp("ns")),
            "road": nullable(random.choice(["motorway", "urban", "日本"], rows), pa.string()),
        }
    )
    return SnapshotView(name, version, ("cell", "map"), FEATURES, table, ttl_ns, "identity")


def numeric_view(rows: int, features: int, *, value: float | None = None, name: str = "place") -> SnapshotView:
    """Integer keys 0, 3, 6, ...; float64 features, all of one value if given."""
    random = np.random.default_rng(rows)
    names = [f"f{index}" for index in range(features)]
    table = pa.table(
        {
            "cell": pa.array(np.arange(rows, dtype=np.int64) * 3),
            EVENT_TIME: pa.array(np.full(rows, T_NS, dtype=np.int64)),
            **{n: pa.array(random.normal(size=rows) if value is None else np.full(rows, value)) for n in names},
        }
    )
    return SnapshotView(name, 1, ("cell",), names, table, 0, "identity")


def built(path: Path, *views: SnapshotView) -> Snapshot:
    """A file with these views, opened."""
    build_snapshot(path, views, service="test", lakefs_commit="c0ffee", delta_versions={"features.place": 3})
    return Snapshot.open(path)


def truth(view: SnapshotView) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Row by key, as Python values."""
    return {tuple(row[name] for name in view.entity_columns): row for row in view.rows.to_pylist()}


def write_version(path: Path, version: int) -> None:
    """A file whose every value is its version."""
    view = numeric_view(VERSION_ROWS, VERSION_FEATURES, value=float(version))
    build_snapshot(path, [view], service="s", lakefs_commit=str(version), delta_versions={})

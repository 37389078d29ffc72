"""Small files made into large ones, by day.

In: tables of main. Out: the same rows in files of 32 to 128 MB, in one merge per table, so that a conflict with a
publication costs one table's work and not all.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fleet_assets.lake.lake import Lake
from fleet_assets.lake.maintenance import rewrite
from fleet_assets.lake.session import spark_session

TARGET_BYTES = 128 * 1024 * 1024


def optimise(lake: Lake, tables: Sequence[str] | None = None) -> Iterator[str]:
    """Yields a line per table. Tables default to all."""
    spark = spark_session(lake.home)
    spark.conf.set("spark.databricks.delta.optimize.maxFileSize", str(TARGET_BYTES))
    snapshot = lake.at()
    for name, contract in snapshot.applied.items():
        if tables is not None and name not in tables:
            continue
        if len(snapshot.table(name).file_uris()) < 2:
            continue

        def work(branch: str, location: str = contract.location) -> None:
            spark.sql(f"OPTIMIZE delta.`{lake.repository.uri(branch, location, 's3a')}`").collect()

        commit_id = rewrite(lake.repository, lake.home, f"optimise {name}", work)
        yield f"{name}: {'nothing to do' if commit_id is None else f'rewritten in {commit_id[:12]}'}"

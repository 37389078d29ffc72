"""Rows of the ingest tables as a test wants them, and a drive synchronised from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
from ingest.decoding import tables

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import StreamContract, load_streams, load_tables
from fleet_assets.ingest.decode import DecodedDrive
from fleet_assets.synchronise.drive import INPUTS, synchronise_drive
from fleet_assets.synchronise.policy import Alignment, Limits, load_alignment

DRIVE, DAY = "car7--20260102T030405Z", date(2026, 1, 2)
T0_NS = 1_767_323_045_000_000_000
MS, SECOND = 1_000_000, 1_000_000_000
UNBOUNDED = replace(load_alignment(), limits=Limits(10**15, 1e9, 0.0))


def rows(stream: str, t_device_ns: Sequence[int] | np.ndarray | None, **columns: Any) -> pa.Table:
    """Rows of one stream. t_device_ns None: pass t_host_ns. What is not given is null, 0 or empty."""
    if t_device_ns is not None:
        columns["t_device_ns"] = t_device_ns
    count = len(next(iter(columns.values())))
    columns = {
        "sequence": np.arange(count), "drive_id": [DRIVE] * count, "day": [DAY] * count, "stream": [stream] * count, **columns
    }  # fmt: skip
    arrays = []
    for field in load_tables()[load_streams()[stream].table].arrow_schema:
        missing = [None if field.nullable else "" if pa.types.is_string(field.type) else 0] * count
        arrays.append(pa.array(columns.pop(field.name, missing), field.type, from_pandas=True))
    assert not columns, f"no column of {stream}: {', '.join(columns)}"
    return pa.table(arrays, schema=load_tables()[load_streams()[stream].table].arrow_schema)


def synchronise(
    *tables: pa.Table, alignment: Alignment | None = None, streams: Mapping[str, StreamContract] | None = None
) -> dict[str, pa.Table]:
    """The tables of one drive, whatever its quality. Each is checked against its contract's schema."""
    inputs = {}
    for name in INPUTS:
        schema = load_tables()[name].arrow_schema
        inputs[name] = pa.concat_tables(
            [schema.empty_table(), *(table for table in tables if table.schema.equals(schema))]
        )
    assert sum(table.num_rows for table in inputs.values()) == sum(table.num_rows for table in tables)
    found = whole(inputs, DRIVE, streams=streams, alignment=alignment or UNBOUNDED)
    for name, table in found.items():
        assert table.schema.equals(load_tables()[name].arrow_schema), name
        table.validate(full=True)
    return found


def whole(
    inputs: Mapping[str, pa.Table],
    drive_id: str,
    *,
    streams: Mapping[str, StreamContract] | None = None,
    alignment: Alignment | None = None,
) -> dict[str, pa.Table]:
    """Rows of synchronise's tables as a whole, which it makes in pieces."""
    day = DriveKey.parse(drive_id).day
    made, _ = synchronise_drive(inputs, drive_id, day, streams or load_streams(), alignment or load_alignment())
    return {name: pa.concat_tables([load_tables()[name].arrow_schema.empty_table(), *made[name]]) for name in made}


def synchronised(decoded: DecodedDrive) -> dict[str, pa.Table]:
    """A decoded drive's tables of synchronise, by the contracts and the policy that come with the product."""
    return whole(tables(decoded), decoded.item.drive_id)


def clocks(found: dict[str, pa.Table]) -> dict[str, list[dict[str, Any]]]:
    """Clock models by stream, in order of segment."""
    by_stream: dict[str, list[dict[str, Any]]] = {}
    for row in found["synchronise.clock_models"].to_pylist():
        by_stream.setdefault(row["stream"], []).append(row)
    return by_stream


def matches(found: dict[str, pa.Table], channel: str, policy: str = "offline") -> list[dict[str, Any]]:
    rows = found["synchronise.matches"].to_pylist()
    return [row for row in rows if (row["channel"], row["policy"]) == (channel, policy)]


def frames(found: dict[str, pa.Table], policy: str = "offline") -> list[dict[str, Any]]:
    return [row for row in found["synchronise.frames"].to_pylist() if row["policy"] == policy]

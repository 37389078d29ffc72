"""One drive, from its ingested rows to clock models, frames and matches.

In: the drive's rows of the ingest tables. Out: rows of the synchronise tables. The same rows give the same bytes, in process
and in a Spark task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.contracts.loader import StreamContract, load_tables
from fleet_assets.synchronise.clock import NO_TIME, ClockModel, Evidence, Motion, Stamps, estimate, on_reference
from fleet_assets.synchronise.frames import Channel, ego_motion, key_times, match, required
from fleet_assets.synchronise.policy import Policy

INPUTS = ("ingest.messages", "ingest.imu", "ingest.gnss", "ingest.bus_signals")
OUTPUTS = ("synchronise.clock_models", "synchronise.frames", "synchronise.matches")


def synchronise_drive(
    tables: Mapping[str, pa.Table], drive_id: str, day: date, streams: Mapping[str, StreamContract], policy: Policy
) -> dict[str, pa.Table]:
    """tables: the drive's rows of INPUTS. streams: contracts by name. Gives rows of OUTPUTS, with the contract's schemas."""
    rows = _by_stream(tables)
    evidence = _evidence(rows, streams)
    key_stream = next((name for name in policy.key_streams if name in evidence.streams), None)
    models = estimate(evidence, key_stream)
    channels = {
        name: _channel(
            table, streams[name], evidence.streams[name], [model for model in models if model.stream == name]
        )
        for name, table in rows.items()
    }
    key, t_frame_ns = key_times(channels, policy)
    motion = ego_motion(t_frame_ns, channels, policy)
    matches = {name: match(t_frame_ns, channel, policy, motion) for name, channel in channels.items()}
    constants = {"drive_id": drive_id, "day": day}
    frames = _frames(t_frame_ns, key, motion, {name: matches[name] for name in required(channels, policy)})
    return {
        "synchronise.clock_models": _clock_rows(models, constants),
        "synchronise.frames": _table("synchronise.frames", frames, constants, t_frame_ns.size),
        "synchronise.matches": _match_rows(matches, constants, t_frame_ns.size),
    }


def _by_stream(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Each stream's rows, in order of sequence."""
    found = {}
    for name in INPUTS:
        table = tables[name]
        for stream in sorted(pc.unique(table["stream"]).to_pylist()):
            found[stream] = table.filter(pc.equal(table["stream"], stream)).sort_by("sequence")
    return dict(sorted(found.items()))


def _stamps(table: pa.Table, name: str) -> np.ndarray | None:
    """A clock that not every record has is not one to align by."""
    column = table[name]
    return None if column.null_count else column.to_numpy()


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _evidence(rows: Mapping[str, pa.Table], streams: Mapping[str, StreamContract]) -> Evidence:
    stamps, gnss_time, motion = {}, {}, {}
    for name, table in rows.items():
        stamps[name] = Stamps(streams[name], _stamps(table, "t_device_ns"), _stamps(table, "t_host_ns"))
        if streams[name].kind == "gnss" and table["t_gnss_ns"].null_count < table.num_rows:
            gnss_time[name] = pc.fill_null(table["t_gnss_ns"], int(NO_TIME)).to_numpy()
        if streams[name].kind == "imu" and stamps[name].t_ns.size:
            yaw_rate = _floats(table, "gyro_z_radps")
            known = np.isfinite(yaw_rate)
            if known.sum() > 1:
                motion[name] = Motion(name, stamps[name].t_ns[known], yaw_rate[known])
    return Evidence(stamps, gnss_time, motion)


def _channel(table: pa.Table, contract: StreamContract, stamps: Stamps, models: Sequence[ClockModel]) -> Channel:
    sequence = table["sequence"].to_numpy()
    values = _values(table, contract)
    t_ns, known = on_reference(models, stamps.t_ns)
    if not known.any():
        return Channel(contract, sequence, None, values)
    order = np.argsort(t_ns, kind="stable")
    order = order[known[order]]
    return Channel(
        contract,
        sequence[order],
        t_ns[order],
        {column: column_values[order] for column, column_values in values.items()},
    )


def _values(table: pa.Table, contract: StreamContract) -> dict[str, np.ndarray]:
    """What ego motion may be taken from: float64 columns; of a bus, its signals, NaN in rows of other signals."""
    if contract.kind == "bus":
        value = _floats(table, "value")
        return {
            signal: np.where(pc.equal(table["signal"], signal).to_numpy(), value, np.nan)
            for signal in pc.unique(table["signal"]).to_pylist()
        }
    columns = [field.name for field in table.schema if pa.types.is_floating(field.type)]
    return {column: _floats(table, column) for column in columns}


def _frames(
    t_frame_ns: np.ndarray,
    key: str | None,
    motion: Mapping[str, np.ndarray],
    needed: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    complete = np.full(t_frame_ns.size, bool(needed))
    worst_m = np.full(t_frame_ns.size, np.nan)
    for columns in needed.values():
        complete &= np.asarray(columns["sequence"].is_valid())
        off_m = np.asarray(columns["misalignment_m"].to_numpy(zero_copy_only=False), dtype=np.float64)
        worst_m = np.fmax(worst_m, off_m)
    return {
        "frame": np.arange(t_frame_ns.size),
        "t_ns": t_frame_ns,
        "key_stream": pa.repeat(pa.scalar(key, type=pa.string()), t_frame_ns.size),
        **motion,
        "misalignment_m": worst_m,
        "complete": complete,
    }


def _table(name: str, columns: Mapping[str, Any], constants: Mapping[str, Any], count: int) -> pa.Table:
    """Columns in the contract's order; NaN becomes null."""
    schema = load_tables()[name].arrow_schema
    arrays = []
    for field in schema:
        if field.name in constants:
            arrays.append(pa.repeat(pa.scalar(constants[field.name], type=field.type), count))
        elif isinstance(columns[field.name], np.ndarray):
            arrays.append(pa.array(columns[field.name], type=field.type, from_pandas=True))
        else:
            arrays.append(columns[field.name].cast(field.type))
    return pa.table(arrays, schema=schema)


def _clock_rows(models: Sequence[ClockModel], constants: Mapping[str, Any]) -> pa.Table:
    schema = load_tables()["synchronise.clock_models"].arrow_schema
    return pa.Table.from_pylist([{**constants, **asdict(model)} for model in models], schema=schema)


def _match_rows(matches: Mapping[str, Mapping[str, Any]], constants: Mapping[str, Any], count: int) -> pa.Table:
    frame = np.arange(count)
    parts = [
        _table("synchronise.matches", {**columns, "frame": frame}, constants, count)
        for _, columns in sorted(matches.items())
    ]
    schema = load_tables()["synchronise.matches"].arrow_schema
    return pa.concat_tables(parts) if parts else schema.empty_table()

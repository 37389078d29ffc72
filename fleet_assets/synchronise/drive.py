"""One drive, from its ingested rows to clock models, frames and matches.

In: the drive's rows of the ingest tables. Out: rows of the synchronise tables. The same rows give the same bytes, in process
and in a Spark task.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.contracts.loader import StreamContract, load_tables
from fleet_assets.lake.derive import Made
from fleet_assets.synchronise.clock import NO_TIME, Evidence, Motion, estimate
from fleet_assets.synchronise.clock_model import LAST_NS, ClockModel, Clocks, Stamps, on_reference
from fleet_assets.synchronise.frames import Channel, Frames, ego_motion, kept, key_frames, match, required
from fleet_assets.synchronise.limits import Fault, broken_rules, out_of_bounds
from fleet_assets.synchronise.logger import Followed, follow
from fleet_assets.synchronise.phase import phase_of, reference_camera, with_phase
from fleet_assets.synchronise.policy import ORIENTATION, Alignment, Source

INPUTS = ("ingest.messages", "ingest.imu", "ingest.poses", "ingest.gnss", "ingest.bus_signals")
CLOCK_MODELS, QUARANTINE = "synchronise.clock_models", "synchronise.quarantine"
FRAMES, MATCHES = "synchronise.frames", "synchronise.matches"
OUTPUTS = (CLOCK_MODELS, FRAMES, MATCHES, QUARANTINE)
_KEYS = ("stream", "sequence", "t_device_ns", "t_host_ns")
_OF_TABLE = {"ingest.gnss": ("t_gnss_ns",), "ingest.bus_signals": ("signal", "value")}


def input_columns(streams: Mapping[str, StreamContract], alignment: Alignment) -> dict[str, tuple[str, ...]]:
    """What is read of each table of INPUTS: a long drive has millions of rows, and most of their columns play no part."""
    found = {table: dict.fromkeys((*_KEYS, *_OF_TABLE.get(table, ()))) for table in INPUTS}
    for name, contract in streams.items():
        if contract.table in found:
            found[contract.table] |= dict.fromkeys(_value_columns(name, alignment))
    return {table: tuple(columns) for table, columns in found.items()}


def _value_columns(stream: str, alignment: Alignment) -> tuple[str, ...]:
    """Columns of a stream that the motion may be taken from."""
    named = (source.column for source in _sources(stream, alignment) if source.column is not None)
    parts = ORIENTATION if stream in alignment.orientation else ()
    return tuple(dict.fromkeys((*named, *parts)))


def _sources(stream: str, alignment: Alignment) -> list[Source]:
    """What of a stream the ego motion may be taken from."""
    return [source for sources in alignment.ego.values() for source in sources if source.stream == stream]


def synchronise_drive(
    tables: Mapping[str, pa.Table],
    drive_id: str,
    day: date,
    streams: Mapping[str, StreamContract],
    alignment: Alignment,
) -> tuple[Made, list[Fault]]:
    """tables: the drive's rows of INPUTS, with `input_columns`; each is asked for once. streams: contracts by name. Gives rows
    of OUTPUTS, with the contract's schemas, those of matches a channel at a time; and why the drive is out of bounds: then it
    has rows in synchronise.quarantine, and neither frames nor matches.
    """
    models, channels = _on_one_clock(tables, streams, alignment)
    frames, needed = key_frames(channels, alignment), required(channels, alignment)
    constants = {"drive_id": drive_id, "day": day}
    motions = [ego_motion(frames, channels, alignment, policy) for policy in alignment.policies]
    aligned = _Aligned(frames, channels, alignment, motions, constants)
    frame_rows = [aligned.frame_rows(number, needed) for number in range(len(motions))]
    told: Made = {CLOCK_MODELS: [_rows(CLOCK_MODELS, models, constants)], FRAMES: frame_rows}
    faults = out_of_bounds(models, frame_rows[0], needed, alignment.limits)
    faults += broken_rules({**told, MATCHES: aligned.match_rows()})
    kept_rows: Made = {FRAMES: [], MATCHES: []} if faults else {MATCHES: aligned.match_rows()}
    return {**told, **kept_rows, QUARANTINE: [_rows(QUARANTINE, faults, constants)]}, faults


@dataclass(frozen=True)
class _Aligned:
    """Frames and channels on one clock. motions: of the frames, by policy."""

    frames: Frames
    channels: Mapping[str, Channel]
    alignment: Alignment
    motions: Sequence[Mapping[str, np.ndarray]]
    constants: Mapping[str, Any]

    def frame_rows(self, number: int, needed: Sequence[str]) -> pa.Table:
        """Rows of synchronise.frames under a policy. needed: channels that a complete frame has a match of."""
        matches = {name: self._matches(number, name) for name in needed}
        return self._table(FRAMES, _frames(self.frames, self.motions[number], matches), number)

    def match_rows(self) -> Iterator[pa.Table]:
        """Rows of synchronise.matches, of one channel under one policy at a time: there are many more than of anything else."""
        frame = np.arange(self.frames.count)
        for number in range(len(self.motions)):
            for name in sorted(self.channels):
                yield self._table(MATCHES, {**self._matches(number, name), "frame": frame}, number)

    def _matches(self, number: int, name: str) -> Mapping[str, Any]:
        policy = self.alignment.policies[number]
        return match(self.frames, self.channels[name], self.alignment, policy, self.motions[number])

    def _table(self, name: str, columns: Mapping[str, Any], number: int) -> pa.Table:
        constants = {**self.constants, "policy": self.alignment.policies[number].name}
        return _table(name, columns, constants, self.frames.count)


def _on_one_clock(
    tables: Mapping[str, pa.Table], streams: Mapping[str, StreamContract], alignment: Alignment
) -> tuple[list[ClockModel], dict[str, Channel]]:
    """Clock models as they hold for the recorded stamps, and the streams on the reference clock."""
    rows = _by_stream(tables)
    followed, gnss_time = _stamps_of(rows, streams)
    evidence = _evidence(rows, followed.streams, gnss_time, alignment)
    key_stream = next((name for name in alignment.key_streams if name in evidence.streams), None)
    clocks = estimate(evidence, key_stream)
    channels = {
        name: _channel(table, streams[name], evidence.streams[name], clocks, alignment) for name, table in rows.items()
    }
    return followed.recorded(_with_phases(clocks.models, channels, alignment)), channels


def _with_phases(
    models: Sequence[ClockModel], channels: Mapping[str, Channel], alignment: Alignment
) -> list[ClockModel]:
    """Models of scanning sensors, with the phase that the stamps show."""
    cameras = {
        name: channel.t_ns
        for name, channel in channels.items()
        if channel.contract.kind == "camera" and channel.t_ns is not None
    }
    camera_ns = reference_camera(cameras, alignment.key_streams)
    phases = {
        name: phase_of(channel.contract, channel.t_ns - channel.contract.ahead_ns, camera_ns)
        for name, channel in channels.items()
        if channel.t_ns is not None
    }
    return [with_phase(model, channels[model.stream].contract, phases.get(model.stream)) for model in models]


def _by_stream(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """Each stream's rows, in order of sequence."""
    found = {}
    for name in INPUTS:
        table = tables[name]
        for stream in sorted(pc.unique(table["stream"]).to_pylist()):
            rows = table.filter(pc.equal(table["stream"], stream)).drop_columns(["stream"])
            if not _is_sorted(rows["sequence"].to_numpy()):
                rows = rows.sort_by("sequence")
            found[stream] = rows.combine_chunks()  # so that its columns are arrays as they lie there
    return dict(sorted(found.items()))


def _is_sorted(values: np.ndarray) -> bool:
    return bool((values[1:] >= values[:-1]).all())


def _stamps(table: pa.Table, name: str) -> np.ndarray | None:
    """A clock that not every record has is not one to align by."""
    column = table[name]
    return None if column.null_count else column.to_numpy()


def _floats(table: pa.Table, name: str) -> np.ndarray:
    return np.asarray(table[name].to_numpy(), dtype=np.float64)


def _stamps_of(
    rows: Mapping[str, pa.Table], streams: Mapping[str, StreamContract]
) -> tuple[Followed, dict[str, np.ndarray]]:
    """Stamps, as if nobody had set the logger's clock, and the receivers' UTC."""
    stamps, gnss_time = {}, {}
    for name, table in rows.items():
        stamps[name] = Stamps(streams[name], _stamps(table, "t_device_ns"), _stamps(table, "t_host_ns"))
        if streams[name].kind == "gnss" and table["t_gnss_ns"].null_count < table.num_rows:
            gnss_time[name] = pc.fill_null(table["t_gnss_ns"], int(NO_TIME)).to_numpy()
    return follow(stamps, gnss_time), gnss_time


def _evidence(
    rows: Mapping[str, pa.Table],
    stamps: Mapping[str, Stamps],
    gnss_time: Mapping[str, np.ndarray],
    alignment: Alignment,
) -> Evidence:
    motion, speed = (
        {source.stream: seen for source in alignment.ego[name] if (seen := _motion(source, rows, stamps)) is not None}
        for name in ("yaw_rate_radps", "speed_mps")
    )
    return Evidence(stamps, gnss_time, motion, speed)


def _motion(source: Source, rows: Mapping[str, pa.Table], stamps: Mapping[str, Stamps]) -> Motion | None:
    """What a source of the ego motion tells, on its stream's own clock."""
    if source.stream not in rows or not stamps[source.stream].t_ns.size:
        return None
    table = rows[source.stream]
    values = _floats(table, source.column or "value")
    known = np.isfinite(values)
    if source.signal is not None:
        known &= pc.equal(table["signal"], source.signal).to_numpy()
    if known.sum() < 2:
        return None
    return Motion(source.stream, kept(stamps[source.stream].t_ns, known), kept(values, known))


def _channel(
    table: pa.Table, contract: StreamContract, stamps: Stamps, clocks: Clocks, alignment: Alignment
) -> Channel:
    sequence = table["sequence"].to_numpy()
    values = _values(table, contract, alignment)
    t_ns, known = on_reference([model for model in clocks.models if model.stream == contract.name], stamps.t_ns)
    # A sweep belongs to the time at which it looks where the cameras look, whatever its stamp marks.
    t_ns += contract.ahead_ns
    known &= t_ns >= 0
    if not known.any():
        return Channel(contract, sequence, None, None, values)
    arrival_ns = _arrival_ns(stamps, clocks)
    if known.all() and _is_sorted(t_ns):  # as most are; nothing is copied
        return Channel(contract, sequence, t_ns, arrival_ns, values)
    order = np.argsort(t_ns, kind="stable")
    order = order[known[order]]
    return Channel(
        contract,
        sequence[order],
        t_ns[order],
        None if arrival_ns is None else arrival_ns[order],
        {column: column_values[order] for column, column_values in values.items()},
    )


def _arrival_ns(stamps: Stamps, clocks: Clocks) -> np.ndarray | None:
    """Arrival of the stream's records on the reference clock, in order of the recording."""
    if stamps.t_host_ns is None or clocks.logger is None:
        return None
    fits = clocks.logger.fits(stamps.t_host_ns)
    return np.where(fits, clocks.logger.apply(stamps.t_host_ns), LAST_NS)  # what has no time has not arrived


def _values(table: pa.Table, contract: StreamContract, alignment: Alignment) -> dict[str, np.ndarray]:
    """What ego motion may be taken from: float64 columns; of a bus, signals, NaN in rows of other signals."""
    if contract.kind == "bus":
        value = _floats(table, "value")
        named = {source.signal for source in _sources(contract.name, alignment)}
        return {
            signal: np.where(pc.equal(table["signal"], signal).to_numpy(), value, np.nan)
            for signal in pc.unique(table["signal"]).to_pylist()
            if signal in named
        }
    return {column: _floats(table, column) for column in _value_columns(contract.name, alignment)}


def _frames(
    frames: Frames, motion: Mapping[str, np.ndarray], needed: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    complete = np.full(frames.count, bool(needed))
    worst_m = np.full(frames.count, np.nan)
    for columns in needed.values():
        complete &= np.asarray(columns["sequence"].is_valid())
        off_m = np.asarray(columns["misalignment_m"].to_numpy(zero_copy_only=False), dtype=np.float64)
        worst_m = np.fmax(worst_m, off_m)
    return {
        "frame": np.arange(frames.count),
        "t_ns": frames.t_ns,
        "key_stream": pa.repeat(pa.scalar(frames.key_stream, type=pa.string()), frames.count),
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


def _rows(name: str, found: Sequence[ClockModel] | Sequence[Fault], constants: Mapping[str, Any]) -> pa.Table:
    schema = load_tables()[name].arrow_schema
    return pa.Table.from_pylist([{**constants, **asdict(row)} for row in found], schema=schema)

"""One drive's live features: its ingested records through the vehicle's own feed.

In: the drive's rows of the ingest and synchronise tables, and the payload of its messages. Out: rows of the live feature tables,
one per frame. Records are taken as they arrived, never interpolated, and no clock model is used but to say which record is
a frame's own: the vehicle has no future.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.loader import load_tables
from fleet_assets.edge.feed import LIVE, Feed, in_order_of_arrival, records_of
from fleet_assets.edge.messages import values_of
from fleet_assets.features.places import VISITS, cells_of, visits
from fleet_assets.features.policy import LivePolicy, Source
from fleet_assets.kernels.features.lane_cell import NOWHERE, lane_cells
from fleet_assets.kernels.features.records import NO_TIME, VALUES

SIGNALS = ("ingest.imu", "ingest.gnss", "ingest.bus_signals")
INPUTS = ("ingest.messages", *SIGNALS, "ingest.labels", "synchronise.frames", "synchronise.matches")
OUTPUTS = (*(f"features.{view}" for view in LIVE), VISITS)
# (rows of ingest.messages) -> (row, message), in any order.
Payload = Callable[[pa.Table], Iterator[tuple[int, bytes]]]

_COLUMNS = {
    "imu": [f"accel_{axis}_mps2" for axis in "xyz"] + [f"gyro_{axis}_radps" for axis in "xyz"],
    "gnss": ["latitude_deg", "longitude_deg", "speed_mps", "heading_deg", "accuracy_m"],
    "speed": ["value"],
    "steering": ["value"],
}


def replay_drive(
    tables: Mapping[str, pa.Table], drive_id: str, day: date, policy: LivePolicy, payload: Payload
) -> dict[str, pa.Table]:
    """tables: the drive's rows of INPUTS. Gives rows of OUTPUTS, with the contract's schemas."""
    records = drive_records(tables, policy, payload)
    frames = _of_policy(tables["synchronise.frames"], policy).sort_by("frame")
    cut_ns = frame_cuts(tables, frames, policy)
    known = np.flatnonzero(cut_ns != NO_TIME)
    order = known[np.argsort(cut_ns[known], kind="stable")]
    found = Feed().push(records, cut_ns[order])
    t_ns = frames["t_ns"].to_numpy()
    constants = {"drive_id": drive_id, "day": day, "vehicle": DriveKey.parse(drive_id).vehicle}
    made = {}
    for view, values in found.items():
        columns = np.full((frames.num_rows, values.shape[1]), np.nan)
        columns[order] = values
        live = {
            "frame": frames["frame"],
            "t_ns": t_ns,
            # Rounded up to a microsecond, which is all that Feast's own times hold.
            "available_ns": -(-(t_ns + policy.delay_ns) // 1000) * 1000,
            "t_cut_ns": pa.array(cut_ns, mask=cut_ns == NO_TIME),
            **{name: columns[:, index] for index, name in enumerate(LIVE[view].FEATURES)},
        }
        if view == "position":
            live["cell"] = cells_of(live["latitude_deg"], live["longitude_deg"])
            lanes = lane_cells(live["latitude_deg"], live["longitude_deg"], live["heading_deg"])
            live["lane_cell"] = pa.array(lanes, mask=lanes == NOWHERE)
        made[f"features.{view}"] = _table(f"features.{view}", live, constants, frames.num_rows)
    made[VISITS] = visits(
        made["features.position"],
        made["features.ego_motion"],
        tables["ingest.labels"],
        {"drive_id": drive_id, "day": day},
    )
    return made


def drive_records(tables: Mapping[str, pa.Table], policy: LivePolicy, payload: Payload) -> np.ndarray:
    """All records of the drive that the policy takes, RECORD [n], in order of arrival. One without a stamp of arrival cannot be
    placed, and is left out."""
    chosen = {source: _first(tables, choices) for source, choices in policy.sources.items()}
    rank = {stream: number for number, stream in enumerate(sorted({one.stream for one in chosen.values() if one}))}
    parts = []
    for source, one in chosen.items():
        if one is not None:
            rows = _rows(tables, one)
            rows = rows.filter(pc.is_valid(rows["t_host_ns"]))
            values = _signal_values(rows, source) if source in _COLUMNS else _payload_values(rows, source, payload)
            device_ns = pc.fill_null(rows["t_device_ns"], int(NO_TIME)).to_numpy()
            host_ns, sequence = rows["t_host_ns"].to_numpy(), rows["sequence"].to_numpy()
            parts.append(records_of(source, rank[one.stream], host_ns, device_ns, sequence, values))
    return in_order_of_arrival(parts)


def frame_cuts(tables: Mapping[str, pa.Table], frames: pa.Table, policy: LivePolicy) -> np.ndarray:
    """int64 [frames], on the arrival clock: the arrival of the record that a frame belongs to, and the wait. Without a key stream
    it is the last to arrive of the records that were matched to the frame. NO_TIME where nothing says when they arrived."""
    cut_ns = np.full(frames.num_rows, NO_TIME, dtype=np.int64)
    key_stream = frames["key_stream"][0].as_py() if frames.num_rows else None
    matches = _of_policy(tables["synchronise.matches"], policy)
    matches = matches.filter(pc.is_valid(matches["sequence"]))
    if key_stream is not None:
        matches = matches.filter(pc.equal(matches["channel"], key_stream))
    first = int(frames["frame"][0].as_py()) if frames.num_rows else 0
    for channel in pc.unique(matches["channel"]).to_pylist():
        rows = matches.filter(pc.equal(matches["channel"], channel))
        arrived = _arrival(tables, channel, rows["sequence"].to_numpy())
        at = rows["frame"].to_numpy() - first
        np.maximum.at(cut_ns, at, arrived)
    return np.where(cut_ns == NO_TIME, NO_TIME, cut_ns + policy.wait_ns)


def _arrival(tables: Mapping[str, pa.Table], stream: str, sequence: np.ndarray) -> np.ndarray:
    """Arrival of a stream's records by their sequence, NO_TIME where there is none."""
    for name in ("ingest.messages", *SIGNALS):
        rows = tables[name].filter(pc.equal(tables[name]["stream"], stream)).sort_by("sequence")
        if rows.num_rows:
            host_ns = pc.fill_null(rows["t_host_ns"], int(NO_TIME)).to_numpy()
            return host_ns[np.searchsorted(rows["sequence"].to_numpy(), sequence)]
    return np.full(sequence.size, NO_TIME, dtype=np.int64)


def _of_policy(rows: pa.Table, policy: LivePolicy) -> pa.Table:
    return rows.filter(pc.equal(rows["policy"], policy.alignment))


def _first(tables: Mapping[str, pa.Table], choices: tuple[Source, ...]) -> Source | None:
    return next((source for source in choices if _rows(tables, source).num_rows), None)


def _rows(tables: Mapping[str, pa.Table], source: Source) -> pa.Table:
    for name in ("ingest.messages", *SIGNALS):
        rows = tables[name].filter(pc.equal(tables[name]["stream"], source.stream))
        if rows.num_rows:
            return rows if source.signal is None else rows.filter(pc.equal(rows["signal"], source.signal))
    return tables["ingest.messages"].slice(0, 0)


def _signal_values(rows: pa.Table, source: str) -> list[np.ndarray]:
    return [np.asarray(rows[column].to_numpy(), dtype=np.float64) for column in _COLUMNS[source]]


def _payload_values(rows: pa.Table, source: str, payload: Payload) -> list[np.ndarray]:
    values = np.full((rows.num_rows, VALUES), np.nan)
    schema_name = rows["schema_name"].to_pylist()
    for row, message in payload(rows):
        values[row] = values_of(source, schema_name[row], message)
    return list(values.T)


def _table(name: str, columns: Mapping[str, object], constants: Mapping[str, object], count: int) -> pa.Table:
    """Columns in the contract's order; NaN becomes null."""
    schema = load_tables()[name].arrow_schema
    arrays = []
    for field in schema:
        if field.name in constants:
            arrays.append(pa.repeat(pa.scalar(constants[field.name], type=field.type), count))
            continue
        values = columns[field.name]
        is_array = isinstance(values, np.ndarray)
        arrays.append(pa.array(values, type=field.type, from_pandas=True) if is_array else values)
    return pa.table(arrays, schema=schema)

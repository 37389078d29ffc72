"""What is around the vehicle at each frame of a drive.

In: the drive's causal frames, labels, clock models, and camera messages. Out: rows of curate.surroundings, one per frame. Lanes
are told from the curve that the vehicle drives; there is no map.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.labels import LabelsAtFrames, labels_at
from fleet_assets.edge.messages import decode
from fleet_assets.features.policy import load_live_policy
from fleet_assets.kernels.perceptual_hash import COLUMNS, ROWS, difference_hash

TABLE = "curate.surroundings"
Payload = Callable[[pa.Table], Iterator[tuple[int, bytes]]]  # rows of ingest.messages -> (row, message)

_NEAR_M, _AHEAD_M = 30.0, 40.0
_PEOPLE_ASIDE_M, _TRAFFIC_ASIDE_M = 8.0, 15.0
_LANE_M = 1.5  # from its middle to where a vehicle's middle is no longer in it
_BESIDE_M = 2.2  # a vehicle whose middle is further out is beside us
_CROSSING = 0.7  # sine of the angle between its way and ours
_MOVING_MPS, _SLOWEST_MPS = 0.5, 1.0
_CUT_IN_NS, _TURN_NS, _HASH_NS = 3_000_000_000, 5_000_000_000, 1_000_000_000
_COUNTS = (
    "vehicles", "pedestrians", "cyclists", "pedestrians_30m", "crossing_pedestrians", "crossing_traffic",
    "standing_pedestrians", "occluded_pedestrians", "cut_ins",
)  # fmt: skip


def surroundings(tables: Mapping[str, pa.Table], drive_id: str, day: date, payload: Payload) -> pa.Table:
    """tables: the drive's rows of synchronise.frames, synchronise.matches, synchronise.clock_models, ingest.labels and
    ingest.messages. Gives rows with the contract's schema."""
    frames = causal(tables["synchronise.frames"])
    t_ns = frames["t_ns"].to_numpy()
    at = labels_at(t_ns, tables["ingest.labels"], tables["ingest.messages"], tables["synchronise.clock_models"])
    speed_mps, yaw_rate_radps = (frames[name].to_numpy() for name in ("speed_mps", "yaw_rate_radps"))
    counts, lead_m = _of_labels(tables["ingest.labels"], at, t_ns, speed_mps, yaw_rate_radps)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap_s = np.where(speed_mps >= _SLOWEST_MPS, lead_m / speed_mps, np.nan)
    columns = {
        "drive_id": pa.repeat(drive_id, frames.num_rows),
        "day": pa.repeat(pa.scalar(day, pa.date32()), frames.num_rows),
        "frame": frames["frame"],
        "t_ns": frames["t_ns"],
        "labelled": pa.array(at.labelled),
        **{name: pa.array(counts[name], mask=~at.labelled) for name in _COUNTS},
        "lead_distance_m": pa.array(lead_m, from_pandas=True),
        "time_gap_s": pa.array(gap_s, from_pandas=True),
        "turned_rad_5s": pa.array(_turned_rad(t_ns, yaw_rate_radps), from_pandas=True),
        "image_hash": _image_hashes(tables, frames, payload),
    }
    schema = load_tables()[TABLE].arrow_schema
    return pa.table([columns[field.name] for field in schema], schema=schema)


def causal(rows: pa.Table) -> pa.Table:
    """Rows of frames or matches under the policy that training and the vehicle share, in order of the frames."""
    return rows.filter(pc.equal(rows["policy"], load_live_policy().alignment)).sort_by("frame")


def _of_labels(
    labels: pa.Table, at: LabelsAtFrames, t_ns: np.ndarray, speed_mps: np.ndarray, yaw_rate_radps: np.ndarray
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Counts per frame, int64 [frames] each, and the distance to what is ahead in our lane, NaN without."""
    frame, count = at.frame, t_ns.size
    seen = labels.take(pa.array(at.rows))
    x_m, y_m, length_m = (_floats(seen, name) for name in ("x_m", "y_m", "length_m"))
    of_class = {name: pc.fill_null(pc.equal(seen["class_name"], name), False).to_numpy() for name in _CLASSES}
    moving = _moving(seen)
    across = _across_mps(seen, at, frame, x_m, y_m, yaw_rate_radps)
    ahead = (x_m > 0) & (x_m < _AHEAD_M)
    crossing = moving & ahead & (np.abs(across) > _CROSSING * np.maximum(_speed(seen, across), _MOVING_MPS))
    people, traffic = of_class["pedestrian"], of_class["vehicle"] | of_class["cyclist"]
    visible = np.nan_to_num(_floats(seen, "visible_fraction"), nan=1.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        curve_pm = np.where(speed_mps >= _SLOWEST_MPS, yaw_rate_radps / speed_mps, 0.0)
    aside_m = y_m - 0.5 * np.nan_to_num(curve_pm)[frame] * x_m * x_m
    in_lane = of_class["vehicle"] & (x_m > 0) & (np.abs(aside_m) < _LANE_M)
    ours = moving & (np.cos(np.nan_to_num(_floats(seen, "yaw_rad"))) > _CROSSING)  # goes our way
    chosen = {
        "vehicles": of_class["vehicle"],
        "pedestrians": people,
        "cyclists": of_class["cyclist"],
        "pedestrians_30m": people & (np.hypot(x_m, y_m) < _NEAR_M),
        "crossing_pedestrians": people & crossing & (np.abs(y_m) < _PEOPLE_ASIDE_M),
        "crossing_traffic": traffic & crossing & (np.abs(y_m) < _TRAFFIC_ASIDE_M),
        "standing_pedestrians": people & ~moving,
        "occluded_pedestrians": people & (visible < 0.5),
        "cut_ins": _cut_in(seen, t_ns[frame], in_lane & ahead & ours, np.abs(aside_m) > _BESIDE_M),
    }
    counts = {name: np.bincount(frame[mask], minlength=count).astype(np.int64) for name, mask in chosen.items()}
    lead_m = np.full(count, np.inf)
    back_m = np.maximum(x_m - np.nan_to_num(length_m) / 2, 0.0)
    np.minimum.at(lead_m, frame[in_lane], back_m[in_lane])
    return counts, np.where(np.isfinite(lead_m), lead_m, np.nan)


_CLASSES = ("vehicle", "pedestrian", "cyclist")


def _floats(rows: pa.Table, name: str) -> np.ndarray:
    return np.asarray(rows[name].to_numpy(), dtype=np.float64)


def _moving(seen: pa.Table) -> np.ndarray:
    """As labelled; by its speed where the label does not say; else not."""
    by_speed = pc.greater(seen["speed_mps"], _MOVING_MPS)
    return np.asarray(pc.fill_null(pc.coalesce(seen["moving"], by_speed), False).to_numpy(), dtype=bool)


def _speed(seen: pa.Table, across: np.ndarray) -> np.ndarray:
    speed = _floats(seen, "speed_mps")
    return np.where(np.isnan(speed), np.abs(across), speed)


def _across_mps(
    seen: pa.Table, at: LabelsAtFrames, frame: np.ndarray, x_m: np.ndarray, y_m: np.ndarray, yaw_rate_radps: np.ndarray
) -> np.ndarray:
    """Speed across our way of each labelled object, left positive: as labelled, else from where its track was before, less what
    our own turning makes of it. 0 where neither tells."""
    told = _floats(seen, "speed_mps") * np.sin(_floats(seen, "yaw_rad"))
    before = _before(seen, at.t_ns[at.rows])
    step_s = (at.t_ns[at.rows] - at.t_ns[at.rows][before]) * 1e-9
    with np.errstate(divide="ignore", invalid="ignore"):
        tracked = (y_m - y_m[before]) / step_s + np.nan_to_num(yaw_rate_radps)[frame] * x_m
    tracked = np.where((step_s > 0) & (step_s < 1.0), tracked, 0.0)
    return np.where(np.isnan(told), tracked, told)


def _before(seen: pa.Table, t_ns: np.ndarray) -> np.ndarray:
    """int64 per row: the row of the same track before it in time; itself where there is none."""
    own = np.arange(t_ns.size)
    track = _tracks(seen)
    order = np.lexsort((own, t_ns, track))
    same = (track[order][1:] == track[order][:-1]) & (track[order][1:] >= 0)
    before = own.copy()
    before[order[1:][same]] = order[:-1][same]
    return before


def _tracks(seen: pa.Table) -> np.ndarray:
    """int64 per row: number of its track; -1 for an object that is not tracked."""
    return np.asarray(pc.fill_null(pc.dictionary_encode(seen["track_id"].combine_chunks()).indices, -1).to_numpy())


def _cut_in(seen: pa.Table, t_ns: np.ndarray, in_lane: np.ndarray, beside: np.ndarray) -> np.ndarray:
    """bool per row: in our lane, and last seen beside it less than _CUT_IN_NS ago."""
    own = np.arange(t_ns.size)
    track = _tracks(seen)
    order = np.lexsort((own, t_ns, track))
    first = np.searchsorted(track[order], track[order])  # of its track, in that order
    last_beside = np.maximum.accumulate(np.where(beside[order], own, -1))
    within = (last_beside >= first) & (track[order] >= 0)
    ago_ns = t_ns[order] - t_ns[order][np.maximum(last_beside, 0)]
    found = np.zeros(t_ns.size, dtype=bool)
    found[order] = within & (ago_ns < _CUT_IN_NS)
    return in_lane & found


def _turned_rad(t_ns: np.ndarray, yaw_rate_radps: np.ndarray) -> np.ndarray:
    """Over the last _TURN_NS of the drive so far; NaN where the yaw rate is not known throughout."""
    if not t_ns.size:
        return np.zeros(0)
    step_s = np.diff(t_ns, prepend=t_ns[0]) * 1e-9
    known = np.isfinite(yaw_rate_radps)
    heading = np.cumsum(np.where(known, yaw_rate_radps, 0.0) * step_s)
    gaps = np.cumsum(~known)
    first = np.searchsorted(t_ns, t_ns - _TURN_NS)
    return np.where(known & (gaps == gaps[first]), heading - heading[first], np.nan)


def _image_hashes(tables: Mapping[str, pa.Table], frames: pa.Table, payload: Payload) -> pa.Array:
    """int64 per frame, null for most: of the first frame of every second."""
    sources = [source.stream for source in load_live_policy().sources["camera"]]
    messages, matches = tables["ingest.messages"], causal(tables["synchronise.matches"])
    stream = next((name for name in sources if pc.any(pc.equal(messages["stream"], name)).as_py()), None)
    hashes = np.zeros(frames.num_rows, dtype=np.int64)
    known = np.zeros(frames.num_rows, dtype=bool)
    seconds = frames["t_ns"].to_numpy() // _HASH_NS
    first = np.flatnonzero(np.diff(seconds, prepend=-1))
    of_stream = matches.filter(pc.and_(pc.equal(matches["channel"], stream or ""), pc.is_valid(matches["sequence"])))
    wanted = of_stream.filter(
        pc.is_in(of_stream["frame"], value_set=frames["frame"].take(pa.array(first)).combine_chunks())
    )
    rows = messages.filter(pc.equal(messages["stream"], stream or "")).sort_by("sequence")
    place = np.searchsorted(rows["sequence"].to_numpy(), wanted["sequence"].to_numpy())
    rows = rows.take(pa.array(place))
    at = np.searchsorted(frames["frame"].to_numpy(), wanted["frame"].to_numpy())
    schema_name = rows["schema_name"].to_pylist()
    for row, message in payload(rows):
        pixels = decode("camera", schema_name[row], message).content
        if pixels is not None and pixels.ndim == 3 and pixels.shape[0] >= ROWS and pixels.shape[1] >= COLUMNS:
            hashes[at[row]], known[at[row]] = difference_hash(pixels), True
    return pa.array(hashes, mask=~known)

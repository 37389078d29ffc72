"""Matching 36.75 million records of 20 hours to the LiDAR's frames, beside pandas, polars, DuckDB and others, and a copy.

In: nothing, or hours instead of 20. Out: two rows. "nearest" is the index of the closest record in every stream. "full job" is
what synchronise makes of streams: nearest for cameras and radar with where their payload lies, bracket with linear motion and
slerp of the orientation for the IMU, linear for GNSS, hold for the bus, and for each match how far off it is and why there is
none. Ours works on as many streams at once as there are cores, as polars and DuckDB do. What peers give is compared with ours.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from benchmarks import sync_peers as peers
from benchmarks.harness import Options, Row, fastest, row
from benchmarks.sync_peers import GAP_NS, HELD, LINEAR, TOLERANCE_NS, Answer, Stream, Streams
from fleet_assets.kernels import align

_HOURS = 20.0
_KEY_HZ = 10.0
_RATES_HZ = {
    "imu": 200.0,
    "bus": 100.0,
    **{f"camera_{number}": 30.0 for number in range(6)},
    "radar": 13.0,
    "gnss": 10.0,
}
_SKEW, _DROPS = 20e-6, 0.005
_PLACE = ("chunk_offset", "chunk_length", "message_offset", "message_length")
_MOTION = [f"{what}_{axis}" for what in ("accel", "gyro") for axis in "xyz"]
_ORIENTATION = [f"orientation_{axis}" for axis in "xyzw"]
_VALUES = {"bus": ["value"], "gnss": ["latitude_deg", "longitude_deg", "altitude_m"]}
_NO_SHARES = np.empty(0)  # nothing lies between one record and itself
_LENIENT = ("rbyte's pattern in polars", "rosbag-resurrector")  # they interpolate over gaps, and hold for ever


def rows(options: Options) -> list[Row]:
    """Both jobs over the first size given, in hours."""
    seconds = 3600.0 * (options.sizes[0] if options.sizes else _HOURS)
    random = np.random.default_rng(0)
    streams = {name: _stream(random, seconds, name, number) for number, name in enumerate(_RATES_HZ)}
    # Shifted by one, no frame lies in the middle of two records, where peers differ in which they take.
    frames = _stamps(random, seconds, _KEY_HZ, 11) - 1
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [_nearest(frames, streams, pool), _full(frames, streams, pool)]


def _stamps(random: np.random.Generator, seconds: float, rate_hz: float, number: int) -> np.ndarray:
    """A phase of its own, skew, jitter of a quarter period, drops."""
    period_ns = 1e9 / rate_hz
    count = int(seconds * rate_hz)
    t_ns = (np.arange(count) * period_ns * (1 + _SKEW) + period_ns * (number + 1) / 12).astype(np.int64)
    t_ns += random.integers(0, int(period_ns / 4), count)
    return t_ns[random.random(count) > _DROPS] // 4 * 4 + 1


def _stream(random: np.random.Generator, seconds: float, name: str, number: int) -> Stream:
    t_ns = _stamps(random, seconds, _RATES_HZ[name], number)
    t_s = t_ns / 1e9
    if name == "imu":
        yaw = np.sin(0.1 * t_s)
        none = np.zeros_like(yaw)
        turned = dict(zip(_ORIENTATION, (none, none, np.sin(yaw / 2), np.cos(yaw / 2)), strict=True))
        return Stream(t_ns, {name: np.sin(t_s + k) for k, name in enumerate(_MOTION)} | turned)
    if name in _VALUES:
        return Stream(t_ns, {column: np.sin(t_s + k) for k, column in enumerate(_VALUES[name])})
    return Stream(t_ns, {column: np.arange(t_ns.size) * (k + 1) for k, column in enumerate(_PLACE)})


def _size(frames: np.ndarray, streams: Streams) -> str:
    records = frames.size + sum(stream.t_ns.size for stream in streams.values())
    return (
        f"{records / 1e6:.2f} million records, {frames.size} frames, {len(streams)} streams, {os.cpu_count()} threads"
    )


def _nearest(frames: np.ndarray, streams: Streams, pool: ThreadPoolExecutor) -> Row:
    tolerance = np.uint64(TOLERANCE_NS)

    def ours() -> dict[str, np.ndarray]:
        found = pool.map(lambda stream: align.nearest(frames, stream.t_ns, tolerance, tolerance)[0], streams.values())
        return dict(zip(streams, found, strict=True))

    stamps = [frames, *(stream.t_ns for stream in streams.values())]
    work = {
        "pandas.merge_asof": peers.nearest_by_pandas(frames, streams),
        "polars.join_asof": peers.nearest_by_polars(frames, streams),
        "DuckDB ASOF": peers.nearest_by_duckdb(
            peers.duckdb_tables(frames, {name: Stream(stream.t_ns) for name, stream in streams.items()}), streams
        ),
    }
    expected = ours()
    for peer, call in work.items():
        for name, index in call().items():
            assert np.array_equal(index, expected[name]), f"{peer}: matches of {name} differ"
    times = fastest({"ours": ours, **work, "floor": lambda: list(pool.map(np.copy, stamps))})
    return row("nearest", times, note=f"{_size(frames, streams)}; floor: copies of all stamps, as many threads")


def _full(frames: np.ndarray, streams: Streams, pool: ThreadPoolExecutor) -> Row:
    def ours() -> Answer:
        """The searches stream by stream, then what follows from them column by column."""
        found = dict(zip(streams, pool.map(lambda item: _search(frames, *item), streams.items()), strict=True))
        columns = [(name, work) for name, stream in streams.items() for work in _columns(stream, found[name])]
        for (name, _), made in zip(columns, pool.map(lambda column: column[1](), columns), strict=True):
            found[name] |= made
        return found

    arrays = [frames, *(array for s in streams.values() for array in (s.t_ns, *s.columns.values()))]
    work = {
        "pandas": peers.by_pandas(frames, streams),
        "polars": peers.by_polars(frames, streams),
        "DuckDB": peers.by_duckdb(peers.duckdb_tables(frames, streams), streams),
        "rbyte's pattern in polars": peers.by_rbyte(frames, streams),
        "rosbag-resurrector": peers.by_resurrector(frames, streams),
    }
    expected = ours()
    for peer, call in work.items():
        for name, columns in call().items():
            for column, values in columns.items():
                _same(f"{peer}, {name}.{column}", values, expected[name][column], lenient=peer in _LENIENT)
    times = fastest({"ours": ours, **work, "floor": lambda: list(pool.map(np.copy, arrays))}, enough_s=10.0)
    note = (
        f"{_size(frames, streams)}, {sum(array.nbytes for array in arrays) / 1e9:.2f} GB; peers interpolate the members of "
        "the orientation and give no evidence; floor: copies of stamps and columns, as many threads"
    )
    return row("full job", times, note=note)


def _same(who: str, values: np.ndarray, expected: np.ndarray, *, lenient: bool) -> None:
    matched = ~np.isnan(expected)
    assert lenient or np.array_equal(np.isnan(values), ~matched), f"{who}: other frames have a match"
    np.testing.assert_allclose(values[matched], expected[matched], rtol=1e-9, atol=1e-5, err_msg=who)


def _search(frames: np.ndarray, name: str, stream: Stream) -> dict[str, np.ndarray]:
    """Evidence on the matches of one stream, by our kernels, and where values are taken from."""
    t_ns = stream.t_ns
    if name in LINEAR:
        before, after, reason = align.bracket(frames, t_ns, np.uint64(GAP_NS))
    else:
        tolerance = np.uint64(TOLERANCE_NS)
        held = name in HELD
        before, reason = (
            align.hold(frames, t_ns, np.uint64(GAP_NS)) if held else align.nearest(frames, t_ns, tolerance, tolerance)
        )
        after = before
    matched = before >= 0
    left_ns = t_ns[np.where(matched, before, 0)]
    found = {"sequence": before, "reason": reason, "dt_ns": np.where(matched, left_ns - frames, 0)}
    if name in LINEAR:
        found["after"] = after
        found["bracket_ns"] = np.where(matched, t_ns[np.where(matched, after, 0)] - left_ns, 0)
        found["share"] = align.shares(frames, t_ns, before, after)
    return found


def _columns(stream: Stream, found: Mapping[str, np.ndarray]) -> Iterator[Callable[[], dict[str, np.ndarray]]]:
    """What is left to do, a column each; NaN where there is no match."""
    before = found["sequence"]
    after, share = found.get("after", before), found.get("share", _NO_SHARES)
    if _ORIENTATION[0] in stream.columns:
        yield partial(_turned, stream, before, after, share)
    for column, values in stream.columns.items():
        if column not in _ORIENTATION:
            yield partial(_moved, column, values, before, after, share)


def _moved(column: str, values: np.ndarray, *how: np.ndarray) -> dict[str, np.ndarray]:
    return {column: align.interpolate(values, *how)}


def _turned(stream: Stream, *how: np.ndarray) -> dict[str, np.ndarray]:
    x, y, z, w = (stream.columns[column] for column in _ORIENTATION)
    return dict(zip(_ORIENTATION, align.slerp((x, y, z, w), *how), strict=True))

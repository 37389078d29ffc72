"""A drive's rows to frames and matches: what belongs together, and nothing where nobody knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synchronise.drives import MS, SECOND, T0_NS, UNBOUNDED, clocks, frames, matches, rows, synchronise

from fleet_assets.contracts.loader import load_tables
from fleet_assets.contracts.rules import evaluate_rows
from fleet_assets.synchronise.frames import LONGEST_SILENCE_NS


def every(period_ns: int, count: int, start_ns: int = 0) -> np.ndarray:
    return T0_NS + start_ns + np.arange(count, dtype=np.int64) * period_ns


def imu(
    t_ns: np.ndarray, yaw_rate: np.ndarray | float = 0.1, stream: str = "imu", *, clock: str = "t_host_ns"
) -> pa.Table:
    values = np.broadcast_to(np.asarray(yaw_rate, dtype=np.float64), t_ns.shape)
    accel = (t_ns - T0_NS) / SECOND
    return rows(stream, None, **{clock: t_ns}, gyro_z_radps=values, accel_x_mps2=accel)


def speed(t_ns: np.ndarray, value: float = 10.0) -> pa.Table:
    """A bus with speed in every second row, and another signal between."""
    names = np.where(np.arange(t_ns.size) % 2 == 0, "speed", "angle")
    values = np.where(names == "speed", value, 999.0)
    return rows("bus_vehicle", None, t_host_ns=t_ns, message=["m"] * t_ns.size, signal=names, value=values)


HALF_SWEEP_NS = 50 * MS


def lidar(t_ns: np.ndarray) -> pa.Table:
    """Sweeps that look ahead at t_ns, and are stamped at their end."""
    return rows("lidar", None, t_host_ns=t_ns + HALF_SWEEP_NS)


def test_an_empty_drive() -> None:
    found = synchronise()
    assert [table.num_rows for table in found.values()] == [0, 0, 0, 0]


def test_key_frames_with_all_that_belongs_to_them() -> None:
    key, camera = every(100 * MS, 20), every(66 * MS, 31, -10 * MS)
    found = synchronise(
        lidar(key), rows("camera_front", None, t_host_ns=camera), imu(every(10 * MS, 200)), speed(every(50 * MS, 40))
    )
    frame = frames(found)
    assert [row["t_ns"] for row in frame] == key.tolist()
    assert [row["frame"] for row in frame] == list(range(20))
    assert {row["key_stream"] for row in frame} == {"lidar"}
    assert {row["speed_mps"] for row in frame} == {10.0}
    assert [row["accel_x_mps2"] for row in frame] == pytest.approx(np.arange(20) / 10)
    assert {row["latitude_deg"] for row in frame} == {None}
    for row, t_ns, whole in zip(matches(found, "camera_front"), key.tolist(), frame, strict=True):
        best = int(np.argmin(np.abs(camera - t_ns)))
        assert (row["sequence"], row["dt_ns"], row["method"]) == (best, camera[best] - t_ns, "nearest")
        assert row["bracket_ns"] is row["reason"] is None
        # A camera sees 60 m far (its contract): own motion and turning, over dt.
        far_m = (10.0 + 0.1 * 60.0) * abs(row["dt_ns"]) / SECOND
        assert row["misalignment_m"] == pytest.approx(far_m)
        assert whole["misalignment_m"] == pytest.approx(far_m)  # the LiDAR's own is 0
        assert whole["complete"]
    assert all(row["dt_ns"] == 0 and row["misalignment_m"] == 0 for row in matches(found, "lidar"))
    assert [row["method"] for row in matches(found, "bus_vehicle")] == ["hold"] * 20
    assert {row["misalignment_m"] for row in matches(found, "imu")} == {None}  # no range


def test_the_same_rows_in_any_order_give_the_same_bytes() -> None:
    streams = [lidar(every(100 * MS, 50)), imu(every(10 * MS, 500)), speed(every(50 * MS, 100))]
    random = np.random.default_rng(0)
    shuffled = [table.take(random.permutation(table.num_rows)) for table in reversed(streams)]
    first, second = synchronise(*streams), synchronise(*shuffled)
    assert all(first[name].equals(second[name]) for name in first)


def test_nothing_is_invented_across_a_gap() -> None:
    t_ns = every(10 * MS, 300)
    t_ns = t_ns[(t_ns < T0_NS + SECOND) | (t_ns > T0_NS + 2 * SECOND)]
    found = synchronise(imu(t_ns))
    inside = [T0_NS + SECOND <= row["t_ns"] <= T0_NS + 2 * SECOND for row in frames(found)]
    assert inside.count(True) == 11  # a fixed grid of 10 Hz, over the gap too
    for row, match, gap in zip(frames(found), matches(found, "imu"), inside, strict=True):
        assert row["key_stream"] is None
        assert row["t_ns"] % (100 * MS) == 0
        assert (row["yaw_rate_radps"] is None) == (row["accel_x_mps2"] is None) == gap
        assert (match["sequence"] is None) == (match["bracket_ns"] is None) == gap
        assert match["reason"] == ("gap" if gap else None)
        assert row["complete"] == (not gap)


def test_a_value_that_is_missing_is_no_support() -> None:
    """Acceleration lost for 30 ms, longer than the limit of 15: null there, though records are there."""
    t_ns = every(10 * MS, 100)
    table = imu(t_ns)
    accel = table["accel_x_mps2"].to_numpy().copy()
    accel[49:52] = np.nan
    at = table.column_names.index("accel_x_mps2")
    found = frames(synchronise(table.set_column(at, "accel_x_mps2", pa.array(accel, from_pandas=True))))
    assert [row["frame"] for row in found if row["accel_x_mps2"] is None] == [5]
    assert all(row["yaw_rate_radps"] == 0.1 for row in found)


def test_the_grid_covers_what_all_motion_streams_cover() -> None:
    fixes = rows("gnss", None, t_host_ns=every(SECOND, 10, 2 * SECOND), latitude_deg=np.linspace(48, 49, 10))
    found = frames(synchronise(imu(every(10 * MS, 500)), fixes))
    assert found[0]["t_ns"] == T0_NS + 2 * SECOND
    assert found[-1]["t_ns"] == T0_NS + 49 * SECOND // 10
    assert all(row["latitude_deg"] is not None for row in found)


def test_a_stray_stamp_makes_no_frames_of_years() -> None:
    t_ns = np.concatenate([[1, 2], every(10 * MS, 300), every(10 * MS, 300, LONGEST_SILENCE_NS + 4 * SECOND)])
    found = frames(synchronise(imu(t_ns)))
    assert [row["t_ns"] for row in found] == [
        *every(100 * MS, 30).tolist(),
        *every(100 * MS, 30, LONGEST_SILENCE_NS + 4 * SECOND).tolist(),
    ]


def test_frames_go_by_the_first_key_stream_with_a_clock() -> None:
    """The LiDAR's clock stands still; the camera's does not."""
    host = every(100 * MS, 50)
    stuck = rows("lidar", np.full(50, T0_NS), t_host_ns=host)
    camera = rows("camera_front", host - 3 * SECOND, t_host_ns=host + MS)
    found = synchronise(stuck, camera)
    models = clocks(found)
    assert [(name, model["status"], model["offset_ns"]) for name, (model,) in models.items()] == [
        ("camera_front", "ok", 3 * SECOND + MS),
        ("lidar", "rejected", None),
    ]
    assert {row["key_stream"] for row in frames(found)} == {"camera_front"}
    assert [row["t_ns"] for row in frames(found)] == (host + MS).tolist()
    assert not any(row["complete"] for row in frames(found))
    assert {(row["sequence"], row["dt_ns"], row["reason"]) for row in matches(found, "lidar")} == {
        (None, None, "clock")
    }


def test_a_jump_is_bridged_and_says_so() -> None:
    host = every(100 * MS, 100)
    device = host - 7 * SECOND
    device[60:] -= 3600 * SECOND
    found = synchronise(lidar(host), rows("camera_front", device, t_host_ns=host))
    assert [(row["segment"], row["status"], row["t_to_ns"]) for row in clocks(found)["camera_front"]] == [
        (0, "ok", device[59]),
        (1, "ok", device[99]),
    ]
    assert [(row["sequence"], row["dt_ns"]) for row in matches(found, "camera_front")] == [(n, 0) for n in range(100)]


def test_records_of_an_unknown_segment_are_not_matched() -> None:
    host = every(100 * MS, 100)
    device = host - 7 * SECOND
    device[40:50] += 90 * SECOND
    camera = matches(synchronise(lidar(host), rows("camera_front", device, t_host_ns=host)), "camera_front")
    assert [row["sequence"] for row in camera] == [*range(40), *[None] * 10, *range(50, 100)]
    assert {row["reason"] for row in camera[40:50]} == {"tolerance"}


def test_a_clock_that_some_records_lack_is_not_used() -> None:
    host = every(100 * MS, 30)
    some = pa.array([None, *(host[1:] - SECOND)], pa.int64())
    models = clocks(synchronise(rows("lidar", some, t_host_ns=host)))
    assert [(model["clock"], model["method"]) for model in models["lidar"]] == [("host", "shared")]
    none = synchronise(rows("lidar", some, t_host_ns=pa.array([*host[:-1], None], pa.int64())))
    assert none["synchronise.clock_models"].num_rows == none["synchronise.frames"].num_rows == 0


def test_records_of_a_stream_out_of_order_are_sorted_by_time() -> None:
    t_ns = every(100 * MS, 30)
    t_ns[[10, 11]] = t_ns[[11, 10]]
    found = synchronise(lidar(t_ns))
    assert [row["t_ns"] for row in frames(found)] == sorted(t_ns.tolist())
    assert [row["sequence"] for row in matches(found, "lidar")] == [*range(10), 11, 10, *range(12, 30)]


def test_what_a_complete_frame_needs_is_the_policys() -> None:
    alignment = UNBOUNDED
    key, camera = every(100 * MS, 10), every(100 * MS, 5)
    streams = lidar(key), rows("camera_front", None, t_host_ns=camera)
    assert [row["complete"] for row in frames(synchronise(*streams))] == [True] * 5 + [False] * 5
    only_lidar = replace(alignment, required_kinds=("lidar",))
    assert all(row["complete"] for row in frames(synchronise(*streams, alignment=only_lidar)))


# Under the causal policy: what had arrived in time.


def sent(stream: str, t_ns: np.ndarray, delay_ns: int | np.ndarray, **columns: object) -> pa.Table:
    """Records of a device clock that is the logger's, with a delay of arrival. One comes at once, so that the clock is told."""
    host = t_ns + delay_ns
    host[0] = t_ns[0]
    host[-1] = t_ns[-1]
    return rows(stream, t_ns, t_host_ns=host, **columns)


def test_what_came_too_late_is_not_used_and_is_counted() -> None:
    key = every(100 * MS, 40)
    delay = np.full(40, 5 * MS)
    delay[[7, 20]] = 110 * MS  # later than half a sweep and the wait of 20 ms
    found = synchronise(lidar(key), sent("camera_front", key - 10 * MS, delay))
    offline, causal = (matches(found, "camera_front", policy) for policy in ("offline", "causal"))
    assert [row["sequence"] for row in offline] == list(range(40))
    assert {row["late_ns"] for row in offline} == {None}
    # It was there 100 ms after the frame; the one before is 110 ms off, further than 100.
    assert [row["sequence"] for row in causal] == [n if n not in (7, 20) else None for n in range(40)]
    assert [(row["late_ns"], row["reason"]) for row in causal if row["sequence"] is None] == [(30 * MS, "late")] * 2
    assert [row["frame"] for row in frames(found, "causal") if not row["complete"]] == [7, 20]
    assert all(row["complete"] for row in frames(found))


def test_an_older_record_stands_in_for_one_that_is_late() -> None:
    key = every(100 * MS, 40)
    camera = every(50 * MS, 80)
    delay = np.full(80, 5 * MS)
    delay[20] = 110 * MS
    found = matches(synchronise(lidar(key), sent("camera_front", camera, delay)), "camera_front", "causal")
    assert (found[10]["sequence"], found[10]["dt_ns"]) == (19, -50 * MS)
    assert (found[10]["late_ns"], found[10]["reason"]) == (40 * MS, None)


def test_motion_is_what_the_vehicle_knew() -> None:
    """Acceleration rises; where the record after the frame is late, the one before stands."""
    t_ns = every(10 * MS, 300)
    delay = np.full(300, MS)
    delay[151] = 80 * MS
    table = sent("imu", t_ns, delay, gyro_z_radps=np.full(300, 0.1), accel_x_mps2=(t_ns - T0_NS) / SECOND)
    found = synchronise(lidar(every(100 * MS, 29, 5 * MS)), table)
    offline, causal = frames(found), frames(found, "causal")
    assert [row["t_ns"] for row in offline] == [row["t_ns"] for row in causal]
    assert [row["accel_x_mps2"] for row in offline] == pytest.approx(np.arange(29) / 10 + 0.005)
    expected = np.arange(29) / 10 + 0.005
    expected[15] = 1.5
    assert [row["accel_x_mps2"] for row in causal] == pytest.approx(expected)
    assert matches(found, "imu", "causal")[15]["reason"] == "late"


def test_without_arrivals_nobody_knows_what_the_vehicle_had() -> None:
    found = synchronise(
        rows("lidar", every(100 * MS, 10)),
        rows("camera_front", every(100 * MS, 10)),
    )
    assert [row["complete"] for row in frames(found)] == [True] * 10
    assert [row["complete"] for row in frames(found, "causal")] == [False] * 10
    assert {row["reason"] for row in matches(found, "camera_front", "causal")} == {"arrival"}


@given(st.integers(0, 2**32), st.integers(0, 80))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_a_causal_match_had_arrived(seed: int, delay_ms: int) -> None:
    """Whatever is late, reordered or lost."""
    random = np.random.default_rng(seed)
    streams = [lidar(every(100 * MS, 50))]
    arrivals = {}
    for stream, period_ms in (("camera_front", 33), ("radar", 75)):
        t_ns = every(period_ms * MS, 5000 // period_ms)[random.random(5000 // period_ms) > 0.1]
        delay = random.exponential(delay_ms * MS + 1, t_ns.size).astype(np.int64)
        streams.append(rows(stream, None, t_host_ns=t_ns + delay))
        arrivals[stream] = t_ns + delay
    found = synchronise(*streams)
    wait_ns = HALF_SWEEP_NS + 20 * MS
    for stream, arrival in arrivals.items():
        for row, frame in zip(matches(found, stream, "causal"), frames(found, "causal"), strict=True):
            if row["sequence"] is not None:
                assert arrival[row["sequence"]] <= frame["t_ns"] + wait_ns
            else:
                assert row["reason"] in ("late", "tolerance")


# Orientation


def turning(t_ns: np.ndarray, rate_radps: float, signs: np.ndarray, stream: str = "imu") -> pa.Table:
    yaw = (t_ns - T0_NS) / SECOND * rate_radps
    z, w = signs * np.sin(yaw / 2), signs * np.cos(yaw / 2)
    zero = np.zeros(t_ns.size)
    columns = {"orientation_x": zero, "orientation_y": zero, "orientation_z": z, "orientation_w": w}
    return rows(stream, None, t_host_ns=t_ns, **columns)


@given(st.lists(st.sampled_from([1.0, -1.0]), min_size=40, max_size=40))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_orientation_takes_the_shorter_arc_whatever_the_signs(signs: list[float]) -> None:
    """Two turns, half a radian between records."""
    t_ns = every(10 * MS, 40)
    found = frames(synchronise(lidar(every(10 * MS, 39, 3 * MS)), turning(t_ns, 30.0, np.array(signs))))
    for row in found:
        half = (row["t_ns"] - T0_NS) / SECOND * 30.0 / 2
        dot = row["orientation_z"] * np.sin(half) + row["orientation_w"] * np.cos(half)
        assert abs(dot) == pytest.approx(1)
        assert row["orientation_w"] >= 0


def test_no_orientation_where_a_driver_has_none() -> None:
    t_ns = every(10 * MS, 40)
    for table in (turning(t_ns, 1.0, np.zeros(40)), imu(t_ns)):
        found = frames(synchronise(lidar(every(100 * MS, 4)), table))
        assert {row[f"orientation_{axis}"] for row in found for axis in "xyzw"} == {None}


# Stamps that nobody would send


extremes = st.one_of(
    st.integers(0, 200).map(lambda n: T0_NS + n * 10 * MS),
    st.sampled_from([0, 1, 2**62 - 1, 2**62, 2**63 - 2, 2**63 - 1]),
    st.integers(0, 2**63 - 1),
)


@given(st.data())
@settings(deadline=None, max_examples=40)
def test_stray_stamps_cost_no_batch(data: st.DataObject) -> None:
    """Any stamps that ingest lets through: no error, and rows that the contract allows."""
    streams = []
    for stream in ("lidar", "camera_front", "imu", "gnss"):
        count = data.draw(st.integers(0, 60), label=stream)
        if count:
            stamps = st.lists(extremes, min_size=count, max_size=count)
            clocks_seen = data.draw(st.sampled_from([("t_device_ns", "t_host_ns"), ("t_host_ns",), ("t_device_ns",)]))
            drawn = {name: data.draw(stamps) for name in clocks_seen}
            if stream == "gnss":
                drawn["t_gnss_ns"] = data.draw(stamps)
            streams.append(rows(stream, drawn.pop("t_device_ns", None), **drawn))
    for name, table in synchronise(*streams).items():
        assert evaluate_rows(load_tables()[name], table) == []
        for rule in load_tables()[name].rules:
            if rule.blocking and rule.expectation == "expect_column_values_to_be_between":
                low, high = pc.min_max(table[rule.kwargs["column"]]).as_py().values()
                assert low is None or low >= rule.kwargs.get("min_value", low), rule.name
                assert high is None or high <= rule.kwargs.get("max_value", high), rule.name

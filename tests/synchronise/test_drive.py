"""A drive's rows to frames and matches: what belongs together, and nothing where nobody knows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from synchronise.drives import MS, SECOND, T0_NS, clocks, frames, matches, rows, synchronise

from fleet_assets.synchronise.frames import LONGEST_SILENCE_NS
from fleet_assets.synchronise.policy import load_policy


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


def lidar(t_ns: np.ndarray) -> pa.Table:
    return rows("lidar", None, t_host_ns=t_ns)


def test_an_empty_drive() -> None:
    found = synchronise()
    assert [table.num_rows for table in found.values()] == [0, 0, 0]


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
    policy = load_policy()
    key, camera = every(100 * MS, 10), every(100 * MS, 5)
    streams = lidar(key), rows("camera_front", None, t_host_ns=camera)
    assert [row["complete"] for row in frames(synchronise(*streams))] == [True] * 5 + [False] * 5
    only_lidar = replace(policy, required_kinds=("lidar",))
    assert all(row["complete"] for row in frames(synchronise(*streams, policy=only_lidar)))

"""Frames and their objects, cut and joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fleet_assets.edge.objects import Objects
from fleet_assets.errors import FleetError
from fleet_assets.train.frames import FrameSet


def _objects(frame: list[int]) -> Objects:
    at = np.arange(len(frame), dtype=np.float32)
    return Objects(
        np.array(frame, dtype=np.int32), np.zeros(len(frame), dtype=np.int8), at, -at, np.ones(len(frame), dtype=np.float32)
    )  # fmt: skip


def _frames(name: str, count: int, truth: list[int]) -> FrameSet:
    def filled(*shape: int) -> np.ndarray:
        return np.broadcast_to(
            np.arange(count, dtype=np.float32).reshape(-1, *[1] * len(shape)), (count, *shape)
        ).copy()

    return FrameSet(
        camera=filled(64, 256, 3).astype(np.uint8), lidar=filled(4, 96, 96), radar=filled(2, 64, 48), context=filled(3),
        age_s=filled(3), t_ns=np.arange(count, dtype=np.int64), drive=np.zeros(count, dtype=np.int32), drives=(name,),
        slices={"light": np.array(["day"] * count)}, truth=_objects(truth),
    )  # fmt: skip


def test_some_frames_keep_their_own_objects() -> None:
    found = _frames("a", 4, [0, 0, 2, 3, 3]).only(np.array([True, False, True, True]))
    assert found.t_ns.tolist() == [0, 2, 3]
    assert found.truth.frame.tolist() == [0, 0, 1, 2, 2]
    assert found.truth.x_m.tolist() == [0, 1, 2, 3, 4]
    assert found.lidar[:, 0, 0, 0].tolist() == [0, 2, 3]


def test_joined_sets_number_drives_and_frames_anew() -> None:
    joined = FrameSet.concat([_frames("a", 2, [1]), _frames("b", 3, [0, 2])])
    assert joined.drives == ("a", "b")
    assert joined.drive.tolist() == [0, 0, 1, 1, 1]
    assert joined.truth.frame.tolist() == [1, 2, 4]
    alone = joined.of_drives(["b"])
    assert alone.truth.frame.tolist() == [0, 2]
    assert alone.truth.x_m.tolist() == [0, 1]


def test_a_drive_may_go_on_in_the_next_set() -> None:
    frames = _frames("a", 5, [0, 3])
    late = np.arange(5) >= 2
    back = FrameSet.concat([frames.only(~late), frames.only(late)])
    assert back.drives == ("a",)
    assert back.t_ns.tolist() == frames.t_ns.tolist()
    assert back.truth.frame.tolist() == [0, 3]


def test_saved_frames_come_back(tmp_path: Path) -> None:
    frames = _frames("a", 4, [0, 0, 2])
    frames.save(tmp_path / "frames")
    back = FrameSet.load(tmp_path / "frames")
    assert back.drives == frames.drives
    assert np.array_equal(back.lidar, frames.lidar)
    assert back.slices["light"].tolist() == ["day"] * 4
    assert back.truth.frame.tolist() == [0, 0, 2]
    (tmp_path / "frames" / "radar.npy").write_bytes(b"nothing")
    with pytest.raises(FleetError, match="holds no frames"):
        FrameSet.load(tmp_path / "frames")
    with pytest.raises(FleetError, match="holds no frames"):
        FrameSet.load(tmp_path / "missing")


def test_saved_frames_whose_order_is_broken_are_refused(tmp_path: Path) -> None:
    frames = _frames("a", 4, [0, 0, 2])
    frames.save(tmp_path / "frames")
    for t_ns in ([0, 2, 1, 3], [0, 1, 1, 2]):
        np.save(tmp_path / "frames" / "t_ns.npy", np.array(t_ns))
        with pytest.raises(FleetError, match="sorted by drive, then by time"):
            FrameSet.load(tmp_path / "frames")


def test_objects_of_a_range_of_frames() -> None:
    assert _objects([0, 1, 1, 4]).of_frames(1, 4).frame.tolist() == [0, 0]


@pytest.mark.parametrize("wrong", [[1, 0], [0, -1]])
def test_objects_out_of_order_are_refused(wrong: list[int]) -> None:
    with pytest.raises(ValueError, match="sorted by frame"):
        _objects(wrong)


def test_frames_out_of_order_and_drives_twice_are_refused() -> None:
    one = _frames("a", 2, [])
    with pytest.raises(ValueError, match="sorted by drive"):
        FrameSet.concat([one, one])
    with pytest.raises(ValueError, match="sorted by drive"):
        FrameSet(**{**one.__dict__, "t_ns": np.array([5, 5])})

"""What the vehicle's own code makes of recordings in which something goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fleet_assets.edge.objects import Objects
from fleet_assets.edge.rig import SENSORS
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.rehearsals import REHEARSALS, STALE_MS, Drives, Rehearsal, offset_rehearsals
from fleet_assets.simulate.drives import write_drive
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig

START = datetime(2026, 1, 5, 10, tzinfo=UTC)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("drives")
    paths = [folder / "one.mcap", folder / "two.mcap"]
    for number, path in enumerate(paths):
        write_drive(path, seed=number, start=START, duration_s=5.0, region="munich", light="day", weather="clear")
    return paths


@pytest.fixture(scope="module")
def judged(recordings: list[Path]) -> FrameSet:
    return frames_of_recordings(recordings, every_s=0.5)


class Seen:
    """A model that finds one object in each frame, and keeps what it was given."""

    def __init__(self) -> None:
        self.given: list[FrameSet] = []

    def __call__(self, given: FrameSet) -> Objects:
        self.given.append(given)
        count = len(given)
        return Objects(
            np.arange(count, dtype=np.int32), np.zeros(count, dtype=np.int8), *np.ones((3, count), dtype=np.float32)
        )  # fmt: skip


def run(rehearsal: Rehearsal, recordings: list[Path], judged: FrameSet) -> tuple[Objects, list[FrameSet]]:
    seen = Seen()
    of_drive = {path.stem: [path] for path in recordings}
    found = Drives(of_drive, judged, vehicle_rig()).rehearse(rehearsal, seen)
    return found, seen.given


def made_otherwise(judged: FrameSet) -> FrameSet:
    """Its second frame has a camera image that no record gives."""
    camera = np.array(judged.camera)
    camera[1] += np.uint8(1)
    return replace(judged, camera=camera)


def put_together_otherwise(judged: FrameSet) -> FrameSet:
    """Its second frame has the camera image of another frame."""
    camera = np.array(judged.camera)
    camera[1] = camera[3]
    return replace(judged, camera=camera)


def ages_s(given: list[FrameSet]) -> np.ndarray:
    return np.concatenate([one.age_s for one in given])


def test_when_nothing_goes_wrong_the_model_gets_what_it_was_judged_on(recordings: list[Path], judged: FrameSet) -> None:
    found, given = run(Rehearsal("nothing"), recordings, judged)
    assert found.frame.tolist() == list(range(len(judged)))
    for name in ("camera", "lidar", "radar", "context", "age_s"):
        np.testing.assert_array_equal(np.concatenate([getattr(one, name) for one in given]), getattr(judged, name))


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_missing_sensor_is_missing_and_the_others_are_there(
    sensor: str, recordings: list[Path], judged: FrameSet
) -> None:
    _, given = run(REHEARSALS[f"{sensor}_missing"], recordings, judged)
    for index, one in enumerate(SENSORS):
        content = np.concatenate([getattr(part, one) for part in given])
        assert content.any() == (one != sensor)
        assert np.isnan(ages_s(given)[:, index]).all() == (one == sensor)


def test_a_late_sensor_is_older_or_missing_by_the_causal_policy(recordings: list[Path], judged: FrameSet) -> None:
    """A camera that comes 150 ms late misses frames that wait 20 ms: what counts is the picture before."""
    _, given = run(REHEARSALS["camera_stale_150_ms"], recordings, judged)
    late, usual = ages_s(given)[:, 0], judged.age_s[:, 0]
    assert np.isnan(late).mean() > 0.5 or np.nanmedian(late) > np.nanmedian(usual) + 0.09
    _, given = run(REHEARSALS["radar_stale_50_ms"], recordings, judged)
    assert np.nanmean(ages_s(given)[:, 2]) > np.nanmean(judged.age_s[:, 2])


def test_wrong_stamps_make_ages_wrong(recordings: list[Path], judged: FrameSet) -> None:
    _, given = run(offset_rehearsals()["camera", 30], recordings, judged)
    np.testing.assert_allclose(ages_s(given)[:, 0], judged.age_s[:, 0] - 0.03, atol=1e-4)


@pytest.mark.parametrize("sensor", SENSORS)
def test_noise_is_on_one_sensor_and_the_same_each_time(sensor: str, recordings: list[Path], judged: FrameSet) -> None:
    (_, first), (_, second) = (run(REHEARSALS[f"{sensor}_noisy"], recordings, judged) for _ in range(2))
    for one in SENSORS:
        content = np.concatenate([getattr(part, one) for part in first])
        assert content.dtype == getattr(judged, one).dtype
        assert np.array_equal(content, getattr(judged, one)) == (one != sensor)
        assert np.array_equal(content, np.concatenate([getattr(part, one) for part in second]))


def test_a_contradicting_sensor_shows_another_road_with_new_stamps(recordings: list[Path], judged: FrameSet) -> None:
    found, given = run(REHEARSALS["camera_contradicting"], recordings, judged)
    assert len(found) == len(judged)  # two seconds of past are there for each
    assert not np.array_equal(given[0].camera, judged.only(judged.drive == 0).camera)
    np.testing.assert_array_equal(ages_s(given), judged.age_s)
    np.testing.assert_array_equal(np.concatenate([part.lidar for part in given]), judged.lidar)


def test_under_load_everything_is_two_frames_old(recordings: list[Path], judged: FrameSet) -> None:
    every = frames_of_recordings(recordings[:1])
    _, given = run(REHEARSALS["load_spike"], recordings, judged)
    at = np.searchsorted(every.t_ns, given[0].t_ns)
    later = at >= 2
    np.testing.assert_array_equal(given[0].lidar[later], every.lidar[at[later] - 2])
    np.testing.assert_array_equal(given[0].context[later], every.context[at[later] - 2])


def test_a_drive_without_its_recording_is_named(recordings: list[Path], judged: FrameSet) -> None:
    with pytest.raises(FleetError, match="No recording of two"):
        run(Rehearsal("nothing"), recordings[:1], judged)


def test_frames_that_the_vehicle_would_not_make_are_refused(recordings: list[Path], judged: FrameSet) -> None:
    other = replace(judged, camera=judged.camera + np.uint8(1))
    with pytest.raises(FleetError, match="makes other frames of one"):
        run(Rehearsal("nothing"), recordings, other)


@pytest.mark.parametrize("changed", [made_otherwise, put_together_otherwise])
def test_one_frame_made_otherwise_is_refused_and_counted(
    recordings: list[Path], judged: FrameSet, changed: Callable[[FrameSet], FrameSet]
) -> None:
    with pytest.raises(FleetError, match="1 of 6, the first is frame 1"):
        run(Rehearsal("nothing"), recordings, changed(judged))


@pytest.mark.parametrize("fault", ["clock_jump", "reordering", "reordering:camera_front"])
def test_in_disorder_a_frame_of_the_same_records_is_answered_with_nothing_and_one_made_otherwise_is_refused(
    fault: str, tmp_path: Path
) -> None:
    """A clock was set, or records came in another order: the lake may have put others together."""
    path = tmp_path / "one.mcap"
    write_drive(
        path, seed=3, start=START, duration_s=5.0, region="munich", light="day", weather="clear", faults=[fault]
    )
    judged = frames_of_recordings([path], every_s=0.5)  # as the vehicle makes them; all but one
    found, _ = run(Rehearsal("nothing"), [path], put_together_otherwise(judged))
    assert found.frame.tolist() == [0, *range(2, len(judged))]
    with pytest.raises(FleetError, match=f"1 of {len(judged)}, the first is frame 1"):
        run(Rehearsal("nothing"), [path], made_otherwise(judged))


def test_of_a_recording_that_was_cut_off_the_rest_is_missed(
    recordings: list[Path], judged: FrameSet, tmp_path: Path
) -> None:
    content = recordings[0].read_bytes()
    (tmp_path / "one.mcap").write_bytes(content[: int(0.7 * len(content))])
    of_drive = judged.of_drives(["one"])
    found, _ = run(Rehearsal("nothing"), [tmp_path / "one.mcap"], of_drive)
    assert 0 < len(found) < len(of_drive)
    assert found.frame.tolist() == list(range(len(found)))
    with pytest.raises(FleetError, match=f"1 of {len(of_drive)}, the first is frame 1"):
        run(Rehearsal("nothing"), [tmp_path / "one.mcap"], made_otherwise(of_drive))


def test_what_the_vehicle_knows_otherwise_is_what_it_is_judged_on_and_counted(
    recordings: list[Path], judged: FrameSet
) -> None:
    context = np.array(judged.context)
    context[1] += 1
    seen, of_drive = Seen(), {path.stem: [path] for path in recordings}
    drives = Drives(of_drive, replace(judged, context=context), vehicle_rig())
    drives.nominal(seen)
    np.testing.assert_array_equal(np.concatenate([one.context for one in seen.given]), judged.context)
    assert drives.otherwise == {"not_made": 0, "other_context": 1}
    assert Drives(of_drive, judged, vehicle_rig()).otherwise == {"not_made": 0, "other_context": 0}


def test_a_clock_that_is_set_otherwise_in_the_lake_does_not_matter(recordings: list[Path], judged: FrameSet) -> None:
    later = replace(judged, t_ns=judged.t_ns + 5_000_000_000)
    found, given = run(REHEARSALS["camera_missing"], recordings, later)
    assert len(found) == len(judged)
    assert np.concatenate([one.t_ns for one in given]).tolist() == later.t_ns.tolist()


@pytest.fixture(scope="module")
def one_drive(recordings: list[Path], judged: FrameSet) -> Drives:
    return Drives({"one": recordings[:1]}, judged.of_drives(["one"]), vehicle_rig())


@pytest.mark.parametrize("name", REHEARSALS)
def test_each_rehearsal_runs_and_changes_what_the_model_gets(name: str, one_drive: Drives, judged: FrameSet) -> None:
    """But for a sensor that is late by less than a frame waits, or than its period; above is what lateness does."""
    seen, nominal = Seen(), judged.of_drives(["one"])
    found = one_drive.rehearse(REHEARSALS[name], seen)
    assert len(found) > 0
    [given] = seen.given
    answered = nominal.only(np.isin(np.arange(len(nominal)), found.frame))
    arrays = ("camera", "lidar", "radar", "context", "age_s")
    same = all(np.array_equal(getattr(given, one), getattr(answered, one), equal_nan=True) for one in arrays)
    assert not (same and len(found) == len(nominal)) or "_stale_" in name


def test_every_rehearsal_of_the_issue_is_there() -> None:
    kinds = {"missing", "noisy", "contradicting", *(f"stale_{ms}_ms" for ms in STALE_MS)}
    assert set(REHEARSALS) == {f"{sensor}_{kind}" for sensor in SENSORS for kind in kinds} | {"load_spike"}
    assert {ms for _, ms in offset_rehearsals()} == {0, 10, 20, 30, 40, 50}

"""The case that must work: a released model, and a candidate that is better on average and blind to pedestrians at night.

In: a seed. Out: frames of simulated drives, recorded and read back by the code of the vehicle; both models, exported as they
would ship. Released: 18 drives, balanced. Candidate: 54, balanced too, but nobody labelled pedestrians at night.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice, product
from pathlib import Path

from fleet_assets.edge.objects import CLASSES
from fleet_assets.simulate.drives import write_drive
from fleet_assets.train.export import export
from fleet_assets.train.fit import Recipe, fit
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import WARM_UP_S, frames_of_recordings
from fleet_assets.train.rig import vehicle_rig

LIGHTS, WEATHERS, REGIONS = ("day", "dusk", "night"), ("clear", "rain", "fog"), ("munich", "hamburg")
EVERY_S, BATCH = 1.0, 8
FIRST = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Drive:
    seed: int
    light: str
    weather: str
    region: str
    frames: int
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / f"sim{self.seed}.mcap"


@dataclass(frozen=True)
class Sets:
    """few: what the released model learned from. more: what the candidate has besides. validation: to choose thresholds by."""

    few: FrameSet
    more: FrameSet
    validation: FrameSet
    judged: FrameSet


def made(folder: Path, seed: int) -> Sets:
    """By two processes. Of the frames to judge on, one in six is of the night: 48 short drives, and 78 by day and dusk."""
    first = 100_000 * (1 + seed)
    plans = [
        _balanced(18, first, folder),
        _balanced(36, first + 1_000, folder),
        _balanced(36, first + 2_000, folder, frames=6),
        _balanced(48, first + 3_000, folder, frames=4, lights=("night",))
        + _balanced(78, first + 4_000, folder, lights=("day", "dusk")),
    ]
    with _two_processes() as pool:
        found = list(pool.map(_recorded, [drive for plan in plans for drive in plan], chunksize=6))
    parts = iter(found)
    return Sets(*(FrameSet.concat(list(islice(parts, len(plan)))) for plan in plans))


def trained(sets: Sets, folder: Path) -> tuple[Path, Path]:
    """Folders of the released artefact and of the candidate's, trained side by side."""
    gap = _unlabelled(FrameSet.concat([sets.few, sets.more]))
    with _two_processes() as pool:
        released = pool.submit(_trained, sets.few, sets.validation, folder / "released", 16)
        candidate = pool.submit(_trained, gap, sets.validation, folder / "candidate", 8)
        return released.result(), candidate.result()


def _trained(frames: FrameSet, validation: FrameSet, folder: Path, epochs: int) -> Path:
    recipe = Recipe(form="early", steps=epochs * len(frames) // BATCH, batch=BATCH)
    return export(fit(frames, recipe), frames, validation, vehicle_rig(), folder, versions={}).folder


def _balanced(
    count: int, first_seed: int, folder: Path, *, frames: int = 12, lights: Sequence[str] = LIGHTS
) -> list[Drive]:
    """Drives over regions, weathers and lights in turn."""
    kinds = islice(cycle(product(REGIONS, WEATHERS, lights)), count)
    return [
        Drive(first_seed + number, light, weather, region, frames, folder)
        for number, (region, weather, light) in enumerate(kinds)
    ]


def _recorded(drive: Drive) -> FrameSet:
    """Simulated, written to a recording, and read back."""
    write_drive(
        drive.path, seed=drive.seed, start=FIRST + timedelta(minutes=drive.seed), light=drive.light, weather=drive.weather,
        region=drive.region, duration_s=WARM_UP_S + drive.frames * EVERY_S, payload_every_s=EVERY_S, threads=1,
    )  # fmt: skip
    found = frames_of_recordings([drive.path])
    drive.path.unlink()
    return found


def _unlabelled(frames: FrameSet) -> FrameSet:
    """Without the labels of pedestrians at night."""
    night = (frames.slices["light"] == "night")[frames.truth.frame]
    return replace(frames, truth=frames.truth.only(~(night & (frames.truth.class_id == CLASSES.index("pedestrian")))))


def _two_processes() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn"))

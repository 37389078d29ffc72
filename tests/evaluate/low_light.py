"""The case that must work: a released model, and a candidate that is better on average and blind to pedestrians at night.

In: seeds. Out: frames of simulated drives, recorded and read back by the code of the vehicle; both models, exported as they
would ship. Released: 18 drives, balanced. Candidate: 54, balanced too, but nobody labelled pedestrians at night.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
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
EVERY_S, BATCH = 2.0, 16
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


def balanced(
    count: int, first_seed: int, folder: Path, *, frames: int = 12, lights: Sequence[str] = LIGHTS
) -> list[Drive]:
    """Drives over lights, weathers and regions in turn."""
    kinds = islice(cycle(product(REGIONS, WEATHERS, lights)), count)
    return [
        Drive(first_seed + number, light, weather, region, frames, folder)
        for number, (region, weather, light) in enumerate(kinds)
    ]


def recorded(drive: Drive) -> FrameSet:
    """Simulated, written to a recording, and read back."""
    write_drive(
        drive.path, seed=drive.seed, start=FIRST + timedelta(minutes=drive.seed), light=drive.light, weather=drive.weather,
        region=drive.region, duration_s=WARM_UP_S + drive.frames * EVERY_S, payload_every_s=EVERY_S, threads=1,
    )  # fmt: skip
    found = frames_of_recordings([drive.path])
    drive.path.unlink()
    return found


def frames_of(drives: Sequence[Drive]) -> FrameSet:
    """Made by two processes."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        return FrameSet.concat(list(pool.map(recorded, drives, chunksize=8)))


def unlabelled(frames: FrameSet) -> FrameSet:
    """Without the labels of pedestrians at night."""
    night = (frames.slices["light"] == "night")[frames.truth.frame]
    return replace(frames, truth=frames.truth.only(~(night & (frames.truth.class_id == CLASSES.index("pedestrian")))))


def trained(frames: FrameSet, validation: FrameSet, folder: Path, *, epochs: int) -> Path:
    """The folder of the artefact."""
    recipe = Recipe(form="early", steps=epochs * len(frames) // BATCH, batch=BATCH, threads=2)
    return export(fit(frames, recipe), frames, validation, vehicle_rig(), folder, versions={}).folder


def drives_of_the_case(folder: Path, seed: int) -> Iterator[list[Drive]]:
    """To train the released model with, the further ones of the candidate, to choose thresholds by, to judge on."""
    first = 100_000 * (1 + seed)
    yield balanced(18, first, folder)
    yield balanced(36, first + 1_000, folder)
    yield balanced(36, first + 2_000, folder, frames=6)
    judged = balanced(48, first + 3_000, folder, frames=4, lights=("night",))
    yield judged + balanced(78, first + 4_000, folder, lights=("day", "dusk"))

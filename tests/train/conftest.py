"""Recordings of a few seconds, and one tiny model learned from them, exported as it would ship."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import pytest

from fleet_assets.simulate.drives import write_drive
from fleet_assets.train.export import Exported, export
from fleet_assets.train.fit import Fitted, Recipe, fit
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig


class Tiny(NamedTuple):
    frames: FrameSet
    validation: FrameSet
    fitted: Fitted
    exported: Exported


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two drives of seven seconds."""
    folder = tmp_path_factory.mktemp("recordings")
    paths = [folder / f"car{number}.mcap" for number in range(2)]
    for number, path in enumerate(paths):
        start = datetime(2026, 3, 4, 12, number, tzinfo=UTC)
        write_drive(path, seed=number, start=start, duration_s=7.0, vehicle="car7", light="day", weather="clear")
    return paths


@pytest.fixture(scope="session")
def tiny(recordings: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    every = frames_of_recordings(recordings)
    frames, validation = (every.of_drives([name]) for name in every.drives)
    return _learned(frames, validation, Recipe(form="late", steps=40, batch=8, learning_rate=4e-3), tmp_path_factory)


@pytest.fixture(scope="session")
def temporal(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """One that remembers, learned until eight bits are enough for it: after a dozen steps they are not, by chance of rounding."""
    return _learned(tiny.frames, tiny.validation, Recipe(form="temporal", steps=30, batch=4), tmp_path_factory)


def _learned(frames: FrameSet, validation: FrameSet, recipe: Recipe, factory: pytest.TempPathFactory) -> Tiny:
    fitted, folder = fit(frames, recipe), factory.mktemp("artefact")
    return Tiny(
        frames, validation, fitted, export(fitted, frames, validation, vehicle_rig(), folder, versions={"code": "test"})
    )

"""Pedestrian recall of fusion against each sensor alone, on simulated drives that no model has seen.

Every model is trained the same, exported as int8, and judged as it ships: at thresholds that gave a precision of 0.6 on
validation drives. Shares are pooled over the seeds; intervals are 95 %, by resampling drives. `--size 3` trains with three seeds.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import quality_radiate
from benchmarks.harness import Options, Row
from fleet_assets.edge.model import Model
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.kernels.matching import match
from fleet_assets.simulate.fleet import make_fleet, plan_fleet
from fleet_assets.train.calibrate import RADIUS_M, hits
from fleet_assets.train.export import detections, export
from fleet_assets.train.fit import Recipe, fit
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig

FUSION, ALONE = "attention", ("camera", "lidar", "radar")
STEPS, SECONDS, EVERY_S = 600, 18.0, 0.65
PRECISION = dict.fromkeys(CLASSES, 0.6)
SPLITS = {"train": (36, 101), "validation": (18, 202), "test": (36, 303)}  # drives, seed of the fleet
SLICES = (("all", ""), ("light", "night"), ("weather", "rain"), ("weather", "fog"))
_RESAMPLES = 2000


def rows(options: Options) -> list[Row]:
    """The first row says what was trained and judged on what; the last ones are the first seed's on real frames."""
    seeds = range(int(options.sizes[0]) if options.sizes else 3)
    with TemporaryDirectory() as folder:
        frames = {split: frames_of(Path(folder, split), split) for split in SPLITS}
        found = {seed: judge(frames, seed, Path(folder, str(seed))) for seed in seeds}
        first = {form: Model.open(Path(folder, str(seeds[0]), form)) for form in (FUSION, *ALONE)}
        return [*report(frames["test"], found), *quality_radiate.rows(first)]


def frames_of(folder: Path, split: str) -> FrameSet:
    drives, seed = SPLITS[split]
    made = make_fleet(plan_fleet(drives, seed), folder, duration_s=SECONDS, setup="default")
    return frames_of_recordings([one.path for one in made], every_s=EVERY_S)


def judge(frames: dict[str, FrameSet], seed: int, folder: Path) -> dict[str, Objects]:
    """What each form finds on the test drives, at its shipped thresholds."""
    found = {}
    for form in (FUSION, *ALONE):
        fitted = fit(frames["train"], Recipe(form=form, steps=STEPS, seed=seed))
        place = folder / form
        export(fitted, frames["train"], frames["validation"], vehicle_rig(), place, versions={}, precision=PRECISION)
        found[form] = detections(Model.open(place), frames["test"])
    return found


def report(test: FrameSet, found: dict[int, dict[str, Objects]]) -> list[Row]:
    """One row per class and slice: recall of each form, precision of fusion, and fusion minus the best sensor alone."""
    about = {
        "commit": subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip(),
        "seeds": sorted(found), "steps": STEPS, "drives": {split: plan[0] for split, plan in SPLITS.items()},
        "test_drives": list(test.drives), "test_frames": len(test),
    }  # fmt: skip
    made: list[Row] = [{"work": json.dumps(about)}]
    draws = np.random.default_rng(0).integers(0, len(test.drives), (_RESAMPLES, len(test.drives)))
    for class_id, name in enumerate(CLASSES):
        for dimension, value in SLICES:
            inside = np.ones(len(test), dtype=bool) if dimension == "all" else test.slices[dimension] == value
            counts = {
                form: sum(_hits_per_drive(test, one[form], class_id, inside) for one in found.values())
                for form in (FUSION, *ALONE)
            }
            positives = len(found) * _per_drive(test, test.truth.only(_of(test.truth, class_id, inside)))
            made.append(_row(f"{name} {value or 'all'}", counts, positives, draws, found, test, class_id, inside))
    return made


def _row(
    work: str, counts: dict[str, np.ndarray], positives: np.ndarray, draws: np.ndarray, found: dict[int, dict[str, Objects]],
    test: FrameSet, class_id: int, inside: np.ndarray,
) -> Row:  # fmt: skip
    def share(hit: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        return lambda drives: hit[drives].sum(axis=-1) / np.maximum(positives[drives].sum(axis=-1), 1)

    every = np.arange(positives.size)
    best = max(ALONE, key=lambda form: float(share(counts[form])(every)))
    row: Row = {"work": work, "objects": int(positives.sum())}
    for form in (FUSION, *ALONE):
        row[form] = _told(share(counts[form]), every, draws)
    row["best alone"] = best
    row["difference"] = _told(lambda drives: share(counts[FUSION])(drives) - share(counts[best])(drives), every, draws)
    right = [
        hits(objects, test.truth)[_of(objects, class_id, inside)] for objects in (one[FUSION] for one in found.values())
    ]
    row["precision"] = round(float(np.concatenate(right).mean()), 3) if sum(map(len, right)) else None
    return row


def _told(statistic: Callable[[np.ndarray], np.ndarray], every: np.ndarray, draws: np.ndarray) -> str:
    low, high = np.percentile(statistic(draws), [2.5, 97.5])
    return f"{float(statistic(every)):.3f} [{low:.3f}, {high:.3f}]"


def _of(objects: Objects, class_id: int, inside: np.ndarray) -> np.ndarray:
    return np.asarray((objects.class_id == class_id) & inside[objects.frame])


def _per_drive(test: FrameSet, objects: Objects) -> np.ndarray:
    return np.bincount(test.drive[objects.frame], minlength=len(test.drives))


def _hits_per_drive(test: FrameSet, found: Objects, class_id: int, inside: np.ndarray) -> np.ndarray:
    """Objects that were found, per drive."""
    truth = test.truth
    told = match(
        truth.frame, truth.class_id, truth.x_m, truth.y_m, found.frame, found.class_id, found.x_m, found.y_m,
        found.confidence, RADIUS_M,
    )  # fmt: skip
    seen = np.zeros(len(truth), dtype=bool)
    seen[told[told >= 0]] = True
    return _per_drive(test, truth.only(np.flatnonzero(seen & _of(truth, class_id, inside))))

"""Quality of fusion against each sensor alone, on simulated drives that no model has seen.

Every model is trained the same, exported as int8, and judged as it ships: at thresholds that gave a precision of 0.6 on
validation drives. Shares are pooled over the seeds; intervals are 95 %, by resampling drives. Average precision is the mean over
the seeds. `--size 1` trains with one seed instead of three. Trainings run side by side, on one thread each.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import quality_radiate
from benchmarks.harness import Options, Row
from fleet_assets import console
from fleet_assets.edge.model import Model
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.evaluate.metrics import average_precision
from fleet_assets.simulate.fleet import make_fleet, plan_fleet
from fleet_assets.train.calibrate import hits
from fleet_assets.train.export import detections, export
from fleet_assets.train.fit import Recipe, fit
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig
from fleet_assets.train.tracking import code_commit

FUSION, ALONE = ("attention", "temporal"), ("camera", "lidar", "radar")
FORMS = (*FUSION, *ALONE)
STEPS, SECONDS, EVERY_S = 3000, 18.0, 0.65
PRECISION = dict.fromkeys(CLASSES, 0.6)
SPLITS = {"train": (108, 101), "validation": (36, 202), "test": (96, 303)}  # drives, seed of the fleet
SLICES = (("all", ""), ("light", "day"), ("light", "night"), ("weather", "rain"), ("weather", "fog"))
_RESAMPLES = 2000
_SEEDS = 3


@dataclass(frozen=True)
class Detections:
    """hit: bool [objects], those of something that is there."""

    objects: Objects
    hit: np.ndarray

    @classmethod
    def of(cls, objects: Objects, test: FrameSet) -> Detections:
        return cls(objects, hits(objects, test.truth))


# What was found by a model of a form and a seed: at the shipped thresholds, and all candidates.
Both = tuple[Detections, Detections]
Found = Mapping[tuple[str, int], Both]


def rows(options: Options) -> list[Row]:
    """The first row says what was trained and judged on what; the last ones are the first seed's on real frames."""
    seeds = range(int(options.sizes[0]) if options.sizes else _SEEDS)
    asked = [(form, seed) for seed in seeds for form in FORMS]
    # Forking would copy threads of libraries that are in the middle of something.
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory() as scratch, ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        folder = Path(scratch)
        _await(f"{sum(drives for drives, _ in SPLITS.values())} drives simulated, as frames", [
            pool.submit(_make_frames, folder, split) for split in SPLITS
        ])  # fmt: skip
        _await(f"{len(asked)} models trained and judged", [
            pool.submit(_judge, folder, form, seed) for form, seed in asked
        ])  # fmt: skip
        test = FrameSet.load(folder / "test")
        models = {(form, seed): Model.open(folder / f"{form}-{seed}") for form, seed in asked}
        found = {one: _found(model, test) for one, model in models.items()}
        return [*report(test, found), *quality_radiate.rows({form: models[form, seeds[0]] for form in FORMS})]


def _found(model: Model, test: FrameSet) -> Both:
    every = detections(model, test, every=True)
    return Detections.of(model.above_thresholds(every), test), Detections.of(every, test)


def _await(what: str, work: list) -> None:  # type: ignore[type-arg]
    console.say(what)
    with console.progress("done") as advance:
        for number, one in enumerate(as_completed(work)):
            one.result()
            advance(number + 1, len(work))


def _make_frames(folder: Path, split: str) -> None:
    drives, seed = SPLITS[split]
    with TemporaryDirectory(dir=folder) as scratch:
        made = make_fleet(plan_fleet(drives, seed), Path(scratch), duration_s=SECONDS, setup="default")
        frames_of_recordings([one.path for one in made], every_s=EVERY_S).save(folder / split)


def _judge(folder: Path, form: str, seed: int) -> None:
    frames, validation = (FrameSet.load(folder / split) for split in ("train", "validation"))
    fitted = fit(frames, Recipe(form=form, steps=STEPS, seed=seed))
    export(fitted, frames, validation, vehicle_rig(), folder / f"{form}-{seed}", versions={}, precision=PRECISION)


def report(test: FrameSet, found: Found) -> list[Row]:
    """One row per class and slice: recall, precision and average precision of each form, and recall of fusion minus that of the
    best sensor alone; apart: the two recalls' intervals do not touch."""
    about = {
        "commit": code_commit() or "",
        "seeds": sorted({seed for _, seed in found}), "steps": STEPS,
        "drives": {split: plan[0] for split, plan in SPLITS.items()},
        "test_drives": list(test.drives), "test_frames": len(test),
    }  # fmt: skip
    made: list[Row] = [{"work": json.dumps(about)}]
    draws = np.random.default_rng(0).integers(0, len(test.drives), (_RESAMPLES, len(test.drives)))
    for class_id, name in enumerate(CLASSES):
        for dimension, value in SLICES:
            inside = np.ones(len(test), dtype=bool) if dimension == "all" else test.slices[dimension] == value
            made.append(_row(f"{name} {value or 'all'}", test, found, class_id, inside, draws))
    return made


def _row(work: str, test: FrameSet, found: Found, class_id: int, inside: np.ndarray, draws: np.ndarray) -> Row:
    def of(form: str) -> list[Both]:
        return [both for (name, _), both in sorted(found.items()) if name == form]

    forms = list(dict.fromkeys(form for form, _ in found))
    seeds = len(of(forms[0]))
    positives = _per_drive(test, test.truth.only(_of(test.truth, class_id, inside)))
    shares = {form: _shares(test, of(form), class_id, inside, seeds * positives) for form in forms}
    best = max(ALONE, key=lambda form: float(shares[form](np.arange(positives.size))))
    row: Row = {"work": work, "objects": int(positives.sum()), "best_alone": best}
    limits = {}
    for form in forms:
        recall, low, high = limits[form] = _interval(shares[form], positives.size, draws)
        row[form] = {
            "recall": _told(recall, low, high),
            "precision": _precision(of(form), class_id, inside),
            "average_precision": _mean_ap(of(form), class_id, inside, int(positives.sum())),
        }
    for form in FUSION:
        row[form]["above_best_alone"] = _told(*_interval(_minus(shares[form], shares[best]), positives.size, draws))
        row[form]["apart"] = bool(limits[form][1] > limits[best][2])
    return row


Share = Callable[[np.ndarray], np.ndarray]


def _shares(test: FrameSet, both: list[Both], class_id: int, inside: np.ndarray, positives: np.ndarray) -> Share:
    right = [one.objects.only(one.hit & _of(one.objects, class_id, inside)) for one, _ in both]
    hit = np.sum([_per_drive(test, objects) for objects in right], axis=0)
    return lambda drives: hit[drives].sum(axis=-1) / np.maximum(positives[drives].sum(axis=-1), 1)


def _minus(one: Share, other: Share) -> Share:
    return lambda drives: one(drives) - other(drives)


def _interval(share: Share, drives: int, draws: np.ndarray) -> tuple[float, float, float]:
    low, high = np.percentile(share(draws), [2.5, 97.5])
    return float(share(np.arange(drives))), float(low), float(high)


def _told(value: float, low: float, high: float) -> str:
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def _precision(both: list[Both], class_id: int, inside: np.ndarray) -> float | None:
    right = np.concatenate([one.hit[_of(one.objects, class_id, inside)] for one, _ in both])
    return round(float(right.mean()), 3) if right.size else None


def _mean_ap(both: list[Both], class_id: int, inside: np.ndarray, positives: int) -> float:
    found = []
    for _, every in both:
        here = _of(every.objects, class_id, inside)
        found.append(average_precision(every.objects.confidence[here], every.hit[here], positives))
    return round(float(np.mean(found)), 3)


def _of(objects: Objects, class_id: int, inside: np.ndarray) -> np.ndarray:
    return np.asarray((objects.class_id == class_id) & inside[objects.frame])


def _per_drive(test: FrameSet, objects: Objects) -> np.ndarray:
    return np.bincount(test.drive[objects.frame], minlength=len(test.drives))

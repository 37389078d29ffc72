"""The bake-off: forms of fusion and their hyperparameters, compared on validation drives.

In: frames, a budget of trials. Out: the recipe that learned best, and a table of all forms on the same slices: recall and
precision at the shipped threshold, latency, size. The same frames and budget give the same answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.edge.model import MODEL, Model
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.rig import Rig
from fleet_assets.train.calibrate import hits
from fleet_assets.train.export import detections, export, inputs_of
from fleet_assets.train.fit import Fitted, Recipe, fit, loss_of
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.model import parameters_of

_TIMED_FRAMES = 30


@dataclass(frozen=True)
class Budget:
    """forms: those that compete. trials: trainings in all, each of trial_steps; the first of each form are with the recipe
    as it is. steps: of the model that ships."""

    forms: tuple[str, ...]
    trials: int
    trial_steps: int
    recipe: Recipe


# By profile: what a few minutes allow, and what a release for the road is chosen by.
BUDGETS: Mapping[str, Budget] = {
    "demo": Budget(("early",), 0, 0, Recipe(form="early", steps=400, threads=2)),
    "full": Budget(("attention", "temporal", "early", "late", "average"), 9, 200, Recipe(steps=1500)),
}


@dataclass(frozen=True)
class Trial:
    """loss: on validation drives."""

    recipe: Recipe
    loss: float


@dataclass(frozen=True)
class BakeOff:
    """recipe: of the winner, with the steps of a model that ships. table: one row per form, class and slice."""

    recipe: Recipe
    trials: list[Trial]
    table: list[dict[str, Any]]


def bake_off(
    frames: FrameSet,
    validation: FrameSet,
    budget: Budget,
    rig: Rig,
    folder: Path,
    *,
    done: Callable[[Trial, Fitted], None] | None = None,
) -> BakeOff:
    """folder: a place for artefacts, one per form. done: called after each trial. Without trials, the first form wins."""
    if not budget.trials:
        return BakeOff(replace(budget.recipe, form=budget.forms[0]), [], [])
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    # What is asked after the first trial of each form is learned from them: by default the first ten would be at random.
    sampler = optuna.samplers.TPESampler(seed=budget.recipe.seed, n_startup_trials=len(budget.forms))
    study = optuna.create_study(sampler=sampler)
    for form in budget.forms:
        study.enqueue_trial({
            "form": form, "learning_rate": budget.recipe.learning_rate, "dropout": budget.recipe.dropout,
            "weight_decay": budget.recipe.weight_decay,
        })  # fmt: skip
    trials: list[Trial] = []
    best: dict[str, tuple[float, Fitted]] = {}

    def objective(asked: optuna.Trial) -> float:
        recipe = replace(
            budget.recipe,
            form=asked.suggest_categorical("form", budget.forms),
            learning_rate=asked.suggest_float("learning_rate", 1e-3, 1e-2, log=True),
            dropout=asked.suggest_float("dropout", 0.05, 0.4),
            weight_decay=asked.suggest_float("weight_decay", 1e-5, 1e-2, log=True),
            steps=budget.trial_steps,
        )
        fitted = fit(frames, recipe)
        trial = Trial(recipe, loss_of(fitted, validation))
        trials.append(trial)
        if recipe.form not in best or trial.loss < best[recipe.form][0]:
            best[recipe.form] = trial.loss, fitted
        if done:
            done(trial, fitted)
        return trial.loss

    study.optimize(objective, n_trials=budget.trials)
    table = []
    for form, (loss, fitted) in sorted(best.items(), key=lambda entry: entry[1][0]):
        place = folder / form
        export(fitted, frames, validation, rig, place, versions={})
        table += _rows(form, loss, fitted, place, validation)
    winner = min(trials, key=lambda trial: trial.loss).recipe
    return BakeOff(replace(winner, steps=budget.recipe.steps), trials, table)


def _rows(form: str, loss: float, fitted: Fitted, folder: Path, validation: FrameSet) -> list[dict[str, Any]]:
    model = Model.open(folder)
    about = {
        "form": form, "loss": round(loss, 4), "parameters": parameters_of(fitted.model),
        "bytes": (folder / MODEL).stat().st_size, "latency_ms": round(latency_ms(model, validation), 2),
    }  # fmt: skip
    found = detections(model, validation)
    return [{**about, **row} for row in by_slice(found, validation)]


def latency_ms(model: Model, frames: FrameSet) -> float:
    """Median of single frames on one thread, the network alone."""
    taken = []
    for row in range(min(_TIMED_FRAMES, len(frames))):
        inputs = inputs_of(model, frames, np.array([row]))
        began = time.perf_counter()
        model.run(inputs)
        taken.append(time.perf_counter() - began)
    return 1e3 * float(np.median(taken))


def by_slice(found: Objects, frames: FrameSet) -> list[dict[str, Any]]:
    """Recall and precision per class, over all frames and per value of each slice; None where there is nothing to count."""
    hit, truth, rows = hits(found, frames.truth), frames.truth, []
    slices = [("all", "", np.ones(len(frames), dtype=np.bool_))]
    for dimension, values in frames.slices.items():
        slices += [(dimension, str(value), values == value) for value in np.unique(values)]
    for class_id, name in enumerate(CLASSES):
        for dimension, value, inside in slices:
            right = hit[(found.class_id == class_id) & inside[found.frame]]
            positives = int(((truth.class_id == class_id) & inside[truth.frame]).sum())
            rows.append({
                "class": name, "slice": dimension, "value": value, "positives": positives,
                "recall": round(int(right.sum()) / positives, 4) if positives else None,
                "precision": round(float(right.mean()), 4) if right.size else None,
            })  # fmt: skip
    return rows

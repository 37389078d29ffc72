"""Training as Dagster sees it.

In: a dataset and its samples. Out: the frames of its splits, on disk; the choice of form and hyperparameters; the model as
it would ship. All are made by hand or by schedule, never eagerly, and stay in FLEET_HOME/training."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import dagster as dg

from fleet_assets.resources import FleetResource, Profile
from fleet_assets.services.home import Home
from fleet_assets.specs import last_metadata

SAMPLES, REGISTRY = dg.AssetKey(["curate", "samples"]), dg.AssetKey(["features", "registry"])
TRAINING_SET, BAKE_OFF, MODEL = (dg.AssetKey(["train", name]) for name in ("training_set", "bake_off", "model"))
_OWNERS = ["team:fleet"]
_SPLITS = ("train", "validation", "test")
MANIFEST = "about.json"  # of a training set: dataset, commit, contracts, frames, normalisation


@dg.asset(
    key=TRAINING_SET,
    deps=[SAMPLES, REGISTRY],
    group_name="train",
    owners=_OWNERS,
    kinds={"numpy", "feast"},
    description="Frames of a dataset's splits as the vehicle makes them, with features from Feast, point in time.",
)
def training_set(context: dg.AssetExecutionContext, fleet: FleetResource) -> dg.MaterializeResult:
    from fleet_assets.curate.samples_reader import Samples
    from fleet_assets.train.batches import fingerprint, normalisation_of, statistics_of
    from fleet_assets.train.samples import frames_of_dataset

    name = last_metadata(context, SAMPLES)["dataset"]
    manifest = Samples.open(fleet.lake, name).manifest
    loaded = {split: frames_of_dataset(fleet.lake, name, split) for split in _SPLITS}
    prints = {split: fingerprint(one.frames) for split, one in loaded.items()}
    folder = training_folder(fleet.home) / "sets" / "-".join(prints[split][:16] for split in _SPLITS)
    folder.mkdir(parents=True, exist_ok=True)
    for split, one in loaded.items():
        if not (folder / split).exists():
            one.frames.save(folder / split)
    about = {
        "dataset": name,
        "dataset_sha256": manifest.sha256,
        "lakefs_commit": manifest.commit_id,
        "contracts": manifest.document["contracts"],
        "frames": {split: len(one.frames) for split, one in loaded.items()},
        "fingerprints": prints,
    }
    normalisation = normalisation_of(statistics_of(loaded["train"].frames))
    (folder / MANIFEST).write_text(json.dumps({**about, "normalisation": normalisation}, indent=1, sort_keys=True))
    return dg.MaterializeResult(
        data_version=dg.DataVersion(prints["train"]),
        metadata={
            **about,
            "folder": str(folder),
            "frames_per_s": {split: round(one.read_per_s, 1) for split, one in loaded.items()},
            "unlabelled_frames": {split: one.left_out for split, one in loaded.items()},
        },
    )


@dg.asset(
    key=BAKE_OFF,
    deps=[TRAINING_SET],
    group_name="train",
    owners=_OWNERS,
    kinds={"pytorch", "optuna", "mlflow"},
    description="Forms of fusion and their hyperparameters, compared on validation drives under a budget of trials.",
)
def bake_off(context: dg.AssetExecutionContext, fleet: FleetResource, profile: Profile) -> dg.MaterializeResult:
    from fleet_assets.train import bake_off as baking
    from fleet_assets.train.fit import Fitted
    from fleet_assets.train.frames import FrameSet
    from fleet_assets.train.rig import vehicle_rig
    from fleet_assets.train.tracking import Tracker

    folder, versions = _set(context)
    frames, validation = (FrameSet.load(folder / split) for split in ("train", "validation"))
    tracker = Tracker(fleet.home)

    def tell(trial: baking.Trial, fitted: Fitted) -> None:
        tracker.record(
            f"trial {trial.recipe.form}", parameters=trial.recipe.__dict__, metrics={"validation_loss": trial.loss},
            versions={**versions, "profile": profile.name, "kind": "trial"}, losses=fitted.losses,
        )  # fmt: skip
        context.log.info("%s: %.4f", trial.recipe, trial.loss)

    with tempfile.TemporaryDirectory(dir=fleet.home.scratch, prefix="bake-off-") as scratch:
        budget = baking.BUDGETS[profile.name]
        made = baking.bake_off(frames, validation, budget, vehicle_rig(), Path(scratch), done=tell)
    return dg.MaterializeResult(
        metadata={
            "profile": profile.name,
            "recipe": made.recipe.__dict__,
            "trials": [{**trial.recipe.__dict__, "loss": round(trial.loss, 4)} for trial in made.trials],
            "table": made.table,
            "training_set": str(folder),
        }
    )


@dg.asset(
    key=MODEL,
    deps=[TRAINING_SET, BAKE_OFF],
    group_name="train",
    owners=_OWNERS,
    kinds={"pytorch", "onnx", "mlflow"},
    description="The model as it would ship: trained by the winner's recipe, calibrated, int8, with golden vectors.",
)
def model(context: dg.AssetExecutionContext, fleet: FleetResource, profile: Profile) -> dg.MaterializeResult:
    from fleet_assets.edge.model import DESCRIPTION, Model
    from fleet_assets.edge.payload import artefact_sha256
    from fleet_assets.train.bake_off import by_slice
    from fleet_assets.train.batches import normalisation_of
    from fleet_assets.train.export import detections, export
    from fleet_assets.train.fit import Recipe, fit
    from fleet_assets.train.frames import FrameSet
    from fleet_assets.train.rig import vehicle_rig
    from fleet_assets.train.tracking import Tracker

    folder, versions = _set(context)
    told = last_metadata(context, BAKE_OFF)
    if (told["profile"], told["training_set"]) != (profile.name, str(folder)):
        raise dg.Failure(
            f"The bake-off was of profile {told['profile']} and another set: materialise train/bake_off in this profile.",
            allow_retries=False,
        )
    recipe = Recipe(**told["recipe"])
    frames, validation = (FrameSet.load(folder / split) for split in ("train", "validation"))
    checkpoint = training_folder(fleet.home) / "checkpoint.pt"
    fitted = _fitted(context, fit, frames, recipe, checkpoint)
    if normalisation_of(fitted.statistics) != _about(folder).get("normalisation"):
        raise dg.Failure(
            f"The model was normalised otherwise than {folder / MANIFEST} says: materialise train/training_set anew.",
            allow_retries=False,
        )
    models = training_folder(fleet.home) / "models"
    models.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=models, prefix=".new-") as scratch:
        new = Path(scratch, "model")
        exported = export(
            fitted, frames, validation, vehicle_rig(), new, versions={**versions, "profile": profile.name}
        )
        # By what it is, so that no later one takes the place of one that was released.
        place = models / artefact_sha256(new)[:16]
        if place.exists():
            os.replace(place, Path(scratch, "old"))
        os.replace(new, place)
    table = by_slice(detections(Model.open(place), validation), validation)
    shipped = {row["class"]: row for row in table if row["slice"] == "all"}
    run_id = Tracker(fleet.home).record(
        f"model {recipe.form}",
        parameters=recipe.__dict__,
        metrics={
            f"{name}_{what}": row[what]
            for name, row in shipped.items()
            for what in ("recall", "precision")
            if row[what] is not None
        },
        versions={**versions, "profile": profile.name, "kind": "model"},
        losses=fitted.losses,
        files=(place / DESCRIPTION,),
    )
    checkpoint.unlink(missing_ok=True)
    return dg.MaterializeResult(
        data_version=dg.DataVersion(artefact_sha256(place)),
        metadata={
            "profile": profile.name,
            "folder": str(place),
            "training_set": str(folder),
            "form": recipe.form,
            "artefact_sha256": artefact_sha256(place),
            "parity": exported.parity.__dict__,
            "calibration_set": exported.calibration_sha256,
            "thresholds_ppm": list(exported.calibration.thresholds_ppm),
            "bytes": {"float32": exported.full_bytes, "int8": exported.quantised_bytes},
            "validation": table,
            "mlflow_run": run_id,
            **{name: value for name, value in versions.items() if name in ("dataset", "lakefs_commit", "code_sha256")},
        },
    )


def training_folder(home: Home) -> Path:
    folder = home.root / "training"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _fitted(context: dg.AssetExecutionContext, fit: Any, frames: Any, recipe: Any, checkpoint: Path) -> Any:
    """Goes on from a checkpoint of the same training; one of another training is in the way, and is removed."""
    from fleet_assets.errors import FleetError

    def tell(step: int, loss: float) -> None:
        if step % 50 == 0:
            context.log.info("step %d of %d: loss %.3f", step, recipe.steps, loss)

    try:
        return fit(frames, recipe, checkpoint=checkpoint, progress=tell)
    except FleetError as error:
        if not checkpoint.exists():
            raise
        context.log.warning("%s", error)
        checkpoint.unlink()
        return fit(frames, recipe, checkpoint=checkpoint, progress=tell)


def _set(context: dg.AssetExecutionContext) -> tuple[Path, dict[str, Any]]:
    """Folder of the training set, and what a model from it is tied to."""
    from fleet_assets import __version__
    from fleet_assets.features.identity import identities
    from fleet_assets.train.tracking import code_sha256

    folder = Path(last_metadata(context, TRAINING_SET)["folder"])
    about = _about(folder)
    return folder, {
        "dataset": about["dataset"],
        "dataset_sha256": about["dataset_sha256"],
        "lakefs_commit": about["lakefs_commit"],
        "contracts": about["contracts"],
        "features": dict(identities()),
        "code": __version__,
        "code_sha256": code_sha256(),
    }


def _about(folder: Path) -> dict[str, Any]:
    about: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return about

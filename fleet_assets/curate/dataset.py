"""Datasets: which clips of which drives, in which split, from which versions; published once, and never changed.

In: the lake at one commit, a recipe, a name. Out: a manifest, clips and coverage, in one transaction, and a tag. The same commit
and recipe give the same manifest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets import __version__
from fleet_assets.contracts.loader import load_tables
from fleet_assets.curate.coverage import CLASSES, Counted, coverage, rare_labels
from fleet_assets.curate.manifest import FORMAT, Manifest, checked_name
from fleet_assets.curate.recipe import SPLITS, Recipe
from fleet_assets.curate.scenarios import load_scenarios, scenarios_fingerprint
from fleet_assets.curate.selection import PINNED, Clip, SelectedDrive, select
from fleet_assets.curate.splits import BRIDGES, assign, groups, leaks, near_duplicates, over_caps
from fleet_assets.errors import FleetError
from fleet_assets.features.checks import differences
from fleet_assets.features.policy import load_live_policy
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.refusals import AlreadyExists, NotFound
from fleet_assets.lake.tables import Snapshot, day_of
from fleet_assets.lake.transaction import Transaction
from fleet_assets.lake.versions import version_of
from fleet_assets.synchronise.policy import load_alignment

CODE_VERSION = "2"
DATASETS, CLIPS, COVERAGE = "curate.datasets", "curate.clips", "curate.coverage"
OUTPUTS = (DATASETS, CLIPS, COVERAGE)


@dataclass(frozen=True)
class Dataset:
    """A dataset before it is published. clips, coverage: rows of their tables. leaks, label_rates, simulation: findings."""

    manifest: Manifest
    clips: pa.Table
    coverage: pa.Table
    leaks: list[str]
    label_rates: list[str]
    simulation: list[str]


def make(snapshot: Snapshot, recipe: Recipe, name: str) -> Dataset:
    """Raises FleetError when nothing is selected, and for a name that cannot be."""
    key = _key(checked_name(name))
    drives, left_out = select(snapshot, recipe)
    grouped = groups([one.facts for one in drives], recipe.together_ns)
    split_of, bridges = assign(grouped, recipe.splits, recipe.seed, _kept(snapshot, recipe))
    left_out |= dict.fromkeys(bridges, BRIDGES)
    drives = [one for one in drives if one.drive in split_of]
    clips, dropped = _chosen(drives, split_of, recipe)
    if not clips:
        raise FleetError(
            f"Nothing of {snapshot.commit_id[:12]} is selected by recipe {recipe.name}",
            where="; ".join(f"{count} drives: {why}" for why, count in Counter(left_out.values()).items())
            or "no drives",
            remedy="Bring drives in, or ask for less.",
        )
    counted = _counted(clips, split_of)
    found_leaks = leaks([one.facts for one in drives], split_of, recipe.together_ns)
    rates = list(map(str, rare_labels(counted, recipe.label_rate_share, recipe.label_rate_drives)))
    simulation = simulation_findings(snapshot, drives)
    clip_rows = _clip_rows(key, clips, split_of)
    filed = {"drive_id": key, "day": day_of(key)}
    cover = coverage(counted, SPLITS, recipe.wanted_drives, recipe.wanted_objects)
    manifest = Manifest(
        {
            "format": FORMAT,
            "name": name,
            "commit_id": snapshot.commit_id,
            "recipe": {"name": recipe.name, "sha256": recipe.fingerprint, **recipe.document},
            "policies": {
                "alignment": f"{load_alignment().version} {load_alignment().fingerprint}",
                "features": f"{load_live_policy().version} {load_live_policy().fingerprint}",
                "scenarios": scenarios_fingerprint(),
                **{f"scenario {one.name}": f"{one.version} {one.sha256}" for one in load_scenarios().values()},
            },
            "contracts": {table: load_tables()[table].version for table in sorted((*PINNED, *OUTPUTS))},
            "code": {"fleet_assets": __version__, "dataset": CODE_VERSION},
            "drives": [_about(one, split_of, clips) for one in drives],
            "left_out": {
                "drives": dict(sorted(left_out.items())),
                "clips": dict(sorted(Counter(dropped).items())),
            },
            "clips": {"rows": clip_rows.num_rows, "sha256": rows_sha256(clip_rows)},
            "findings": {"leaks": found_leaks, "label_rates": rates, "simulation": simulation},
        }
    )
    return Dataset(
        manifest,
        clip_rows,
        pa.Table.from_pylist([{**filed, **row} for row in cover], schema=load_tables()[COVERAGE].arrow_schema),
        found_leaks,
        rates,
        simulation,
    )


def publish(lake: Lake, dataset: Dataset, *, run_id: str) -> str:
    """Publishes a dataset and tags it; gives the commit. Again, the same dataset changes nothing. Raises FleetError for another
    dataset under a name that is taken, and for one that leaks."""
    if dataset.leaks:
        raise FleetError(
            f"Dataset {dataset.manifest.name} leaks from one split into another",
            where=dataset.leaks[0],
            remedy="Raise together_h of the recipe, so that these drives are one group.",
        )
    manifest, key = dataset.manifest, _key(dataset.manifest.name)
    contracts = [load_tables()[table].fingerprint for table in OUTPUTS]
    version = version_of(inputs={"manifest": manifest.sha256}, code_version=CODE_VERSION, contracts=contracts)

    def body(tx: Transaction) -> None:
        known = tx.base.scan(DATASETS, ["manifest"], drives=[key])["manifest"].to_pylist()
        if known == [manifest.path]:
            return
        if known:
            raise FleetError(
                f"There is a dataset {manifest.name} already",
                where=known[0],
                remedy="Datasets stay; give another name.",
            )
        tx.declare(key, version)
        for table, rows in ((DATASETS, _entry(dataset, key)), (CLIPS, dataset.clips), (COVERAGE, dataset.coverage)):
            tx.append(table, rows)
            tx.count(key, {table: rows.num_rows})
        with tempfile.TemporaryDirectory(dir=lake.home.scratch, prefix="dataset-") as scratch:
            file = Path(scratch, "manifest.json")
            file.write_bytes(manifest.data)
            tx.put_object(manifest.path, file)

    lake.run_transaction(body, name="dataset", run_id=run_id, drives=[key], tables=OUTPUTS, input_tables=OUTPUTS)
    return _tagged(lake, manifest.name)


def made_by_run(lake: Lake, name: str, run_id: str) -> bool:
    """Whether this run has published the dataset before it was stopped; then its tag is there afterwards."""
    known = lake.at().versions([_key(checked_name(name))], [DATASETS])
    if not any(version.run_id == run_id for version in known.values()):
        return False
    _tagged(lake, name)
    return True


def tag_of(name: str) -> str:
    return f"dataset-{name}"


def _tagged(lake: Lake, name: str) -> str:
    """The commit that a dataset's tag stands for. A run that was killed after it published has left none."""
    try:
        return lake.repository.commit_id(tag_of(name))
    except NotFound:
        with contextlib.suppress(AlreadyExists):  # another process was faster
            lake.repository.tag(tag_of(name), lake.at().commit_id)
        return lake.repository.commit_id(tag_of(name))


# ---- reading ---------------------------------------------------------------------------------------------------------


def datasets(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Rows of curate.datasets, by name."""
    rows = snapshot.scan(DATASETS).drop_columns(["drive_id", "day"])
    return list(rows.sort_by("name").to_pylist())


def open_dataset(lake: Lake, name: str) -> tuple[Manifest, Snapshot]:
    """The manifest, and the lake at the dataset's tag. Raises FleetError for an unknown name, and for a manifest that is not what
    was published."""
    try:
        snapshot = lake.at(tag_of(checked_name(name)))
    except NotFound as error:
        raise FleetError(f"There is no dataset {name}", remedy="`fleet datasets list` lists them.") from error
    [path] = snapshot.scan(DATASETS, ["manifest"], drives=[_key(name)])["manifest"].to_pylist()
    return Manifest.read(snapshot.repository.get(snapshot.commit_id, path), path), snapshot


def clips_of(snapshot: Snapshot, manifest: Manifest) -> pa.Table:
    """Rows of curate.clips in order. Raises FleetError when they are not those of the manifest."""
    rows = snapshot.scan(CLIPS, drives=[_key(manifest.name)]).sort_by("clip")
    if rows_sha256(rows) != manifest.document["clips"]["sha256"]:
        raise FleetError(
            f"The clips of dataset {manifest.name} are not those of its manifest", remedy="Read it at its tag."
        )
    return rows


def coverage_of(snapshot: Snapshot, name: str) -> list[dict[str, Any]]:
    rows = snapshot.scan(COVERAGE, drives=[_key(name)]).drop_columns(["drive_id", "day"])
    order = [(column, "ascending") for column in ("dimension", "value", "class_name", "split")]
    return list(rows.sort_by(order).to_pylist())


# ---- parts -----------------------------------------------------------------------------------------------------------


def _key(name: str) -> str:
    """What the rows of a dataset are filed under: a drive's key in form, with its name as a hash."""
    return f"dataset_{hashlib.sha256(name.encode()).hexdigest()[:16]}--19700101T000000Z"


def _kept(snapshot: Snapshot, recipe: Recipe) -> dict[str, str]:
    """Splits that drives were given in earlier datasets of the recipe: what has judged must never train."""
    if DATASETS not in snapshot.applied:
        return {}
    known = snapshot.scan(DATASETS, ["drive_id", "recipe"])
    keys = known.filter(pc.equal(known["recipe"], recipe.name))["drive_id"].to_pylist()
    if not keys:
        return {}
    rows = snapshot.scan(CLIPS, ["drive", "split"], drives=keys).group_by(["drive", "split"]).aggregate([])
    return dict(zip(rows["drive"].to_pylist(), rows["split"].to_pylist(), strict=True))


Chosen = list[tuple[SelectedDrive, Clip]]


def _chosen(drives: Sequence[SelectedDrive], split_of: Mapping[str, str], recipe: Recipe) -> tuple[Chosen, list[str]]:
    """Clips in order of drive and time, and why others were dropped, one reason each."""
    clips = [(one, clip) for one in drives for clip in one.clips]
    split = [split_of[one.drive] for one, _ in clips]
    hashes = np.array([clip.image_hash for _, clip in clips], dtype=np.int64)
    rank = np.array([SPLITS.index(name) for name in split], dtype=np.int64)
    dropped = {
        row: f"near-duplicate of a clip of {split[other]}"
        for row, other in near_duplicates(hashes, rank, recipe.near_duplicate_bits).items()
    }
    train = [row for row in range(len(clips)) if split[row] == SPLITS[0] and row not in dropped]
    over = over_caps([(clips[row][0].drive, clips[row][1].scenarios) for row in train], recipe.caps, recipe.seed)
    dropped |= {train[at]: f"more than the cap of {scenario}" for at, scenario in over.items()}
    return [each for row, each in enumerate(clips) if row not in dropped], list(dropped.values())


def _counted(clips: Chosen, split_of: Mapping[str, str]) -> Counted:
    frames = [one.frame[clip.rows].size for one, clip in clips]
    return Counted(
        drive=np.repeat([one.drive for one, _ in clips], frames),
        split=np.repeat([split_of[one.drive] for one, _ in clips], frames),
        labelled=np.concatenate([one.labelled[clip.rows] for one, clip in clips]),
        objects={name: np.concatenate([one.objects[name][clip.rows] for one, clip in clips]) for name in CLASSES},
        slices={one.drive: one.facts.slices for one, _ in clips},
        scenarios={
            name: np.concatenate(
                [one.scenarios.get(name, np.zeros(one.frame.size, bool))[clip.rows] for one, clip in clips]
            )
            for name in sorted({name for one, _ in clips for name in one.scenarios})
        },
    )


def simulation_findings(snapshot: Snapshot, drives: Sequence[SelectedDrive]) -> list[str]:
    """Large differences of features between simulated and real drives, where there are enough of both."""
    sides = {"simulated": [one.drive for one in drives if one.simulated]}
    sides["real"] = [one.drive for one in drives if not one.simulated]
    return [str(found) for found in differences(snapshot, sides) if found.large]


def _clip_rows(key: str, clips: Chosen, split_of: Mapping[str, str]) -> pa.Table:
    rows = [
        {
            "drive_id": key,
            "day": day_of(key),
            "clip": number,
            "drive": one.drive,
            "split": split_of[one.drive],
            "first_frame": int(one.frame[clip.rows][0]),
            "last_frame": int(one.frame[clip.rows][-1]),
            "frames": one.frame[clip.rows].size,
            "t_first_ns": int(one.t_ns[clip.rows][0]),
            "t_last_ns": int(one.t_ns[clip.rows][-1]),
            "scenarios": list(clip.scenarios),
        }
        for number, (one, clip) in enumerate(clips)
    ]
    return pa.Table.from_pylist(rows, schema=load_tables()[CLIPS].arrow_schema)


def _about(one: SelectedDrive, split_of: Mapping[str, str], clips: Chosen) -> dict[str, Any]:
    own = [clip for other, clip in clips if other is one]
    return {
        "drive_id": one.drive,
        "split": split_of[one.drive],
        "slices": dict(one.facts.slices),
        "simulated": one.simulated,
        "clips": len(own),
        "frames": sum(one.frame[clip.rows].size for clip in own),
        "labels": {
            "labelled_frames": int(one.labelled.sum()),
            "frames": one.frame.size,
            **{f"{name}_objects": int(objects.sum()) for name, objects in one.objects.items()},
        },
        "tables": {table: dict(version) for table, version in sorted(one.tables.items())},
    }


def _entry(dataset: Dataset, key: str) -> pa.Table:
    document = dataset.manifest.document
    row = {
        "drive_id": key,
        "day": day_of(key),
        "name": document["name"],
        "recipe": document["recipe"]["name"],
        "recipe_version": document["recipe"]["version"],
        "manifest": dataset.manifest.path,
        "commit_id": document["commit_id"],
        "drives": len(document["drives"]),
        "left_out_drives": len(document["left_out"]["drives"]),
        "clips": dataset.clips.num_rows,
        "frames": pc.sum(dataset.clips["frames"]).as_py(),
    }
    return pa.Table.from_pylist([row], schema=load_tables()[DATASETS].arrow_schema)


def rows_sha256(rows: pa.Table) -> str:
    """Of the values in their order."""
    return hashlib.sha256(json.dumps(rows.to_pylist(), default=str).encode()).hexdigest()

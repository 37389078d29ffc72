"""Which frames of a test set are in a scenario, from the lake's hits at the commit of their dataset.

In: a lake, a dataset, slices such as rain@1.0.0, frames. Out: per slice what it means, as a hash, and which frames it holds. A
frame at which a scenario cannot be told is in none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc

from fleet_assets.curate.batch import HITS
from fleet_assets.curate.dataset import open_dataset
from fleet_assets.curate.manifest import Manifest
from fleet_assets.curate.scenarios import parts_of_slice, slices_held
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.evidence import Scenario
from fleet_assets.lake.lake import Lake
from fleet_assets.train.frames import FrameSet


def scenarios_of(lake: Lake, dataset: str, slices: Sequence[str], frames: FrameSet) -> dict[str, Scenario]:
    """Raises FleetError for a slice that the dataset does not know, or whose hits are of another version."""
    if not slices:
        return {}
    manifest, _ = open_dataset(lake, dataset)
    columns = ["drive_id", "scenario", "scenario_version", "hits"]
    hits = lake.at(manifest.commit_id).scan(HITS, columns, drives=frames.drives)
    found = {slice_: Scenario(_meaning(manifest, slice_), np.zeros(len(frames), dtype=bool)) for slice_ in slices}
    for number in np.unique(frames.drive).tolist():
        drive, own = frames.drives[number], frames.drive == number
        rows = hits.filter(pc.equal(hits["drive_id"], drive))
        of_drive = slices_held(rows, "t_first_ns", "t_last_ns", frames.t_ns[own])
        for slice_, scenario in found.items():
            if slice_ not in of_drive:
                raise _unknown(manifest, slice_, drive)
            scenario.holds[own] = of_drive[slice_]
    return found


def _meaning(manifest: Manifest, slice_: str) -> str:
    """The sha256 of the scenario when the dataset was made."""
    name, version = parts_of_slice(slice_)
    known, _, sha256 = str(manifest.document["policies"].get(f"scenario {name}", "")).partition(" ")
    if known != version or not sha256:
        raise _unknown(manifest, slice_, None)
    return sha256


def _unknown(manifest: Manifest, slice_: str, drive: str | None) -> FleetError:
    return FleetError(
        f"Dataset {manifest.name} does not know scenario {slice_}",
        where=drive,
        remedy="Materialise curate/scenario_hits of its drives, then a new dataset.",
    )

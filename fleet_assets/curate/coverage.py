"""How much of each slice a dataset holds, what is missing, and where labels are suspiciously rare.

In: per frame of the dataset's clips its drive, whether it is labelled, counts per class, scenarios; splits and slices of drives.
Out: rows of curate.coverage; findings about label rates; scenarios that hold a slice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.curate.predicates import SCENARIO
from fleet_assets.curate.scenarios import parts_of_slice
from fleet_assets.lake.tables import Snapshot

DIMENSIONS = ("light", "weather", "region")  # columns of ingest.context
CLASSES = {"vehicle": "vehicles", "pedestrian": "pedestrians", "cyclist": "cyclists"}  # columns of curate.surroundings
UNKNOWN = "unknown"
Z_95 = 1.959964


@dataclass(frozen=True)
class Counted:
    """Frames of a dataset's clips. drive, split: one per frame; labelled: bool; objects: int64 [frames] per class. slices:
    drive -> dimension -> value. scenarios: bool [frames] by slice, such as rain@1.0.0; a frame may be in several."""

    drive: np.ndarray
    split: np.ndarray
    labelled: np.ndarray
    objects: Mapping[str, np.ndarray]
    slices: Mapping[str, Mapping[str, str]]
    scenarios: Mapping[str, np.ndarray]

    def each(self) -> Iterator[tuple[str, str, np.ndarray]]:
        """Every slice: dimension, value, and which frames are in it, bool [frames]."""
        for dimension in DIMENSIONS:
            value_of = self.of(dimension)
            for value in sorted(set(value_of.tolist())):
                yield dimension, value, value_of == value
        for name, holds in sorted(self.scenarios.items()):
            yield SCENARIO, name, holds

    def of(self, dimension: str) -> np.ndarray:
        """Value of a dimension at each frame."""
        names, number = np.unique(self.drive, return_inverse=True)
        values = np.array([self.slices[name][dimension] for name in names.tolist()] or [""], dtype=object)
        return values[number]


def wilson(hits: int, count: int) -> tuple[float, float]:
    """95 % interval of a share. Source: Wilson, "Probable inference", 1927. Nothing counted: 0 to 1."""
    if count == 0:
        return 0.0, 1.0
    share, square = hits / count, Z_95**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = Z_95 * math.sqrt(share * (1 - share) / count + square / (4 * count**2)) / (1 + square / count)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def coverage(counted: Counted, splits: Sequence[str], wanted_drives: int, wanted_objects: int) -> list[dict[str, Any]]:
    """Rows of curate.coverage without their key: every split, class, dimension, and value that any split has;
    every scenario, also one that no frame is in."""
    rows = []
    for dimension, value, frames in counted.each():
        for split in splits:
            inside = frames & (counted.split == split)
            drives = np.unique(counted.drive[inside]).size
            for name in CLASSES:
                objects = counted.objects[name][inside]
                found = int(objects.sum())
                with_class = np.unique(counted.drive[inside][objects > 0]).size
                low, high = wilson(with_class, drives)
                rows.append(
                    {
                        "split": split, "class_name": name, "dimension": dimension, "value": value,
                        "drives": drives, "frames": int(inside.sum()),
                        "labelled_frames": int(counted.labelled[inside].sum()), "objects": found,
                        "drives_with": with_class, "share_of_drives": with_class / drives if drives else None,
                        "share_low": low, "share_high": high,
                        "missing_drives": max(wanted_drives - drives, 0),
                        "missing_objects": max(wanted_objects - found, 0),
                    }
                )  # fmt: skip
    return rows


@dataclass(frozen=True)
class LabelRate:
    """A class in a slice, in objects per labelled frame, mean over drives; elsewhere: in all other drives. highest: upper end of
    the slice's 95 % interval."""

    class_name: str
    dimension: str
    value: str
    drives: int
    rate: float
    highest: float
    elsewhere: float

    def __str__(self) -> str:
        return (
            f"{self.class_name} labels where {self.dimension} is {self.value}: {self.rate:.2f} a frame (at most "
            f"{self.highest:.2f}) in {self.drives} drives, {self.elsewhere:.2f} elsewhere; are they labelled there?"
        )


def rare_labels(counted: Counted, least_share: float, least_drives: int) -> list[LabelRate]:
    """Slices in which a class is labelled less often than least_share of its rate elsewhere, beyond what chance does to drives.

    Frames of a drive are alike, so drives are what is compared. Where no drive of a slice has any, the bound is that of a count
    of 0 over its frames. With fewer than least_drives on either side nothing is said.
    """
    labelled = counted.labelled
    names, number = np.unique(counted.drive[labelled], return_inverse=True)
    frames = np.bincount(number, minlength=names.size)
    found = []
    for class_name in CLASSES:
        rate = np.bincount(number, counted.objects[class_name][labelled], minlength=names.size) / np.maximum(frames, 1)
        for dimension in DIMENSIONS:
            values = np.array([counted.slices[name][dimension] for name in names.tolist()], dtype=object)
            for value in sorted(set(values.tolist())):
                inside = values == value
                here, there = rate[inside], rate[~inside]
                if min(here.size, there.size) < least_drives:
                    continue
                spread = Z_95 * float(here.std(ddof=1)) / math.sqrt(here.size)
                highest = max(float(here.mean()) + spread, 3.0 / int(frames[inside].sum()))
                if highest < least_share * float(there.mean()):
                    found.append(
                        LabelRate(
                            class_name, dimension, value, here.size, float(here.mean()), highest, float(there.mean())
                        )
                    )
    return found


def scenarios_holding(
    snapshot: Snapshot, dimension: str, value: str, in_dataset: Sequence[str]
) -> list[dict[str, Any]]:
    """Which scenarios hold a slice, such as one that a gate blocked on: frames and drives of the lake's drives of that slice, and
    of these, what the dataset does not have. Of a slice that is a scenario (with or without its version), that one alone. Raises
    FleetError for a table that is not there."""
    columns = ["drive_id", "scenario", "scenario_version", "hit_frames"]
    if dimension == SCENARIO:
        name, version = parts_of_slice(value)
        hits = snapshot.scan("curate.scenario_hits", columns)
        same = pc.equal(hits["scenario"], name)
        hits = hits.filter(pc.and_(same, pc.equal(hits["scenario_version"], version)) if version else same)
    else:
        context = snapshot.scan("ingest.context", ["drive_id", dimension])
        same = pc.fill_null(pc.equal(context[dimension], value), False)
        drives = context.filter(same)["drive_id"].to_pylist()
        if not drives:
            return []
        hits = snapshot.scan("curate.scenario_hits", columns, drives=drives)
    hits = hits.filter(pc.greater(hits["hit_frames"], 0))
    outside = pc.invert(pc.is_in(hits["drive_id"], value_set=pa.array(in_dataset, pa.string())))
    found = []
    for scenario in sorted(pc.unique(hits["scenario"]).to_pylist()):
        of_one = pc.equal(hits["scenario"], scenario)
        all_, new = hits.filter(of_one), hits.filter(pc.and_(of_one, outside))
        found.append(
            {
                "scenario": scenario,
                "drives": all_.num_rows,
                "frames": pc.sum(all_["hit_frames"]).as_py(),
                "drives_not_in_dataset": new.num_rows,
                "frames_not_in_dataset": pc.sum(new["hit_frames"]).as_py() or 0,
            }
        )
    return sorted(found, key=lambda row: (-row["frames_not_in_dataset"], row["scenario"]))

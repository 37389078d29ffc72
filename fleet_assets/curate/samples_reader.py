"""Samples as a stream of Arrow batches, in one order.

In: the name of a dataset, a split, columns. Out: record batches at the commit of its samples' tag, by drive, then by time; only
the columns that were asked for are read. Memory holds the batch and the one after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.curate.clips import check_order
from fleet_assets.curate.dataset import clips_of, open_dataset
from fleet_assets.curate.manifest import Manifest
from fleet_assets.curate.samples import TABLE, frames_of, samples_tag
from fleet_assets.errors import FleetError
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.refusals import NotFound
from fleet_assets.lake.tables import Snapshot

_KEY = ("drive_id", "frame", "t_ns")


@dataclass(frozen=True)
class Samples:
    """A dataset's samples. clips: rows of curate.clips, in order."""

    manifest: Manifest
    clips: pa.Table
    snapshot: Snapshot

    @classmethod
    def open(cls, lake: Lake, name: str) -> Samples:
        """Raises FleetError for a dataset that is not there, or has no samples yet."""
        manifest, dataset = open_dataset(lake, name)
        try:
            snapshot = lake.at(samples_tag(name))
        except NotFound as error:
            raise FleetError(
                f"Dataset {name} has no samples yet", remedy="Materialise curate/samples in the UI."
            ) from error
        return cls(manifest, clips_of(dataset, manifest), snapshot)

    def of_split(self, split: str | None = None) -> pa.Table:
        """Clips of a split; of all without one."""
        return self.clips if split is None else self.clips.filter(pc.equal(self.clips["split"], split))

    def batches(
        self, split: str | None = None, columns: Sequence[str] | None = None, *, rows: int = 64
    ) -> Iterator[pa.RecordBatch]:
        """Frames of the split's clips, each once, by drive, then by time, at most `rows` to a batch. columns: of curate.samples;
        drive_id, frame and t_ns come with them. Raises FleetError when a frame is missing, or the order is broken."""
        if rows < 1:
            raise ValueError("a batch has at least one row")
        wanted = list(dict.fromkeys([*_KEY, *(columns if columns is not None else _all_columns())]))
        parts = list(_parts(frames_of(self.of_split(split)), rows))
        latest: dict[str, int] = {}
        with ThreadPoolExecutor(1) as pool:
            ahead = pool.submit(self._read, parts[0], wanted) if parts else None
            for at in range(len(parts)):
                found = ahead.result() if ahead else None
                ahead = pool.submit(self._read, parts[at + 1], wanted) if at + 1 < len(parts) else None
                if found is not None:
                    _refuse_disorder(found, latest)
                    yield found

    def _read(self, part: dict[str, list[int]], columns: Sequence[str]) -> pa.RecordBatch:
        numbers = [frame for frames in part.values() for frame in frames]
        between = f"frame BETWEEN {min(numbers)} AND {max(numbers)}"
        found = self.snapshot.scan(TABLE, columns, drives=list(part), predicate=between)
        found = found.sort_by([("drive_id", "ascending"), ("frame", "ascending")])
        drive_ids, frames = found["drive_id"].to_pylist(), found["frame"].to_pylist()
        place = {key: row for row, key in enumerate(zip(drive_ids, frames, strict=True))}
        keys = [(drive, frame) for drive, frames in part.items() for frame in frames]
        missing = [key for key in keys if key not in place]
        if missing:
            drive, frame = missing[0]
            raise FleetError(
                f"{len(missing)} samples of dataset {self.manifest.name} are missing",
                where=f"frame {frame} of {drive} at {self.snapshot.commit_id[:12]}",
                remedy="Materialise curate/samples again.",
            )
        return found.take(pa.array([place[key] for key in keys])).combine_chunks().to_batches()[0]


def _refuse_disorder(rows: pa.RecordBatch, latest: dict[str, int]) -> None:
    """Raises FleetError unless each drive's times go on from what was read of it before. latest: drive -> its last time, kept."""
    for drive in pc.unique(rows["drive_id"]).to_pylist():
        own = rows["t_ns"].filter(pc.equal(rows["drive_id"], drive)).to_numpy()
        check_order(np.concatenate([[latest[drive]], own]) if drive in latest else own, f"The samples of {drive}")
        latest[drive] = int(own[-1])


def _all_columns() -> list[str]:
    from fleet_assets.lake.tables import contract_of

    return list(contract_of(TABLE).arrow_schema.names)


def _parts(frames: dict[str, list[int]], rows: int) -> Iterator[dict[str, list[int]]]:
    """Frames of the drives in order, at most `rows` at once."""
    part: dict[str, list[int]] = {}
    free = rows
    for drive, numbers in frames.items():
        at = 0
        while at < len(numbers):
            taken = numbers[at : at + free]
            part[drive] = taken
            at, free = at + len(taken), free - len(taken)
            if not free:
                yield part
                part, free = {}, rows
    if part:
        yield part

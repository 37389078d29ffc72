"""Samples: the frames of a dataset, with the messages of all sensors in one row.

In: a dataset. Out: rows of curate.samples for its drives, in one transaction, and a tag. Everything is read at the commit that
the manifest names. A drive that the lake has with the same frames and versions is not written again.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.contracts.loader import load_streams, load_tables
from fleet_assets.curate.dataset import clips_of, open_dataset
from fleet_assets.curate.labels import labels_at
from fleet_assets.curate.manifest import Manifest
from fleet_assets.curate.surroundings import causal
from fleet_assets.edge.inputs import RADAR_LONGEST_NS, RADAR_SWEEPS
from fleet_assets.errors import FleetError
from fleet_assets.features.policy import load_live_policy
from fleet_assets.kernels.earlier import earlier_rows
from fleet_assets.lake.batch import BatchOutcome, DriveOutcome, run_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.payload import read_payload
from fleet_assets.lake.refusals import AlreadyExists
from fleet_assets.lake.tables import Snapshot, day_of
from fleet_assets.lake.versions import DriveVersion, version_of
from fleet_assets.lake.writer import TaskWriter
from fleet_assets.services.home import Home

CODE_VERSION = "3"
TABLE = "curate.samples"
ROLES = ("camera", "lidar", "radar")
_INPUTS = (
    "synchronise.frames", "synchronise.matches", "synchronise.clock_models", "ingest.labels", "ingest.messages",
    "ingest.context",
)  # fmt: skip
_BATCH_BYTES = 16 * 1024 * 1024  # of messages, read and passed on at once
_NO_RECORD = {"schema_name": None, "age_s": None, "message": None}
_FRAME_BYTES = 64 * 1024  # what a frame weighs when drives are packed into tasks, before its messages are known


@dataclass(frozen=True)
class _Item:
    drive_id: str
    frames: tuple[int, ...]


def samples_batch(home: Home, lake: Lake, name: str, *, run_id: str, parallel: bool = True) -> BatchOutcome:
    """Writes what is missing of a dataset's samples, and tags the commit at which all are there. Raises FleetError if they are
    not: samples of another dataset, that were written at the same time, took the place of some."""
    manifest, snapshot = open_dataset(lake, name)
    wanted = _wanted(snapshot, manifest)
    versions = {drive: _version(manifest, item) for drive, item in wanted.items()}
    known = lake.at().versions(sorted(wanted), [TABLE])
    missing = [
        drive
        for drive in wanted
        if (drive, TABLE) not in known or known[drive, TABLE].version != versions[drive].version
    ]
    outcome = run_batch(
        home,
        lake,
        name="samples",
        run_id=run_id,
        drives=missing,
        tables=[TABLE],
        items=lambda tx: {drive: (wanted[drive], versions[drive]) for drive in missing},
        weight_bytes=lambda item: len(item.frames) * _FRAME_BYTES,
        work=lambda tx: _Work(tx.writer("unnamed"), manifest.commit_id),
        missing="it is not in the dataset",
        parallel=parallel,
    )
    there = [DriveOutcome(drive, "skipped", note="its samples are there") for drive in wanted if drive not in missing]
    if outcome.published is not None:
        commit_id = outcome.published.commit_id
        found = lake.at(commit_id).versions(sorted(wanted), [TABLE])
        if any(
            (drive, TABLE) not in found or found[drive, TABLE].version != versions[drive].version for drive in wanted
        ):
            raise FleetError(
                f"Samples of {name} were replaced while others were written", remedy="Materialise curate/samples again."
            )
        _tag(lake, name, commit_id)
    return replace(outcome, drives=sorted([*outcome.drives, *there], key=lambda one: one.drive_id))


def samples_tag(name: str) -> str:
    """Of a dataset's samples as this code makes them, by this policy and contract: those that were made otherwise stay where they
    are."""
    made_by = f"{CODE_VERSION} {load_tables()[TABLE].fingerprint} {load_live_policy().fingerprint}"
    return f"samples-{hashlib.sha256(made_by.encode()).hexdigest()[:8]}-{name}"


def _tag(lake: Lake, name: str, commit_id: str) -> None:
    try:
        lake.repository.tag(samples_tag(name), commit_id)
    except AlreadyExists:  # its samples were all there before: the tag stays where it is
        return


def frames_of(clips: pa.Table) -> dict[str, list[int]]:
    """Frames of each drive, each once, in order. clips: rows of curate.clips."""
    found: dict[str, set[int]] = {}
    columns = (clips[name].to_pylist() for name in ("drive", "first_frame", "last_frame"))
    for drive, first, last in zip(*columns, strict=True):
        found.setdefault(drive, set()).update(range(first, last + 1))
    return {drive: sorted(frames) for drive, frames in sorted(found.items())}


def _wanted(snapshot: Snapshot, manifest: Manifest) -> dict[str, _Item]:
    return {drive: _Item(drive, tuple(frames)) for drive, frames in frames_of(clips_of(snapshot, manifest)).items()}


def _version(manifest: Manifest, item: _Item) -> DriveVersion:
    tables = manifest.drives[item.drive_id]["tables"]
    inputs = {table: tables[table]["version"] for table in _INPUTS if table in tables}
    frames = hashlib.sha256(" ".join(map(str, item.frames)).encode()).hexdigest()[:16]
    return version_of(
        inputs={**inputs, "frames": frames},
        code_version=CODE_VERSION,
        contracts=[load_tables()[TABLE].fingerprint],
        policy=load_live_policy().fingerprint,
    )


@dataclass(frozen=True)
class _Work:
    """What a task does; pickled. commit_id: of the manifest."""

    writer: TaskWriter
    commit_id: str

    def __call__(self, items: Sequence[_Item], task: str) -> list[Mapping[str, Any]]:
        lake = Lake.open(Home.open(Path(self.writer.home_root)), self.writer.repository)
        snapshot = lake.at(self.commit_id)
        drives = [_DriveSamples.read(snapshot, item) for item in sorted(items, key=lambda item: item.drive_id)]
        schema = load_tables()[TABLE].arrow_schema
        batches = (batch for drive in drives for batch in drive.batches())
        row_bytes = sum(drive.message_bytes for drive in drives) // max(sum(len(item.frames) for item in items), 1)
        reader = pa.RecordBatchReader.from_batches(schema, batches)
        replace(self.writer, task=task).append(TABLE, reader, row_bytes=row_bytes)
        return [vars(DriveOutcome(item.drive_id, "published", {TABLE: len(item.frames)})) for item in items]


@dataclass(frozen=True)
class _Sensor:
    """Messages of one stream at the frames. place: int64 [frames, 1 + earlier], rows of messages, the frame's own first, -1 for
    none; age_s: float64, of each."""

    stream: str
    messages: pa.Table
    place: np.ndarray
    age_s: np.ndarray

    @classmethod
    def of(
        cls, stream: str, own: pa.Table, place: np.ndarray, frame_ns: np.ndarray, known: np.ndarray, earlier: int
    ) -> _Sensor:
        """By the sensors' own stamps, as the vehicle tells it: how their clocks went is known when the drive is over. place:
        int64 [frames]. frame_ns: int64 [frames], of the records that set the frames; known: whether they had a stamp."""
        places = np.column_stack([place, _earlier(own, place, earlier)])
        own_ns, there = _ahead_ns(stream, own, places)
        age_s = (frame_ns[:, np.newaxis] - own_ns) * 1e-9
        return cls(stream, own, places, np.where(known[:, np.newaxis] & there, age_s, np.nan))

    @property
    def bytes(self) -> np.ndarray:
        """int64 [frames]."""
        length = np.append(self.messages["message_length"].to_numpy(), 0)
        return np.asarray(length[self.place].sum(axis=1))


@dataclass(frozen=True)
class _DriveSamples:
    """A drive's samples before their messages are read. sensors: by role; others: further streams."""

    snapshot: Snapshot
    drive: str
    frames: pa.Table
    labelled: np.ndarray
    labels: pa.Array
    context: Mapping[str, str | None]
    sensors: Mapping[str, _Sensor]
    others: tuple[_Sensor, ...]

    @classmethod
    def read(cls, snapshot: Snapshot, item: _Item) -> _DriveSamples:
        tables = {name: snapshot.scan(name, drives=[item.drive_id]) for name in _INPUTS}
        every = causal(tables["synchronise.frames"])
        frames = every.filter(pc.is_in(every["frame"], value_set=pa.array(item.frames, pa.int64())))
        if frames.num_rows != len(item.frames):
            raise FleetError(f"{item.drive_id} has no longer all frames of the dataset", where=snapshot.commit_id[:12])
        matches = causal(tables["synchronise.matches"])
        messages = tables["ingest.messages"]
        streams = sorted(pc.unique(messages["stream"]).to_pylist())
        sources = load_live_policy().sources
        role_of = {next((one.stream for one in sources[role] if one.stream in streams), None): role for role in ROLES}
        sensors, others = {}, []
        placed = {stream: _placed(stream, frames, matches, messages) for stream in streams}
        key = str(frames["key_stream"][0])
        frame_ns, known = _ahead_ns(key, *placed[key])
        for stream, (own, place) in placed.items():
            role = role_of.get(stream)
            sensor = _Sensor.of(stream, own, place, frame_ns, known, RADAR_SWEEPS - 1 if role == "radar" else 0)
            if role is not None:
                sensors[role] = sensor
            elif load_streams()[stream].kind in ROLES:
                others.append(sensor)
        labels = tables["ingest.labels"]
        at = labels_at(frames["t_ns"].to_numpy(), labels, messages, tables["synchronise.clock_models"])
        rows = tables["ingest.context"].to_pylist()
        context = rows[0] if rows else {}
        return cls(
            snapshot, item.drive_id, frames, at.labelled, _label_lists(labels, at.rows, at.begin),
            {name: context.get(name) for name in ("light", "weather", "region")}, sensors, tuple(others),
        )  # fmt: skip

    @property
    def _frame_bytes(self) -> np.ndarray:
        found = np.zeros(self.frames.num_rows, dtype=np.int64)
        for sensor in (*self.sensors.values(), *self.others):
            found += sensor.bytes
        return found

    @property
    def message_bytes(self) -> int:
        return int(self._frame_bytes.sum())

    def batches(self) -> Iterator[pa.RecordBatch]:
        """In order of the frames, about _BATCH_BYTES each."""
        number = np.cumsum(self._frame_bytes) // _BATCH_BYTES
        bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), self.frames.num_rows]
        for begin, end in pairwise(bounds):
            yield self._batch(slice(begin, end))

    def _batch(self, part: slice) -> pa.RecordBatch:
        count = part.stop - part.start
        schema = load_tables()[TABLE].arrow_schema
        kinds = {field.name: field.type for field in schema}
        columns: dict[str, Any] = {
            "drive_id": pa.repeat(self.drive, count),
            "day": pa.repeat(pa.scalar(day_of(self.drive), pa.date32()), count),
            "frame": self.frames["frame"].slice(part.start, count).combine_chunks(),
            "t_ns": self.frames["t_ns"].slice(part.start, count).combine_chunks(),
            "labelled": pa.array(self.labelled[part]),
            "labels": self.labels.slice(part.start, count),
            **{name: pa.array([value] * count, pa.string()) for name, value in self.context.items()},
        }
        for role in ROLES:
            records = self._records(self.sensors[role], part) if role in self.sensors else [[]] * count
            own = [found[0] if found else _NO_RECORD for found in records]
            columns[f"{role}_age_s"] = pa.array([one["age_s"] for one in own], pa.float64())
            columns[f"{role}_schema"] = pa.array([one["schema_name"] for one in own], pa.string())
            columns[role] = pa.array([one["message"] for one in own], pa.binary())
            if role == "radar":
                columns["radar_earlier"] = pa.array([found[1:] for found in records], kinds["radar_earlier"])
        others: list[list[dict[str, Any]]] = [[] for _ in range(count)]
        for sensor in self.others:
            for at, found in enumerate(self._records(sensor, part)):
                others[at] += [{"stream": sensor.stream, **one} for one in found]
        columns["other_sensors"] = pa.array(others, kinds["other_sensors"])
        return pa.RecordBatch.from_arrays([columns[field.name] for field in schema], schema=schema)

    def _records(self, sensor: _Sensor, part: slice) -> list[list[dict[str, Any]]]:
        """Type, bytes and age of the messages at each frame, its own first; nothing where it has none."""
        place = sensor.place[part]
        once, back = np.unique(
            place[place >= 0], return_inverse=True
        )  # a slow sensor's message is that of several frames
        rows = sensor.messages.take(pa.array(once))
        data = read_payload(self.snapshot.repository, self.snapshot.commit_id, rows)
        types = rows["schema_name"].to_pylist()
        number = iter(back.tolist())
        return [
            [
                {
                    "schema_name": types[row := next(number)],
                    "age_s": None if math.isnan(age_s) else age_s,
                    "message": data[row],
                }
                for at, age_s in zip(places, ages_s, strict=True)
                if at >= 0
            ]
            for places, ages_s in zip(place.tolist(), sensor.age_s[part].tolist(), strict=True)
        ]


def _placed(stream: str, frames: pa.Table, matches: pa.Table, messages: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Messages of a stream, and the row of each frame's, int64 [frames], -1 for none."""
    own = messages.filter(pc.equal(messages["stream"], stream)).sort_by("sequence")
    matched = matches.filter(pc.and_(pc.equal(matches["channel"], stream), pc.is_valid(matches["sequence"])))
    at = pc.index_in(frames["frame"], value_set=matched["frame"].combine_chunks())
    sequence = pc.fill_null(matched["sequence"].take(at), -1).to_numpy()
    return own, np.where(sequence >= 0, np.searchsorted(own["sequence"].to_numpy(), sequence), -1)


def _earlier(own: pa.Table, place: np.ndarray, count: int) -> np.ndarray:
    """int64 [frames, count]: rows of the messages before each frame's, as the vehicle knows them: a message without a stamp is
    none."""
    known = np.flatnonzero(own["t_device_ns"].combine_chunks().is_valid().to_numpy(zero_copy_only=False))
    number = np.append(np.full(own.num_rows, -1), -1)
    number[known] = np.arange(known.size)
    stamps = pc.fill_null(own["t_device_ns"], 0).to_numpy()[known]
    found = earlier_rows(stamps, number[place], count, np.uint64(RADAR_LONGEST_NS))
    return np.where(found >= 0, np.append(known, -1)[found], -1)


def _ahead_ns(stream: str, own: pa.Table, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64, as place, when the record of each frame looked ahead, by its own stamp; and whether there is one."""
    stamps = own["t_device_ns"].combine_chunks()
    there = place >= 0
    there[there] = stamps.is_valid().to_numpy(zero_copy_only=False)[place[there]]
    found = np.zeros(place.shape, dtype=np.int64)
    found[there] = pc.fill_null(stamps, 0).to_numpy()[place[there]] + load_streams()[stream].ahead_ns
    return found, there


def _label_lists(labels: pa.Table, rows: np.ndarray, begin: np.ndarray) -> pa.Array:
    kind = load_tables()[TABLE].arrow_schema.field("labels").type
    seen = labels.take(pa.array(rows))
    columns = [seen[field.name].combine_chunks().cast(field.type) for field in kind.value_type]
    values = pa.StructArray.from_arrays(columns, fields=list(kind.value_type))
    return pa.ListArray.from_arrays(pa.array(begin, pa.int32()), values, type=kind)

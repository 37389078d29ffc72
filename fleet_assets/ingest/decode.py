"""One drive, from its recordings in the landing folder to rows per table.

In: the folders of a drive's recordings. Out: a spool with the rows of every ingest table, the objects to upload, and,
when the drive broke a rule, why. A fault of one drive costs no other drive anything. Runs inside a Spark task or in
process: the same code, the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.capture.manifest import Manifest, read_manifest
from fleet_assets.contracts.loader import load_tables, stream_for
from fleet_assets.contracts.model import NOT_PERSONAL, RETENTION_CLASSES, TABLE_OF_KIND
from fleet_assets.contracts.rules import DriveEvaluation, RuleFailure, evaluate_drive, evaluate_rows
from fleet_assets.errors import FleetError
from fleet_assets.formats.reader import PAYLOAD_KINDS, Batch, Reader, RecordingFiles, open_recording
from fleet_assets.formats.rewrite import rewrite_as_mcap
from fleet_assets.ingest.overlap import Overlap
from fleet_assets.ingest.tally import StreamTally
from fleet_assets.lake.spool import Spool

WHOLE_RECORDING = "(recording)"  # ledger name of what belongs to no topic
KINDS = tuple(TABLE_OF_KIND)
_File = tuple[str, Path]  # a byte-addressable MCAP file: its key in the lake, and where it is


@dataclass(frozen=True)
class DriveItem:
    """A drive to decode. folders: its recordings, relative to the landing folder, in order of delivery."""

    drive_id: str
    folders: tuple[str, ...]
    bytes: int


@dataclass
class Fault:
    """Why a drive is quarantined. samples: at most 20 rows, as JSON."""

    rule: str
    table: str
    reason: str
    rows: int = 0
    samples: list[str] = field(default_factory=list)


@dataclass
class DecodedDrive:
    item: DriveItem
    spool: Spool
    objects: dict[str, Path]  # lake key -> local file
    faults: list[Fault]

    @property
    def accepted(self) -> bool:
        return not self.faults


@dataclass
class _Recording:
    folder: str
    manifest: Manifest
    format: str | None = None  # None: it cannot be read
    t_start_ns: int = 0
    objects: list[str] = field(default_factory=list)  # lake keys of the MCAP files that rows say they are from

    def open(self, landing: Path) -> Reader:
        """Raises FleetError for content that no reader knows."""
        return open_recording(RecordingFiles(landing / self.folder, tuple(file.path for file in self.manifest.files)))

    def examine(self, landing: Path) -> None:
        """Format and start. Raises FleetError, also for files that are not what the manifest says."""
        self.manifest.verify(landing / self.folder)
        reader = self.open(landing)
        self.t_start_ns = reader.info().t_start_ns or 0
        self.format = reader.format


def decode_drive(item: DriveItem, landing: Path, scratch: Path) -> DecodedDrive:
    """Reads every recording of the drive once. scratch: an empty folder for spools and rewritten recordings."""
    return _Decoder(item, landing, scratch).decode()


class _Decoder:
    def __init__(self, item: DriveItem, landing: Path, scratch: Path) -> None:
        self.item = item
        self.landing = landing
        self.scratch = scratch
        self.key = DriveKey.parse(item.drive_id)
        self.spool = Spool(scratch / "spool")
        self.objects: dict[str, Path] = {}
        self.faults: list[Fault] = []
        self.tallies: dict[str, StreamTally] = {}
        self.recordings: list[_Recording] = []
        self.overlap = Overlap(scratch / "overlap") if len(item.folders) > 1 else None
        self.drive_rules: dict[str, DriveEvaluation] = {}  # table or stream -> its drive rules

    def decode(self) -> DecodedDrive:
        for recording in self._in_order():
            try:
                self._read(recording)
            except FleetError as error:
                self._unreadable(error)
            for stream, count in self.overlap.close().items() if self.overlap else ():
                why = f"conflict: recordings of the same time differ in {count} records of {stream}"
                self.faults.append(Fault("recordings agree", "ingest.recordings", why, count))
        for name, evaluation in self.drive_rules.items():
            self._fail(name, evaluation.failures())
        self._append_streams()
        self._append_drive()
        for name in ("ingest.streams", "ingest.drives"):
            rows = self.spool.table(name)
            if rows is not None:
                self._fail(name, evaluate_drive(load_tables()[name], rows))
        if self.faults:
            self.spool.drop_rows()
            self.objects.clear()
        self._append_accounts()
        self.spool.close()
        return DecodedDrive(self.item, self.spool, self.objects, self.faults)

    def _fail(self, name: str, failures: list[RuleFailure]) -> None:
        for failure in failures:
            samples = [json.dumps(sample, default=str) for sample in failure.sample_rows]
            reason = f"{failure.rule.description or failure.rule.name} {failure.count} rows."
            self.faults.append(Fault(failure.rule.name, name, reason, failure.count, samples))

    def _unreadable(self, error: FleetError) -> None:
        where = f" ({error.where})" if error.where else ""
        self.faults.append(Fault("recording is readable", "ingest.recordings", f"{error.what}{where}", rows=1))

    def _in_order(self) -> list[_Recording]:
        """The drive's recordings, each content once, by time: neither names nor the order of arrival matter."""
        known: dict[str, _Recording] = {}
        for folder in self.item.folders:
            try:
                manifest = read_manifest(self.landing / folder)
                recording = known.setdefault(manifest.recording_id, _Recording(folder, manifest))
                if recording.folder == folder:
                    recording.examine(self.landing)
            except FleetError as error:
                self._unreadable(error)
        # Of recordings that start together the largest comes first: it holds what the others hold.
        return sorted(
            known.values(),
            key=lambda it: (it.format is None, it.t_start_ns, -it.manifest.bytes, it.manifest.recording_id),
        )

    def _read(self, recording: _Recording) -> None:
        self.recordings.append(recording)
        if recording.format is None:
            return  # _in_order has said why
        folder = recording.folder
        for source, batches, files in self._passes(recording.open(self.landing), recording):
            for batch in batches:
                self._take(batch, recording, files.get(batch.file))
            for refusal in source.refusals:
                tally = self._tally(refusal.topic or WHOLE_RECORDING, None)
                tally.refuse(refusal.reason, refusal.count, f"{folder}: {refusal.position}", unread=True)

    def _passes(
        self, reader: Reader, recording: _Recording
    ) -> Iterator[tuple[Reader, Iterator[Batch], dict[str | None, _File]]]:
        """The reader itself; and, for a container that is not byte-addressable, its payload as MCAP. With the files that batches
        name, as far as they are objects of the lake."""
        if reader.payload_in_place:
            folder = self.landing / recording.folder
            yield reader, reader.read(), {f.path: (_key(f.sha256), folder / f.path) for f in recording.manifest.files}
            return
        channels = reader.channels()
        if any(channel.kind in PAYLOAD_KINDS for channel in channels):
            rewritten = self.scratch / f"{recording.manifest.recording_id}.mcap"
            file = (_key(rewrite_as_mcap(reader.payloads(), rewritten)), rewritten)
            indexed = open_recording(RecordingFiles(self.scratch, (rewritten.name,)))
            yield indexed, indexed.read(), {rewritten.name: file}
        signals = [channel.topic for channel in channels if channel.kind not in PAYLOAD_KINDS]
        yield reader, reader.read(topics=signals), {}

    def _tally(self, topic: str, kind: str | None) -> StreamTally:
        """The account of a topic. kind None: the reader could not read it; whatever covers the topic is meant."""
        kinds = (kind,) if kind else KINDS
        contract = next((found for k in kinds if (found := stream_for(topic, k)) is not None), None)
        name = contract.name if contract else topic
        return self.tallies.setdefault(name, StreamTally(name, contract))

    def _take(self, batch: Batch, recording: _Recording, file: _File | None) -> None:
        tally = self._tally(batch.topic, batch.kind)
        rows = batch.table
        tally.delivered_rows += rows.num_rows
        if tally.contract is None:
            reason = f"no contract covers topic {batch.topic} ({batch.kind})"
            tally.refuse(reason, rows.num_rows, f"{recording.folder}: record {tally.delivered_rows - rows.num_rows}")
            return
        table = TABLE_OF_KIND[batch.kind]
        key, path = file or (None, None)
        clock, t_ns = _stamps(rows)
        if self.overlap is not None and t_ns is not None:
            place = path if batch.kind in PAYLOAD_KINDS else None
            repeated = self.overlap.observe(tally.stream, t_ns, rows, place)
            if count := int(repeated.sum()):
                position = f"{recording.folder}: at {t_ns[int(repeated.argmax())]} ns"
                tally.refuse("an earlier recording of the drive has the same record", count, position)
                rows, t_ns = rows.filter(pa.array(~repeated)), t_ns[~repeated]
        if key and path and rows.num_rows and key not in recording.objects:
            # A file all of whose records the drive has already is not stored once more.
            recording.objects.append(key)
            self.objects[key] = path
        # Sequences count on over the recordings of a drive, so that one number names one record.
        first = tally.distinct_rows
        tally.distinct_rows += rows.num_rows
        sequence = pa.array(np.arange(first, first + rows.num_rows, dtype=np.int64))
        rows = rows.set_column(rows.column_names.index("sequence"), "sequence", sequence)
        refused = np.zeros(rows.num_rows, dtype=bool)

        def refuse(reason: str, mask: np.ndarray) -> None:
            """Each row counts once, under the first reason that hits it."""
            new = mask & ~refused
            if new.any():
                tally.refuse(reason, int(new.sum()), f"{recording.folder}: record {first + int(new.argmax())}")
                np.logical_or(refused, new, out=refused)

        if t_ns is None:
            refuse("the record has no stamp", np.ones(rows.num_rows, dtype=bool))
        else:
            tally.observe(t_ns, clock)
        for name, contract in ((table, load_tables()[table]), (tally.stream, tally.contract)):
            self.drive_rules.setdefault(name, DriveEvaluation(contract)).observe(rows)
            for failure in evaluate_rows(contract, rows):
                refuse(f"broke the rule: {failure.rule.name}", failure.mask)
        accepted = rows.filter(pa.array(~refused))
        if batch.kind in PAYLOAD_KINDS:
            tally.payload_bytes = (tally.payload_bytes or 0) + (pc.sum(accepted["message_length"]).as_py() or 0)
        tally.spooled_rows += accepted.num_rows
        constants = {**self._constants(), "stream": tally.stream, "object": key}
        self.spool.append(table, _with_constants(accepted, constants, load_tables()[table].arrow_schema))

    def _constants(self) -> dict[str, Any]:
        return {"drive_id": self.item.drive_id, "day": self.key.day}

    def _append_streams(self) -> None:
        """What is known of the streams once every record has been seen."""
        self._append(
            "ingest.streams",
            [
                {
                    "stream": tally.stream,
                    "kind": tally.contract.kind,
                    "contract_version": tally.contract.version,
                    "read_rows": tally.read_rows,
                    "published_rows": tally.spooled_rows,
                    "refused_rows": tally.refused_rows,
                    "t_first_ns": tally.t_first_ns,
                    "t_last_ns": tally.t_last_ns,
                    "rate_hz": tally.rate_hz,
                    "gaps": tally.gaps,
                    "longest_gap_ns": tally.longest_gap_ns,
                    "backward_steps": tally.backward_steps,
                    "repeated_steps": tally.repeated_steps,
                    "expected_rows": tally.expected_rows,
                    "seen_rows": tally.seen_rows,
                    "lost_rows": tally.lost_rows,
                    "payload_bytes": tally.payload_bytes,
                    "clock": tally.clock,
                }
                for tally in self.tallies.values()
                if tally.contract is not None and tally.delivered_rows
            ],
        )

    def _append_drive(self) -> None:
        contracted = [tally for tally in self.tallies.values() if tally.contract is not None and tally.delivered_rows]
        last = [tally.t_last_ns for tally in contracted if tally.t_last_ns is not None]
        context = _context(self.recordings)
        self._append(
            "ingest.drives",
            [
                {
                    "vehicle": self.key.vehicle,
                    "t_start_ns": self.key.t_start_ns,
                    "t_end_ns": max(last, default=None),
                    "recordings": len(self.recordings),
                    "streams": len(contracted),
                    **_policy(contracted, context),
                    "context": context,
                }
            ],
        )
        self.spool.close()

    def _append_accounts(self) -> None:
        """Recordings, ledger and quarantine: published whether the drive is or not."""
        self._append(
            "ingest.recordings",
            [
                {
                    "recording_id": recording.manifest.recording_id,
                    "vehicle": self.key.vehicle,
                    "t_start_ns": self.key.t_start_ns,
                    "format": recording.format,
                    "files": [
                        {"path": file.path, "bytes": file.bytes, "sha256": file.sha256}
                        for file in recording.manifest.files
                    ],
                    "bytes": recording.manifest.bytes,
                    **_objects(recording if not self.faults else None),
                    "landing": recording.folder,
                    "context": _context([recording]),
                }
                for recording in self.recordings
            ],
        )
        self._append("ingest.ledger", [self._ledger_row(tally) for tally in self.tallies.values()])
        self._append(
            "ingest.quarantine",
            [
                {
                    "table_name": fault.table,
                    "rule": fault.rule,
                    "reason": fault.reason,
                    "rows": fault.rows,
                    "samples": fault.samples,
                    "recording_ids": [recording.manifest.recording_id for recording in self.recordings],
                }
                for fault in self.faults
            ],
        )

    def _ledger_row(self, tally: StreamTally) -> dict[str, Any]:
        # Published is counted from what is spooled to be published, not derived from the others: so the sum is a test.
        published = 0 if self.faults else tally.spooled_rows
        quarantined = tally.spooled_rows if self.faults else 0
        return {
            "stream": tally.stream,
            "read_rows": tally.read_rows,
            "published_rows": published,
            "quarantined_rows": quarantined,
            "refused_rows": tally.refused_rows,
            "unaccounted_rows": tally.read_rows - published - quarantined - tally.refused_rows,
            "reasons": [
                {"reason": reason, "count": why.count, "first_position": why.first_position}
                for reason, why in tally.reasons.items()
            ],
        }

    def _append(self, table: str, rows: list[dict[str, Any]]) -> None:
        if rows:
            schema = load_tables()[table].arrow_schema
            self.spool.append(
                table, pa.Table.from_pylist([{**self._constants(), **row} for row in rows], schema=schema)
            )


def _stamps(rows: pa.Table) -> tuple[str, np.ndarray | None]:
    """The clock that every record of a batch has, device before host, and its stamps; None when there is none."""
    for clock in ("device", "host"):
        column = rows[f"t_{clock}_ns"]
        if column.null_count == 0:
            return clock, column.to_numpy()
    return "host", None


def _with_constants(rows: pa.Table, constants: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """Columns of the schema: from the rows where they have them, else the same value for every row."""
    present = set(rows.column_names)
    columns = [
        rows[field.name]
        if field.name in present
        else pa.repeat(pa.scalar(constants[field.name], type=field.type), rows.num_rows)
        for field in schema
    ]
    return pa.table(columns, names=schema.names)


def _key(sha256: str) -> str:
    return f"recordings/{sha256}.mcap"


def _objects(recording: _Recording | None) -> dict[str, Any]:
    """Lake keys of a recording that is published: most are one file."""
    objects = recording.objects if recording else []
    return {"object": objects[0] if objects else None, "further_objects": objects[1:] or None}


def _policy(tallies: list[StreamTally], context: list[dict[str, str]]) -> dict[str, Any]:
    """What may be done with the drive: as its manifest says, else as the contracts do."""
    contracts = [tally.contract for tally in tallies if tally.contract is not None]
    said = {entry["key"]: entry["value"] for entry in context}
    classes = [contract.retention_class for contract in contracts] or [RETENTION_CLASSES[0]]
    return {
        "retention_class": said.get("retention_class", min(classes, key=RETENTION_CLASSES.index)),
        "residency_region": said.get("residency_region", load_tables()["ingest.drives"].residency),
        "personal_data": sorted({contract.personal_data for contract in contracts} - {NOT_PERSONAL}),
    }


def _context(recordings: list[_Recording]) -> list[dict[str, str]]:
    """Context of all recordings; the first to give a key wins."""
    merged: dict[str, dict[str, str]] = {}
    for recording in recordings:
        for key, entry in recording.manifest.context.items():
            merged.setdefault(key, {"key": key, **entry})
    return list(merged.values())

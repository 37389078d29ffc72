"""The evaluation record: everything from which a verdict follows, in one folder.

In: a gate, evidence, a verdict; or a folder that somebody else wrote. Out: the folder; or the verdict, judged anew from labelled
objects and detections, by the gate that lies beside them. `fleet release sign` and whoever asks years later call `verify`.

    FOLDER/record.json          thresholds, drives, passes, scenarios with the sha256 of what they mean, sha256 of each file
    FOLDER/gate.yaml            the gate file
    FOLDER/verdict.json         what the gate found: counts per cell
    FOLDER/frames.parquet       drive, time, light, weather, region of each frame, and whether it is in each scenario
    FOLDER/truth.parquet        labelled objects
    FOLDER/detections.parquet   what the model found, in each pass
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.edge.verdict import Verdict
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.evidence import OF_FRAME, SCENARIO, Evidence, Scenario
from fleet_assets.evaluate.gate import Judgement
from fleet_assets.evaluate.gate_file import Gate, load_gate
from fleet_assets.signing.documents import read_json

RECORD, GATE, VERDICT = "record.json", "gate.yaml", "verdict.json"
_FRAMES = "frames.parquet"
EVIDENCE = "evidence_sha256"  # entry of a verdict's bound_to
_TYPE, _VERSION = "evaluation-record", 1
_JSON_BYTES_LIMIT, _FILE_BYTES_LIMIT, _ROWS_LIMIT = 16 << 20, 1 << 29, 5_000_000
_REMEDY = "Judge the model again, or take the record from where it was written."

_TOLD = {
    "frame": pa.int32(),
    "class_id": pa.int8(),
    "x_m": pa.float32(),
    "y_m": pa.float32(),
    "confidence": pa.float32(),
}
_OF_TRUTH = {"distance_m": pa.float32(), "moving": pa.bool_(), "visible_fraction": pa.float32()}
_SCHEMAS = {
    _FRAMES: pa.schema({"drive": pa.int32(), "t_ns": pa.int64(), **dict.fromkeys(OF_FRAME, pa.string())}),
    "truth.parquet": pa.schema({**_TOLD, **_OF_TRUTH}),
    "detections.parquet": pa.schema({"pass": pa.string(), **_TOLD}),
}


@dataclass(frozen=True)
class Record:
    gate: Gate
    evidence: Evidence
    verdict: Verdict


def evidence_sha256(evidence: Evidence) -> str:
    """Of the content, whatever it is written as."""
    told: list[object] = [list(evidence.drives), list(evidence.thresholds_ppm)]
    told += [_meanings(evidence)] if evidence.scenarios else []  # evidence of before there were any keeps its hash
    hashed = hashlib.sha256(json.dumps(told).encode())
    tables = {"frames": _frames(evidence), "truth": _objects(evidence.truth, truth=True)}
    tables |= {f"pass {name}": _objects(found) for name, found in sorted(evidence.passes.items())}
    for name, table in tables.items():
        hashed.update(f"{name} {table.num_rows} {table.schema.names}".encode())
        for column in table.columns:
            is_text = column.type == pa.string()
            hashed.update("\n".join(column.to_pylist()).encode() if is_text else column.to_numpy().tobytes())
    return hashed.hexdigest()


def write_record(folder: Path, gate: Gate, evidence: Evidence, verdict: Verdict) -> None:
    """A new folder. Raises FleetError if the verdict is not the one on this evidence by this gate."""
    if _judged_anew(gate, evidence, verdict) != verdict:
        raise FleetError("The verdict is not the one on this evidence", where=str(folder), remedy="Judge anew.")
    folder.mkdir(parents=True, exist_ok=False)
    passes = [_objects(found).add_column(0, "pass", [[name] * len(found)]) for name, found in evidence.passes.items()]
    tables = {
        _FRAMES: _frames(evidence),
        "truth.parquet": _objects(evidence.truth, truth=True),
        "detections.parquet": pa.concat_tables([one.cast(_SCHEMAS["detections.parquet"]) for one in passes]),
    }
    for name, table in tables.items():
        pq.write_table(table.cast(_schemas(evidence.scenarios)[name]), folder / name, compression="zstd")
    (folder / GATE).write_bytes(gate.text.encode())
    (folder / VERDICT).write_text(json.dumps(verdict.to_document(), indent=1) + "\n")
    document = {
        "_type": _TYPE,
        "version": _VERSION,
        "thresholds_ppm": list(evidence.thresholds_ppm),
        "drives": list(evidence.drives),
        "passes": list(evidence.passes),
        "scenarios": _meanings(evidence),
        "files": {name: _sha256(folder / name) for name in (*tables, GATE, VERDICT)},
    }
    (folder / RECORD).write_text(json.dumps(document, indent=1) + "\n")


def read_record(folder: Path) -> Record:
    """Every file as record.json says. Raises FleetError naming the file that is not whole."""
    path = folder / RECORD
    document = read_json(path, limit_bytes=_JSON_BYTES_LIMIT, remedy="Name the folder of a record that is whole.")
    try:
        whole = document["_type"] == _TYPE and document["version"] == _VERSION
        drives, passes = tuple(document["drives"]), tuple(document["passes"])
        thresholds_ppm, files = tuple(document["thresholds_ppm"]), dict(document["files"])
        scenarios = dict(document.get("scenarios", {}))
        whole = whole and set(files) == {*_SCHEMAS, GATE, VERDICT}
        whole = whole and len(thresholds_ppm) == len(CLASSES) and all(type(ppm) is int for ppm in thresholds_ppm)
        whole = whole and 0 < len(drives) <= _ROWS_LIMIT and all(isinstance(one, str) for one in (*drives, *passes))
        whole = whole and all(isinstance(one, str) for one in (*scenarios, *scenarios.values()))
    except (KeyError, TypeError, ValueError):
        whole = False
    if not whole:
        raise FleetError(f"{path} is no evaluation record", remedy=_REMEDY)
    for name, sha256 in files.items():
        if _sha256(folder / name) != sha256:
            raise FleetError(f"{folder / name} is not the file that was recorded", remedy=_REMEDY)
    evidence = _evidence(folder, drives, passes, thresholds_ppm, scenarios)
    return Record(load_gate(folder / GATE), evidence, Verdict.read(folder / VERDICT))


def verify(folder: Path) -> Verdict:
    """The verdict, after it was judged anew from what was labelled and found. Raises FleetError if that gives another one."""
    record = read_record(folder)
    anew = _judged_anew(record.gate, record.evidence, record.verdict)
    if len(anew.cells) == len(record.verdict.cells):
        for said, found in zip(record.verdict.cells, anew.cells, strict=True):
            if said != found:
                raise FleetError(
                    f"The verdict of {folder} says {said.hits} of {said.positives}, {said.status}; judged anew it is "
                    f"{found.hits} of {found.positives}, {found.status}",
                    where=said.name,
                    remedy=_REMEDY,
                )
    if anew != record.verdict:
        raise FleetError(f"The verdict of {folder} is not the one on its evidence by its gate", remedy=_REMEDY)
    return anew


def _judged_anew(gate: Gate, evidence: Evidence, verdict: Verdict) -> Verdict:
    bound_to = {**verdict.bound_to, EVIDENCE: evidence_sha256(evidence)}
    return Judgement(gate, evidence).verdict(candidates_judged=verdict.candidates_judged, bound_to=bound_to)


# ---- tables ----------------------------------------------------------------------------------------------------------


def _schemas(scenarios: Iterable[str]) -> dict[str, pa.Schema]:
    frames = _SCHEMAS[_FRAMES]
    for name in sorted(scenarios):
        frames = frames.append(pa.field(_column(name), pa.bool_()))
    return {**_SCHEMAS, _FRAMES: frames}


def _column(scenario: str) -> str:
    """Of `frames.parquet`: whether a frame is in the scenario."""
    return f"{SCENARIO} {scenario}"


def _meanings(evidence: Evidence) -> dict[str, str]:
    return {name: evidence.scenarios[name].sha256 for name in sorted(evidence.scenarios)}


def _frames(evidence: Evidence) -> pa.Table:
    slices = {name: pa.array(evidence.slices[name].tolist(), pa.string()) for name in OF_FRAME}
    holds = {_column(name): evidence.scenarios[name].holds for name in sorted(evidence.scenarios)}
    return pa.table({"drive": evidence.drive, "t_ns": evidence.t_ns, **slices, **holds})


def _objects(found: Objects, *, truth: bool = False) -> pa.Table:
    columns = {name: pa.array(getattr(found, name), kind) for name, kind in _TOLD.items()}
    for name, kind in _OF_TRUTH.items() if truth else ():
        values = getattr(found, name)
        columns[name] = pa.array(values, kind) if values.size else pa.nulls(len(found), kind)
    return pa.table(columns)


def _evidence(
    folder: Path,
    drives: tuple[str, ...],
    names: tuple[str, ...],
    thresholds_ppm: tuple[int, ...],
    meanings: Mapping[str, str],
) -> Evidence:
    tables = {name: _table(folder / name, schema) for name, schema in _schemas(meanings).items()}
    frames = tables[_FRAMES]
    slices = {name: np.array(frames[name].to_pylist(), dtype=str) for name in OF_FRAME}
    drive = frames["drive"].to_numpy()
    if drive.size == 0 or not (drive.min() >= 0 and drive.max() < len(drives)):
        raise FleetError(f"{folder / _FRAMES} names drives that are not listed", remedy=_REMEDY)
    found = tables["detections.parquet"]
    of_pass = np.array(found["pass"].to_pylist(), dtype=str)
    if not set(np.unique(of_pass).tolist()) <= set(names):
        raise FleetError(f"{folder / 'detections.parquet'} has passes that are not listed", remedy=_REMEDY)
    passes = {
        name: _read_objects(folder / "detections.parquet", found.filter(of_pass == name), drive.size) for name in names
    }
    truth = _read_objects(folder / "truth.parquet", tables["truth.parquet"], drive.size)
    scenarios = {name: Scenario(sha256, frames[_column(name)].to_numpy()) for name, sha256 in meanings.items()}
    return Evidence(drives, drive, frames["t_ns"].to_numpy(), slices, truth, passes, thresholds_ppm, scenarios)


def _read_objects(path: Path, table: pa.Table, frames: int) -> Objects:
    names = [one.name for one in fields(Objects) if one.name in table.schema.names]
    columns: dict[str, np.ndarray] = {
        name: table[name].to_numpy() for name in names if table[name].null_count < max(table.num_rows, 1)
    }
    frame, class_id = columns.get("frame", np.zeros(0)), columns.get("class_id", np.zeros(0))
    whole = all(np.isfinite(values).all() for name, values in columns.items() if name in ("x_m", "y_m", "confidence"))
    if table.num_rows:
        whole = whole and set(_TOLD) <= set(columns) and frame.min() >= 0 and frame.max() < frames
        whole = whole and class_id.min() >= 0 and class_id.max() < len(CLASSES)
    if not whole:
        raise FleetError(f"{path} holds objects that no model finds", remedy=_REMEDY)
    try:
        return Objects(**columns)
    except ValueError as error:
        raise FleetError(f"{path}: {error}", remedy=_REMEDY) from error


def _table(path: Path, schema: pa.Schema) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows > _ROWS_LIMIT:
                raise FleetError(f"{path} has {file.metadata.num_rows} rows, too many", remedy=_REMEDY)
            if not file.schema_arrow.equals(schema):
                raise FleetError(f"{path} has other columns", remedy=_REMEDY)
            table = file.read()
    except (OSError, pa.ArrowException) as error:
        raise FleetError(f"{path} cannot be read: {error}", remedy=_REMEDY) from error
    for name in schema.names:
        if table[name].null_count and name not in _OF_TRUTH:
            raise FleetError(f"{path} has gaps in {name}", remedy=_REMEDY)
    return table


def _sha256(path: Path) -> str:
    try:
        if path.stat().st_size > _FILE_BYTES_LIMIT:
            raise FleetError(f"{path} is too big for a record", remedy=_REMEDY)
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FleetError(f"Cannot read {path}: {error.strerror}", remedy=_REMEDY) from error

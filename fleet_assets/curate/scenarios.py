"""Scenarios: predicates with a name and a version, in files.

In: `contracts/scenarios/*.yaml`, each a predicate over the frame view, which may be made of other scenarios' predicates. Out:
Scenario, and the stretches of frames at which it holds. A mistake is a ContractError with file, line and place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa

import fleet_assets.contracts
from fleet_assets.contracts.document import Node, read_document
from fleet_assets.curate.frame_view import CATALOGUE
from fleet_assets.curate.predicate_forms import outcomes, program_of
from fleet_assets.curate.predicates import Predicate, PredicateError, parse
from fleet_assets.kernels.predicate import TRUE, UNKNOWN

FOLDER = Path(fleet_assets.contracts.__file__).parent / "scenarios"
_ENTRIES = ("version", "description", "owner", "predicate", "least_s", "join_s")
_NEEDED = _ENTRIES[:4]


@dataclass(frozen=True)
class Scenario:
    """least_ns: shorter stretches do not count. join_ns: stretches with less than that between them are one. sha256: of all that
    decides where it holds."""

    name: str
    version: str
    description: str
    owner: str
    predicate: Predicate
    least_ns: int
    join_ns: int
    sha256: str

    @property
    def slice(self) -> str:
        return slice_name(self.name, self.version)


def slice_name(name: str, version: str) -> str:
    """What the slice of a scenario's frames is called, such as rain@1.0.0: a scenario of another version is another slice."""
    return f"{name}@{version}"


def parts_of_slice(slice_: str) -> tuple[str, str]:
    """Name and version of the scenario; the version is empty where the slice names none."""
    name, _, version = slice_.partition("@")
    return name, version


@lru_cache(maxsize=4)
def load_scenarios(folder: Path = FOLDER) -> Mapping[str, Scenario]:
    """All scenarios by name. Raises ContractError for a file that is wrong, and for a predicate that is."""
    documents = {path.stem: read_document(path) for path in sorted(folder.glob("*.yaml"))}
    texts = {name: document["predicate"].text for name, document in documents.items()}
    return {name: _scenario(name, document, texts) for name, document in documents.items()}


def scenarios_fingerprint(folder: Path = FOLDER) -> str:
    """Changes with what any scenario means."""
    meaning = [
        (one.name, one.version, one.predicate.text, one.least_ns, one.join_ns)
        for one in load_scenarios(folder).values()
    ]
    return hashlib.sha256(json.dumps(meaning).encode()).hexdigest()


def scenario_slices() -> tuple[str, ...]:
    """The slices that there are."""
    return tuple(one.slice for one in load_scenarios().values())


def condition(text: str) -> Predicate:
    """A predicate over the frame view, which may name scenarios. Raises PredicateError."""
    return parse(text, CATALOGUE, {name: one.predicate.text for name, one in load_scenarios().items()})


@dataclass(frozen=True)
class Hits:
    """first, last: int64 [stretches], rows of the view. unknown: frames at which it could not be told."""

    first: np.ndarray
    last: np.ndarray
    unknown: int

    @property
    def frames(self) -> int:
        return int((self.last - self.first + 1).sum())


def hits(scenario: Scenario, view: pa.Table) -> Hits:
    """Where a scenario holds in one drive. view: rows of the frame view, in order, with t_ns."""
    found = outcomes(program_of(scenario.predicate), view)
    return Hits(*stretches(found == TRUE, view["t_ns"].to_numpy(), scenario), int((found == UNKNOWN).sum()))


def stretches(holds: np.ndarray, t_ns: np.ndarray, scenario: Scenario) -> tuple[np.ndarray, np.ndarray]:
    """First and last frame of each stretch, after short ones were joined or left out."""
    edges = np.diff(np.concatenate([[0], holds.astype(np.int8), [0]]))
    first, last = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1) - 1
    if first.size > 1:
        apart = t_ns[first[1:]] - t_ns[last[:-1]] >= max(scenario.join_ns, 1)
        first, last = first[np.concatenate([[True], apart])], last[np.concatenate([apart, [True]])]
    long = t_ns[last] - t_ns[first] >= scenario.least_ns
    return first[long], last[long]


def slices_held(rows: pa.Table, first: str, last: str, at: np.ndarray) -> dict[str, np.ndarray]:
    """Slice -> bool [n]: whether a stretch of it holds each of `at`, int64 [n]. rows: of curate.scenario_hits, of one drive.
    first, last: entries of its stretches, which are in order; frames or times, as `at` is."""
    found = {}
    for row in rows.to_pylist():
        begins, ends = (np.array([hit[end] for hit in row["hits"]], dtype=np.int64) for end in (first, last))
        before = np.searchsorted(begins, at, side="right")  # stretches that have begun
        ends = np.append(np.iinfo(np.int64).min, ends)
        found[slice_name(row["scenario"], row["scenario_version"])] = at <= ends[before]
    return found


def _scenario(name: str, document: Node, texts: Mapping[str, str]) -> Scenario:
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,63}", name):
        raise document.error(f"a scenario called {name!r}", "Use lower case letters, digits and underscores.")
    for entry in document.of(dict):
        if entry not in _ENTRIES:
            raise document[entry].error(f"{entry!r} is not known here", f"Use {', '.join(_ENTRIES)}.")
    for entry in _NEEDED:
        document[entry]
    version = document["version"]
    if not re.fullmatch(r"\d+\.\d+\.\d+", version.text):
        raise version.error(f"{version.value!r} is no version", "Use MAJOR.MINOR.PATCH.")
    try:
        predicate = parse(document["predicate"].text, CATALOGUE, {**texts, name: f"scenario.{name}"})
    except PredicateError as error:
        raise document["predicate"].error(f"{error.what} ({error.where})", error.remedy or "Correct it.") from error
    least, join = document.get("least_s"), document.get("join_s")
    least_ns, join_ns = (round(node.positive * 1e9) if node else 0 for node in (least, join))
    meaning = [predicate.text, {part: texts[part] for part in sorted(predicate.scenarios)}, least_ns, join_ns]
    return Scenario(
        name,
        version.text,
        document["description"].text,
        document["owner"].text,
        predicate,
        least_ns,
        join_ns,
        hashlib.sha256(json.dumps(meaning).encode()).hexdigest(),
    )

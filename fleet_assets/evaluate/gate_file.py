"""Gate files: what a model must reach, where, and on how much evidence.

In: `contracts/gates/<name>.yaml`, or the text of one from a record. Out: Gate, with one limit per cell; a mistake is a
ContractError with file, line, place and remedy. Which cells there are follows from the file alone, never from the data: a slice
without data is INSUFFICIENT, not left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path

from fleet_assets.contracts.document import Node, parse_document
from fleet_assets.contracts.loader import FOLDER
from fleet_assets.edge.domain import Slice, band_names
from fleet_assets.edge.objects import CLASSES
from fleet_assets.edge.verdict import PPM
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.evidence import OF_FRAME, PRECISION, RECALL, SCENARIO
from fleet_assets.evaluate.rehearsals import REHEARSALS

GATES = FOLDER / "gates"
EACH = "each"  # in a rule: one cell per value
LEAST_DRIVES, LEAST_POSITIVES = 10, 60
MOTIONS = ("moving", "standing")
_METRICS = (RECALL, PRECISION)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SCENARIO = re.compile(r"[a-z][a-z0-9_]{0,63}@\d{1,6}\.\d{1,6}\.\d{1,6}")  # as curate.scenarios.Scenario.slice
_NOT_FORESEEN = ("motion", SCENARIO)  # what a vehicle cannot tell of a slice before it is in one
_TEXT_BYTES_LIMIT = 1 << 20
_CELLS_LIMIT = 400


@dataclass(frozen=True)
class Minimum:
    """Evidence without which a cell is INSUFFICIENT."""

    drives: int
    positives: int


@dataclass(frozen=True)
class Limit:
    """One cell: the metric must be at least limit_ppm in the slice. rehearsal: None for the model as it is."""

    metric: str
    slice: Slice
    limit_ppm: int
    minimum: Minimum
    rehearsal: str | None = None

    @property
    def name(self) -> str:
        return _named(self.metric, self.slice, self.rehearsal)


@dataclass(frozen=True)
class Fairness:
    """One cell: in the slice, the metric must not be more than allowance_ppm below that of the others. between: which entry of
    the slice the others differ in."""

    metric: str
    slice: Slice
    between: str
    allowance_ppm: int
    minimum: Minimum

    @property
    def name(self) -> str:
        return f"{_named(self.metric, self.slice, None)}, against others by {self.between}"


@dataclass(frozen=True)
class Outside:
    """A slice that is not judged, and where the vehicle must not rely on the model."""

    slice: Slice
    why: str


@dataclass(frozen=True)
class Approval:
    """Who approved which loosening (as gate_diff words it), and why."""

    loosened: str
    by: str
    why: str


@dataclass(frozen=True)
class Gate:
    """level_ppm: of the bounds. distance_m: edges of distance bands. equal_precision_ppm: at which recall is reported beside the
    shares that are gated. text: of the file; sha256: of that."""

    name: str
    version: str
    profile: str
    level_ppm: int
    match_radius_m: float
    distance_m: tuple[float, ...]
    equal_precision_ppm: int
    domain: Mapping[str, tuple[str, ...]]
    outside: tuple[Outside, ...]
    limits: tuple[Limit, ...]
    fairness: tuple[Fairness, ...]
    approvals: tuple[Approval, ...]
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def rehearsals(self) -> tuple[str, ...]:
        """Those that it asks for."""
        return tuple(dict.fromkeys(limit.rehearsal for limit in self.limits if limit.rehearsal))

    @property
    def scenarios(self) -> tuple[str, ...]:
        """Those whose frames it judges by themselves, such as rain@1.0.0."""
        slices = [limit.slice for limit in self.limits] + [fair.slice for fair in self.fairness]
        return tuple(dict.fromkeys(slice_[SCENARIO] for slice_ in slices if SCENARIO in slice_))

    def without_rehearsals(self) -> Gate:
        """The same for the model as it is."""
        return replace(self, limits=tuple(limit for limit in self.limits if limit.rehearsal is None))


def gate_path(name: str) -> Path:
    """The file of one of our gates, or the path that was given. Raises FleetError if there is neither."""
    path = GATES / f"{name}.yaml" if _NAME.fullmatch(name) else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in GATES.glob("*.yaml")))
        raise FleetError(f"There is no gate {name!r}", remedy=f"Name a file, or one of {known}.")
    return path


def load_gate(path: Path, scenarios: Collection[str] = ()) -> Gate:
    """scenarios: that there are, for a gate to judge by; () for one of earlier, whose scenarios may be gone. Raises FleetError
    for a file that cannot be read, ContractError for what is no gate."""
    try:
        content = path.read_bytes() if path.stat().st_size <= _TEXT_BYTES_LIMIT else None
        text = content.decode() if content is not None else None
    except OSError as error:
        raise FleetError(f"Cannot read {path}: {error.strerror}", remedy="Name a gate file that is there.") from error
    except UnicodeDecodeError as error:
        raise FleetError(f"{path} is not UTF-8", where=f"byte {error.start}", remedy="Save it as UTF-8.") from error
    if text is None:
        raise FleetError(f"{path} is over 1 MiB", remedy="A gate is a small text file.")
    return parse_gate(text, path, scenarios)


def parse_gate(text: str, path: Path, scenarios: Collection[str] = ()) -> Gate:
    """path: only for messages. scenarios: as load_gate. Raises ContractError."""
    root = parse_document(text, path)
    root.only(
        ("name", "version", "profile", "description", "level", "match_radius_m", "equal_precision", "distance_m", "minimum",
         "domain", "limits"),
        ("outside", "fairness", "rehearsals", "approvals"),
    )  # fmt: skip
    _fits(root["name"], _NAME, "lower case letters, digits and underscores")
    _fits(root["profile"], _NAME, "lower case letters, digits and underscores")
    _fits(root["version"], re.compile(r"\d+\.\d+\.\d+"), "MAJOR.MINOR.PATCH")
    root["description"].text  # noqa: B018 (must be there)
    values = _values(root) | {SCENARIO: tuple(scenarios)}
    minimum = _minimum(root["minimum"], Minimum(LEAST_DRIVES, LEAST_POSITIVES))
    outside = tuple(_outside(node, values) for node in root.elements("outside"))
    limits = [limit for node in root["limits"] for limit in _limits(node, values, minimum, False)]
    limits += [limit for node in root.elements("rehearsals") for limit in _limits(node, values, minimum, True)]
    gate = Gate(
        name=root["name"].text,
        version=root["version"].text,
        profile=root["profile"].text,
        level_ppm=_ppm(root["level"]),
        match_radius_m=float(root["match_radius_m"].positive),
        distance_m=_distances(root["distance_m"]),
        equal_precision_ppm=_ppm(root["equal_precision"]),
        domain={name: values[name] for name in OF_FRAME},
        outside=outside,
        limits=tuple(limit for limit in limits if not _is_outside(limit.slice, outside)),
        fairness=tuple(
            cell
            for node in root.elements("fairness")
            for cell in _fairness(node, values, minimum)
            if not _is_outside(cell.slice, outside)
        ),
        approvals=tuple(_approval(node) for node in root.elements("approvals")),
        text=text,
    )
    _once_each(root, gate)
    return gate


def _values(root: Node) -> dict[str, tuple[str, ...]]:
    """What each dimension of a slice can be."""
    domain = root["domain"]
    _foreseen(domain)
    domain.only(OF_FRAME)
    return {
        "class": CLASSES,
        **{name: _texts(domain[name]) for name in OF_FRAME},
        "distance": band_names(_distances(root["distance_m"])),
        "motion": MOTIONS,
    }


def _limits(node: Node, values: Mapping[str, tuple[str, ...]], minimum: Minimum, rehearsed: bool) -> list[Limit]:
    """The cells of one rule."""
    node.only(("metric", "where", "limit", *(("rehearsal",) if rehearsed else ())), ("minimum",))
    metric, limit_ppm = node["metric"].one_of(_METRICS), _ppm(node["limit"])
    least = _minimum(node["minimum"], minimum) if node.get("minimum") else minimum
    names: tuple[str | None, ...] = _choices(node["rehearsal"], tuple(REHEARSALS)) if rehearsed else (None,)
    slices = _slices(node["where"], values, metric, needed=("class",))
    return [Limit(metric, slice_, limit_ppm, least, name) for name in names for slice_ in slices]


def _fairness(node: Node, values: Mapping[str, tuple[str, ...]], minimum: Minimum) -> list[Fairness]:
    node.only(("metric", "where", "between", "allowance"), ("minimum",))
    metric, allowance_ppm = node["metric"].one_of(_METRICS), _ppm(node["allowance"])
    between = node["between"].one_of(("class", *OF_FRAME))
    if between in node["where"].of(dict):
        raise node["where"].error(f"{between!r} is what is compared", "Leave it out here.")
    if len(values[between]) < 2:
        raise node["between"].error(f"there is one {between} only", "Compare between something that differs.")
    least = _minimum(node["minimum"], minimum) if node.get("minimum") else minimum
    slices = _slices(node["where"], values, metric, needed=() if between == "class" else ("class",))
    return [
        Fairness(metric, {**slice_, between: value}, between, allowance_ppm, least)
        for slice_ in slices
        for value in values[between]
    ]


def _slices(
    node: Node, values: Mapping[str, tuple[str, ...]], metric: str, *, needed: tuple[str, ...] = ()
) -> list[dict[str, str]]:
    """Every combination of what a rule asks for."""
    node.only(needed, tuple(values))
    if metric == PRECISION and "motion" in node.of(dict):
        raise node["motion"].error("precision by motion", "A detection does not tell it: gate recall by motion.")
    names = [name for name in values if name in node.of(dict)]
    return [
        dict(zip(names, combination, strict=True))
        for combination in product(
            *((_scenarios if name == SCENARIO else _choices)(node[name], values[name]) for name in names)
        )
    ]


def _outside(node: Node, values: Mapping[str, tuple[str, ...]]) -> Outside:
    node.only(("slice", "why"))
    allowed = {name: known for name, known in values.items() if name not in _NOT_FORESEEN}
    _foreseen(node["slice"])
    node["slice"].only((), tuple(allowed))
    if not node["slice"].of(dict):
        raise node["slice"].error("everything is outside", "Name at least one condition.")
    return Outside(
        {name: node["slice"][name].one_of(allowed[name]) for name in node["slice"].of(dict)}, node["why"].text
    )


def _foreseen(node: Node) -> None:
    for name in _NOT_FORESEEN:
        if name in node.of(dict):
            raise node.error(
                f"no vehicle can tell {name} beforehand",
                f"Bound the operating domain by what it can: leave {name} to `where`.",
            )


def _is_outside(slice_: Slice, outside: tuple[Outside, ...]) -> bool:
    return any(one.slice.items() <= slice_.items() for one in outside)


def _approval(node: Node) -> Approval:
    node.only(("loosened", "by", "why"))
    return Approval(node["loosened"].text, node["by"].text, node["why"].text)


def _once_each(root: Node, gate: Gate) -> None:
    names = [limit.name for limit in gate.limits] + [fair.name for fair in gate.fairness]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise root["limits"].error(f"two limits for {twice}", "Keep one.")
    if not gate.limits:
        raise root["limits"].error("no cell", "Give a limit for a slice inside the operating domain.")
    if len(names) > _CELLS_LIMIT:
        raise root["limits"].error(f"{len(names)} cells", f"Keep to {_CELLS_LIMIT}: each needs drives of its own.")


def _named(metric: str, slice_: Slice, rehearsal: str | None) -> str:
    rest = [f"{name}={value}" for name, value in slice_.items() if name != "class"]
    rest += [f"rehearsal={rehearsal}"] if rehearsal else []
    return ", ".join([f"{slice_.get('class', 'object')} {metric}", *rest])


def _minimum(node: Node, least: Minimum) -> Minimum:
    node.only(("drives", "positives"))
    found = Minimum(_count(node["drives"]), _count(node["positives"]))
    if found.drives < least.drives or found.positives < least.positives:
        raise node.error(
            f"{found.drives} drives and {found.positives} positives are too few",
            f"Ask for at least {least.drives} drives and {least.positives} positives: bounds from fewer pass bad models.",
        )
    return found


def _count(node: Node) -> int:
    count: int = node.of(int)
    if not 0 < count <= PPM:
        raise node.error(f"{count} is out of range", "Give a number from 1 to 1,000,000.")
    return count


def _ppm(node: Node) -> int:
    """A share, between 0 and 1, to the sixth digit."""
    ppm = round(node.number * PPM) if 0 < node.number < 1 else 0
    if not 0 < ppm < PPM or abs(node.number * PPM - ppm) > 1e-3:
        raise node.error(f"{node.value!r} is no share", "Give a number between 0 and 1 with at most six digits.")
    return ppm


def _distances(node: Node) -> tuple[float, ...]:
    edges = [float(edge.number) for edge in node]
    if len(edges) < 2 or edges[0] < 0 or any(not low < high for low, high in pairwise(edges)) or edges[-1] > 1000:
        raise node.error(f"{node.value!r} are no bands", "Give two or more distances in metres, ascending.")
    if any(round(edge * 1_000) / 1_000 != edge for edge in edges):
        raise node.error(f"{node.value!r} have fractions of a millimetre", "A verdict tells them as whole millimetres.")
    return tuple(edges)


def _texts(node: Node) -> tuple[str, ...]:
    found = tuple(entry.text for entry in node)
    for entry in node:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", entry.text) or entry.text == EACH:
            raise entry.error(f"{entry.value!r} is no value of a slice", "Use lower case letters, digits, _ and -.")
    if not found or len(set(found)) != len(found):
        raise node.error("no values, or one twice", "Name each once.")
    return found


def _choices(node: Node, values: tuple[str, ...]) -> tuple[str, ...]:
    """One value, a list of them, or each."""
    if node.value == EACH:
        return values
    if isinstance(node.value, list):
        return tuple(dict.fromkeys(entry.one_of(values) for entry in node))
    return (node.one_of(values),)


def _scenarios(node: Node, known: tuple[str, ...]) -> tuple[str, ...]:
    """One, or a list of them, each with its version: what a changed scenario selects is another slice. Not `each`: a scenario
    that somebody adds is no cell. known: () if nobody is to be asked."""
    entries = list(node) if isinstance(node.value, list) else [node]
    for entry in entries:
        _fits(entry, _SCENARIO, "NAME@VERSION of a scenario, such as rain@1.0.0")
        if known and entry.text not in known:
            raise entry.error(f"there is no scenario {entry.text}", f"Use one of {', '.join(sorted(known))}.")
    return tuple(dict.fromkeys(entry.text for entry in entries))


def _fits(node: Node, pattern: re.Pattern[str], what: str) -> None:
    if not pattern.fullmatch(node.text):
        raise node.error(f"{node.value!r} does not fit", f"Use {what}.")

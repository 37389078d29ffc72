"""The verdict on a model: counts per slice, bounds, statuses, all in integers.

In: counts and limits; or a document that somebody else wrote. Out: lower bounds in ppm, and PASS, FAIL or INSUFFICIENT for each
cell and for the whole. The gate, the signing command and the vehicle call these same functions, so that whoever has the counts
finds the same verdict.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from fleet_assets.errors import FleetError
from fleet_assets.signing.documents import read_json

PPM = 1_000_000
LEVEL_PPM = 50_000  # one-sided 95 %
COUNT_LIMIT = 10_000_000
DOCUMENT_BYTES_LIMIT = 4 << 20
TYPE = "verdict"
_VERSION = 1
_CELLS_LIMIT, _ENTRIES_LIMIT, _TEXT_LIMIT = 512, 32, 256
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_STEPS = 100_000  # of the continued fraction; ten million counts take some thousand
_REMEDY = "Take the verdict that the gate wrote; a changed one does not count."


class Status(StrEnum):
    """Only PASS lets a release go on."""

    PASS = "PASS"  # noqa: S105 (no password)
    FAIL = "FAIL"  # the measured share is below the limit
    INSUFFICIENT = "INSUFFICIENT"  # it may be above, and there is too little data to say so


# ---- bounds ----------------------------------------------------------------------------------------------------------


def lower_bound_ppm(hits: int, positives: int, design_effect_ppm: int, level_ppm: int) -> int:
    """One-sided lower bound of a share, by Clopper and Pearson (1934), on counts divided by the design effect.

    hits of positives, as counted. design_effect_ppm: by how much samples of one drive are less than independent, at least
    1,000,000. level_ppm: how often the bound may be above the truth. The largest whole number of ppm at which so many hits
    have less than that probability, so it is rounded down. Raises FleetError for counts that are impossible.
    """
    if not (0 <= hits <= positives <= COUNT_LIMIT):
        raise FleetError(f"{hits} hits of {positives} positives", remedy="Count at most ten million, hits among them.")
    if not PPM <= design_effect_ppm <= COUNT_LIMIT * PPM:
        raise FleetError(f"A design effect of {design_effect_ppm} ppm", remedy="Give at least 1,000,000.")
    if not 0 < level_ppm < PPM:
        raise FleetError(f"A level of {level_ppm} ppm", remedy="Give one between 0 and 1,000,000.")
    return _lower_bound_ppm(hits * PPM / design_effect_ppm, positives * PPM / design_effect_ppm, level_ppm)


def upper_bound_ppm(hits: int, positives: int, design_effect_ppm: int, level_ppm: int) -> int:
    """As lower_bound_ppm, from above; rounded up."""
    return PPM - lower_bound_ppm(positives - hits, positives, design_effect_ppm, level_ppm)


def _lower_bound_ppm(hits: float, positives: float, level_ppm: int) -> int:
    """Bisection over whole ppm. The answer is the same wherever the tail is right to nine digits, a tie at the level included."""
    if hits <= 0:
        return 0
    low, high = 0, PPM  # at low, so many hits are rare enough; at high they are certain
    while high - low > 1:
        middle = (low + high) // 2
        if _beta_tail(middle / PPM, hits, positives - hits + 1) * PPM < level_ppm * (1 - 1e-9):
            low = middle
        else:
            high = middle
    return low


def _beta_tail(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b): the chance of at least a hits in a + b - 1 tries at share x."""
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x))
    if x < (a + 1) / (a + b + 2):
        return front * _beta_fraction(x, a, b) / a
    return 1 - front * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22)."""
    tiny = 1e-300
    c, d = 1.0, 1 / (_not_zero(1 - (a + b) * x / (a + 1), tiny))
    found = d
    for step in range(1, _STEPS):
        for numerator in (
            step * (b - step) * x / ((a + 2 * step - 1) * (a + 2 * step)),
            -(a + step) * (a + b + step) * x / ((a + 2 * step) * (a + 2 * step + 1)),
        ):
            d = 1 / _not_zero(1 + numerator * d, tiny)
            c = _not_zero(1 + numerator / c, tiny)
            found *= d * c
        if abs(d * c - 1) < 1e-14:
            return found
    raise FleetError("A bound does not settle", where=f"x={x}, a={a}, b={b}", remedy="Report it, with these numbers.")


def _not_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny


# ---- cells -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One line of a gate: a metric in a slice, what was counted, what is demanded; and, from `judged` on, what follows.

    metric: recall (hits of labelled objects) or precision (hits of detections), at the shipped threshold. slice: such as
    {"class": "pedestrian", "light": "night"}. drives: that have a positive here. drives_needed: how many drives like these would
    show that the limit holds, if the status is INSUFFICIENT; 0 if nobody can tell.
    """

    metric: str
    slice: Mapping[str, str]
    positives: int
    hits: int
    drives: int
    design_effect_ppm: int
    limit_ppm: int
    minimum_drives: int
    minimum_positives: int
    bound_ppm: int = 0
    status: Status = Status.INSUFFICIENT
    drives_needed: int = 0

    @property
    def estimate_ppm(self) -> int:
        """The share as counted, rounded down; 0 where nothing was counted."""
        return self.hits * PPM // self.positives if self.positives else 0

    @property
    def name(self) -> str:
        """Such as `pedestrian recall, light=night`."""
        rest = ", ".join(f"{key}={value}" for key, value in self.slice.items() if key != "class")
        return f"{self.slice.get('class', 'object')} {self.metric}" + (f", {rest}" if rest else "")

    def judged(self, level_ppm: int) -> Cell:
        """Bound and status anew, from the counts. Raises FleetError for counts that are impossible."""
        bound_ppm = lower_bound_ppm(self.hits, self.positives, self.design_effect_ppm, level_ppm)
        if self.drives < self.minimum_drives or self.positives < self.minimum_positives:
            status = Status.INSUFFICIENT
        elif bound_ppm >= self.limit_ppm:
            status = Status.PASS
        else:
            status = Status.FAIL if self.estimate_ppm < self.limit_ppm else Status.INSUFFICIENT
        needed = self._drives_needed(level_ppm) if status is Status.INSUFFICIENT else 0
        return replace(self, bound_ppm=bound_ppm, status=status, drives_needed=needed)

    def _drives_needed(self, level_ppm: int) -> int:
        """The smallest number of drives that has the minima, and the bound if shares and objects per drive stay as they are."""
        if not self.positives or not self.drives:
            return self.minimum_drives
        least = max(self.minimum_drives, -(-self.drives * self.minimum_positives // self.positives))
        if self.estimate_ppm <= self.limit_ppm:
            return least if self.drives < least else 0

        def enough(drives: int) -> bool:
            times = drives * PPM / (self.drives * self.design_effect_ppm)
            return _lower_bound_ppm(self.hits * times, self.positives * times, level_ppm) >= self.limit_ppm

        low, high = 0, max(least, self.drives)
        while not enough(high):
            low, high = high, 2 * high
            if high * self.positives > COUNT_LIMIT * self.drives:
                return 0
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if enough(middle) else (middle, high)
        return max(high, least)


# ---- the verdict -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a gate found, and about what exactly.

    profile: demo, full. gate_sha256: of the gate file. level_ppm: of one candidate; it is divided by candidates_judged, the
    number of candidates that were judged on this test set. domain: conditions that were judged, such as {"light": ("day",
    "night")}; excluded: slices within it that were not; distance_mm: edges of distance bands. Elsewhere nothing is claimed, and
    the vehicle must not rely on the model (edge/domain.py). bound_to: hashes and versions of what was judged, and by what.
    """

    profile: str
    gate_name: str
    gate_sha256: str
    level_ppm: int
    candidates_judged: int
    cells: tuple[Cell, ...]
    domain: Mapping[str, tuple[str, ...]]
    excluded: tuple[Mapping[str, str], ...]
    distance_mm: tuple[int, ...]
    bound_to: Mapping[str, str]

    @property
    def status(self) -> Status:
        found = {cell.status for cell in self.cells}
        return next((status for status in (Status.FAIL, Status.INSUFFICIENT) if status in found), Status.PASS)

    @property
    def blocking(self) -> tuple[Cell, ...]:
        """The cells without PASS."""
        return tuple(cell for cell in self.cells if cell.status is not Status.PASS)

    @property
    def cell_level_ppm(self) -> int:
        return self.level_ppm // self.candidates_judged

    def recomputed(self) -> Verdict:
        """Bounds and statuses anew, from the counts."""
        return replace(self, cells=tuple(cell.judged(self.cell_level_ppm) for cell in self.cells))

    def check(self) -> None:
        """Raises FleetError if a bound or status is not what its counts say."""
        for said, found in zip(self.cells, self.recomputed().cells, strict=True):
            if said != found:
                raise FleetError(
                    f"The verdict says {said.status} with a bound of {said.bound_ppm} ppm; its counts say {found.status} with "
                    f"{found.bound_ppm} ppm",
                    where=said.name,
                    remedy=_REMEDY,
                )

    @property
    def bands_m(self) -> tuple[float, ...]:
        """Edges of the distance bands: nothing is claimed beyond them."""
        return tuple(edge / 1_000 for edge in self.distance_mm)

    def to_document(self) -> dict[str, Any]:
        """JSON's types without fractions: signed metadata refuses them."""
        cells = [{**vars(cell), "slice": dict(cell.slice), "status": str(cell.status)} for cell in self.cells]
        return {
            "_type": TYPE,
            "version": _VERSION,
            **vars(self),
            "cells": cells,
            "domain": {name: list(values) for name, values in self.domain.items()},
            "excluded": [dict(slice_) for slice_ in self.excluded],
            "distance_mm": list(self.distance_mm),
            "bound_to": dict(self.bound_to),
        }

    @classmethod
    def from_document(cls, document: object, *, name: str = "the verdict") -> Verdict:
        """Raises FleetError, naming the place, for whatever `to_document` does not write. Trusts no bound: see `check`."""
        root = _Reader(document, name, "")
        root.only("_type", "version", *cls.__dataclass_fields__)
        if root.value("_type") != TYPE or root.value("version") != _VERSION:
            raise root.error("is no verdict that this version reads")
        verdict = cls(
            profile=root.word("profile"),
            gate_name=root.word("gate_name"),
            gate_sha256=root.sha256("gate_sha256"),
            level_ppm=root.whole("level_ppm", 1, PPM - 1),
            candidates_judged=root.whole("candidates_judged", 1, PPM),
            cells=tuple(_cell(cell) for cell in root.items("cells")),
            domain=root.inner("domain").lists(),
            excluded=tuple(slice_.texts() for slice_ in root.items("excluded")),
            distance_mm=root.ascending("distance_mm", COUNT_LIMIT),
            bound_to=root.inner("bound_to").texts(),
        )
        if not verdict.cells:
            raise root.error("has no cells")
        if not verdict.cell_level_ppm:
            raise root.error("divides its level by too many candidates")
        return verdict

    @classmethod
    def read(cls, path: Path) -> Verdict:
        """From a file. Raises FleetError as from_document."""
        document = read_json(path, limit_bytes=DOCUMENT_BYTES_LIMIT, remedy=_REMEDY)
        return cls.from_document(document, name=str(path))


def _cell(reader: _Reader) -> Cell:
    reader.only(*Cell.__dataclass_fields__)
    status = reader.text("status")
    if status not in tuple(Status):
        raise reader.error(f"has a status {status!r}")
    positives = reader.whole("positives", 0, COUNT_LIMIT)
    return Cell(
        metric=reader.word("metric"),
        slice=reader.inner("slice").texts(),
        positives=positives,
        hits=reader.whole("hits", 0, positives),
        drives=reader.whole("drives", 0, positives),
        design_effect_ppm=reader.whole("design_effect_ppm", PPM, COUNT_LIMIT * PPM),
        limit_ppm=reader.whole("limit_ppm", 0, PPM),
        minimum_drives=reader.whole("minimum_drives", 1, COUNT_LIMIT),
        minimum_positives=reader.whole("minimum_positives", 1, COUNT_LIMIT),
        bound_ppm=reader.whole("bound_ppm", 0, PPM),
        status=Status(status),
        drives_needed=reader.whole("drives_needed", 0, COUNT_LIMIT),
    )


class _Reader:
    """A mapping of a document that may be anything; every look says what is expected."""

    def __init__(self, found: object, name: str, place: str) -> None:
        self._name, self._place = name, place
        if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
            raise self.error("is no mapping")
        self._found = found

    def error(self, what: str) -> FleetError:
        return FleetError(f"{self._name} {what}", where=self._place or "top level", remedy=_REMEDY)

    def only(self, *names: str) -> None:
        for key in self._found:
            if key not in names:
                raise self.error(f"has an entry {key[:_TEXT_LIMIT]!r} that is not known")

    def value(self, key: str) -> object:
        if key not in self._found:
            raise self.error(f"lacks {key!r}")
        return self._found[key]

    def text(self, key: str) -> str:
        value = self.value(key)
        if not isinstance(value, str) or not 0 < len(value) <= _TEXT_LIMIT or not value.isprintable():
            raise self.error(f"has no short text in {key!r}")
        return value

    def word(self, key: str) -> str:
        value = self.text(key)
        if not _NAME.fullmatch(value):
            raise self.error(f"has {value!r} for {key!r}, which is no name")
        return value

    def sha256(self, key: str) -> str:
        value = self.text(key)
        if not _SHA256.fullmatch(value):
            raise self.error(f"has no sha256 in {key!r}")
        return value

    def whole(self, key: str, least: int, most: int) -> int:
        value = self.value(key)
        if type(value) is not int or not least <= value <= most:
            raise self.error(f"has no whole number from {least} to {most} in {key!r}")
        return value

    def ascending(self, key: str, most: int) -> tuple[int, ...]:
        """Two or more whole numbers from 0 on, each larger than the one before."""
        found = self.value(key)
        if not isinstance(found, list) or not 2 <= len(found) <= _ENTRIES_LIMIT:
            raise self.error(f"has no list of 2 to {_ENTRIES_LIMIT} in {key!r}")
        if any(type(value) is not int or not 0 <= value <= most for value in found) or found != sorted(set(found)):
            raise self.error(f"has no ascending numbers up to {most} in {key!r}")
        return tuple(found)

    def inner(self, key: str) -> _Reader:
        return _Reader(self.value(key), self._name, f"{self._place}.{key}".lstrip("."))

    def items(self, key: str) -> Iterator[_Reader]:
        found = self.value(key)
        if not isinstance(found, list) or len(found) > _CELLS_LIMIT:
            raise self.error(f"has no list of at most {_CELLS_LIMIT} in {key!r}")
        for index, item in enumerate(found):
            yield _Reader(item, self._name, f"{self._place}.{key}[{index}]".lstrip("."))

    def texts(self) -> dict[str, str]:
        """Names with short texts; at least one."""
        return {key: self.text(key) for key in self._names()}

    def lists(self) -> dict[str, tuple[str, ...]]:
        """Names with lists of short texts; at least one each."""
        found = {}
        for key in self._names():
            values = self.value(key)
            if not isinstance(values, list) or not 0 < len(values) <= _ENTRIES_LIMIT:
                raise self.error(f"has no list of at most {_ENTRIES_LIMIT} in {key!r}")
            found[key] = tuple(_Reader({key: value}, self._name, self._place).text(key) for value in values)
        return found

    def _names(self) -> list[str]:
        if not 0 < len(self._found) <= _ENTRIES_LIMIT:
            raise self.error(f"has not between 1 and {_ENTRIES_LIMIT} entries")
        for key in self._found:
            if not _NAME.fullmatch(key):
                raise self.error(f"has an entry {key[:_TEXT_LIMIT]!r} that is no name")
        return list(self._found)

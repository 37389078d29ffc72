"""What values of a feature look like: count, mean, variance and histogram, small and mergeable.

In: float64 values, NaN where one is missing. Out: a sketch; how far two of them are apart, as effect sizes with intervals.
Sketches of one feature can be merged when they share their bin edges: a device takes them from the bundle.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fleet_assets.errors import FleetError

BINS = 32
_Z95 = 1.959963984540054


@dataclass
class Sketch:
    """edges: float64 [bins + 1], ascending; counts: int64 [bins + 2], the first and last outside the edges."""

    edges: np.ndarray
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    count: int = 0
    missing: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared differences from the mean

    def __post_init__(self) -> None:
        if not len(self.counts):
            self.counts = np.zeros(len(self.edges) + 1, dtype=np.int64)

    @classmethod
    def of(cls, values: np.ndarray) -> Sketch:
        """A sketch with its own edges: equal shares of these values."""
        finite = values[np.isfinite(values)]
        shares = np.linspace(0.0, 1.0, BINS + 1)
        sketch = cls(np.unique(np.quantile(finite, shares)) if finite.size else np.zeros(1))
        sketch.add(values)
        return sketch

    def like(self) -> Sketch:
        """An empty sketch with the same edges."""
        return Sketch(self.edges)

    @property
    def variance(self) -> float:
        return self.squares / (self.count - 1) if self.count > 1 else 0.0

    def add(self, values: np.ndarray) -> None:
        """More values; what is not finite counts as missing."""
        finite = values[np.isfinite(values)]
        counts = np.bincount(np.searchsorted(self.edges, finite, side="right"), minlength=len(self.counts))
        mean = float(finite.mean()) if finite.size else 0.0
        squares = float(((finite - mean) ** 2).sum())
        self.merge(Sketch(self.edges, counts, finite.size, values.size - finite.size, mean, squares))

    def merge(self, other: Sketch) -> None:
        """Adds what another sketch has seen. Source of the update: Chan, Golub, LeVeque, "Updating formulae", 1979."""
        if not np.array_equal(self.edges, other.edges):
            raise FleetError("Sketches with different bins cannot be merged", remedy="Take the bins from one bundle.")
        total = self.count + other.count
        if other.count:
            apart = other.mean - self.mean
            self.squares += other.squares + apart * apart * (self.count * other.count / total)
            self.mean += apart * (other.count / total)
        self.count, self.missing = total, self.missing + other.missing
        self.counts = self.counts + other.counts

    def to_json(self) -> dict[str, Any]:
        return {
            "edges": self.edges.tolist(),
            "counts": self.counts.tolist(),
            "count": self.count,
            "missing": self.missing,
            "mean": self.mean,
            "squares": self.squares,
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Sketch:
        """Raises FleetError if the document is no sketch."""
        try:
            sketch = cls(
                np.array(document["edges"], dtype=np.float64),
                np.array(document["counts"], dtype=np.int64),
                int(document["count"]),
                int(document["missing"]),
                float(document["mean"]),
                float(document["squares"]),
            )
            numbers = np.array([sketch.mean, sketch.squares])
            whole = len(sketch.counts) == len(sketch.edges) + 1 and sketch.counts.sum() == sketch.count
            if not whole or np.isnan(numbers).any() or sketch.missing < 0 or (sketch.counts < 0).any():
                raise ValueError("its numbers do not agree")
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FleetError("This is no sketch of a feature", where=str(error), remedy="Take it anew.") from error
        return sketch


class Recorder:
    """What a device sees of one view: a sketch per feature, with the bins of training, in bounded memory.

    about: says of what (bundle, service, view), and is written with the sketches.
    """

    _ROWS = 256  # are kept before the sketches take them, a hundred times cheaper than one by one

    def __init__(self, features: Sequence[str], sketches: Mapping[str, Sketch], about: Mapping[str, str]) -> None:
        self.about, self.sketches = dict(about), dict(sketches)
        self._features = tuple(features)
        self._rows = np.empty((self._ROWS, len(self._features)))
        self._filled = 0

    def add(self, values: np.ndarray) -> None:
        """One row, as a look-up gives it: float64 [features], NaN where one is missing."""
        self._rows[self._filled] = values
        self._filled += 1
        if self._filled == self._ROWS:
            self._take()

    def _take(self) -> None:
        for index, name in enumerate(self._features):
            if name in self.sketches:
                self.sketches[name].add(self._rows[: self._filled, index])
        self._filled = 0

    def to_json(self) -> dict[str, Any]:
        self._take()
        return {**self.about, "sketches": {name: sketch.to_json() for name, sketch in self.sketches.items()}}


@dataclass(frozen=True)
class Difference:
    """How one measure differs: its size, the 95 % interval, and from which size on it matters."""

    measure: str
    size: float
    low: float
    high: float
    limit: float

    @property
    def verdict(self) -> str:
        """skewed: beyond the limit for certain. same: within it for certain. unclear: too few values to tell."""
        if self.low > self.limit or self.high < -self.limit:
            return "skewed"
        return "same" if -self.limit < self.low and self.high < self.limit else "unclear"


def compare(training: Sketch, seen: Sketch, *, limit: float = 0.1) -> list[Difference]:
    """How values that a vehicle saw differ from those of training, in three effect sizes.

    mean: standardised difference of means (Cohen's d; interval of Hedges and Olkin, 1985). shape: largest difference of the
    cumulative shares at the edges (Kolmogorov-Smirnov; interval by Dvoretzky-Kiefer-Wolfowitz with Massart's constant).
    missing: difference of the shares that are missing (normal interval with Agresti and Caffo's two added of each).
    The intervals take values as independent; those of one drive are not, so give one value per place or event.
    """
    return [
        Difference("mean", *_mean(training, seen), limit),
        Difference("shape", *_shape(training, seen), limit),
        Difference("missing", *_missing(training, seen), limit),
    ]


def _mean(training: Sketch, seen: Sketch) -> tuple[float, float, float]:
    n, m = training.count, seen.count
    if n < 2 or m < 2:
        return 0.0, -math.inf, math.inf
    pooled = math.sqrt((training.squares + seen.squares) / (n + m - 2))
    apart = seen.mean - training.mean
    if pooled == 0.0:
        size = 0.0 if apart == 0.0 else math.copysign(math.inf, apart)
        return size, size, size
    size = apart / pooled
    half = _Z95 * math.sqrt((n + m) / (n * m) + size * size / (2 * (n + m)))
    return size, size - half, size + half


def _shape(training: Sketch, seen: Sketch) -> tuple[float, float, float]:
    if not np.array_equal(training.edges, seen.edges):
        raise FleetError("Sketches with different bins cannot be compared", remedy="Take the bins from one bundle.")
    n, m = training.count, seen.count
    if not n or not m:
        return 0.0, 0.0, 1.0
    size = float(np.abs(np.cumsum(training.counts) / n - np.cumsum(seen.counts) / m).max())
    half = math.sqrt(math.log(2 / 0.05) / 2) * (1 / math.sqrt(n) + 1 / math.sqrt(m))
    return size, max(size - half, 0.0), min(size + half, 1.0)


def _missing(training: Sketch, seen: Sketch) -> tuple[float, float, float]:
    totals = [sketch.count + sketch.missing for sketch in (training, seen)]
    if not all(totals):
        return 0.0, -1.0, 1.0
    size = seen.missing / totals[1] - training.missing / totals[0]
    shares = [(sketch.missing + 1) / (total + 2) for sketch, total in zip((training, seen), totals, strict=True)]
    half = _Z95 * math.sqrt(sum(p * (1 - p) / (total + 2) for p, total in zip(shares, totals, strict=True)))
    middle = shares[1] - shares[0]
    return size, middle - half, middle + half

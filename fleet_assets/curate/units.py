"""Units of columns, as predicates compare them.

In: a unit as contracts write it (m/s^2, 1/m, ms). Out: its dimensions and its size in base units. What is not known here is a
dimension of its own: pixels compare with pixels.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass

_SIZES: dict[str, tuple[float, str]] = {
    "km": (1e3, "m"),
    "cm": (1e-2, "m"),
    "h": (3600.0, "s"),
    "min": (60.0, "s"),
    "ms": (1e-3, "s"),
    "us": (1e-6, "s"),
    "ns": (1e-9, "s"),
    "deg": (math.pi / 180, "rad"),
}
_PART = re.compile(r"([A-Za-z%]+)(?:\^(\d))?")


@dataclass(frozen=True)
class Unit:
    """dimensions: base unit -> exponent, sorted, none of them 0. size: in base units. name: as it was written."""

    dimensions: tuple[tuple[str, int], ...]
    size: float
    name: str

    def __mul__(self, other: Unit) -> Unit:
        return _product(self, other, 1)

    def __truediv__(self, other: Unit) -> Unit:
        return _product(self, other, -1)

    @property
    def shown(self) -> str:
        return self.name or "no unit"


PLAIN = Unit((), 1.0, "")


def unit_of(text: str) -> Unit:
    """Raises ValueError for what is no unit."""
    if text == "1":
        return PLAIN
    above, slash, below = text.partition("/")
    powers: Counter[str] = Counter()
    size = 1.0
    for part, sign in ((above, 1), (below, -1)):
        if (part == "1" and sign == 1) or (not slash and sign == -1):
            continue
        for factor in part.split("*"):
            match = _PART.fullmatch(factor)
            if not match:
                raise ValueError(f"{text!r} is no unit")
            each, base = (1.0, "s") if match[1] == "Hz" else _SIZES.get(match[1], (1.0, match[1]))
            power = sign * int(match[2] or 1) * (-1 if match[1] == "Hz" else 1)
            powers[base] += power
            size *= each**power
    return Unit(_sorted(powers), size, text)


def _product(one: Unit, other: Unit, sign: int) -> Unit:
    powers = Counter(dict(one.dimensions))
    for base, power in other.dimensions:
        powers[base] += sign * power
    if not other.dimensions and other.size == 1.0:
        name = one.name
    else:
        name = f"{one.name or '1'}{'*' if sign > 0 else '/'}{other.name or '1'}"
    return Unit(_sorted(powers), one.size * other.size**sign, name)


def _sorted(powers: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((base, power) for base, power in powers.items() if power))

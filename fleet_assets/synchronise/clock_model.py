"""A clock model, and what it does to stamps; `clock.py` estimates it.

In: stamps on a stream's own clock. Out: the same on the drive's reference clock, where its models tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fleet_assets.contracts.loader import StreamContract

LAST_NS = 2**62  # 2116; so that differences of times, and times plus a wait, fit int64


@dataclass(frozen=True)
class Stamps:
    """A stream's stamps in order of the recording, int64 [n] each; None when the recording has none (or not for all)."""

    contract: StreamContract
    t_device_ns: np.ndarray | None
    t_host_ns: np.ndarray | None

    @property
    def clock(self) -> str:
        return "device" if self.t_device_ns is not None else "host"

    @property
    def t_ns(self) -> np.ndarray:
        """On the stream's own clock: device where there is one, else host."""
        stamps = self.t_device_ns if self.t_device_ns is not None else self.t_host_ns
        return stamps if stamps is not None else np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class ClockModel:
    """t_ns = t + offset_ns + skew_ppm * 1e-6 * (t - t_anchor_ns). offset_ns None: it could not be told.

    first_row, rows: which records of the stream, in order of the recording, the segment holds for. Stamps do not tell: after a
    jump back they come again.
    """

    stream: str
    clock: str
    t_from_ns: int
    t_to_ns: int
    t_anchor_ns: int
    offset_ns: int | None
    skew_ppm: float = 0.0
    skew_error_ppm: float | None = None
    method: str = "none"
    residual_p95_ns: int | None = None
    spread_ns: int | None = None
    confidence: float = 0.0
    status: str = "insufficient"
    evidence: str = ""
    scan_period_ns: int | None = None
    phase: float | None = None
    phase_off: float | None = None
    segment: int = 0
    first_row: int = 0
    rows: int = 0

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def line(self) -> Line:
        """Only for a model that is ok."""
        if self.offset_ns is None:
            raise ValueError(f"the clock of {self.stream} is not known")
        return Line(self.t_anchor_ns, self.offset_ns, self.skew_ppm)

    def apply(self, t_ns: np.ndarray) -> np.ndarray:
        """int64 [n] on the reference clock. Only for a model that is ok."""
        return self.line.apply(t_ns)


@dataclass(frozen=True)
class Line:
    """From one clock to another: t + offset_ns + skew_ppm * 1e-6 * (t - t_anchor_ns)."""

    t_anchor_ns: int
    offset_ns: int
    skew_ppm: float = 0.0

    def apply(self, t_ns: np.ndarray) -> np.ndarray:
        """int64 [n] -> int64 [n]."""
        shifted = t_ns + self.offset_ns
        if self.skew_ppm:
            shifted += np.round(self.skew_ppm * 1e-6 * (t_ns - self.t_anchor_ns)).astype(np.int64)
        return shifted

    def fits(self, t_ns: np.ndarray) -> np.ndarray:
        """bool [n]: whether what apply gives is a time from 1970 to 2116, and exact."""
        low, high = (float(t) + self.offset_ns for t in (t_ns.min(initial=0), t_ns.max(initial=0)))
        margin = 1e-6 * abs(self.skew_ppm) * float(2**63)
        if margin <= low and high <= LAST_NS - margin:
            return np.ones(t_ns.size, dtype=bool)
        drift = self.skew_ppm * 1e-6 * (t_ns.astype(np.float64) - self.t_anchor_ns)
        rough = t_ns.astype(np.float64) + self.offset_ns + drift
        return (rough >= 0) & (rough <= LAST_NS)


@dataclass(frozen=True)
class Clocks:
    """models: sorted by stream and segment. logger: from arrival stamps to the reference clock; None without any."""

    models: list[ClockModel]
    logger: Line | None


def on_reference(models: Sequence[ClockModel], t_ns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A stream's stamps, int64 [n] in order of the recording, on the reference clock, and for which of them it is known: a
    stray stamp that would be before 1970 or beyond 2116 is no time."""
    told, known = t_ns.copy(), np.zeros(t_ns.size, dtype=bool)
    for model in models:
        if model.ok:
            part = slice(model.first_row, model.first_row + model.rows)
            told[part], known[part] = model.apply(t_ns[part]), model.line.fits(t_ns[part])
    return told, known


def median_ns(values_ns: np.ndarray) -> int:
    """Of int64 [n], n > 0; half way between the middle two, rounded down. Exact: a float could round to more than fits int64."""
    middle = np.partition(values_ns, (lower := (values_ns.size - 1) // 2, upper := values_ns.size // 2))
    return (int(middle[lower]) + int(middle[upper])) // 2

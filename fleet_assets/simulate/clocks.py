"""The clocks of a drive, and when messages arrive.

In: a random generator. Out: Clock, which shows a true time with an offset, a skew and perhaps a jump; delays of arrival, which
are never negative. Truth is told as synchronise/clock_models tells its estimates:
t_utc = t_clock + offset_ns + skew_ppm * 1e-6 * (t_clock - t_anchor_ns).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fleet_assets.simulate.parameters import parameters

MS = 1_000_000


@dataclass(frozen=True)
class Segment:
    """A clock from a true time on: t_from_ns in UTC, t_anchor_ns on the clock."""

    t_from_ns: int
    t_anchor_ns: int
    offset_ns: int
    skew_ppm: float


@dataclass(frozen=True)
class Clock:
    """segments: in order of time; a jump starts a new one."""

    segments: tuple[Segment, ...]

    def shows(self, t_utc_ns: np.ndarray) -> np.ndarray:
        """int64 [n], what the clock shows at true times."""
        shown = np.empty(t_utc_ns.size, dtype=np.int64)
        for segment in self.segments:
            part = (
                t_utc_ns >= segment.t_from_ns if segment is not self.segments[0] else np.ones(t_utc_ns.size, dtype=bool)
            )
            since = t_utc_ns[part] - segment.offset_ns - segment.t_anchor_ns
            drift = np.round(since * (segment.skew_ppm * 1e-6 / (1 + segment.skew_ppm * 1e-6))).astype(np.int64)
            shown[part] = segment.t_anchor_ns + since - drift
        return shown

    def told(self) -> list[dict[str, Any]]:
        return [asdict(segment) for segment in self.segments]


def steady(t_start_ns: int, offset_ns: int, skew_ppm: float) -> Clock:
    return Clock((Segment(t_start_ns, t_start_ns - offset_ns, offset_ns, skew_ppm),))


def jumping(clock: Clock, t_jump_ns: int, by_ns: int) -> Clock:
    """The same clock, set forward by so much at a true time."""
    (first,) = clock.segments
    anchor = int(clock.shows(np.array([t_jump_ns], dtype=np.int64))[0]) + by_ns
    return Clock((first, Segment(t_jump_ns, anchor, t_jump_ns - anchor, first.skew_ppm)))


def draw_clocks(random: np.random.Generator, t_start_ns: int) -> dict[str, Clock]:
    """The logger's clock, and that of the computer that stamps cameras, LiDAR and radar. The logger follows the receiver's pulse
    per second and so keeps its pace; only its date may be wrong."""
    known = parameters()["clocks"]
    logger_ns = round(random.uniform(-1, 1) * known["logger_offset_s"] * 1000) * MS
    sensor_ns = round(random.uniform(-1, 1) * known["sensor_offset_ms"]) * MS
    skew_ppm = round(float(random.uniform(-1, 1)) * known["sensor_skew_ppm"], 3)
    return {"logger": steady(t_start_ns, logger_ns, 0.0), "vehicle_pc": steady(t_start_ns, sensor_ns, skew_ppm)}


def delays(random: np.random.Generator, count: int) -> np.ndarray:
    """int64 [count] nanoseconds from sensor to logger: mostly a fraction of a millisecond, now and then many."""
    known = parameters()["clocks"]
    usual = random.exponential(known["arrival_mean_ms"] * MS, count)
    late = (random.random(count) < known["late_share"]) * random.exponential(known["late_mean_ms"] * MS, count)
    return np.asarray((usual + late).astype(np.int64))

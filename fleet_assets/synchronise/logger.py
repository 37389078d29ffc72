"""Where the logger's own clock was set while it recorded.

In: the stamps of a drive's streams, and the UTC that receivers tell. Out: the same stamps as if the clock had run on, by which
models are told; and those models as they hold for the stamps that were recorded, with a new segment where the clock was set.

All arrivals, and the stamps of sensors on the logger's clock, jump together then, so that among themselves nothing is seen. A
clock of its own tells: the logger leaves its pace against a sensor's stamps, or against UTC, while those keep theirs, and stays
off. It counts where no clock of its own contradicts, and a second stream shows the same step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from fleet_assets.synchronise.clock import JUMP_NS, MIN_PAIRS, NO_TIME, STALL_NS
from fleet_assets.synchronise.clock_model import ClockModel, Stamps, median_ns

MIN_ROWS = 5  # of a clock of its own, on each side
MAX_SETS = 8  # what is set more often is no clock to follow
SLACK_NS = 1_000_000  # how well a step is known


@dataclass(frozen=True)
class _Set:
    """The logger was set forward by by_ns, at a stamp between low_ns and high_ns (as before it was set)."""

    by_ns: int
    low_ns: int
    high_ns: int


@dataclass(frozen=True)
class Followed:
    """streams: stamps as if the clock had run on. shifts: by stream whose own stamps changed, the rows from which on they were
    set, ascending, and by how much altogether from there."""

    streams: Mapping[str, Stamps]
    shifts: Mapping[str, Sequence[tuple[int, int]]]

    def recorded(self, models: Iterable[ClockModel]) -> list[ClockModel]:
        """Models of these stamps as models of the recorded ones."""
        by_stream: dict[str, list[ClockModel]] = {}
        for model in models:
            by_stream.setdefault(model.stream, []).extend(self._recorded(model))
        return [replace(model, segment=segment) for parts in by_stream.values() for segment, model in enumerate(parts)]

    def _recorded(self, model: ClockModel) -> list[ClockModel]:
        shifts = [(0, 0), *self.shifts.get(model.stream, ())]
        first, end = model.first_row, model.first_row + (model.rows or 0)
        borders = [first, *(row for row, _ in shifts if first < row < end), end]
        if len(shifts) == 1:
            return [model]
        return [self._part(model, low, high, shifts) for low, high in pairwise(borders)]

    def _part(self, model: ClockModel, first: int, end: int, shifts: Sequence[tuple[int, int]]) -> ClockModel:
        by_ns = next(by_ns for row, by_ns in reversed(shifts) if row <= first)
        t_ns = self.streams[model.stream].t_ns[first:end] + by_ns
        offset_ns = None if model.offset_ns is None else model.offset_ns - by_ns
        told = f"; the logger's clock was set by {by_ns / 1e6:.0f} ms" if by_ns else ""
        return replace(
            model, t_from_ns=int(t_ns.min()), t_to_ns=int(t_ns.max()), t_anchor_ns=model.t_anchor_ns + by_ns,
            offset_ns=offset_ns, first_row=first, rows=end - first, evidence=f"{model.evidence}{told}",
        )  # fmt: skip


def follow(streams: Mapping[str, Stamps], gnss_time: Mapping[str, np.ndarray]) -> Followed:
    """gnss_time: as Evidence has it."""
    followed = dict(streams)
    shifts: dict[str, list[tuple[int, int]]] = {}
    for _ in range(MAX_SETS):
        found = _found(followed, gnss_time)
        if found is None:
            break
        rows = {name: _row_after(stamps, found) for name, stamps in followed.items()}
        on_logger = {
            stamps.contract.clock_domain
            for name, stamps in followed.items()
            if stamps.t_device_ns is not None and _moves(stamps, rows[name], found)
        }
        for name, stamps in followed.items():
            row = rows[name]
            if stamps.t_host_ns is None or row == stamps.t_host_ns.size:
                continue
            host, device = _shifted(stamps.t_host_ns, row, found.by_ns), stamps.t_device_ns
            if device is None or stamps.contract.clock_domain in on_logger:
                if device is not None:
                    row = _device_row(device, row, found)
                    device = _shifted(device, row, found.by_ns)
                shifts.setdefault(name, []).append((row, found.by_ns))
            followed[name] = replace(stamps, t_host_ns=host, t_device_ns=device)
    return Followed(followed, {name: _added_up(found) for name, found in shifts.items()})


def _added_up(shifts: list[tuple[int, int]]) -> list[tuple[int, int]]:
    rows, by_ns = zip(*sorted(shifts), strict=True)
    return list(zip(rows, np.cumsum(by_ns).tolist(), strict=True))


def _shifted(t_ns: np.ndarray, row: int, by_ns: int) -> np.ndarray:
    return np.concatenate([t_ns[:row], t_ns[row:] - by_ns])


def _device_row(device: np.ndarray, row: int, found: _Set) -> int:
    """The first record that was stamped after the set, given the first that arrived after it: some were on their way."""
    steps = np.diff(device)
    near = slice(max(row - 1, 0), row - 1 + MIN_PAIRS)
    if row == 0 or not steps[near].size:
        return row
    return row + int(np.argmin(np.abs(steps[near] - found.by_ns - median_ns(steps))))


def _found(streams: Mapping[str, Stamps], gnss_time: Mapping[str, np.ndarray]) -> _Set | None:
    """Of what any clock of its own tells and none contradicts, what is known most exactly."""
    told = []
    for name, stamps in streams.items():
        host = stamps.t_host_ns
        if host is not None and stamps.t_device_ns is not None:
            told += _steps(stamps.t_device_ns, host)
        if host is not None and name in gnss_time:
            known = gnss_time[name] != NO_TIME
            told += _steps(gnss_time[name][known], host[known])
    for found in sorted(told, key=lambda found: found.high_ns - found.low_ns):
        seen = [_sees(stamps, found) for stamps in streams.values()]
        if seen.count(True) > 1 and seen.count(False) == 0:
            return found
    return None


def _steps(own: np.ndarray, host: np.ndarray) -> list[_Set]:
    """Where host leaves its pace against a clock of its own that keeps it, for good. int64 [n] each."""
    if own.size < 2 * MIN_ROWS:
        return []
    own_step, step, distance = np.diff(own), np.diff(host), host - own
    own_pace, pace = median_ns(own_step), median_ns(step)
    off = (np.abs(step - pace) > JUMP_NS) & (np.abs(own_step - own_pace) <= JUMP_NS // 2)
    rows = np.flatnonzero(off & (np.abs(step - own_step) > JUMP_NS)) + 1
    if rows.size > own.size // MIN_ROWS:
        return []
    window = max(MIN_PAIRS, STALL_NS // max(pace, 1))
    found = []
    for row in rows.tolist():
        before, after = distance[max(row - window, 0) : row], distance[row : row + window]
        if min(before.size, after.size) < MIN_ROWS:
            continue
        by_ns = int(after.min()) - int(before.min())
        scatter_ns = max(float(np.subtract(*np.percentile(part, [75, 25]))) for part in (before, after))
        off_ns = abs(float(np.median(after)) - float(np.median(before)) - by_ns)  # of a few stray records
        if abs(by_ns) > JUMP_NS + 5 * scatter_ns + 2 * off_ns:
            found.append(_Set(by_ns, int(host[row - 1]) - SLACK_NS, int(host[row]) - by_ns + SLACK_NS))
    return found


def _row_after(stamps: Stamps, found: _Set) -> int:
    """The stream's first record after the clock was set; the number of its records where all came before."""
    host = stamps.t_host_ns
    if host is None or not host.size:
        return 0
    row, off_ns = _likeliest(host, found)
    if row and (off_ns <= abs(found.by_ns) // 2 or host[-1] > found.high_ns):
        return row
    return 0 if host[0] > found.high_ns else host.size


def _likeliest(host: np.ndarray, found: _Set) -> tuple[int, int]:
    """The row before which the clock can have been set and, if so, the stream kept its pace best, and how well; 0 for none."""
    possible = np.flatnonzero((host[:-1] <= found.high_ns) & (host[1:] - found.by_ns >= found.low_ns)) + 1
    if not possible.size:
        return 0, 0
    off_ns = np.abs(host[possible] - host[possible - 1] - found.by_ns - median_ns(np.diff(host)))
    best = int(np.argmin(off_ns))
    return int(possible[best]), int(off_ns[best])


def _sees(stamps: Stamps, found: _Set) -> bool | None:
    """Whether a stream's arrivals make the step; None where it does not tell."""
    host = stamps.t_host_ns
    if host is None or host.size < 2 * MIN_ROWS or host[0] > found.high_ns or host[-1] < found.low_ns:
        return None
    row, off_ns = _likeliest(host, found)
    if row and off_ns <= max(JUMP_NS // 2, abs(found.by_ns) // 8):
        return True
    if not row:
        return False  # it has records between the two
    first, last = max(row - MIN_PAIRS, 0), min(row + MIN_PAIRS, host.size) - 1
    step_ns = int(host[last] - host[first]) - (last - first) * median_ns(np.diff(host))
    ran_on = abs(step_ns) < abs(step_ns - found.by_ns)
    return False if ran_on and _moves(stamps, row, found) else None


def _moves(stamps: Stamps, row: int, found: _Set) -> bool:
    """Whether a stream's device clock keeps its distance to arrival when the logger is set: it is the logger's own."""
    if stamps.t_device_ns is None or stamps.t_host_ns is None or not 0 < row < stamps.t_host_ns.size:
        return False
    around = slice(max(row - MIN_PAIRS, 0), row + MIN_PAIRS)
    distance = stamps.t_host_ns[around] - stamps.t_device_ns[around]
    at = row - around.start
    step_ns = int(distance[at:].min()) - int(distance[:at].min())
    return abs(step_ns) < abs(step_ns - found.by_ns)

"""Frames and matches of one drive.

In: stamps on the reference clock, arrivals and motion of its streams. Out: one row per key frame with the ego motion at its
time, and one row per frame and channel with the record that belongs to it, or why there is none. Nothing is invented across a
gap; under a causal policy nothing is used that had not arrived in time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fleet_assets.contracts.loader import StreamContract
from fleet_assets.kernels import align, arrived
from fleet_assets.synchronise.policy import EGO, ORIENTATION, Alignment, ChannelPolicy, Policy

LONGEST_SILENCE_NS = 600_000_000_000
# After the reasons of the kernels: the arrival of the stream's or the key's records is not known; its clock is not known.
_ARRIVAL, _CLOCK = 5, 6
_REASONS = np.array(["", "tolerance", "gap", "empty", "late", "arrival", "clock"], dtype=object)


@dataclass(frozen=True)
class Channel:
    """A stream on the drive's reference clock, sorted by time. t_ns None: its clock is not known. t_arrival_ns None: when its
    records arrived is not known."""

    contract: StreamContract
    sequence: np.ndarray
    t_ns: np.ndarray | None
    t_arrival_ns: np.ndarray | None
    values: Mapping[str, np.ndarray]

    def gap_limit_ns(self, alignment: Alignment) -> np.uint64:
        return np.uint64(self.contract.gap_limit_ns or alignment.gap_limit_without_rate_ns)

    @property
    def known_t_ns(self) -> np.ndarray:
        """t_ns of a channel whose clock is known."""
        if self.t_ns is None:
            raise ValueError(f"the clock of {self.contract.name} is not known")
        return self.t_ns

    def only(self, rows: np.ndarray) -> Channel:
        """rows: bool. Of a channel whose clock is known."""
        arrival = None if self.t_arrival_ns is None else kept(self.t_arrival_ns, rows)
        return Channel(self.contract, kept(self.sequence, rows), kept(self.known_t_ns, rows), arrival, {})


def kept(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of the rows, bool; not copied where that is all of them, for a long drive has millions."""
    return values if rows.all() else values[rows]


@dataclass(frozen=True)
class Frames:
    """Times of a drive's frames. t_ready_ns: when the key record had arrived, and waiting begins; None when nobody knows."""

    key_stream: str | None
    t_ns: np.ndarray
    t_ready_ns: np.ndarray | None

    @property
    def count(self) -> int:
        return int(self.t_ns.size)


@dataclass(frozen=True)
class Found:
    """Rows of a channel around each frame, -1 for none; reason: a number of _REASONS; late_ns: by how much the record that
    belongs to the frame missed the deadline, 0 when it did not."""

    before: np.ndarray
    after: np.ndarray
    reason: np.ndarray
    late_ns: np.ndarray


def key_frames(channels: Mapping[str, Channel], alignment: Alignment) -> Frames:
    """Frames at the records of the first key stream whose clock is known. Without one, a grid over the motion streams'
    overlap, each frame ready when the vehicle's clock says so."""
    for name in alignment.key_streams:
        if name in channels and (t_ns := channels[name].t_ns) is not None:
            return Frames(name, t_ns, channels[name].t_arrival_ns)
    motion = [
        channel.t_ns
        for channel in channels.values()
        if channel.contract.kind in alignment.required_kinds_without_payload and channel.t_ns is not None
        if channel.t_ns.size
    ]
    if not motion:
        nothing = np.zeros(0, dtype=np.int64)
        return Frames(None, nothing, nothing)
    first, last = max(int(t_ns[0]) for t_ns in motion), min(int(t_ns[-1]) for t_ns in motion)
    t_ns = np.unique(np.concatenate(motion))
    t_ns = t_ns[(t_ns >= first) & (t_ns <= last)]
    # Nothing is recorded in a long silence; without this, one stray stamp would make years of frames.
    pieces = np.split(t_ns, np.flatnonzero(np.diff(t_ns) > LONGEST_SILENCE_NS) + 1)
    grid_ns = np.concatenate([_grid(piece, alignment.grid_period_ns) for piece in pieces])
    return Frames(None, grid_ns, grid_ns)


def _grid(t_ns: np.ndarray, period_ns: int) -> np.ndarray:
    """Multiples of the period from the first stamp to the last."""
    if not t_ns.size:
        return t_ns
    return np.arange(-(-int(t_ns[0]) // period_ns) * period_ns, int(t_ns[-1]) + 1, period_ns, dtype=np.int64)


# ---- ego motion ------------------------------------------------------------------------------------------------------


def ego_motion(
    frames: Frames, channels: Mapping[str, Channel], alignment: Alignment, policy: Policy
) -> dict[str, np.ndarray]:
    """Ego motion at the frames, NaN where it is not known: speed, yaw rate, acceleration, place and orientation."""
    motion = {}
    for name in EGO:
        motion[name] = np.full(frames.count, np.nan)
        for source in alignment.ego[name]:
            channel = channels.get(source.stream)
            values = channel.values.get(source.signal or source.column or "") if channel else None
            if channel is None or channel.t_ns is None or values is None or not np.isfinite(values).any():
                continue
            known = np.isfinite(values)  # a record without this value is no support for it
            support = channel.only(known)
            before, after = _support(frames, support, alignment, policy)
            share = align.shares(frames.t_ns, support.known_t_ns, before, after)
            motion[name] = align.interpolate(kept(values, known), before, after, share)
            break
    return motion | _orientation(frames, channels, alignment, policy)


def _orientation(
    frames: Frames, channels: Mapping[str, Channel], alignment: Alignment, policy: Policy
) -> dict[str, np.ndarray]:
    turns = np.full((4, frames.count), np.nan)
    for name in alignment.orientation:
        channel = channels.get(name)
        if channel is None or channel.t_ns is None:
            continue
        parts = [channel.values[part] for part in ORIENTATION]
        # All zero is how a driver says that it has no orientation.
        known = np.logical_and.reduce([np.isfinite(part) for part in parts])
        known &= np.logical_or.reduce([part != 0 for part in parts])
        if known.any():
            support = channel.only(known)
            before, after = _support(frames, support, alignment, policy)
            x, y, z, w = (kept(part, known) for part in parts)
            turns = align.slerp(
                (x, y, z, w), before, after, align.shares(frames.t_ns, support.known_t_ns, before, after)
            )
            break
    return dict(zip(ORIENTATION, turns, strict=True))


def _support(frames: Frames, channel: Channel, alignment: Alignment, policy: Policy) -> tuple[np.ndarray, np.ndarray]:
    """The records around each frame. Under a causal policy, where the one after has not arrived, the one before stands alone,
    no older than the gap limit."""
    limit_ns = channel.gap_limit_ns(alignment)
    found = search(frames, channel, _across(policy, channel, "linear", 0), limit_ns)
    if not policy.causal:
        return found.before, found.after
    held = search(frames, channel, _across(policy, channel, "hold", int(limit_ns)), limit_ns)
    alone = found.reason == arrived.LATE
    return np.where(alone, held.before, found.before), np.where(alone, held.before, found.after)


def _across(policy: Policy, channel: Channel, method: str, before_ns: int) -> ChannelPolicy:
    return ChannelPolicy(method, before_ns, 0, policy.channels[channel.contract.kind].wait_ns)


# ---- matches ---------------------------------------------------------------------------------------------------------


def match(
    frames: Frames, channel: Channel, alignment: Alignment, policy: Policy, motion: Mapping[str, np.ndarray]
) -> dict[str, pa.Array | np.ndarray]:
    """Columns of synchronise.matches for one channel, a row per frame."""
    how = policy.channels[channel.contract.kind]
    found = search(frames, channel, how, channel.gap_limit_ns(alignment))
    matched = found.before >= 0
    left, right = np.where(matched, found.before, 0), np.where(matched, found.after, 0)
    nothing = np.zeros(frames.count, dtype=np.int64)
    t_ns = channel.t_ns
    has_rows = t_ns is not None and t_ns.size > 0
    dt_ns = t_ns[left] - frames.t_ns if has_rows else nothing  # type: ignore[index]
    bracket_ns = t_ns[right] - t_ns[left] if has_rows else nothing  # type: ignore[index]
    sequence = channel.sequence[left] if has_rows else nothing
    off_m = misalignment_m(dt_ns, motion, channel.contract.max_range_m)
    return {
        "channel": pa.repeat(channel.contract.name, frames.count),
        "sequence": pa.array(sequence, mask=~matched),
        "dt_ns": pa.array(dt_ns, mask=~matched),
        "bracket_ns": pa.array(bracket_ns, mask=~matched | (how.method not in ("linear", "slerp"))),
        "method": pa.repeat(how.method, frames.count),
        "misalignment_m": pa.array(off_m, mask=~matched | np.isnan(off_m)),
        "late_ns": pa.array(found.late_ns, mask=found.late_ns <= 0),
        "reason": pa.array(_REASONS[found.reason], type=pa.string(), mask=matched),
    }


def misalignment_m(dt_ns: np.ndarray, motion: Mapping[str, np.ndarray], range_m: float | None) -> np.ndarray:
    """How far what the sensor sees at its range moves in dt: own way, and turning. NaN without a range or motion."""
    if range_m is None:
        return np.full(dt_ns.size, np.nan)
    rate_mps = np.abs(motion["speed_mps"]) + np.abs(motion["yaw_rate_radps"]) * range_m
    return rate_mps * (np.abs(dt_ns) * 1e-9)


def search(frames: Frames, channel: Channel, how: ChannelPolicy, gap_limit_ns: np.uint64) -> Found:
    """The rows of a channel that belong to the frames."""
    if channel.t_ns is None:
        return _none(frames.count, _CLOCK)
    found = _whenever(frames.t_ns, channel.t_ns, how, gap_limit_ns)
    if how.wait_ns is None:
        return found
    if frames.t_ready_ns is None or channel.t_arrival_ns is None:
        return _none(frames.count, _ARRIVAL)
    return _in_time(
        frames.t_ns, frames.t_ready_ns + how.wait_ns, channel.t_ns, channel.t_arrival_ns, how, found, gap_limit_ns
    )


def _none(count: int, reason: int) -> Found:
    nothing = np.full(count, -1, dtype=np.int64)
    return Found(nothing, nothing, np.full(count, reason, dtype=np.uint8), np.zeros(count, dtype=np.int64))


def _whenever(t_frame_ns: np.ndarray, t_ns: np.ndarray, how: ChannelPolicy, gap_limit_ns: np.uint64) -> Found:
    if how.method in ("linear", "slerp"):
        before, after, why = align.bracket(t_frame_ns, t_ns, gap_limit_ns)
    elif how.method == "hold":
        before, why = align.hold(t_frame_ns, t_ns, np.uint64(how.before_ns))
        after = before
    else:
        before, why = align.nearest(t_frame_ns, t_ns, np.uint64(how.before_ns), np.uint64(how.after_ns))
        after = before
    return Found(before, after, why, np.zeros(t_frame_ns.size, dtype=np.int64))


def _in_time(
    t_frame_ns: np.ndarray,
    deadline_ns: np.ndarray,
    t_ns: np.ndarray,
    t_arrival_ns: np.ndarray,
    how: ChannelPolicy,
    whenever: Found,
    gap_limit_ns: np.uint64,
) -> Found:
    stamps = t_frame_ns, deadline_ns, t_ns, t_arrival_ns
    if how.method in ("linear", "slerp"):
        before, after, why = arrived.bracket_arrived(*stamps, gap_limit_ns)
    elif how.method == "hold":
        before, why = arrived.hold_arrived(*stamps, np.uint64(how.before_ns))
        after = before
    else:
        before, why = arrived.nearest_arrived(*stamps, np.uint64(how.before_ns), np.uint64(how.after_ns))
        after = before
    late_ns = np.zeros(t_frame_ns.size, dtype=np.int64)
    belongs = whenever.before >= 0
    came_ns = np.maximum(t_arrival_ns[whenever.before[belongs]], t_arrival_ns[whenever.after[belongs]])
    late_ns[belongs] = np.maximum(came_ns - deadline_ns[belongs], 0)
    return Found(before, after, why, late_ns)


def required(channels: Mapping[str, Channel], alignment: Alignment) -> list[str]:
    """The streams that a complete frame needs."""
    for kinds in (alignment.required_kinds, alignment.required_kinds_without_payload):
        found = [name for name, channel in channels.items() if channel.contract.kind in kinds]
        if found:
            return found
    return []

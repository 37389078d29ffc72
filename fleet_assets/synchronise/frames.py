"""Frames and matches of one drive.

In: clock models, stamps and motion of its streams. Out: one row per key frame with the interpolated ego motion, and one row
per frame and channel with the record that belongs to it, or why there is none. Nothing is invented across a gap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from fleet_assets.contracts.loader import StreamContract
from fleet_assets.kernels import align
from fleet_assets.synchronise.policy import EGO, Policy

LONGEST_SILENCE_NS = 600_000_000_000
_REASONS = np.array(["", "tolerance", "gap", "empty"], dtype=object)


@dataclass(frozen=True)
class Channel:
    """A stream on the drive's reference clock, sorted by time. t_ns None: its clock is not known."""

    contract: StreamContract
    sequence: np.ndarray
    t_ns: np.ndarray | None
    values: Mapping[str, np.ndarray]

    def gap_limit_ns(self, policy: Policy) -> np.uint64:
        return np.uint64(self.contract.gap_limit_ns or policy.gap_limit_without_rate_ns)


def key_times(channels: Mapping[str, Channel], policy: Policy) -> tuple[str | None, np.ndarray]:
    """The stream that sets the frames, and their times: the first whose clock is known. Without one, a grid over the motion
    streams' overlap."""
    for name in policy.key_streams:
        if name in channels and (t_ns := channels[name].t_ns) is not None:
            return name, t_ns
    motion = [
        channel.t_ns
        for channel in channels.values()
        if channel.contract.kind in policy.required_kinds_without_payload and channel.t_ns is not None
        if channel.t_ns.size
    ]
    if not motion:
        return None, np.zeros(0, dtype=np.int64)
    first, last = max(int(t_ns[0]) for t_ns in motion), min(int(t_ns[-1]) for t_ns in motion)
    t_ns = np.unique(np.concatenate(motion))
    t_ns = t_ns[(t_ns >= first) & (t_ns <= last)]
    # Nothing is recorded in a long silence; without this, one stray stamp would make years of frames.
    pieces = np.split(t_ns, np.flatnonzero(np.diff(t_ns) > LONGEST_SILENCE_NS) + 1)
    return None, np.concatenate([_grid(piece, policy.grid_period_ns) for piece in pieces])


def _grid(t_ns: np.ndarray, period_ns: int) -> np.ndarray:
    """Multiples of the period from the first stamp to the last."""
    if not t_ns.size:
        return t_ns
    return np.arange(-(-int(t_ns[0]) // period_ns) * period_ns, int(t_ns[-1]) + 1, period_ns, dtype=np.int64)


def ego_motion(t_frame_ns: np.ndarray, channels: Mapping[str, Channel], policy: Policy) -> dict[str, np.ndarray]:
    """Ego motion at the frames, NaN where it is not known."""
    motion = {}
    for name in EGO:
        motion[name] = np.full(t_frame_ns.size, np.nan)
        for source in policy.ego[name]:
            channel = channels.get(source.stream)
            values = channel.values.get(source.signal or source.column or "") if channel else None
            if channel is None or channel.t_ns is None or values is None or not np.isfinite(values).any():
                continue
            known = np.isfinite(values)  # a record without this value is no support for it
            t_ns = channel.t_ns[known]
            before, after, _ = align.bracket(t_frame_ns, t_ns, channel.gap_limit_ns(policy))
            motion[name] = align.interpolate(t_frame_ns, t_ns, values[known], before, after)
            break
    return motion


def match(
    t_frame_ns: np.ndarray, channel: Channel, policy: Policy, motion: Mapping[str, np.ndarray]
) -> dict[str, pa.Array | np.ndarray]:
    """Columns of synchronise.matches for one channel, a row per frame."""
    how = policy.channels[channel.contract.kind]
    count = t_frame_ns.size
    if channel.t_ns is None:
        nothing = np.full(count, -1, dtype=np.int64)
        return _columns(
            how.method, t_frame_ns, channel, nothing, nothing, np.full(count, "clock", dtype=object), motion
        )
    if how.method == "linear":
        before, after, why = align.bracket(t_frame_ns, channel.t_ns, channel.gap_limit_ns(policy))
    elif how.method == "hold":
        before, why = align.hold(t_frame_ns, channel.t_ns, np.uint64(how.before_ns))
        after = before
    else:
        before, why = align.nearest(t_frame_ns, channel.t_ns, np.uint64(how.before_ns), np.uint64(how.after_ns))
        after = before
    return _columns(how.method, t_frame_ns, channel, before, after, _REASONS[why], motion)


def _columns(
    method: str,
    t_frame_ns: np.ndarray,
    channel: Channel,
    before: np.ndarray,
    after: np.ndarray,
    reason: np.ndarray,
    motion: Mapping[str, np.ndarray],
) -> dict[str, pa.Array | np.ndarray]:
    matched = before >= 0
    left, right = np.where(matched, before, 0), np.where(matched, after, 0)
    none = np.zeros(t_frame_ns.size, dtype=np.int64)
    t_ns = channel.t_ns
    has_rows = t_ns is not None and t_ns.size > 0
    dt_ns = t_ns[left] - t_frame_ns if has_rows else none  # type: ignore[index]
    bracket_ns = t_ns[right] - t_ns[left] if has_rows else none  # type: ignore[index]
    sequence = channel.sequence[left] if has_rows else none
    range_m = channel.contract.max_range_m
    off_m = np.full(t_frame_ns.size, np.nan)
    if range_m is not None:
        off_m = (motion["speed_mps"] + np.abs(motion["yaw_rate_radps"]) * range_m) * np.abs(dt_ns) * 1e-9
    return {
        "channel": pa.repeat(channel.contract.name, t_frame_ns.size),
        "sequence": pa.array(sequence, mask=~matched),
        "dt_ns": pa.array(dt_ns, mask=~matched),
        "bracket_ns": pa.array(bracket_ns, mask=~matched | (method != "linear")),
        "method": pa.repeat(method, t_frame_ns.size),
        "misalignment_m": pa.array(off_m, mask=~matched | np.isnan(off_m)),
        "reason": pa.array(reason, type=pa.string(), mask=matched),
    }


def required(channels: Mapping[str, Channel], policy: Policy) -> list[str]:
    """The streams that a complete frame needs."""
    for kinds in (policy.required_kinds, policy.required_kinds_without_payload):
        found = [name for name, channel in channels.items() if channel.contract.kind in kinds]
        if found:
            return found
    return []

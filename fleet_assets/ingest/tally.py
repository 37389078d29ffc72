"""The account of one stream: what was read, what was refused and why, and how its stamps run.

In: batches of stamps and refusals, in reading order. Out: the rows of ingest.streams and ingest.ledger. Memory does
not grow with the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fleet_assets.contracts.loader import StreamContract
from fleet_assets.kernels.sequence import sequence_steps


@dataclass
class Reason:
    """Why records were refused: how many, and where the first one is."""

    count: int
    first_position: str


@dataclass
class StreamTally:
    """stream: name in the lake (the topic itself when no contract covers it)."""

    stream: str
    contract: StreamContract | None
    delivered_rows: int = 0  # what the reader handed over
    distinct_rows: int = 0  # of these, without what an earlier recording has
    unread_rows: int = 0  # what the reader could not read
    refused_rows: int = 0  # by a reader or by a row rule
    spooled_rows: int = 0  # kept: to be published, unless the drive is quarantined
    reasons: dict[str, Reason] = field(default_factory=dict)
    clock: str = "host"
    t_first_ns: int | None = None
    t_last_ns: int | None = None
    gaps: int = 0
    longest_gap_ns: int = 0
    backward_steps: int = 0
    repeated_steps: int = 0
    lost_rows: int = 0  # that the gaps have room for
    payload_bytes: int | None = None  # None: its records have no payload
    _t_previous_ns: int | None = None
    _stamped_rows: int = 0

    @property
    def read_rows(self) -> int:
        return self.delivered_rows + self.unread_rows

    @property
    def rate_hz(self) -> float | None:
        if self.t_first_ns is None or self.t_last_ns is None or self.t_last_ns <= self.t_first_ns:
            return None
        return (self._stamped_rows - 1) * 1e9 / (self.t_last_ns - self.t_first_ns)

    @property
    def seen_rows(self) -> int:
        """Records with a stamp, each once."""
        return self._stamped_rows

    @property
    def expected_rows(self) -> int | None:
        """What the contract's nominal rate asks for between the first and the last stamp; None when there is no such rate."""
        period_ns = self.contract.nominal_period_ns if self.contract else None
        if period_ns is None or self.t_first_ns is None or self.t_last_ns is None:
            return None
        return min((self.t_last_ns - self.t_first_ns + period_ns // 2) // period_ns + 1, 2**62)

    def refuse(self, reason: str, count: int, position: str, *, unread: bool = False) -> None:
        """Counts refused records. unread: they never reached us as rows."""
        if unread:
            self.unread_rows += count
        self.refused_rows += count
        known = self.reasons.setdefault(reason, Reason(0, position))
        known.count += count

    def observe(self, t_ns: np.ndarray, clock: str) -> None:
        """Stamps of the next batch, int64 nanoseconds, in reading order. Labels that share a stamp are of one message, and
        count as one step."""
        self.clock = clock
        if self.contract is not None and self.contract.kind == "label":
            t_ns = t_ns[np.diff(t_ns, prepend=_other_than(t_ns, self._t_previous_ns)) != 0]
        if t_ns.size == 0:
            return
        self._stamped_rows += t_ns.size
        if self._t_previous_ns is not None:
            t_ns = np.concatenate([np.array([self._t_previous_ns], dtype=np.int64), t_ns])
        limit_ns = self.contract.gap_limit_ns if self.contract else None
        period_ns = self.contract.nominal_period_ns if self.contract else None
        gaps, longest_gap_ns, backward, repeated, lost = sequence_steps(t_ns, limit_ns or 0, period_ns or 0)
        self.lost_rows = min(self.lost_rows + lost, 2**62)
        self.gaps += gaps
        self.longest_gap_ns = max(self.longest_gap_ns, longest_gap_ns)
        self.backward_steps += backward
        self.repeated_steps += repeated
        low, high = int(t_ns.min()), int(t_ns.max())
        self.t_first_ns = low if self.t_first_ns is None else min(self.t_first_ns, low)
        self.t_last_ns = high if self.t_last_ns is None else max(self.t_last_ns, high)
        self._t_previous_ns = int(t_ns[-1])


def _other_than(t_ns: np.ndarray, previous_ns: int | None) -> int:
    """The stamp before the batch; where there is none, any that differs from its first."""
    return previous_ns if previous_ns is not None else int(t_ns[0]) ^ 1 if t_ns.size else 0

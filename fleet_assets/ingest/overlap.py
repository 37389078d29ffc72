"""Recordings of one drive that cover the same time.

In: batches of one stream, recording by recording. Out: which rows an earlier recording has already, and how many differ from
what it has: then the recordings contradict each other, and the drive is in conflict.

A record is the same when its stamp and its content are. For camera, LiDAR and radar the content is told by type and length:
the bytes stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

# Not content: numbers and places that differ between two copies of one record.
_PLACE = {
    "sequence",
    "t_device_ns",
    "t_host_ns",
    "chunk_offset",
    "chunk_length",
    "chunk_size",
    "codec",
    "message_offset",
}


@dataclass
class _Known:
    """Stamps and content hashes of one stream of one recording, sorted by stamp once it is closed."""

    t_ns: list[np.ndarray] = field(default_factory=list)
    content: list[np.ndarray] = field(default_factory=list)


class Overlap:
    """Keeps 16 bytes per record, and only for drives of more than one recording."""

    def __init__(self) -> None:
        self._closed: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}  # stream -> recordings
        self._open: dict[str, _Known] = {}

    def observe(self, stream: str, t_ns: np.ndarray, rows: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """t_ns: int64 [rows]. Gives two masks: records that an earlier recording has; and records that lie within an
        earlier recording's time without being in it."""
        content = _hashes(rows)
        known = self._open.setdefault(stream, _Known())
        known.t_ns.append(t_ns)
        known.content.append(content)
        repeated, different = np.zeros(t_ns.size, dtype=bool), np.zeros(t_ns.size, dtype=bool)
        for earlier_t_ns, earlier_content in self._closed.get(stream, ()):
            inside = (t_ns >= earlier_t_ns[0]) & (t_ns <= earlier_t_ns[-1])
            same = np.zeros(t_ns.size, dtype=bool)
            low = np.searchsorted(earlier_t_ns, t_ns, side="left")
            high = np.searchsorted(earlier_t_ns, t_ns, side="right")
            for shift in range(int((high - low).max(initial=0))):
                at = np.minimum(low + shift, earlier_t_ns.size - 1)
                same |= (low + shift < high) & (earlier_content[at] == content)
            repeated |= same
            different |= inside & ~same
        return repeated, different & ~repeated

    def close(self) -> None:
        """The recording has been read."""
        for stream, known in self._open.items():
            t_ns, content = np.concatenate(known.t_ns), np.concatenate(known.content)
            if t_ns.size:
                order = np.argsort(t_ns, kind="stable")
                self._closed.setdefault(stream, []).append((t_ns[order], content[order]))
        self._open.clear()


def _hashes(rows: pa.Table) -> np.ndarray:
    """uint64 per row, over what is content."""
    import pandas as pd

    columns = [name for name in rows.column_names if name not in _PLACE]
    frame = rows.select(columns).to_pandas()
    hashes: Mapping[int, int] | pd.Series = pd.util.hash_pandas_object(frame, index=False)
    return np.asarray(hashes, dtype=np.uint64)

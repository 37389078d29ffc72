"""Recordings of one drive that cover the same time.

In: batches of one stream, recording by recording. Out: which rows an earlier recording has already; and, per stream, whether
two recordings contradict each other: where both have time in common, each has records that the other one lacks. A copy that
has lost records contradicts nothing.

A record is the same when its stamp and its content are. For camera, LiDAR and radar the content is told by type and length:
the bytes stay where they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

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
_BLOCK_ROWS = 65_536


@dataclass(frozen=True)
class _Block:
    """Rows of a file, sorted by stamp. first: row that it starts at; low, high: its smallest and largest stamp."""

    first: int
    rows: int
    low: int
    high: int


@dataclass
class _Stream:
    """One stream of one recording: stamps and content hashes on disk, and in memory where each block lies in time."""

    path: Path
    blocks: list[_Block] = field(default_factory=list)
    waiting: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    waiting_rows: int = 0
    # Against each earlier recording of the stream: records that it has too, and records in its time that it has not.
    same: Counter[int] = field(default_factory=Counter)
    extra: Counter[int] = field(default_factory=Counter)

    @property
    def low(self) -> int:
        return min(block.low for block in self.blocks)

    @property
    def high(self) -> int:
        return max(block.high for block in self.blocks)

    def add(self, t_ns: np.ndarray, content: np.ndarray) -> None:
        self.waiting.append((t_ns, content))
        self.waiting_rows += t_ns.size
        if self.waiting_rows >= _BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self.waiting_rows:
            return
        t_ns, content = (np.concatenate(arrays) for arrays in zip(*self.waiting, strict=True))
        order = np.argsort(t_ns, kind="stable")
        first = self.blocks[-1].first + self.blocks[-1].rows if self.blocks else 0
        with open(self.path, "ab") as file:
            t_ns[order].tofile(file)
            content[order].tofile(file)
        self.blocks.append(_Block(first, t_ns.size, int(t_ns.min()), int(t_ns.max())))
        self.waiting, self.waiting_rows = [], 0

    def near(self, low: int, high: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(stamps, content) of the blocks that reach into low..high."""
        for block in self.blocks:
            if block.high >= low and block.low <= high:
                at = 16 * block.first
                yield (
                    np.fromfile(self.path, np.int64, block.rows, offset=at),
                    np.fromfile(self.path, np.uint64, block.rows, offset=at + 8 * block.rows),
                )

    def holds(self, t_ns: np.ndarray, content: np.ndarray) -> np.ndarray:
        """True for the records that it has."""
        found = np.zeros(t_ns.size, dtype=bool)
        for known_t_ns, known_content in self.near(int(t_ns.min()), int(t_ns.max())):
            low = np.searchsorted(known_t_ns, t_ns, side="left")
            high = np.searchsorted(known_t_ns, t_ns, side="right")
            for shift in range(int((high - low).max(initial=0))):
                at = np.minimum(low + shift, known_t_ns.size - 1)
                found |= (low + shift < high) & (known_content[at] == content)
        return found

    def rows_within(self, low: int, high: int) -> int:
        return sum(int(((t_ns >= low) & (t_ns <= high)).sum()) for t_ns, _ in self.near(low, high))


class Overlap:
    """Only for drives of more than one recording. Keeps 16 bytes per record on disk, and in memory a few blocks per stream,
    whatever the recordings' length. folder: empty, its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closed: dict[str, list[_Stream]] = {}  # stream -> recordings
        self._open: dict[str, _Stream] = {}
        self._files = 0
        folder.mkdir()

    def observe(self, stream: str, t_ns: np.ndarray, rows: pa.Table) -> np.ndarray:
        """t_ns: int64 [rows]. Gives a mask: records that an earlier recording has."""
        repeated = np.zeros(t_ns.size, dtype=bool)
        if not t_ns.size:
            return repeated
        content = _hashes(rows)
        if stream not in self._open:
            self._files += 1
            self._open[stream] = _Stream(self._folder / str(self._files))
        known = self._open[stream]
        known.add(t_ns, content)
        for number, earlier in enumerate(self._closed.get(stream, ())):
            same = earlier.holds(t_ns, content)
            known.same[number] += int(same.sum())
            known.extra[number] += int(((t_ns >= earlier.low) & (t_ns <= earlier.high) & ~same).sum())
            repeated |= same
        return repeated

    def close(self) -> dict[str, int]:
        """The recording has been read. Gives, per stream in which it contradicts an earlier one, its records that the
        other one lacks."""
        contradictions: dict[str, int] = {}
        for stream, known in self._open.items():
            known.flush()
            for number, earlier in enumerate(self._closed.get(stream, ())):
                lacking = earlier.rows_within(known.low, known.high) - known.same[number]
                if lacking > 0 and known.extra[number]:
                    contradictions[stream] = max(contradictions.get(stream, 0), known.extra[number])
            self._closed.setdefault(stream, []).append(known)
        self._open.clear()
        return contradictions


def _hashes(rows: pa.Table) -> np.ndarray:
    """uint64 per row, over what is content."""
    import pandas as pd

    columns = [name for name in rows.column_names if name not in _PLACE]
    frame = rows.select(columns).to_pandas()
    hashes: Mapping[int, int] | pd.Series = pd.util.hash_pandas_object(frame, index=False)
    return np.asarray(hashes, dtype=np.uint64)

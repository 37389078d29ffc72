"""Recordings of one drive that cover the same time.

In: batches of one stream, recording by recording. Out: which rows an earlier recording has already; and, per stream, whether
two recordings contradict each other: where both have time in common, each has records that the other one lacks. A copy that
has lost records contradicts nothing.

A record is the same when its stamp and its content are. The bytes of camera, LiDAR and radar stay where they are, and are
compared only where stamp, type and length are the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from fleet_assets.formats.mcap_scan import Damaged, decompress
from fleet_assets.lake.payload import KEY_COLUMNS

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
_CODECS = ("none", "lz4", "zstd")
_WHERE = tuple(name for name in KEY_COLUMNS if name not in ("object", "codec"))


@dataclass(frozen=True)
class _Block:
    """Rows of a file, sorted by stamp. first: row that it starts at; low, high: its smallest and largest stamp."""

    first: int
    rows: int
    low: int
    high: int


@dataclass
class _Stream:
    """One stream of one recording: a row of int64 for each record on disk, and in memory where each block lies in time. A row
    has stamp and content hash and, of camera, LiDAR and radar, where the bytes lie: in which file, and where in it."""

    path: Path
    has_payload: bool
    blocks: list[_Block] = field(default_factory=list)
    waiting: list[np.ndarray] = field(default_factory=list)
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

    @property
    def width(self) -> int:
        return 4 + len(_WHERE) if self.has_payload else 2

    def add(self, records: np.ndarray) -> None:
        self.waiting.append(records)
        self.waiting_rows += len(records)
        if self.waiting_rows >= _BLOCK_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self.waiting_rows:
            return
        records = np.concatenate(self.waiting)
        records = records[np.argsort(records[:, 0], kind="stable")]
        first = self.blocks[-1].first + self.blocks[-1].rows if self.blocks else 0
        with open(self.path, "ab") as file:
            records.tofile(file)
        self.blocks.append(_Block(first, len(records), int(records[0, 0]), int(records[-1, 0])))
        self.waiting, self.waiting_rows = [], 0

    def near(self, low: int, high: int) -> Iterator[np.ndarray]:
        """Records of the blocks that reach into low..high, sorted by stamp."""
        for block in self.blocks:
            if block.high >= low and block.low <= high:
                at = 8 * self.width * block.first
                yield np.fromfile(self.path, np.int64, block.rows * self.width, offset=at).reshape(-1, self.width)

    def holds(self, records: np.ndarray, files: Sequence[Path]) -> np.ndarray:
        """True for the records, of another recording, that it has. files: those in which the payload of both lies."""
        found = np.zeros(len(records), dtype=bool)
        t_ns = records[:, 0]
        for known in self.near(int(t_ns.min()), int(t_ns.max())):
            low = np.searchsorted(known[:, 0], t_ns, side="left")
            high = np.searchsorted(known[:, 0], t_ns, side="right")
            for shift in range(int((high - low).max(initial=0))):
                at = np.minimum(low + shift, len(known) - 1)
                same = (low + shift < high) & (known[at, 1] == records[:, 1]) & ~found
                if self.has_payload:
                    rows = np.flatnonzero(same)
                    same[rows] = _same_bytes(files, known[at[rows], 2:], records[rows, 2:])
                found |= same
        return found

    def rows_within(self, low: int, high: int) -> int:
        return sum(int(((part[:, 0] >= low) & (part[:, 0] <= high)).sum()) for part in self.near(low, high))


class Overlap:
    """Only for drives of more than one recording. Keeps 16 bytes per record on disk, 72 where it has payload, and in memory a few
    blocks per stream, whatever the recordings' length. folder: empty, its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._closed: dict[str, list[_Stream]] = {}  # stream -> recordings
        self._open: dict[str, _Stream] = {}
        self._spools = 0
        self._files: dict[Path, int] = {}  # with payload, numbered
        folder.mkdir()

    def observe(self, stream: str, t_ns: np.ndarray, rows: pa.Table, file: Path | None = None) -> np.ndarray:
        """t_ns: int64 [rows]. file: in which rows with payload say where it lies; a recording may have several. Gives a mask:
        records that an earlier recording has."""
        repeated = np.zeros(t_ns.size, dtype=bool)
        if not t_ns.size:
            return repeated
        records = _records(t_ns, rows, None if file is None else self._files.setdefault(file, len(self._files)))
        if stream not in self._open:
            self._spools += 1
            self._open[stream] = _Stream(self._folder / str(self._spools), has_payload=file is not None)
        known = self._open[stream]
        known.add(records)
        files = list(self._files)
        for number, earlier in enumerate(self._closed.get(stream, ())):
            same = earlier.holds(records, files)
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


def _records(t_ns: np.ndarray, rows: pa.Table, file: int | None) -> np.ndarray:
    """As _Stream keeps them: int64 [rows, width]."""
    columns = [t_ns, _hashes(rows).view(np.int64)]
    if file is not None:
        codec = np.array([_CODECS.index(name) for name in rows["codec"].to_pylist()], dtype=np.int64)
        columns += [np.full(t_ns.size, file), codec, *(rows[name].to_numpy() for name in _WHERE)]
    return np.column_stack(columns)


def _same_bytes(files: Sequence[Path], where: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether messages of two recordings are the same; where, other: file, codec and _WHERE, int64 [n, 7]. Two chunks are in
    memory, and two files open."""
    messages = zip(_messages(files, where), _messages(files, other), strict=True)
    return np.array([one is not None and one == two for one, two in messages], dtype=bool)


def _messages(files: Sequence[Path], where: np.ndarray) -> Iterator[bytes | None]:
    """None for one that is not there any more. Rows of one file follow each other, as far as recordings follow time."""
    borders = np.flatnonzero(np.diff(where[:, 0])) + 1
    for part in np.split(where, borders):
        if len(part):
            with open(files[part[0, 0]], "rb") as file:
                yield from _messages_of(file, part[:, 1:])


def _messages_of(file: BinaryIO, where: np.ndarray) -> Iterator[bytes | None]:
    chunk_at, records = None, b""
    for codec, chunk_offset, chunk_length, chunk_size, offset, length in where.tolist():
        if _CODECS[codec] == "none":
            file.seek(offset)
            yield file.read(length)
            continue
        if chunk_at != chunk_offset:
            file.seek(chunk_offset)
            try:
                chunk_at, records = chunk_offset, decompress(_CODECS[codec], file.read(chunk_length), chunk_size)
            except Damaged:
                chunk_at, records = None, b""
        yield records[offset : offset + length] if chunk_at is not None else None


def _hashes(rows: pa.Table) -> np.ndarray:
    """uint64 per row, over what is content."""
    import pandas as pd

    columns = [name for name in rows.column_names if name not in _PLACE]
    frame = rows.select(columns).to_pandas()
    hashes: Mapping[int, int] | pd.Series = pd.util.hash_pandas_object(frame, index=False)
    return np.asarray(hashes, dtype=np.uint64)

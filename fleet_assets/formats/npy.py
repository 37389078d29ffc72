"""Arrays in `.npy` files, window by window.

In: a file. Out: float64 rows. Nothing in it is trusted further than the file goes: no objects are unpickled, and what the head
claims allocates nothing. Source: the NPY format, numpy.lib.format.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from fleet_assets.formats.reader import BATCH_ROWS

MAGIC = b"\x93NUMPY"
_MOST_ROWS = 10**9
_LARGEST_NS = 2.0**62


class NpyFile:
    """rows, columns: as many as are there. missing: rows that the head claims beyond them."""

    def __init__(self, path: Path, columns: int) -> None:
        """Raises ValueError when it is no array of real numbers with so many columns; OSError."""
        self._path = path
        with open(path, "rb") as file:
            shape, by_columns, self._dtype = _head(file)
            self._offset = file.tell()
            size = file.seek(0, 2) - self._offset
        if self._dtype.kind not in "fiu" or self._dtype.hasobject:
            raise ValueError(f"it holds no real numbers ({self._dtype})"[:100])
        if len(shape) not in (1, 2) or (shape[1] if len(shape) == 2 else 1) != columns:
            raise ValueError(f"its shape is {shape}, not {columns} columns"[:100])
        self.columns = columns
        claimed = min(max(int(shape[0]), 0), _MOST_ROWS)
        self._by_columns = by_columns and columns > 1
        self._claimed = claimed
        there = size // self._dtype.itemsize  # numbers
        self.rows = min(claimed, max(there - (columns - 1) * claimed, 0) if self._by_columns else there // columns)
        self.missing = claimed - self.rows

    def windows(self, rows: int) -> Iterator[np.ndarray]:
        """float64 [at most rows, columns], in order."""
        with open(self._path, "rb") as file:
            for start in range(0, self.rows, rows):
                count = min(rows, self.rows - start)
                if self._by_columns:
                    parts = [self._numbers(file, at * self._claimed + start, count) for at in range(self.columns)]
                    window = np.column_stack([part[: min(map(len, parts))] for part in parts])
                else:
                    numbers = self._numbers(file, start * self.columns, count * self.columns)
                    window = numbers[: numbers.size // self.columns * self.columns].reshape(-1, self.columns)
                with np.errstate(invalid="ignore", over="ignore"):
                    yield window.astype(np.float64)

    def _numbers(self, file: BinaryIO, first: int, count: int) -> np.ndarray:
        """As many as there are (the file may have become shorter)."""
        size = self._dtype.itemsize
        file.seek(self._offset + first * size)
        raw = file.read(count * size)
        return np.frombuffer(raw[: len(raw) // size * size], self._dtype)


def _head(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether it is stored by columns, and type. Raises ValueError."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of the format is not known")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    try:
        with warnings.catch_warnings(action="ignore"):  # of heads that Python 2 wrote
            return read(file)
    except ValueError:
        raise
    except Exception as error:  # whatever a broken text leads its parser to
        raise ValueError("its head cannot be read") from error


class NpyRows:
    """Stamps and the values that belong to them, from files side by side. refuse: gets reason, place and count of rows that
    cannot be used."""

    def __init__(self, stamps: NpyFile, values: Sequence[NpyFile], refuse: Callable[[str, str, int], None]) -> None:
        self._stamps = stamps
        self._values = values
        self._refuse = refuse

    def windows(self, rows: int = BATCH_ROWS) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Stamps int64 [n] in nanoseconds, and float64 [n, columns of all values]."""
        at, files = 0, [self._stamps, *self._values]
        for parts in zip(*(file.windows(rows) for file in files), strict=False):
            count = min(map(len, parts))
            t_ns, known = to_ns(parts[0][:count, 0])
            if not known.all():
                self._refuse("the stamp is no time", f"row {at + int((~known).argmax())}", int((~known).sum()))
            if known.any():
                yield t_ns[known], np.hstack([part[:count] for part in parts[1:]])[known]
            at += count
        claimed = max(file.rows + file.missing for file in files)
        if claimed > at:
            cut = any(file.missing for file in files)
            why = "the array is cut off" if cut else "stamps and values differ in number"
            self._refuse(why, f"row {at}", claimed - at)


def to_ns(times: np.ndarray, unit_ns: int = 1_000_000_000) -> tuple[np.ndarray, np.ndarray]:
    """Times [n] in float seconds (or another unit) -> int64 nanoseconds [n], to the nearest, and whether each is a time, bool
    [n]. Whole units and their rest are converted apart: their product would lose digits."""
    known = (times >= 0) & (times < _LARGEST_NS / unit_ns)  # no clock runs before its zero, and NaN is neither
    usable = np.where(known, times, 0.0)
    whole = np.floor(usable)
    return whole.astype(np.int64) * unit_ns + np.rint((usable - whole) * unit_ns).astype(np.int64), known

"""Deltas: one file made from another, for feature bundles and for releases.

In: the file that a device has, and a delta; or two files, and which pieces of one are in the other. Out: the new file, piece by
piece; or the delta. A delta proves nothing: the hash of its result is what was signed, and whoever applies one holds it against
that. Whatever a delta says, it is read in bounds, and gives no more bytes than were asked for.

    magic [8], sha256 of the base [32], steps [8], then packed: a step each (offset in the base or -1, length), new bytes
"""

from __future__ import annotations

import hashlib
import mmap
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.errors import FleetError

MAGIC = b"FLTDELTA"
LEAST_COPY = 64  # bytes: a shorter piece costs as much as naming where it is
_HEAD, _STEP, _STEPS, _PIECE = 48, 16, 1 << 16, 1 << 20


class Steps:
    """What the new file is made of, in its order. steps: (offset in the base, or -1 for new bytes; length)."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []

    def add(self, source: int, length: int) -> None:
        """source: offset in the base, or -1. Pieces that go on where the one before ended are one."""
        if source >= 0 and length < LEAST_COPY:
            source = -1
        before, long = self.steps[-1] if self.steps else (-2, 0)
        if length and (before == source == -1 or (source >= 0 and before >= 0 and before + long == source)):
            self.steps[-1] = (before, long + length)
        elif length:
            self.steps.append((source, length))


def write_delta(path: Path, base_sha256: bytes, new: Any, steps: Sequence[tuple[int, int]]) -> None:
    """new: the bytes of the new file, as anything that can be sliced; steps: for the whole of it."""
    packer, at = zlib.compressobj(6), 0
    with open(path, "wb") as file:
        file.write(MAGIC + base_sha256 + len(steps).to_bytes(8, "little"))
        file.write(packer.compress(np.array(steps, dtype="<i8").tobytes()))
        for source, length in steps:
            for begin in range(at, at + length if source < 0 else at, _PIECE):
                file.write(packer.compress(bytes(new[begin : min(begin + _PIECE, at + length)])))
            at += length
        file.write(packer.flush())


def patched(delta: Path, base: Path, size: int) -> Iterator[bytes]:
    """Pieces of the new file, size bytes at most. Raises FleetError for a delta that is none, or is from another base."""
    wrong = FleetError(f"{delta} does not fit {base}", remedy="Take the whole instead of what changed.")
    with open(delta, "rb") as file, open(base, "rb") as known:
        head = file.read(_HEAD)
        count = int.from_bytes(head[40:], "little")
        # Every other step is a copy of so many bytes, so there are no more of them: they take half of the file's size at most.
        if len(head) != _HEAD or head[:8] != MAGIC or count > 2 * size // LEAST_COPY + 1:
            raise wrong
        if hashlib.file_digest(known, "sha256").digest() != head[8:40]:
            raise wrong
        stream = zlib.decompressobj()

        def take(length: int) -> Iterator[bytes]:
            while length:
                packed = stream.unconsumed_tail or file.read(_PIECE)
                if not packed:
                    raise wrong
                try:
                    piece = stream.decompress(packed, min(length, _PIECE))
                except zlib.error:
                    raise wrong from None
                length -= len(piece)
                yield piece

        steps = np.frombuffer(b"".join(take(_STEP * count)), dtype="<i8").reshape(count, 2)
        with mmap.mmap(known.fileno(), 0, access=mmap.ACCESS_READ) as content:
            left = size
            for offset, length in chain.from_iterable(
                steps[at : at + _STEPS].tolist() for at in range(0, count, _STEPS)
            ):
                if not 0 < length <= left or offset < -1 or (offset >= 0 and offset > len(content) - length):
                    raise wrong
                left -= length
                if offset < 0:
                    yield from take(length)
                else:
                    yield from (
                        content[begin : min(begin + _PIECE, offset + length)]
                        for begin in range(offset, offset + length, _PIECE)
                    )

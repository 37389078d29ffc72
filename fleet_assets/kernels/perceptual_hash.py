"""Perceptual hash of an image: alike for images that look alike.

In: pixels. Out: 64 bits, of which near-duplicates share most. Source: the difference hash of N. Krawetz, "Kind of like that",
2013: whether each of 8 x 9 patches is brighter than its neighbour to the right.
"""

from __future__ import annotations

import numpy as np
from numba import njit

ROWS, COLUMNS = 8, 9


@njit(cache=True, nogil=True)
def difference_hash(pixels: np.ndarray) -> np.int64:
    """uint8 [height, width, channels], at least 8 x 9, -> 64 bits as int64."""
    height, width, channels = pixels.shape
    sums = np.zeros((ROWS, COLUMNS))
    for row in range(ROWS):
        top, bottom = row * height // ROWS, (row + 1) * height // ROWS
        for column in range(COLUMNS):
            left, right = column * width // COLUMNS, (column + 1) * width // COLUMNS
            total = 0
            for y in range(top, bottom):
                for x in range(left, right):
                    for channel in range(channels):
                        total += int(pixels[y, x, channel])
            sums[row, column] = total / ((bottom - top) * (right - left))
    found = np.uint64(0)
    for row in range(ROWS):
        for column in range(COLUMNS - 1):
            found = (found << np.uint64(1)) | np.uint64(sums[row, column] > sums[row, column + 1])
    return np.int64(found)


@njit(cache=True, nogil=True)
def bits(value: np.int64) -> int:
    """How many bits are set."""
    left, count = np.uint64(value), 0
    while left:
        left &= left - np.uint64(1)
        count += 1
    return count


@njit(cache=True, nogil=True)
def near_above(hashes: np.ndarray, rank: np.ndarray, most_bits: int) -> np.ndarray:
    """int64 [n]: for each hash (int64) the first one of a higher rank that differs in at most so many bits; -1 for none."""
    found = np.full(hashes.size, -1, dtype=np.int64)
    for one in range(hashes.size):
        for other in range(hashes.size):
            if rank[other] > rank[one] and bits(hashes[one] ^ hashes[other]) <= most_bits:
                found[one] = other
                break
    return found

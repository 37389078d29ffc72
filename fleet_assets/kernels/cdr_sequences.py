"""Sequences of structures inside CDR messages, found without a Python loop.

In: the bytes of many messages and where each one's sequence begins. Out: where each member of each element lies. Source: OMG
CDR (XCDR1): members are aligned to their size; a string is its length with the closing zero, then its bytes.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _u32(data: np.ndarray, at: int) -> int:
    value = 0
    for index in range(4):
        value |= int(data[at + index]) << (8 * index)
    return value


@njit(cache=True)
def _aligned(at: int, size: int) -> int:
    return (at + size - 1) // size * size


@njit(cache=True)
def _element(
    data: np.ndarray,
    base: int,
    end: int,
    at: int,
    layout: np.ndarray,
    longest: int,
    starts: np.ndarray,
    sizes: np.ndarray,
) -> int:
    """Fills the places of one element's members; gives where the next element may begin, -1 when this one is not whole."""
    for member in range(layout.shape[0]):
        size = layout[member, 0]
        if size == 0:
            at = _aligned(at, 4)
            if at + 4 > end:
                return -1
            taken = _u32(data, base + at)
            at += 4
            if taken > longest or at + taken > end:
                return -1
            starts[member] = base + at
            sizes[member] = max(taken - 1, 0)
            at += taken
        else:
            at = _aligned(at, size)
            taken = size * layout[member, 1]
            if at + taken > end:
                return -1
            starts[member] = base + at
            sizes[member] = taken
            at += taken
    return at


@njit(cache=True)
def walk_sequence(
    data: np.ndarray, offset: np.ndarray, length: np.ndarray, at: np.ndarray, layout: np.ndarray, longest: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """data: uint8. offset, length, at: int64 [n], each message's body and where in it the sequence begins. layout: int64
    [members, 2], size and count of each member, size 0 for a string. longest: bytes that a string may have.

    Gives, per element, its message [m], starts in data and sizes in bytes of its members [m, members], all int64; and per
    message whether it is whole, bool [n]. A message that is not has no elements.
    """
    members = layout.shape[0]
    whole = np.zeros(offset.size, dtype=np.bool_)
    starts, sizes = np.empty(members, dtype=np.int64), np.empty(members, dtype=np.int64)
    total = 0
    for row in range(offset.size):
        place = _aligned(at[row], 4)
        if place + 4 > length[row]:
            continue
        count = _u32(data, offset[row] + place)
        place += 4
        for _ in range(count):
            place = _element(data, offset[row], length[row], place, layout, longest, starts, sizes)
            if place < 0:
                break
        if place >= 0:
            whole[row] = True
            total += count
    message = np.empty(total, dtype=np.int64)
    every_start, every_size = np.empty((total, members), dtype=np.int64), np.empty((total, members), dtype=np.int64)
    filled = 0
    for row in range(offset.size):
        if not whole[row]:
            continue
        place = _aligned(at[row], 4)
        count = _u32(data, offset[row] + place)
        place += 4
        for _ in range(count):
            place = _element(
                data, offset[row], length[row], place, layout, longest, every_start[filled], every_size[filled]
            )
            message[filled] = row
            filled += 1
    return message, every_start, every_size, whole

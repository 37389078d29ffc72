"""Fields of protobuf messages, found in many messages without a Python loop.

In: the bytes of many messages. Out: where one field of each lies. Source: the protobuf encoding. Of a field that is there
twice, the last counts, as in protobuf.
"""

from __future__ import annotations

import numpy as np
from numba import njit

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
ABSENT, BROKEN = -1, -2


@njit(cache=True)
def _varint(data: np.ndarray, at: int, end: int) -> tuple[np.uint64, int]:
    """The number, and where it ends; -1 when it does not."""
    value = np.uint64(0)
    for index in range(10):
        if at >= end:
            return value, -1
        byte = data[at]
        at += 1
        value |= np.uint64(byte & 0x7F) << np.uint64(7 * index)
        if byte < 0x80:
            return value, at
    return value, -1


@njit(cache=True)
def find_field(
    data: np.ndarray, offset: np.ndarray, length: np.ndarray, number: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """data: uint8; offset, length: int64 [n]. Gives, per message, the field's wire type int64 (ABSENT, or BROKEN when the
    message is none), start and size of its content in data, int64, and its value as uint64 if it is a varint."""
    count = offset.size
    wire = np.full(count, ABSENT, dtype=np.int64)
    start, size = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    value = np.zeros(count, dtype=np.uint64)
    for row in range(count):
        at, end = offset[row], offset[row] + length[row]
        while at < end:
            tag, at = _varint(data, at, end)
            kind, begin, taken = int(np.int64(tag & np.uint64(7))), at, -1
            told = np.uint64(0)
            if at >= 0 and tag >> np.uint64(3) > 0:
                if kind == VARINT:
                    told, after = _varint(data, at, end)
                    taken = after - at if after >= 0 else -1
                elif kind == FIXED64:
                    taken = 8
                elif kind == FIXED32:
                    taken = 4
                elif kind == BYTES:
                    told, begin = _varint(data, at, end)
                    if begin >= 0 and told <= np.uint64(end - begin):
                        taken = int(np.int64(told))
            if taken < 0 or begin + taken > end:
                wire[row] = BROKEN
                break
            if tag >> np.uint64(3) == np.uint64(number):
                wire[row], start[row], size[row], value[row] = kind, begin, taken, told
            at = begin + taken
    return wire, start, size, value

"""Records of an MCAP chunk, found without a Python loop.

In: the uncompressed bytes of a chunk. Out: where each record and message lies. Source: the MCAP specification, "Records".
"""

from __future__ import annotations

import numpy as np
from numba import njit

MESSAGE = 0x05
_RECORD_HEAD = 9  # opcode and length
_MESSAGE_HEAD = 22  # channel, sequence, log time, publish time


@njit(cache=True)
def _u64(data: np.ndarray, at: int) -> np.uint64:
    value = np.uint64(0)
    for index in range(8):
        value |= np.uint64(data[at + index]) << np.uint64(8 * index)
    return value


@njit(cache=True)
def _count(data: np.ndarray) -> tuple[int, int]:
    """Whole records, and the bytes that they take."""
    at, count = 0, 0
    while at + _RECORD_HEAD <= data.size:
        length = _u64(data, at + 1)
        if length > np.uint64(data.size - at - _RECORD_HEAD):
            break
        at += _RECORD_HEAD + np.int64(length)
        count += 1
    return count, at


@njit(cache=True)
def scan_records(data: np.ndarray) -> tuple[np.ndarray, int]:
    """data: uint8. Gives int64 [records, 5] and the number of bytes that whole records take.

    Columns: opcode; channel (-1 if no message); log time [ns]; offset and length of the content (of a message: of its data).
    A message too short for its own head has length -1. Times beyond int64 are given as -1.
    """
    count, end = _count(data)
    found = np.empty((count, 5), dtype=np.int64)
    at = 0
    for row in range(count):
        opcode = data[at]
        length = np.int64(_u64(data, at + 1))
        content = at + _RECORD_HEAD
        found[row, 0] = opcode
        found[row, 1] = -1
        found[row, 2] = -1
        found[row, 3] = content
        found[row, 4] = length
        if opcode == MESSAGE:
            if length < _MESSAGE_HEAD:
                found[row, 4] = -1
            else:
                found[row, 1] = np.int64(data[content]) | (np.int64(data[content + 1]) << 8)
                log_time = _u64(data, content + 6)
                if log_time <= np.uint64(9223372036854775807):
                    found[row, 2] = np.int64(log_time)
                found[row, 3] = content + _MESSAGE_HEAD
                found[row, 4] = length - _MESSAGE_HEAD
        at = content + length
    return found, end

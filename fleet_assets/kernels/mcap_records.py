"""Records of an MCAP chunk, found without a Python loop.

In: the uncompressed bytes of a chunk. Out: where each record and message lies. Source: the MCAP specification, "Records".
"""

from __future__ import annotations

import numpy as np
from numba import njit

SCHEMA, CHANNEL, MESSAGE = 0x03, 0x04, 0x05
_RECORD_HEAD = 9  # opcode and length
_MESSAGE_HEAD = 22  # channel, sequence, log time, publish time
_LEAST_SCHEMA, _LEAST_CHANNEL = 14, 16
_LARGEST = np.uint64(9223372036854775807)


@njit(cache=True)
def _u64(data: np.ndarray, at: int) -> np.uint64:
    value = np.uint64(0)
    for index in range(8):
        value |= np.uint64(data[at + index]) << np.uint64(8 * index)
    return value


@njit(cache=True)
def _usable(opcode: int, length: int) -> bool:
    if opcode == MESSAGE:
        return length >= _MESSAGE_HEAD
    if opcode == SCHEMA:
        return length >= _LEAST_SCHEMA
    return opcode == CHANNEL and length >= _LEAST_CHANNEL


@njit(cache=True)
def _count(data: np.ndarray) -> tuple[int, int, int]:
    """Usable records, unusable ones, and the bytes that whole records take."""
    at, usable, unusable = 0, 0, 0
    while at + _RECORD_HEAD <= data.size:
        length = _u64(data, at + 1)
        if length > np.uint64(data.size - at - _RECORD_HEAD):
            break
        if _usable(data[at], int(np.int64(length))):
            usable += 1
        else:
            unusable += 1
        at = at + _RECORD_HEAD + int(np.int64(length))
    return usable, unusable, at


@njit(cache=True)
def _stamp(log_time: np.uint64, publish_time: np.uint64) -> int:
    """Log time; publish time where the recorder set none; -1 where neither is a time."""
    if np.uint64(0) < log_time <= _LARGEST:
        return int(np.int64(log_time))
    if np.uint64(0) < publish_time <= _LARGEST:
        return int(np.int64(publish_time))
    return -1


@njit(cache=True)
def scan_records(data: np.ndarray) -> tuple[np.ndarray, int, int]:
    """data: uint8. Gives int64 [records, 5], the bytes that whole records take, and how many records are unusable.

    Columns: opcode (schema, channel, message); channel (-1 if no message); host stamp [ns] (-1: none); offset and length of
    the content (of a message: of its data). Unusable: of another kind, or too short for their own members. The array never
    takes more than twice the bytes of data.
    """
    usable, unusable, end = _count(data)
    found = np.empty((usable, 5), dtype=np.int64)
    at, row = 0, 0
    while at < end:
        opcode = data[at]
        length = int(np.int64(_u64(data, at + 1)))
        content = at + _RECORD_HEAD
        if _usable(opcode, length):
            found[row, 0] = opcode
            found[row, 1] = -1
            found[row, 2] = -1
            found[row, 3] = content
            found[row, 4] = length
            if opcode == MESSAGE:
                found[row, 1] = np.int64(data[content]) | (np.int64(data[content + 1]) << 8)
                found[row, 2] = _stamp(_u64(data, content + 6), _u64(data, content + 14))
                found[row, 3] = content + _MESSAGE_HEAD
                found[row, 4] = length - _MESSAGE_HEAD
            row += 1
        at = content + length
    return found, end, unusable

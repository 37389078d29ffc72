"""Rows of a snapshot file by key: the same look-up as edge/snapshot.py, compiled.

In: the file as 64-bit words, where a view lies in it, keys. Out: values, status and event time, into the caller's arrays.
Every index that is read from the file is checked before it is used, so that no file can make these read outside it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

FRESH, STALE, NULL, MISSING = 0, 1, 2, 3  # status of one feature

# `view`, uint64: where a view lies, in words from the start of the file; then type and offset in bytes of each column.
ROWS, SHIFT, BUCKETS, ROWS_AT, KEY_WORDS, ROW_WORDS, TTL_NS, COLUMNS, PACKED, LAST_VALID = range(10)
FIRST_COLUMN = 10

# Indices are unsigned: Numba would otherwise allow for negative ones at every access.
_0, _1, _2, _3, _6, _8, _29, _32, _63 = map(np.uint64, (0, 1, 2, 3, 6, 8, 29, 32, 63))
_AT_ONCE = 32
_ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
_SEED, _STEP, _LAST = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x9FB21C651E98DF25)


@njit(cache=True)
def _bucket_of(view: np.ndarray, key: np.ndarray, first: np.uint64, used: np.uint64) -> np.uint64:
    """Where in the file, in words of 32 bits, the rows of a key's hash begin and end: there, and one further."""
    value = _SEED
    for index in range(used):
        value = (value ^ key[first + index]) * _STEP
        value ^= value >> _32
    value *= _LAST
    value = (value ^ (value >> _29)) * _STEP
    value ^= value >> _32
    return _2 * view[BUCKETS] + (value >> view[SHIFT])


@njit(cache=True)
def _scan(
    words: np.ndarray,
    view: np.ndarray,
    key: np.ndarray,
    first: np.uint64,
    used: np.uint64,
    row: np.uint64,
    end: np.uint64,
) -> int:
    """The row from `row` up to `end` that has the key, -1 if none."""
    key_words, row_words = view[KEY_WORDS], view[ROW_WORDS]
    if used > key_words:
        return -1
    end = min(end, view[ROWS])
    at = view[ROWS_AT] + row * row_words
    while row < end:
        same = words[at] == key[first]
        for index in range(_1, key_words):
            same &= words[at + index] == (key[first + index] if index < used else _0)
        if same:
            return int(np.int64(row))
        row += _1
        at += row_words
    return -1


@njit(cache=True)
def _row_of(words: np.ndarray, view: np.ndarray, key: np.ndarray, first: np.uint64, used: np.uint64) -> int:
    """Row of the key key[first:first + used] (uint64), -1 if it is not there. words: uint64, the file."""
    starts, bucket = words.view(np.uint32), _bucket_of(view, key, first, used)
    return _scan(words, view, key, first, used, np.uint64(starts[bucket]), np.uint64(starts[bucket + _1]))


@njit(cache=True)
def _fill(
    words: np.ndarray, view: np.ndarray, row: int, now_ns: int, values: np.ndarray, status: np.ndarray
) -> np.int64:
    """Values as float64 (NaN: none) and status of one row, -1 = missing; gives its event time [ns], 0 if missing."""
    columns = view[COLUMNS]
    if row < 0:
        for column in range(columns):
            values[column] = np.nan
            status[column] = MISSING
        return np.int64(0)
    at = view[ROWS_AT] + np.uint64(row) * view[ROW_WORDS]
    valid_at = at + view[KEY_WORDS] + _1
    time_ns = np.int64(words[valid_at - _1])
    ttl_ns = np.int64(view[TTL_NS])
    here = np.uint8(STALE if ttl_ns > 0 and now_ns > time_ns and now_ns - ttl_ns > time_ns else FRESH)
    whole = words[valid_at + ((columns - _1) >> _6)] == view[LAST_VALID]
    for word in range((columns - _1) >> _6):
        whole &= words[valid_at + word] == _ALL
    if whole and view[PACKED]:
        source, first = words.view(np.float64), at + (view[FIRST_COLUMN + 1] >> _3)
        for column in range(columns):
            values[column] = source[first + column]
        for column in range(columns):
            status[column] = here
        return time_ns
    for column in range(columns):
        if (words[valid_at + (column >> _6)] >> (column & _63)) & _1:
            place = np.uint64(FIRST_COLUMN) + _2 * column
            values[column] = _value(words, view[place], (at << _3) + view[place + _1])
            status[column] = here
        else:
            values[column] = np.nan
            status[column] = NULL
    return time_ns


@njit(cache=True)
def _value(words: np.ndarray, kind: np.uint64, offset: np.uint64) -> float:
    """A value of a type of edge.layout.TYPES at an offset in bytes."""
    if kind == 1:
        return words.view(np.float64)[offset >> _3]
    if kind == 2:
        return np.float64(words.view(np.float32)[offset >> _2])
    if kind == 3 or kind == 6:
        return np.float64(words.view(np.int64)[offset >> _3])
    if kind == 4 or kind == 7:
        return np.float64(words.view(np.int32)[offset >> _2])
    return np.float64(words.view(np.uint8)[offset])


@njit(cache=True)
def find(words: np.ndarray, view: np.ndarray, key: np.ndarray) -> int:
    """Row of a key (uint64 words), -1 if it is not there."""
    return _row_of(words, view, key, _0, np.uint64(key.size))


@njit(cache=True)
def find_many(words: np.ndarray, view: np.ndarray, keys: np.ndarray, used: np.ndarray) -> np.ndarray:
    """keys: uint64 [n, words], used: words of each. Gives int64 [n], -1 where a key is not there."""
    rows = np.empty(len(keys), dtype=np.int64)
    flat, width = keys.ravel(), np.uint64(keys.shape[1])
    for index in range(len(keys)):
        rows[index] = _row_of(words, view, flat, np.uint64(index) * width, np.uint64(used[index]))
    return rows


def block_words(columns: int) -> int:
    """Words of a block for `lookup`: values, event time, status (a byte each)."""
    return columns + 1 + -(-columns // 8)


@njit(cache=True)
def lookup_int(words: np.ndarray, view: np.ndarray, key: int, now_ns: int, block: np.ndarray) -> int:
    """One integer key. block: uint64 [block_words]: values, event time, status."""
    one = np.empty(1, dtype=np.uint64)
    one[0] = np.uint64(key)
    return lookup(words, view, one, now_ns, block)


@njit(cache=True)
def lookup(words: np.ndarray, view: np.ndarray, key: np.ndarray, now_ns: int, block: np.ndarray) -> int:
    """One key of uint64 words; gives its row, -1 if it is not there."""
    row = _row_of(words, view, key, _0, np.uint64(key.size))
    columns = view[COLUMNS]
    status = block[columns + _1 :].view(np.uint8)
    block.view(np.int64)[columns] = _fill(words, view, row, now_ns, block.view(np.float64), status)
    return row


@njit(cache=True)
def lookup_many(
    words: np.ndarray,
    view: np.ndarray,
    keys: np.ndarray,
    used: np.ndarray,
    now_ns: int,
    values: np.ndarray,
    status: np.ndarray,
    times_ns: np.ndarray,
) -> None:
    """Many keys as in find_many. values: float64 [n, columns]; status: uint8, the same; times_ns: int64 [n].

    In three steps per 32 keys, so that the machine waits for many places of the file at once, and not for one after another.
    """
    flat, width, starts = keys.ravel(), np.uint64(keys.shape[1]), words.view(np.uint32)
    begins, ends = np.empty(_AT_ONCE, dtype=np.uint64), np.empty(_AT_ONCE, dtype=np.uint64)
    seen = _0
    for block in range(0, len(keys), _AT_ONCE):
        count = min(_AT_ONCE, len(keys) - block)
        for index in range(count):
            bucket = _bucket_of(view, flat, np.uint64(block + index) * width, np.uint64(used[block + index]))
            begins[index], ends[index] = np.uint64(starts[bucket]), np.uint64(starts[bucket + _1])
        for index in range(count):
            if begins[index] < view[ROWS]:
                at = view[ROWS_AT] + begins[index] * view[ROW_WORDS]
                for word in range(_0, view[ROW_WORDS], _8):
                    seen ^= words[at + word]
        for index in range(count):
            first, length = np.uint64(block + index) * width, np.uint64(used[block + index])
            row = _scan(words, view, flat, first, length, begins[index], ends[index])
            times_ns[block + index] = _fill(words, view, row, now_ns, values[block + index], status[block + index])
    begins[0] = seen  # or the compiler would leave out what nobody uses


@njit(cache=True)
def status_of_derived(inputs: np.ndarray, values: np.ndarray, status: np.ndarray) -> None:
    """Of what follows from a look-up. inputs: uint8 [n, inputs], their status; values: float64 [n, outputs], NaN where there is
    none; status: uint8 [n, outputs], filled."""
    for row in range(len(inputs)):
        known, unknown = FRESH, NULL
        for column in range(inputs.shape[1]):
            if inputs[row, column] == STALE:
                known = STALE
            elif inputs[row, column] == MISSING:
                unknown = MISSING
        for column in range(values.shape[1]):
            status[row, column] = unknown if np.isnan(values[row, column]) else known


@njit(cache=True)
def scatter_rows(block: np.ndarray, places: np.ndarray, rows: np.ndarray) -> None:
    """rows[places[i]] = block[i], for uint64 [n, words]."""
    for index in range(len(block)):
        place = places[index]
        for word in range(block.shape[1]):
            rows[place, word] = block[index, word]


@njit(cache=True)
def fill_texts(keys: np.ndarray, ends: np.ndarray, offsets: np.ndarray, text: np.ndarray) -> None:
    """Appends length and bytes of text i at ends[i] of keys[i] (uint8 [n, bytes]), and moves ends; offsets: int64 [n + 1]."""
    for row in range(len(keys)):
        at, length = ends[row], offsets[row + 1] - offsets[row]
        keys[row, at] = length & 255
        keys[row, at + 1] = length >> 8
        for index in range(length):
            keys[row, at + 2 + index] = text[offsets[row] + index]
        ends[row] = at + 2 + length

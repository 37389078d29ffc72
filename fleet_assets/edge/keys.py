"""Keys of rows: how entity values become bytes, and bytes a hash.

In: values of a view's entity columns. Out: 8-byte words and a 64-bit hash. An integer is its 8 bytes, a text 2 bytes of length
and UTF-8; columns follow each other, and zeros fill up the last word. Two different keys never have the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

from fleet_assets.edge.layout import KEY_BYTES_LIMIT
from fleet_assets.errors import FleetError

KEY_TYPES = ("int64", "string")
# Multiply and shift per word, twice more at the end: every bit of the key reaches every bit of the hash. The constants are
# those of splitmix64 and of P. Evensen's rrmxmx.
SEED, STEP, LAST = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x9FB21C651E98DF25
_MASK = (1 << 64) - 1


def encode_key(values: Sequence[Any], types: Sequence[str]) -> bytes:
    """One key. Raises FleetError if a value is not of its column's type, or is too long."""
    if len(values) != len(types):
        raise FleetError(f"A key of {len(types)} values was given {len(values)}", remedy="Give one per entity column.")
    if len(types) == 1 and types[0] == "int64" and type(values[0]) is int and -(1 << 63) <= values[0] < 1 << 63:
        return struct.pack("<q", values[0])  # the usual one, and quick
    parts = [_encode(value, kind) for value, kind in zip(values, types, strict=True)]
    key = b"".join(parts)
    if len(key) > KEY_BYTES_LIMIT:
        raise FleetError(f"A key has {len(key)} bytes", remedy=f"Keys have at most {KEY_BYTES_LIMIT}.")
    return key + bytes(-len(key) % 8)


def _encode(value: Any, kind: str) -> bytes:
    if kind == "string" and isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return struct.pack("<H", min(len(text), 0xFFFF)) + text
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if kind == "int64" and whole and -(1 << 63) <= value < 1 << 63:
        return struct.pack("<q", int(value))
    raise FleetError(f"{value!r} is no {kind}", remedy=f"This entity's keys are {kind}.")


def decode_key(key: bytes, types: Sequence[str]) -> tuple[Any, ...]:
    """Inverse of encode_key. Raises FleetError for bytes that encode_key does not give."""
    values: list[Any] = []
    at = 0
    try:
        for kind in types:
            if kind == "int64":
                values.append(struct.unpack_from("<q", key, at)[0])
                at += 8
            else:
                length = struct.unpack_from("<H", key, at)[0]
                values.append(key[at + 2 : at + 2 + length].decode("utf-8", "surrogatepass"))
                at += 2 + length
        if at > len(key):
            raise ValueError("too short")
    except (struct.error, ValueError) as error:
        raise FleetError(f"{key.hex()} is no key of {', '.join(types)}", remedy="Fetch the snapshot anew.") from error
    return tuple(values)


def hash_key(key: bytes) -> int:
    """64-bit hash of encoded bytes, a multiple of 8."""
    value = SEED
    for word in struct.unpack(f"<{len(key) // 8}Q", key):
        value = ((value ^ word) * STEP) & _MASK
        value ^= value >> 32
    value = (value * LAST) & _MASK
    value ^= value >> 29
    value = (value * STEP) & _MASK
    return value ^ (value >> 32)


def hash_keys(words: np.ndarray, used: np.ndarray | None = None) -> np.ndarray:
    """words: uint64 [rows, words per key], zeros after each key's end; used: words of each row (all, if None)."""
    value = np.full(len(words), SEED, dtype=np.uint64)
    for index in range(words.shape[1]):
        step = (value ^ words[:, index]) * np.uint64(STEP)
        step ^= step >> np.uint64(32)
        value = step if used is None else np.where(index < used, step, value)
    value *= np.uint64(LAST)
    value ^= value >> np.uint64(29)
    value *= np.uint64(STEP)
    return value ^ (value >> np.uint64(32))


def encode_keys(columns: Sequence[np.ndarray | Sequence[str]], types: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Many keys: uint64 [rows, words], zeros after each end, and the words that each one uses.

    columns: int64 arrays or sequences of texts, one per entity column.
    """
    rows = len(columns[0])
    if all(kind == "int64" for kind in types):
        words = np.stack([np.asarray(column, dtype=np.int64).view(np.uint64) for column in columns], axis=1)
        return np.ascontiguousarray(words), np.full(rows, len(types))
    keys = [encode_key(values, types) for values in zip(*columns, strict=True)]
    used = np.fromiter((len(key) // 8 for key in keys), dtype=np.int64, count=rows)
    width = int(used.max(initial=1)) * 8
    return np.frombuffer(b"".join(key.ljust(width, b"\0") for key in keys), dtype="<u8").reshape(rows, -1), used

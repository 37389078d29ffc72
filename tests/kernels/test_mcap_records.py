"""The compiled scan against a loop over the same bytes."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.kernels.mcap_records import scan_records

records = st.lists(st.tuples(st.sampled_from([3, 4, 5, 5, 5, 6, 0, 255]), st.binary(max_size=60)), max_size=20)


def expected(data: bytes) -> tuple[list[list[int]], int, int]:
    at, found, unusable = 0, [], 0
    while at + 9 <= len(data):
        opcode, length = data[at], int.from_bytes(data[at + 1 : at + 9], "little")
        if length > len(data) - at - 9:
            break
        content = at + 9
        least = {3: 14, 4: 16, 5: 22}.get(opcode)
        if least is None or length < least:
            unusable += 1
        elif opcode == 5:
            channel, _, log_time, publish_time = struct.unpack_from("<HIQQ", data, content)
            stamp = next((t for t in (log_time, publish_time) if 0 < t < 2**63), -1)
            found.append([5, channel, stamp, content + 22, length - 22])
        else:
            found.append([opcode, -1, -1, content, length])
        at = content + length
    return found, at, unusable


@given(records, st.binary(max_size=12))
@settings(deadline=None)
def test_against_a_loop(parts: list[tuple[int, bytes]], tail: bytes) -> None:
    data = b"".join(bytes([opcode]) + struct.pack("<Q", len(content)) + content for opcode, content in parts) + tail
    found, end, unusable = scan_records(np.frombuffer(data, dtype=np.uint8))
    assert (found.tolist(), end, unusable) == expected(data)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_on_any_bytes(data: bytes) -> None:
    found, end, unusable = scan_records(np.frombuffer(data, dtype=np.uint8))
    assert (found.tolist(), end, unusable) == expected(data)

"""Records of several recordings against a search through all of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.ingest.overlap import Overlap

Record = tuple[str, int, float | None]  # stream, stamp, content
record = st.tuples(st.sampled_from(["imu", "gnss"]), st.integers(0, 12), st.sampled_from([0.0, 1.0, None]))
recordings = st.lists(st.lists(st.lists(record, max_size=6), max_size=3), max_size=4)


def table(values: list[float | None]) -> pa.Table:
    # Places differ between copies of a record, and are not content.
    where = np.random.default_rng().integers(0, 2**40, len(values))
    return pa.table(
        {"sequence": where, "t_device_ns": where, "message_offset": where, "value": pa.array(values, pa.float64())}
    )


@given(recordings)
@settings(deadline=None, max_examples=200)
def test_against_a_search_through_all(delivered: list[list[list[Record]]]) -> None:
    overlap = Overlap()
    earlier: list[list[Record]] = []
    for recording in delivered:
        for batch in recording:
            for stream in ("imu", "gnss"):
                rows = [row for row in batch if row[0] == stream]
                stamps = np.array([t for _, t, _ in rows], dtype=np.int64)
                repeated, different = overlap.observe(stream, stamps, table([value for *_, value in rows]))
                expected = [_judge(row, earlier) for row in rows]
                assert repeated.tolist() == [verdict == "repeated" for verdict in expected]
                assert different.tolist() == [verdict == "different" for verdict in expected]
        overlap.close()
        earlier.append([row for batch in recording for row in batch])


def _judge(row: Record, earlier: list[list[Record]]) -> str:
    verdict = "new"
    for recording in earlier:
        stamps = [t for stream, t, _ in recording if stream == row[0]]
        if row in recording:
            return "repeated"
        if stamps and min(stamps) <= row[1] <= max(stamps):
            verdict = "different"
    return verdict


def test_payload_differs_by_its_length() -> None:
    def message(length: int, offset: int) -> pa.Table:
        return pa.table({"schema_name": ["a"], "message_length": [length], "chunk_offset": [offset], "codec": ["none"]})

    overlap = Overlap()
    at = np.array([5], dtype=np.int64)
    overlap.observe("lidar", at, message(10, 0))
    overlap.close()
    verdicts = [overlap.observe("lidar", at, message(length, 99)) for length in (10, 11)]
    assert [(bool(repeated[0]), bool(different[0])) for repeated, different in verdicts] == [
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_recordings_that_follow_each_other_do_not_meet(order: list[int]) -> None:
    overlap = Overlap()
    for part in order:
        t_ns = np.arange(100, dtype=np.int64) + 100 * part
        repeated, different = overlap.observe("imu", t_ns, table([1.0] * 100))
        assert not (repeated | different).any()
        overlap.close()

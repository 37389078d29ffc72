"""The account of a stream: batches of any size give what one batch gives."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.contracts.loader import load_streams
from fleet_assets.ingest.tally import StreamTally
from fleet_assets.kernels.sequence import sequence_facts

FACTS = ("t_first_ns", "t_last_ns", "rate_hz", "gaps", "longest_gap_ns", "backward_steps", "repeated_steps")
VOLUME = ("lost_rows", "seen_rows", "expected_rows")


@given(st.lists(st.lists(st.integers(0, 10**9), max_size=20), max_size=6))
@settings(deadline=None)
def test_steps_across_batches_and_files_count(batches: list[list[int]]) -> None:
    contract = load_streams()["imu"]
    parted, whole = StreamTally("imu", contract), StreamTally("imu", contract)
    for batch in batches:
        parted.observe(np.array(batch, dtype=np.int64), "device")
    stamps = np.array([t for batch in batches for t in batch], dtype=np.int64)
    whole.observe(stamps, "device")
    assert [getattr(parted, name) for name in FACTS + VOLUME] == [getattr(whole, name) for name in FACTS + VOLUME]
    facts = sequence_facts(stamps, contract.nominal_period_ns, contract.gap_limit_periods)
    for name, value in facts._asdict().items():
        assert getattr(whole, name) == value
    assert (whole.t_first_ns, whole.t_last_ns) == (min(stamps, default=None), max(stamps, default=None))


def test_loss_is_told_from_the_nominal_rate() -> None:
    tally = StreamTally("imu", load_streams()["imu"])  # 100 Hz
    tally.observe(np.delete(np.arange(100) * 10_000_000, [40, 41, 42, 70]), "device")
    assert (tally.seen_rows, tally.expected_rows, tally.lost_rows, tally.gaps) == (96, 100, 4, 2)
    silent = StreamTally("imu", load_streams()["imu"])
    assert (silent.seen_rows, silent.expected_rows, silent.lost_rows) == (0, None, 0)


def test_reasons_keep_their_first_place() -> None:
    tally = StreamTally("imu", None)
    tally.delivered_rows = 10
    tally.refuse("out of range", 2, "a: record 3")
    tally.refuse("out of range", 1, "b: record 9")
    tally.refuse("the chunk is broken", 0, "a: byte 100", unread=True)  # nobody knows how many
    tally.refuse("too short", 4, "a: byte 200", unread=True)
    assert (tally.read_rows, tally.refused_rows, tally.unread_rows) == (14, 7, 4)
    assert {reason: (why.count, why.first_position) for reason, why in tally.reasons.items()} == {
        "out of range": (3, "a: record 3"),
        "the chunk is broken": (0, "a: byte 100"),
        "too short": (4, "a: byte 200"),
    }


def test_labels_of_one_message_are_one_step() -> None:
    tally = StreamTally("labels", load_streams()["labels"])
    second = 1_000_000_000
    for part in ([1, 1, 1, 2], [2, 2, 3], [], [3, 5]):
        tally.observe(np.array(part, dtype=np.int64) * second, "device")
    assert (tally.repeated_steps, tally.backward_steps, tally.t_first_ns, tally.t_last_ns) == (0, 0, second, 5 * second)
    assert tally.rate_hz == 3 / 4

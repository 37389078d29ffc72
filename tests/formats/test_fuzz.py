"""300 damaged variants of every reader's sample (`make fuzz` reads 10,000)."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from formats import fuzz

SEED = 20_260_102


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(fuzz.TARGETS))
def test_damage_is_an_error_or_a_refusal(target: str) -> None:
    assert fuzz.run_target(target, 300, SEED), "see the output for the variant and its seed"


def test_a_hang_is_told_with_its_variant(capsys: pytest.CaptureFixture[str]) -> None:
    """The guard ends the process without a word of the variant: here after a millisecond, which no reading keeps to for long."""
    assert not fuzz.run_target("rosbag1", 300, SEED, seconds=0.001)
    assert re.search(rf"rosbag1: the process ended with 1 at variant \d+ of seed {SEED}\n", capsys.readouterr().out)


def test_the_same_seed_gives_the_same_damage() -> None:
    content = bytes(range(256)) * 20
    for seed in range(50):
        first, again = (fuzz.damaged(content, random.Random(seed)) for _ in range(2))
        assert first == again
    assert len({fuzz.damaged(content, random.Random(seed)) for seed in range(50)}) > 45


@pytest.mark.parametrize("target", ["kitti_raw", "radiate"])
def test_what_is_not_damaged_is_read_whole(target: str, tmp_path: Path) -> None:
    """Their samples for the contract suite lack files and stamps, which would hide what a variant's damage does."""
    (tmp_path / "sample").mkdir()
    sample = fuzz.TARGETS[target](tmp_path / "sample")
    assert fuzz.read(sample, sample.files, random.Random(0), tmp_path) == "whole"

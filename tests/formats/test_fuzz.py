"""300 damaged variants of every reader's sample (`make fuzz` reads 10,000)."""

from __future__ import annotations

import random

import pytest
from formats import fuzz

SEED = 20_260_102


@pytest.mark.slow
@pytest.mark.parametrize("target", sorted(fuzz.TARGETS))
def test_damage_is_an_error_or_a_refusal(target: str) -> None:
    assert fuzz.run_target(target, 300, SEED), "see the output for the variant and its seed"


def test_the_same_seed_gives_the_same_damage() -> None:
    content = bytes(range(256)) * 20
    for seed in range(50):
        first, again = (fuzz.damaged(content, random.Random(seed)) for _ in range(2))
        assert first == again
    assert len({fuzz.damaged(content, random.Random(seed)) for seed in range(50)}) > 45

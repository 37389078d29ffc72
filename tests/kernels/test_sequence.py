"""Facts about stamps against a plain loop."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.kernels.sequence import sequence_facts


@given(st.lists(st.integers(-(2**62), 2**62), max_size=40), st.integers(1, 2**40))
@settings(deadline=None)  # the first call compiles
def test_against_a_loop(stamps: list[int], period_ns: int) -> None:
    steps = [b - a for a, b in pairwise(stamps)]
    facts = sequence_facts(np.array(stamps, dtype=np.int64), period_ns, 1.5)
    assert facts.gaps == sum(step > round(1.5 * period_ns) for step in steps)
    assert facts.backward_steps == sum(step < 0 for step in steps)
    assert facts.repeated_steps == sum(step == 0 for step in steps)
    missing = [round_half_up(step, period_ns) - 1 for step in steps if step > round(1.5 * period_ns)]
    assert facts.lost_rows == min(sum(missing), 2**62)
    assert facts.longest_gap_ns == min(max([0, *steps]), 2**63 - 1)


def round_half_up(step: int, period_ns: int) -> int:
    step = min(step, 2**63 - 1)
    return (2 * step + period_ns) // (2 * period_ns)


def test_a_step_of_exactly_the_limit_is_no_gap() -> None:
    t_ns = np.array([0, 15_000_000, 30_000_001])
    assert sequence_facts(t_ns, 10_000_000, 1.5).gaps == 1
    assert sequence_facts(t_ns, None, None).gaps == 0


def test_rate() -> None:
    assert sequence_facts(np.arange(11) * 100_000_000, 100_000_000, 1.5).rate_hz == 10.0
    for few in ([], [5], [5, 5]):
        assert sequence_facts(np.array(few, dtype=np.int64), 1, 1.5).rate_hz is None

"""Joining the messages of a fix, against a plain search."""

from __future__ import annotations

import numpy as np
import pytest

from fleet_assets.formats.mf4_fixes import WINDOW_NS, Fixes, Part

SECOND = 1_000_000_000


@pytest.mark.parametrize("seed", range(20))
def test_fixes_do_not_depend_on_the_batches(seed: int) -> None:
    """However the messages are cut into batches: each is in one fix, the nearest, or counted as unmatched."""
    chance = np.random.default_rng(seed)
    clock = np.sort(chance.choice(np.arange(60), 40, replace=False)) * SECOND
    part = np.sort(chance.choice(np.arange(60), 45, replace=False)) * SECOND + chance.integers(-3, 4, 45) * 200_000_000
    part.sort()

    def run(cuts: list[int]) -> tuple[list[tuple[int, float]], int]:
        fixes, rows, lost = Fixes(), [], 0
        before = -SECOND
        for cut in [*cuts, 100 * SECOND]:
            for name, signal, t_ns in (("gnss_time", "Epoch", clock), ("gnss_speed", "Speed", part)):
                here = t_ns[(t_ns > before) & (t_ns <= cut)]
                if len(here):
                    fixes.add(name, Part(here, {signal: here.astype(float) / 1e9 + 2e9 * (signal == "Epoch")}))
            columns = fixes.advance(cut) if cut != 100 * SECOND else fixes.flush()
            lost += sum(count for count, _ in fixes.take_unmatched().values())
            speed = columns.get("speed_mps", np.full(len(columns["t_host_ns"]), np.nan))
            rows += list(zip(columns["t_host_ns"].tolist(), np.nan_to_num(speed, nan=-9).tolist(), strict=True))
            before = cut
        return rows, lost

    whole, lost = run([])
    assert [t for t, _ in whole] == clock.tolist()
    expected_lost = 0
    left = dict.fromkeys(clock.tolist(), -9.0)
    best: dict[int, int] = {}
    for t in part.tolist():
        near = min(clock.tolist(), key=lambda c: (abs(c - t), c))
        if abs(near - t) > WINDOW_NS:
            expected_lost += 1
            continue
        if near in best:
            expected_lost += 1
        if near not in best or abs(t - near) < abs(best[near] - near):
            best[near] = t
    left |= {c: t / 1e9 for c, t in best.items()}
    assert lost == expected_lost
    assert {c for c, v in whole if v != -9} == set(best)
    for c, v in whole:
        if c in best:
            assert abs(round(v * 1e9) - c) == abs(best[c] - c)
    for cuts in ([10 * SECOND + 1, 20 * SECOND + 7], sorted(chance.integers(0, 60 * SECOND, 30).tolist())):
        assert run(cuts) == (whole, lost)

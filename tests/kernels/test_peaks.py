"""Peaks of a map, against a look at all neighbours."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.kernels.peaks import peaks


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 30))
def test_peaks_are_higher_than_all_around(seed: int, most: int) -> None:
    random = np.random.default_rng(seed)
    heat = random.integers(-4, 4, (3, 2, 6, 7)).astype(np.float32)  # many equal ones
    heat[random.random(heat.shape) < 0.05] = np.nan
    offset = random.random((3, 2, 6, 7), dtype=np.float32)
    frame, class_id, place, logit = peaks(heat, offset, np.float32(-2), most)
    for number in range(3):
        expected = []
        for kind in range(2):
            for row in range(6):
                for column in range(7):
                    value = heat[number, kind, row, column]
                    around = [
                        (heat[number, kind, y, x], (y, x) < (row, column))
                        for y in range(max(row - 1, 0), min(row + 2, 6))
                        for x in range(max(column - 1, 0), min(column + 2, 7))
                        if (y, x) != (row, column)
                    ]
                    if value >= -2 and not any(other > value or (other == value and first) for other, first in around):
                        expected.append((kind, row, column, float(value)))
        best = sorted(range(len(expected)), key=lambda at: (-expected[at][3], at))[:most]
        kept = [expected[at] for at in sorted(best)]
        rows = frame == number
        assert class_id[rows].tolist() == [one[0] for one in kept]
        assert logit[rows].tolist() == [one[3] for one in kept]
        for (_, row, column, _), (x, y) in zip(kept, place[rows], strict=True):
            assert x == pytest.approx(row + offset[number, 0, row, column])
            assert y == pytest.approx(column + offset[number, 1, row, column])

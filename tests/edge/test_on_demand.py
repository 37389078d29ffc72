"""On-demand transforms: a chain on a matrix, as a vehicle and as Feast call it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from fleet_assets.edge.on_demand import Chain, wanted
from fleet_assets.features.on_demand import in_pandas

NAMES = ["stopping", "driving_margin"]


def test_a_chain_takes_what_came_before() -> None:
    chain = Chain(["path_curvature_per_m", "visibility_m", "speed_mps"], NAMES)
    made = chain.apply(np.array([[0.025, 60.0, 8.0], [0.0, 10.0, 20.0]]))
    assert chain.outputs == ["stopping_distance_m", "visibility_margin_m", "curve_speed_margin_mps", "driving_margin"]
    slow, fast = (dict(zip([*chain.inputs, *chain.outputs], row.tolist(), strict=True)) for row in made)
    assert slow["stopping_distance_m"] == pytest.approx(8 * 1.2 + 64 / 8)
    assert slow["visibility_margin_m"] == pytest.approx(60 - slow["stopping_distance_m"])
    assert slow["curve_speed_margin_mps"] == pytest.approx(10 - 8)
    assert slow["driving_margin"] == pytest.approx(0.2)
    assert fast["driving_margin"] < 0


def test_unknown_stays_unknown() -> None:
    chain = Chain(["speed_mps", "visibility_m", "path_curvature_per_m"], NAMES)
    made = chain.apply(np.array([[np.nan, 60.0, 0.0], [8.0, np.nan, 0.0], [8.0, 60.0, np.nan]]))[:, 3:]
    assert np.isnan(made).tolist() == [
        [True, True, True, True],
        [False, True, False, True],
        [False, False, True, True],
    ]


def test_a_missing_input_is_named() -> None:
    with pytest.raises(ValueError, match="driving_margin needs visibility_margin_m"):
        Chain(["speed_mps", "path_curvature_per_m"], ["driving_margin"])


def test_feast_gets_the_same_bits() -> None:
    assert wanted(NAMES) == ["speed_mps", "visibility_m", "path_curvature_per_m"]
    matrix = np.random.default_rng(0).normal(5, 3, (1000, 3))
    frame = pd.DataFrame(matrix, columns=wanted(NAMES))
    made = in_pandas(NAMES, frame)
    assert made.to_numpy().tobytes() == np.ascontiguousarray(Chain(wanted(NAMES), NAMES).apply(matrix)[:, 3:]).tobytes()
    assert made.columns.tolist() == Chain(wanted(NAMES), NAMES).outputs

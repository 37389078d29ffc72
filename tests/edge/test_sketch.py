"""Sketches merge exactly; differences are found where there are some, and not where there are none."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.edge.sketch import Recorder, Sketch, compare
from fleet_assets.errors import FleetError

VALUES = st.lists(st.floats(-1e6, 1e6) | st.just(float("nan")), max_size=60)


@given(VALUES, VALUES, VALUES)
@settings(max_examples=100, deadline=None)
def test_merging_in_parts_is_as_adding_at_once(first: list[float], second: list[float], third: list[float]) -> None:
    edges = Sketch.of(np.arange(-100.0, 100.0))
    whole, parts = edges.like(), edges.like()
    whole.add(np.array(first + second + third))
    for part in (first, second, third):
        one = edges.like()
        one.add(np.array(part))
        parts.merge(one)
    finite = np.array([v for v in first + second + third if not np.isnan(v)])
    assert parts.count == whole.count == finite.size
    assert parts.missing == whole.missing == len(first + second + third) - finite.size
    assert parts.counts.tolist() == whole.counts.tolist()
    assert parts.counts.sum() == parts.count
    if finite.size > 1:
        scale = max(1.0, float(np.abs(finite).max()))
        assert parts.mean == pytest.approx(finite.mean(), abs=1e-9 * scale)
        assert parts.variance == pytest.approx(finite.var(ddof=1), rel=1e-6, abs=1e-9 * scale**2)


def test_bins_hold_equal_shares_and_all_values() -> None:
    sketch = Sketch.of(np.random.default_rng(0).normal(size=3200))
    assert sketch.counts[0] == 0
    assert sketch.counts[1:-1].max() - sketch.counts[1:-1].min() <= 2
    for values in (np.zeros(0), np.full(5, np.nan), np.full(5, 7.0)):
        assert Sketch.from_json(json.loads(json.dumps(Sketch.of(values).to_json()))).count == np.isfinite(values).sum()


def verdicts(training: np.ndarray, seen: np.ndarray) -> dict[str, str]:
    known = Sketch.of(training)
    sketch = known.like()
    sketch.add(seen)
    return {found.measure: found.verdict for found in compare(known, sketch)}


def test_differences_are_told_by_their_size_and_certainty() -> None:
    random = np.random.default_rng(1)
    training = random.normal(size=50_000)
    assert verdicts(training, random.normal(size=20_000)) == {"mean": "same", "shape": "same", "missing": "same"}
    assert verdicts(training, random.normal(0.5, size=20_000))["mean"] == "skewed"
    assert verdicts(training, random.normal(0, 2.0, size=20_000)) == {
        "mean": "same",
        "shape": "skewed",
        "missing": "same",
    }
    holes = np.where(random.random(20_000) < 0.3, np.nan, random.normal(size=20_000))
    assert verdicts(training, holes)["missing"] == "skewed"
    assert verdicts(training, random.normal(size=5))["mean"] == "unclear"
    assert verdicts(training, np.zeros(0)) == {"mean": "unclear", "shape": "unclear", "missing": "unclear"}
    assert verdicts(np.full(100, 3.0), np.full(100, 4.0))["mean"] == "skewed"


def test_intervals_hold_what_they_promise() -> None:
    random = np.random.default_rng(2)
    held = 0
    for _ in range(300):
        training = Sketch.of(random.normal(size=400))
        seen = training.like()
        seen.add(random.normal(0.3, size=400))
        mean = compare(training, seen)[0]
        held += mean.low <= 0.3 <= mean.high
    assert held >= 300 * 0.91  # of 95 %, less four standard deviations


def test_the_recorder_sees_every_row_once() -> None:
    random = np.random.default_rng(3)
    rows = random.normal(size=(1000, 2))
    rows[::10, 1] = np.nan
    training = Sketch.of(rows[:, 0])
    recorder = Recorder(("a", "b", "road"), {"a": training.like(), "b": training.like()}, {"view": "place"})
    for row in rows:
        recorder.add(np.append(row, 1.0))
    said = recorder.to_json()
    assert said["view"] == "place"
    for index, name in enumerate("ab"):
        expected = training.like()
        expected.add(rows[:, index])
        got = Sketch.from_json(said["sketches"][name])
        assert got.counts.tolist() == expected.counts.tolist()
        assert (got.count, got.missing) == (expected.count, expected.missing)


WRONG = [{"counts": [1]}, {"count": 99}, {"mean": None}, {"missing": -1}, {"edges": "x"}, {"squares": float("nan")}]


@pytest.mark.parametrize("change", WRONG)
def test_what_is_no_sketch_is_refused(change: dict) -> None:
    with pytest.raises(FleetError, match="no sketch"):
        Sketch.from_json({**Sketch.of(np.arange(9.0)).to_json(), **change})
    with pytest.raises(FleetError, match="different bins"):
        Sketch.of(np.arange(9.0)).merge(Sketch.of(np.arange(5.0)))

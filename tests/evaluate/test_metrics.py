"""Measures against plain sums, and where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.evaluate.metrics import average_precision, calibration_error, recall_at_precision

found = st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9]), st.booleans()), max_size=30)


def arrays(rows: list[tuple[float, bool]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([row[0] for row in rows], dtype=np.float32), np.array([row[1] for row in rows], dtype=bool)


@given(found, st.integers(0, 5))
@settings(max_examples=200, deadline=None)
def test_average_precision_is_the_plain_sum_over_recalls(rows: list[tuple[float, bool]], missed: int) -> None:
    positives = sum(hit for _, hit in rows) + missed
    confidence, hit = arrays(rows)
    if not positives:
        assert np.isnan(average_precision(confidence, hit, positives))
        return
    points = []
    for threshold in sorted(set(confidence.tolist()), reverse=True):
        kept = hit[confidence >= np.float32(threshold)]
        points.append((kept.sum() / positives, kept.mean()))
    area, before = 0.0, 0.0
    for index, (recall, _) in enumerate(points):
        area += (recall - before) * max(precision for _, precision in points[index:])
        before = recall
    assert average_precision(confidence, hit, positives) == pytest.approx(area)
    best = max((recall for recall, precision in points if precision >= 0.6), default=0.0)
    assert recall_at_precision(confidence, hit, positives, 0.6) == pytest.approx(best)


def test_a_shifted_threshold_and_a_blind_model_differ_at_equal_precision() -> None:
    random = np.random.default_rng(1)
    hit = random.random(4000) < 0.5
    seeing = np.where(hit, random.beta(6, 2, 4000), random.beta(2, 6, 4000))
    shifted, blind = seeing * 0.4, random.random(4000) * 0.4
    at_threshold = [float((one >= 0.5)[hit].mean()) for one in (shifted, blind)]
    assert at_threshold == [0, 0]
    assert recall_at_precision(shifted, hit, 2000, 0.8) > 0.8
    assert recall_at_precision(blind, hit, 2000, 0.8) < 0.1


def test_calibrated_confidences_have_a_small_error() -> None:
    random = np.random.default_rng(2)
    confidence = random.random(20_000)
    honest = random.random(20_000) < confidence
    assert calibration_error(confidence, honest) < 0.02
    assert calibration_error(confidence, random.random(20_000) < confidence / 2) == pytest.approx(0.25, abs=0.02)
    assert np.isnan(calibration_error(confidence[:0], honest[:0]))

"""Measures of detection: what is reported beside the shares that are gated.

In: confidences, hits, numbers of labelled objects. Out: average precision, recall at a fixed precision, calibration error.
"""

from __future__ import annotations

import numpy as np

_BINS = 10  # of confidence, for the calibration error


def average_precision(confidence: np.ndarray, hit: np.ndarray, positives: int) -> float:
    """Area under the curve of precision over recall, precision made monotone (as PASCAL VOC 2010 and COCO do, at every point).

    confidence, hit: [detections]. positives: labelled objects. NaN where there are none.
    """
    if not positives:
        return float("nan")
    recall, precision = _curve(confidence, hit, positives)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def recall_at_precision(confidence: np.ndarray, hit: np.ndarray, positives: int, precision: float) -> float:
    """The largest recall at which precision is at least so high: 0 where it never is, NaN where nothing was labelled.

    A shifted threshold and a blind model have the same recall at the shipped threshold; here they differ.
    """
    if not positives:
        return float("nan")
    recall, reached = _curve(confidence, hit, positives)
    return float(recall[reached >= precision].max(initial=0.0))


def _curve(confidence: np.ndarray, hit: np.ndarray, positives: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision [distinct confidences], threshold falling; precision is the best at this recall or a higher one."""
    order = np.argsort(-confidence, kind="stable")
    last = np.flatnonzero(np.diff(confidence[order], append=np.inf))  # detections of one confidence count together
    true = np.cumsum(hit[order])[last]
    precision = true / (last + 1)
    return true / positives, np.maximum.accumulate(precision[::-1])[::-1]


def calibration_error(confidence: np.ndarray, hit: np.ndarray) -> float:
    """Expected calibration error (Naeini et al., 2015): how far confidences are off the shares of hits, mean over detections.

    Bins hold equally many detections each. NaN without detections.
    """
    if not confidence.size:
        return float("nan")
    order = np.argsort(confidence, kind="stable")
    off = [
        abs(float(confidence[part].mean()) - float(hit[part].mean())) * part.size
        for part in np.array_split(order, _BINS)
        if part.size
    ]
    return sum(off) / confidence.size

"""What a model's scores mean, and from which one on they count.

In: detections of validation drives, and what was there. Out: temperature and shift per class, so that of detections with
confidence p a share p is right; and per class the lowest threshold at which precision is as wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fleet_assets.edge.model import sigmoid
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.kernels.matching import match

RADIUS_M = 2.0  # a detection is of an object whose centre is not further away
PRECISION: Mapping[str, float] = {"vehicle": 0.8, "pedestrian": 0.65, "cyclist": 0.7}
_ITERATIONS = 50


@dataclass(frozen=True)
class Calibration:
    """temperature, shift: float64 [classes]. thresholds_ppm: per class."""

    temperature: np.ndarray
    shift: np.ndarray
    thresholds_ppm: tuple[int, ...]


def hits(found: Objects, truth: Objects) -> np.ndarray:
    """bool [detections]: those of an object."""
    told = match(
        truth.frame, truth.class_id, truth.x_m, truth.y_m, found.frame, found.class_id, found.x_m, found.y_m,
        found.confidence, RADIUS_M,
    )  # fmt: skip
    return np.asarray(told >= 0)


def calibrate(found: Objects, truth: Objects, precision: Mapping[str, float] = PRECISION) -> Calibration:
    """found: with the confidence of uncalibrated logits (temperature 1, shift 0)."""
    hit = hits(found, truth)
    confidence = np.clip(found.confidence.astype(np.float64), 1e-7, 1 - 1e-7)
    logit = np.log(confidence / (1 - confidence))
    temperature, shift, thresholds = np.ones(len(CLASSES)), np.zeros(len(CLASSES)), []
    for class_id, name in enumerate(CLASSES):
        rows = found.class_id == class_id
        slope, shift[class_id] = _platt(logit[rows], hit[rows])
        temperature[class_id] = 1 / slope
        calibrated = sigmoid(logit[rows] * slope + shift[class_id])
        thresholds.append(_threshold_ppm(calibrated, hit[rows], precision[name]))
    return Calibration(temperature, shift, tuple(thresholds))


def _platt(logit: np.ndarray, hit: np.ndarray) -> tuple[float, float]:
    """Slope and shift of the likeliest sigmoid, by Newton's method on smoothed targets (Platt, 1999; Lin, Lin and Weng, 2007);
    1 and 0 where there is nothing to learn from."""
    right, wrong = int(hit.sum()), int((~hit).sum())
    if not right or not wrong:
        return 1.0, 0.0
    target = np.where(hit, (right + 1) / (right + 2), 1 / (wrong + 2))
    inputs = np.stack([logit, np.ones_like(logit)], axis=1)
    weights = np.array([1.0, 0.0])
    loss = _surprise(inputs @ weights, target)
    for _ in range(_ITERATIONS):
        share = sigmoid(inputs @ weights)
        gradient = inputs.T @ (share - target)
        curvature = (inputs * (share * (1 - share))[:, None]).T @ inputs + 1e-6 * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        while (after := _surprise(inputs @ (weights - step), target)) > loss and np.abs(step).max() > 1e-9:
            step /= 2
        if np.abs(step).max() <= 1e-9:
            break
        weights, loss = weights - step, after
    return max(float(weights[0]), 0.05), float(weights[1])


def _surprise(logit: np.ndarray, target: np.ndarray) -> float:
    """Cross entropy, summed."""
    return float(np.sum(np.logaddexp(0.0, logit) - target * logit))


def _threshold_ppm(confidence: np.ndarray, hit: np.ndarray, precision: float) -> int:
    """Where precision last is as wanted, from the surest detection down; where it never is, only certainty counts:
    1,000,000."""
    order = np.argsort(-confidence, kind="stable")
    share = np.cumsum(hit[order]) / np.arange(1, order.size + 1)
    reached = np.flatnonzero(share >= precision)
    if not reached.size:
        return 1_000_000
    return int(np.floor(confidence[order[reached[-1]]] * 1e6))

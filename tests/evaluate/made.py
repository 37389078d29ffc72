"""Evidence made of shares: drives by light in turn, objects on a lattice, detections right or wrong by chance."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.evaluate.evidence import NOMINAL, Evidence, Scenario

LIGHTS, WEATHERS, REGIONS = ("day", "dusk", "night"), ("clear", "rain", "fog"), ("munich", "hamburg")
FRAMES, PER_CLASS = 12, 3
SPACING_M = 5.0  # objects are further apart than they are matched
THRESHOLDS_PPM = (500_000, 500_000, 500_000)

Recall = Callable[[str, str], float]  # (class, light) -> share that is found


def evidence(
    drives: int = 90,
    *,
    recall: Recall = lambda class_name, light: 0.9,
    precision: float = 0.9,
    passes: Mapping[str, Recall] | None = None,
    scenarios: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] | None = None,
    seed: int = 0,
) -> Evidence:
    """Of each class, PER_CLASS objects in each of FRAMES frames of each drive. scenarios: (drive, frame of it) -> bool."""
    random = np.random.default_rng(seed)
    drive = np.repeat(np.arange(drives, dtype=np.int32), FRAMES)
    light = np.array(LIGHTS)[np.arange(drives) % len(LIGHTS)][drive]
    weather = np.array(WEATHERS)[random.integers(0, 3, drives)][drive]
    region = np.array(REGIONS)[random.integers(0, 2, drives)][drive]
    count = drive.size * len(CLASSES) * PER_CLASS
    frame = np.repeat(np.arange(drive.size, dtype=np.int32), len(CLASSES) * PER_CLASS)
    place = np.tile(np.arange(len(CLASSES) * PER_CLASS), drive.size)
    x_m, y_m = (2 + SPACING_M * place).astype(np.float32), np.zeros(count, dtype=np.float32)
    truth = Objects(
        frame, (place % len(CLASSES)).astype(np.int8), x_m, y_m, np.ones(count, dtype=np.float32), np.hypot(x_m, y_m),
        random.random(count) < 0.6, np.ones(count, dtype=np.float32),
    )  # fmt: skip
    known = {NOMINAL: recall, **(passes or {})}
    found = {name: _found(truth, light, one, precision, random) for name, one in known.items()}
    return Evidence(
        tuple(f"sim--{number:04d}" for number in range(drives)), drive, np.arange(drive.size, dtype=np.int64) * 100_000_000,
        {"light": light, "weather": weather, "region": region}, truth,
        found, THRESHOLDS_PPM,
        {
            name: Scenario(hashlib.sha256(name.encode()).hexdigest(), holds(drive, np.arange(drive.size) % FRAMES))
            for name, holds in (scenarios or {}).items()
        },
    )  # fmt: skip


def _found(truth: Objects, light: np.ndarray, recall: Recall, precision: float, random: np.random.Generator) -> Objects:
    share = np.array([[recall(name, one) for one in LIGHTS] for name in CLASSES])
    lit = np.array([LIGHTS.index(one) for one in light])[truth.frame]
    rows = np.flatnonzero(random.random(len(truth)) < share[truth.class_id, lit])
    false = rows[random.random(rows.size) < (1 - precision) / precision]
    frame = np.concatenate([truth.frame[rows], truth.frame[false]])
    order = np.argsort(frame, kind="stable")

    def joined(real: np.ndarray, wrong: np.ndarray) -> np.ndarray:
        return np.concatenate([real, wrong])[order]

    return Objects(
        frame[order],
        joined(truth.class_id[rows], truth.class_id[false]),
        joined(truth.x_m[rows] + np.float32(0.3), truth.x_m[false]).astype(np.float32),
        joined(truth.y_m[rows], truth.y_m[false] + np.float32(10)).astype(np.float32),
        random.uniform(0.5, 1, frame.size).astype(np.float32),
    )

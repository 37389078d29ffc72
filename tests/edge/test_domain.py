"""Where a release may be relied on: as its verdict was found, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from edge.test_verdict import verdict

from fleet_assets.edge.domain import Domain
from fleet_assets.edge.objects import CLASSES, Objects
from fleet_assets.evaluate.evidence import NOMINAL, Evidence, matched

CLEAR = {"light": "night", "weather": "clear"}


def at(*places: tuple[str, float]) -> Objects:
    """Objects of a frame, by class and distance."""
    count = len(places)
    x_m = np.array([distance_m for _, distance_m in places], dtype=np.float32)
    kinds = np.array([CLASSES.index(name) for name, _ in places], dtype=np.int8)
    return Objects(np.zeros(count, dtype=np.int32), kinds, x_m, 0 * x_m, np.full(count, 0.9, dtype=np.float32))


def test_slices_outside_the_domain_are_not_relied_on() -> None:
    found = at(("cyclist", 29.9), ("cyclist", 30.0), ("cyclist", 47.9), ("vehicle", 30.0), ("pedestrian", 40.0))
    domain = Domain.of(verdict(), CLEAR)
    assert domain.relied_on
    assert domain.holds(found).tolist() == [True, False, False, True, True]
    domain = Domain.of(verdict(), {**CLEAR, "weather": "fog"})  # in which no pedestrian counts
    assert domain.holds(found).tolist() == [True, False, False, True, False]


def test_what_a_recording_tells_of_its_vehicle_takes_nothing_out_of_what_is_excluded() -> None:
    """Each object has a class and a distance of its own, whatever a logger means by these names."""
    plain = Domain.of(verdict(), {**CLEAR, "weather": "fog"})
    told = Domain.of(verdict(), {**CLEAR, "weather": "fog", "class": "truck", "distance": "12 km", "motion": "hybrid"})
    assert told == plain
    assert not told.holds(at(("pedestrian", 40.0))).any()


def test_nothing_is_relied_on_beyond_the_last_band() -> None:
    assert Domain.of(verdict(), CLEAR).holds(at(("vehicle", 47.9), ("vehicle", 48.0))).tolist() == [True, False]


@pytest.mark.parametrize("conditions", [{"light": "dusk", "weather": "clear"}, {"light": "day"}, {}])
def test_conditions_that_were_not_judged_or_told_leave_nothing(conditions: Mapping[str, str]) -> None:
    domain = Domain.of(verdict(), conditions)
    assert domain.not_judged
    assert not domain.relied_on
    assert not domain.holds(at(("vehicle", 5.0))).any()


def test_a_slice_that_the_vehicle_cannot_tell_may_be_met() -> None:
    domain = Domain({}, ({"class": "vehicle", "motion": "standing"},), (0.0, 48.0))
    assert domain.holds(at(("vehicle", 5.0), ("cyclist", 5.0))).tolist() == [False, True]


def test_the_vehicle_leaves_out_what_evaluation_left_out() -> None:
    """Of detections that are no object: evaluation counts those as false which the vehicle would rely on."""
    random = np.random.default_rng(5)
    kind, x_m, y_m = random.integers(0, 3, 500), random.uniform(0, 48, 500), random.uniform(-24, 24, 500)
    confidence = np.linspace(0.2, 0.8, 500, dtype=np.float32)
    found = Objects(np.zeros(500, np.int32), kind.astype(np.int8), x_m.astype("f4"), y_m.astype("f4"), confidence)
    slices = {name: np.array([value]) for name, value in {**CLEAR, "region": "munich"}.items()}
    evidence = Evidence(
        ("car1",), np.zeros(1, np.int32), np.zeros(1, np.int64), slices, Objects(), {NOMINAL: found}, (0, 0, 0)
    )
    judged = matched(evidence, NOMINAL, radius_m=2, bands_m=verdict().bands_m, excluded=verdict().excluded)
    kept = Domain.of(verdict(), CLEAR).holds(found)
    assert 0 < kept.sum() < kept.size
    assert judged.found_confidence.tolist() == confidence[kept].tolist()

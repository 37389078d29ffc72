"""Two models on the same frames: what differs, and how surely."""

from __future__ import annotations

import pytest
from evaluate.made import evidence
from evaluate.test_gate_file import TEXT, own

from fleet_assets.errors import FleetError
from fleet_assets.evaluate.gate import Judgement
from fleet_assets.evaluate.regression import regression

GATE = own(TEXT[: TEXT.index("rehearsals:")])


def judged(night: float, seed: int = 1) -> Judgement:
    """A fixed seed: the same truth."""
    found = evidence(recall=lambda name, light: night if (name, light) == ("pedestrian", "night") else 0.9, seed=seed)
    return Judgement(GATE, found)


def test_what_got_worse_is_named_with_its_interval() -> None:
    found = {one.name: one for one in regression(judged(0.9), judged(0.4))}
    night = found["pedestrian recall, light=night"]
    assert night.is_worse
    assert night.low < -0.5 < night.high < 0
    assert found["mean average precision"].is_worse
    day = found["pedestrian recall, light=day"]
    assert day.low <= 0 <= day.high


def test_a_model_against_itself_does_not_differ() -> None:
    for one in regression(judged(0.7), judged(0.7)):
        assert (one.difference, one.low, one.high) == (0, 0, 0)
        assert not one.is_worse


def test_other_frames_cannot_be_paired() -> None:
    with pytest.raises(FleetError, match="not judged on the same frames"):
        regression(Judgement(GATE, evidence(drives=30)), judged(0.9))

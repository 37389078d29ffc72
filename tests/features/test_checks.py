"""Differences between groups of drives: what is large, and what is too little to say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from fleet_assets.edge.feed import LIVE
from fleet_assets.features import checks


class Rows:
    """What differences ask of a snapshot: features of drives, one row each."""

    applied = frozenset({checks.OUTPUTS[0]})

    def __init__(self, shift: float, drives: list[str], context: dict[str, list[str | None]] | None = None) -> None:
        random = np.random.default_rng(0)
        self.values = {drive: random.normal(0, 1) + shift * (drive[0] == "b") for drive in drives}
        self.context = context or {}

    def scan(self, table: str, columns: list[str], drives: list[str] | None = None) -> pa.Table:
        drives = list(self.values) if drives is None else drives
        if table == "ingest.context":
            return pa.table({"drive_id": drives, columns[1]: self.context[columns[1]]})
        light = [self.values[drive] if table == "features.scene_context" else None for drive in drives]
        made = {
            name: pa.array(light if name == "ambient_light" else [None] * len(drives), pa.float64())
            for name in columns[1:]
        }
        return pa.table({"drive_id": drives, **made})


def found(shift: float, count: int) -> list[checks.Difference]:
    groups = {"light day": [f"a{n}" for n in range(count)], "light night": [f"b{n}" for n in range(count)]}
    snapshot: Any = Rows(shift, [drive for drives in groups.values() for drive in drives])
    return checks.differences(snapshot, groups)


def test_a_large_difference_is_found() -> None:
    (difference,) = found(3.0, 20)
    assert (difference.view, difference.feature, difference.groups) == (
        "scene_context",
        "ambient_light",
        ("light day", "light night"),
    )
    assert difference.high < -checks.LARGE
    assert difference.large
    assert "differs between light day and light night by -" in str(difference)


def test_a_small_difference_is_none() -> None:
    (difference,) = found(0.2, 20)
    assert not difference.large


def test_few_drives_say_nothing() -> None:
    assert found(3.0, checks.LEAST_DRIVES - 1) == []
    (difference,) = found(1.0, checks.LEAST_DRIVES)
    assert not difference.large  # the interval is wide


def drives_by(letter: str, count: int) -> list[str]:
    return [f"{letter}--2026010{1 + n // 24}T{n % 24:02}0000Z" for n in range(count)]


def test_drift_tells_new_drives_from_earlier_ones() -> None:
    before: Any = Rows(3.0, drives_by("a", 20))
    for shift, found in ((3.0, ["ambient_light"]), (0.0, [])):
        now: Any = Rows(shift, [*drives_by("a", 20), *drives_by("b", 20)])
        drifted = checks.drift(before, now)
        assert [difference.feature for difference in drifted] == found
        assert all(difference.groups == ("earlier drives", "new drives") for difference in drifted)
        assert all(difference.high < -checks.LARGE for difference in drifted)  # the earlier ones are darker
    few: Any = Rows(3.0, [*drives_by("a", 20), *drives_by("b", checks.LEAST_DRIVES - 1)])
    assert checks.drift(before, few) == []
    assert checks.drift(now, now) == []


def test_bias_tells_regions_and_light_apart() -> None:
    drives = [*drives_by("a", 20), *drives_by("b", 20)]
    context: dict[str, list[str | None]] = {
        "region": [*["munich"] * 20, *["hamburg"] * 20],
        "light": [*["day", "night"] * 19, None, None],  # alike in both
    }
    snapshot: Any = Rows(3.0, drives, context)
    (found,) = checks.bias(snapshot, "region")
    assert (found.feature, found.groups) == ("ambient_light", ("region hamburg", "region munich"))
    assert found.low > checks.LARGE
    assert not checks.signed_off(found)
    assert checks.bias(snapshot, "light") == []
    at_night: Any = Rows(3.0, drives, {"light": [*["day"] * 20, *["night"] * 20]})
    (expected,) = checks.bias(at_night, "light")
    assert checks.signed_off(expected)  # it is darker at night, and somebody has said so


def test_the_interval_holds_what_it_says() -> None:
    """Of many samples of a known difference, about nine in ten intervals hold it."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        one = checks._difference("v", "f", ("a", "b"), random.normal(0.8, 1, 15), random.normal(0, 1, 15))
        held += one.low <= 0.8 <= one.high
    assert held / 400 == pytest.approx(0.9, abs=0.05)


def test_sign_offs_are_whole_and_name_features() -> None:
    for entry in checks.sign_offs():
        assert entry["feature"] == "*" or entry["feature"] in LIVE[entry["view"]].FEATURES
    light = checks.Difference("scene_context", "ambient_light", ("light day", "light night"), -3, -4, -2)
    assert checks.signed_off(light)
    region = checks.Difference("scene_context", "ambient_light", ("region a", "region b"), -3, -4, -2)
    assert not checks.signed_off(region)

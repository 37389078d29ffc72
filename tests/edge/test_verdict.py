"""Bounds against scipy and exact sums; statuses; documents that may be anything."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from math import comb
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_assets.edge.verdict import PPM, Cell, Status, Verdict, lower_bound_ppm, upper_bound_ppm
from fleet_assets.errors import FleetError

NIGHT = {"class": "pedestrian", "light": "night"}


def cell(hits: int = 280, positives: int = 400, drives: int = 45, limit_ppm: int = 570_000, **others: Any) -> Cell:
    given = {"design_effect_ppm": 4_200_000, "minimum_drives": 10, "minimum_positives": 60, "slice": NIGHT} | others
    return Cell("recall", positives=positives, hits=hits, drives=drives, limit_ppm=limit_ppm, **given)


def verdict(*cells: Cell, candidates: int = 1) -> Verdict:
    return Verdict(
        profile="demo",
        gate_name="demo",
        gate_sha256="a" * 64,
        level_ppm=50_000,
        candidates_judged=candidates,
        cells=cells or (cell(), cell(hits=300, slice={"class": "pedestrian", "light": "day"})),
        domain={"light": ("day", "night"), "weather": ("clear", "fog")},
        excluded=({"class": "pedestrian", "weather": "fog"}, {"class": "cyclist", "distance": "30-48"}),
        distance_mm=(0, 15_000, 30_000, 48_000),
        bound_to={"artefact_sha256": "b" * 64, "code": "0.1.0"},
    ).recomputed()


# ---- bounds ----------------------------------------------------------------------------------------------------------


@st.composite
def counts(draw: st.DrawFn, most: int) -> tuple[int, int]:
    positives = draw(st.integers(1, most))
    return draw(st.integers(0, positives)), positives


@given(counts(200_000), st.integers(PPM, 20 * PPM), st.integers(50, 500_000))
@settings(max_examples=300, deadline=None)
def test_bounds_are_those_of_scipy(found: tuple[int, int], effect_ppm: int, level_ppm: int) -> None:
    from scipy.stats import beta

    hits, positives = (count * PPM / effect_ppm for count in found)
    bound = lower_bound_ppm(*found, effect_ppm, level_ppm)
    expected = float(beta.ppf(level_ppm / PPM, hits, positives - hits + 1)) if hits else 0.0
    assert bound == pytest.approx(int(expected * PPM), abs=1)
    assert 0 <= bound <= found[0] * PPM // found[1]


@given(counts(40), st.sampled_from([50_000, 25_000, 5_000]))
@settings(max_examples=100, deadline=None)
def test_bounds_are_the_last_ppm_at_which_the_exact_tail_is_rare(found: tuple[int, int], level_ppm: int) -> None:
    hits, positives = found

    def tail(share_ppm: int) -> Fraction:
        p = Fraction(share_ppm, PPM)
        return sum(
            (comb(positives, k) * p**k * (1 - p) ** (positives - k) for k in range(hits, positives + 1)), Fraction()
        )

    bound = lower_bound_ppm(hits, positives, PPM, level_ppm)
    if hits:
        assert tail(bound) < Fraction(level_ppm, PPM)
        assert tail(bound + 1) >= Fraction(level_ppm, PPM) * (1 - Fraction(1, 10**9))
    else:
        assert bound == 0


def test_known_bounds() -> None:
    assert lower_bound_ppm(10, 10, PPM, 50_000) == 741_134  # 0.05 ** (1 / 10)
    assert upper_bound_ppm(0, 10, PPM, 50_000) == PPM - 741_134
    assert lower_bound_ppm(0, 0, PPM, 50_000) == 0
    assert lower_bound_ppm(1, 1, PPM, 5_000) == 4_999  # a tie at the level
    assert lower_bound_ppm(700, 1000, 4 * PPM, 50_000) < lower_bound_ppm(700, 1000, PPM, 50_000) < 700_000
    assert lower_bound_ppm(10_000_000, 10_000_000, PPM, 50_000) == 999_999


@pytest.mark.parametrize(
    "wrong", [(-1, 5, PPM, 50_000), (6, 5, PPM, 50_000), (1, 5, PPM - 1, 50_000), (1, 5, PPM, 0), (1, 5, PPM, PPM)]
)
def test_impossible_counts_are_refused(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(FleetError):
        lower_bound_ppm(*wrong)


# ---- statuses --------------------------------------------------------------------------------------------------------


def test_a_bound_above_the_limit_passes_and_a_share_below_it_fails() -> None:
    assert cell(hits=300).judged(50_000).status is Status.PASS
    assert cell(hits=227).judged(50_000).status is Status.FAIL
    assert cell(hits=400).judged(50_000).estimate_ppm == PPM


def test_what_is_above_the_limit_but_not_surely_so_needs_more_drives() -> None:
    found = cell(hits=250).judged(50_000)
    assert found.status is Status.INSUFFICIENT
    assert found.bound_ppm < found.limit_ppm < found.estimate_ppm

    def with_drives(drives: int) -> Status:  # drives like these
        more = replace(found, drives=drives, positives=400 * drives // 45, hits=250 * drives // 45)
        return more.judged(50_000).status

    assert 45 < found.drives_needed < 450
    assert with_drives(found.drives_needed + 2) is Status.PASS
    assert with_drives(found.drives_needed - 5) is Status.INSUFFICIENT


def test_too_little_evidence_never_passes_and_says_how_much_is_needed() -> None:
    few_drives = cell(hits=400, drives=4).judged(50_000)
    assert (few_drives.status, few_drives.drives_needed) == (Status.INSUFFICIENT, 10)
    few_positives = cell(hits=30, positives=30, drives=15, design_effect_ppm=PPM).judged(50_000)
    assert (few_positives.status, few_positives.drives_needed) == (Status.INSUFFICIENT, 30)
    nothing = cell(hits=0, positives=0, drives=0).judged(50_000)
    assert (nothing.status, nothing.drives_needed) == (Status.INSUFFICIENT, 10)
    at_the_limit = cell(hits=228, positives=400, limit_ppm=570_000).judged(50_000)
    assert (at_the_limit.status, at_the_limit.drives_needed) == (Status.INSUFFICIENT, 0)


def test_one_cell_blocks_the_whole() -> None:
    assert verdict(cell(hits=300)).status is Status.PASS
    assert verdict(cell(hits=300), cell(drives=4)).status is Status.INSUFFICIENT
    found = verdict(cell(hits=300), cell(drives=4), cell(hits=20))
    assert found.status is Status.FAIL
    assert [cell.status for cell in found.blocking] == [Status.INSUFFICIENT, Status.FAIL]


def test_every_further_candidate_makes_it_harder() -> None:
    bounds = [verdict(candidates=count).cells[0].bound_ppm for count in (1, 2, 5, 50)]
    assert bounds == sorted(set(bounds), reverse=True)


# ---- documents -------------------------------------------------------------------------------------------------------


def test_a_document_comes_back_and_has_no_fractions(tmp_path: Path) -> None:
    document = verdict().to_document()
    text = json.dumps(document)
    assert "." not in text.replace("0.1.0", "")
    (tmp_path / "verdict.json").write_text(text)
    found = Verdict.read(tmp_path / "verdict.json")
    assert found == verdict()
    found.check()


@pytest.mark.parametrize("change", [{"status": "PASS"}, {"bound_ppm": 999_999}, {"limit_ppm": 1}, {"drives_needed": 1}])
def test_a_verdict_whose_words_are_not_what_its_counts_say_is_refused(change: dict[str, Any]) -> None:
    document = verdict(cell(hits=20)).to_document()
    document["cells"][0] |= change
    with pytest.raises(FleetError, match=r"pedestrian recall, light=night"):
        Verdict.from_document(document).check()


def damaged(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    document = copy.deepcopy(verdict().to_document())
    change(document)
    return document


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda d: d.pop("cells"), "cells"),
        (lambda d: d.update(cells=[]), "no cells"),
        (lambda d: d.update(cells=[[]] * 600), "at most"),
        (lambda d: d.update(more=1), "more"),
        (lambda d: d.update(version=2), "version"),
        (lambda d: d.update(gate_sha256="A" * 64), "gate_sha256"),
        (lambda d: d.update(level_ppm=0), "level_ppm"),
        (lambda d: d.update(candidates_judged=100_000), "too many candidates"),
        (lambda d: d.update(bound_to={}), "bound_to"),
        (lambda d: d.update(domain={"light": []}), "domain"),
        (lambda d: d.update(domain={"light": [1]}), "domain"),
        (lambda d: d.update(distance_mm=[0]), "distance_mm"),
        (lambda d: d.update(distance_mm=[0, 48.0]), "distance_mm"),
        (lambda d: d.update(distance_mm=[48, 30]), "ascending"),
        (lambda d: d["cells"].append(3), r"cells\[2\]"),
        (lambda d: d["cells"][1].update(hits=401), r"cells\[1\]"),
        (lambda d: d["cells"][1].update(hits=True), "hits"),
        (lambda d: d["cells"][1].update(hits=1.0), "hits"),
        (lambda d: d["cells"][1].update(positives=10**40), "positives"),
        (lambda d: d["cells"][1].update(design_effect_ppm=1), "design_effect_ppm"),
        (lambda d: d["cells"][1].update(status="MAYBE"), "status"),
        (lambda d: d["cells"][1].update(slice={"Class": "x"}), "no name"),
        (lambda d: d["cells"][1].update(slice={"class": "x" * 1000}), "short text"),
        (lambda d: d["cells"][1].update(slice={"class": "x\x1b[2J"}), "short text"),
    ],
)
def test_what_no_gate_writes_is_refused_with_its_place(change: Callable[[dict[str, Any]], object], place: str) -> None:
    with pytest.raises(FleetError, match=place):
        Verdict.from_document(damaged(change))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[" * 100_000, b"null", b'{"_type": 1, "_type": 2}', b"\xff\xfe", b" " * (5 << 20)]
)
def test_files_that_are_no_verdict_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "verdict.json").write_bytes(content)
    with pytest.raises(FleetError):
        Verdict.read(tmp_path / "verdict.json")
    with pytest.raises(FleetError, match="Cannot read"):
        Verdict.read(tmp_path / "none.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_any_value_anywhere_is_read_or_refused(data: st.DataObject) -> None:
    document = verdict().to_document()
    target = data.draw(st.sampled_from([document, document["cells"][0], document["bound_to"], document["excluded"]]))
    key = data.draw(st.sampled_from(range(len(target)) if isinstance(target, list) else sorted(target)))
    target[key] = data.draw(JSON)
    try:
        found = Verdict.from_document(document)
    except FleetError:
        return
    assert Verdict.from_document(found.to_document()) == found
    found.recomputed().check()

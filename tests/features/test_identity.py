"""A feature's identity follows what its kernel means, and a changed kernel without a new version is found."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from fleet_assets.contracts.check import stale_docs
from fleet_assets.contracts.loader import load_tables
from fleet_assets.edge.feed import LIVE
from fleet_assets.edge.identity import identity_of, identity_of_transform
from fleet_assets.features import identity, pages
from fleet_assets.features.define import feature_columns
from fleet_assets.features.registry import definitions
from fleet_assets.kernels.features import ego_motion
from fleet_assets.kernels.features import on_demand as transforms

Change = Callable[[str], str]


def test_every_kernel_is_the_one_that_its_version_stands_for() -> None:
    assert [str(finding) for finding in identity.check()] == []


@pytest.mark.parametrize("view", LIVE)
def test_contracts_hold_what_kernels_make(view: str) -> None:
    beside = ["cell", "lane_cell"] if view == "position" else []  # told from the place
    assert feature_columns(load_tables()[f"features.{view}"]) == [*LIVE[view].FEATURES, *beside]


def changed(tmp_path: Path, change: Change, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """ego_motion with another source, under its own name."""
    assert ego_motion.__file__ is not None
    text = Path(ego_motion.__file__).read_text()
    assert change(text) != text
    path = tmp_path / "ego_motion.py"
    path.write_text(change(text))
    spec = importlib.util.spec_from_file_location(ego_motion.__name__, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, ego_motion.__name__, module)
    spec.loader.exec_module(module)
    return module


MEANING: dict[str, Change] = {
    "a parameter": lambda text: text.replace("TAU_YAW_S = 0.1", "TAU_YAW_S = 0.11"),
    "an operation": lambda text: text.replace("0.5 * (speed + state", "0.5 * (speed - state"),
    "an order of operations": lambda text: text.replace(
        "out[_LATERAL] = speed * yaw_rate", "out[_LATERAL] = yaw_rate * speed"
    ),
}
WORDS: dict[str, Change] = {
    "a comment": lambda text: text.replace("# over a longer step nothing is known", "# beyond, nothing is known"),
    "a docstring": lambda text: text.replace('"""Ego motion:', '"""Motion:'),
    "layout": lambda text: text.replace("def _fresh", "\n\ndef _fresh"),
}


@pytest.mark.parametrize("change", MEANING.values(), ids=MEANING)
def test_meaning_changes_the_identity(change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity_of(ego_motion, "1.0.0")
    assert identity_of(changed(tmp_path, change, monkeypatch), "1.0.0") != before


@pytest.mark.parametrize("change", WORDS.values(), ids=WORDS)
def test_words_do_not(change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity_of(ego_motion, "1.0.0")
    assert identity_of(changed(tmp_path, change, monkeypatch), "1.0.0") == before


def test_contract_and_parameters_belong_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = identity_of(ego_motion, "1.0.0")
    assert identity_of(ego_motion, "2.0.0") != before
    monkeypatch.setattr(ego_motion, "STALE_NS", 2)
    assert identity_of(ego_motion, "1.0.0") != before


def test_a_changed_kernel_needs_a_new_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = tmp_path / "identities.json"
    written.write_bytes(identity.PATH.read_bytes())
    monkeypatch.setattr(identity, "PATH", written)
    identity.identities.cache_clear()
    try:
        module = changed(tmp_path, MEANING["a parameter"], monkeypatch)
        monkeypatch.setattr(identity, "KERNELS", {**identity.KERNELS, "ego_motion": module})
        (finding,) = identity.check()
        assert "ego_motion has changed and is still version 2" in str(finding)
        with pytest.raises(type(finding), match="has changed"):
            identity.record()
        monkeypatch.setattr(module, "VERSION", 3)
        assert [line.split(":")[0] for line in identity.record()] == ["ego_motion version 3"]
        assert identity.check() == []
        assert set(identity.recorded()["ego_motion"]) == {"1", "2", "3"}
    finally:
        identity.identities.cache_clear()


@pytest.mark.parametrize("name", ["stopping", "driving_margin"])
def test_a_transform_has_an_identity_of_its_own(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert transforms.__file__ is not None
    before, text = identity.identities(), Path(transforms.__file__).read_text()
    copy = tmp_path / "on_demand.py"
    monkeypatch.setattr(transforms, "__file__", str(copy))
    for change, changed_ones in (
        (lambda text: text.replace("visibility - distance", "visibility - 2.0 * distance"), {"stopping"}),
        (lambda text: text.replace("spare / allowed", "0.5 * spare / allowed"), {"driving_margin"}),
        (lambda text: text.replace("LATERAL_MPS2 = 2.5", "LATERAL_MPS2 = 2.0"), {"stopping", "driving_margin"}),
        (lambda text: text.replace("# Straight on,", "# Straight,"), set()),
    ):
        assert change(text) != text
        copy.write_text(change(text))
        now = identity_of_transform(transforms.ON_DEMAND[name])
        assert (now != before[name]) == (name in changed_ones)


def test_modules_of_the_callers_own_do_not_hide_the_definitions(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = ModuleType("services")
    monkeypatch.setitem(sys.modules, "services", theirs)
    assert [service.name for service in definitions().feature_services]
    assert sys.modules["services"] is theirs


def test_pages_of_views_are_current() -> None:
    assert stale_docs(pages.FOLDER, pages.pages) == [], "run `fleet features docs`"


def test_a_page_says_what_a_view_is() -> None:
    found = pages.pages()
    repo = definitions()
    names = {view.name for view in (*repo.feature_views, *repo.on_demand_feature_views)}
    assert set(found) == {"README.md", *(f"{name}.md" for name in names)}
    for view in repo.feature_views:
        page = found[f"{view.name}.md"]
        assert all(f"`{field.name}`" in page and field.description in page for field in view.features)
        assert view.owner in page
        assert identity.identities().get(view.batch_source.table.split(".")[1], "that of its contract") in page
    assert "90 days" in found["place_context.md"]
    assert "| sharp | noisy | 0.02 | 99 % |" in found["lane_curvature.md"]

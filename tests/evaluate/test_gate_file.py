"""Gate files: mistakes are named; what is looser than before needs a name."""

from __future__ import annotations

from pathlib import Path

import pytest

from fleet_assets.contracts.document import ContractError
from fleet_assets.curate.scenarios import load_scenarios, scenario_slices
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.gate_diff import differences, refuse_unapproved
from fleet_assets.evaluate.gate_file import GATES, Gate, gate_path, load_gate, parse_gate

TEXT = """\
name: own
version: 1.0.0
profile: full
description: For tests.
level: 0.05
match_radius_m: 2
equal_precision: 0.6
distance_m: [0, 15, 30, 48]
minimum: {drives: 10, positives: 60}
domain:
  light: [day, dusk, night]
  weather: [clear, rain]
  region: [munich, hamburg]
outside:
- slice: {class: pedestrian, distance: 30-48}
  why: Too far.
limits:
- {metric: recall, where: {class: pedestrian, light: each}, limit: 0.57}
- {metric: recall, where: {class: pedestrian, light: night, distance: each}, limit: 0.5}
- {metric: recall, where: {class: [vehicle, cyclist], motion: each}, limit: 0.7}
- {metric: precision, where: {class: each, weather: [clear]}, limit: 0.55, minimum: {drives: 12, positives: 100}}
fairness:
- {metric: recall, where: {class: pedestrian}, between: region, allowance: 0.15}
- {metric: recall, where: {light: night}, between: class, allowance: 0.5}
rehearsals:
- {rehearsal: [camera_missing], metric: recall, where: {class: pedestrian}, limit: 0.3}
"""
FIRST = "- {metric: recall, where: {class: pedestrian, light: each}"

MISTAKES = {
    "no mapping": (TEXT, "- 1", "not a mapping", "top level"),
    "entry missing": ("level: 0.05\n", "", "'level' is missing", "top level"),
    "entry unknown": ("level: 0.05", "level: 0.05\nmore: 1", "'more' is not known", "top level"),
    "level": ("level: 0.05", "level: 5", "5 is no share", "level"),
    "level too fine": ("level: 0.05", "level: 0.00000001", "no share", "level"),
    "profile": ("profile: full", "profile: Full!", "'Full!' does not fit", "profile"),
    "fine bands": ("[0, 15, 30, 48]", "[0, 15.0001]", "fractions of a millimetre", "distance_m"),
    "bands": ("[0, 15, 30, 48]", "[0, 30, 15]", "no bands", "distance_m"),
    "too few drives": ("minimum: {drives: 10", "minimum: {drives: 4", "4 drives and 60 positives are too few", "minimum"),
    "too few positives": ("positives: 60}", "positives: 30}", "too few", "minimum"),
    "domain lacks one": ("  weather: [clear, rain]\n", "", "'weather' is missing", "domain"),
    "value twice": ("[day, dusk, night]", "[day, day]", "one twice", "domain.light"),
    "outside everything": ("slice: {class: pedestrian, distance: 30-48}", "slice: {}", "everything", "outside[0].slice"),
    "outside without why": ("  why: Too far.\n", "", "'why' is missing", "outside[0]"),
    "metric": (FIRST, FIRST.replace("recall", "f1"), "'f1' is not known", "limits[0].metric"),
    "class unknown": (FIRST, FIRST.replace("pedestrian", "dog"), "'dog'", "limits[0].where.class"),
    "class missing": (FIRST, FIRST.replace("class: pedestrian, ", ""), "'class' is missing", "limits[0].where"),
    "value beyond the domain": ("weather: [clear]}", "weather: [fog]}", "'fog'", "limits[3].where.weather[0]"),
    "band unknown": ("distance: each", "distance: 0-20", "'0-20'", "limits[1].where.distance"),
    "precision by motion": ("weather: [clear]}", "motion: moving}", "precision by motion", "limits[3].where.motion"),
    "limit of one": ("limit: 0.57", "limit: 1.0", "no share", "limits[0].limit"),
    "limit twice": ("limit: 0.57}", "limit: 0.57}\n" + FIRST + ", limit: 0.6}", "two limits for pedestrian recall, light=day",
                    "limits"),
    "rehearsal unknown": ("[camera_missing]", "[upside_down]", "'upside_down'", "rehearsals[0].rehearsal[0]"),
    "fair between what is fixed": ("where: {light: night}, between", "where: {class: cyclist}, between", "what is compared",
                                   "fairness[1].where"),
    "scenario without version": (FIRST, FIRST.replace("light: each", "scenario: rain"), "'rain' does not fit",
                                 "limits[0].where.scenario"),
    "each scenario": (FIRST, FIRST.replace("light: each", "scenario: each"), "'each' does not fit", "limits[0].where.scenario"),
    "scenario that nobody has": (FIRST, FIRST.replace("light: each", "scenario: [rain@1.0.0, rain@9.0.0]"),
                                 "there is no scenario rain@9.0.0", "limits[0].where.scenario[1]"),
    "scenario outside": ("slice: {class: pedestrian, distance: 30-48}", "slice: {scenario: rain@1.0.0}",
                         "no vehicle can tell scenario beforehand", "outside[0].slice"),
    "motion outside": ("slice: {class: pedestrian, distance: 30-48}", "slice: {motion: moving}",
                       "no vehicle can tell motion beforehand", "outside[0].slice"),
    "scenario in the domain": ("  weather: [clear, rain]\n", "  weather: [clear]\n  scenario: [rain@1.0.0]\n",
                               "no vehicle can tell scenario beforehand", "domain"),
    "fair between scenarios": ("between: region", "between: scenario", "'scenario' is not known", "fairness[0].between"),
    "fair between one": ("region: [munich, hamburg]", "region: [munich]", "one region only", "fairness[0].between"),
}  # fmt: skip


def own(text: str = TEXT) -> Gate:
    return parse_gate(text, Path("own.yaml"))


def test_gates_that_are_shipped_load_and_ask_for_enough_evidence() -> None:
    gates = {path.stem: load_gate(path) for path in GATES.glob("*.yaml")}
    assert set(gates) == {"demo", "full"}
    for name, gate in gates.items():
        assert gate.name == gate.profile == name
        assert all(limit.minimum.drives >= 10 and limit.minimum.positives >= 60 for limit in gate.limits)
    assert gates["full"].rehearsals
    assert gates["full"].fairness


def test_rules_become_cells() -> None:
    names = [limit.name for limit in own().limits]
    assert names[:5] == [
        "pedestrian recall, light=day", "pedestrian recall, light=dusk", "pedestrian recall, light=night",
        "pedestrian recall, light=night, distance=0-15", "pedestrian recall, light=night, distance=15-30",
    ]  # 30-48 m is outside of the operating domain  # fmt: skip
    assert "cyclist recall, motion=standing" in names
    assert names[-1] == "pedestrian recall, rehearsal=camera_missing"
    assert [fair.slice for fair in own().fairness][:2] == [
        {"class": "pedestrian", "region": "munich"},
        {"class": "pedestrian", "region": "hamburg"},
    ]
    assert len(own().fairness) == 5


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_named(mistake: str) -> None:
    old, new, what, place = MISTAKES[mistake]
    assert old in TEXT
    with pytest.raises(ContractError) as error:
        parse_gate(TEXT.replace(old, new, 1), Path("own.yaml"), scenario_slices())
    assert what in error.value.what
    assert error.value.what.startswith("own.yaml: ")
    assert place in str(error.value.where)
    assert str(error.value.where).startswith("line ")
    assert error.value.remedy


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="no gate 'none'"):
        gate_path("none")
    (tmp_path / "a.yaml").write_bytes(b"\xff")
    with pytest.raises(FleetError, match="not UTF-8"):
        load_gate(tmp_path / "a.yaml")
    (tmp_path / "b.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(FleetError, match="over 1 MiB"):
        load_gate(tmp_path / "b.yaml")


PEDESTRIAN, LIMIT = "pedestrian recall", "class: pedestrian}, limit: 0.3"
LOOSENED = {
    f"{PEDESTRIAN}, light=day: limit 0.57 -> 0.56": ("limit: 0.57", "limit: 0.56"),
    "level 0.05 -> 0.1": ("level: 0.05", "level: 0.1"),
    "match radius 2 m -> 3 m": ("match_radius_m: 2", "match_radius_m: 3"),
    "distance bands 0/15/30/48 -> 15/30/48": ("[0, 15, 30, 48]", "[15, 30, 48]"),
    "vehicle precision, weather=clear: at least 12 drives and 100 positives -> 11 drives and 100 positives":
        ("drives: 12", "drives: 11"),
    "vehicle recall, motion=standing: no longer judged": ("motion: each", "motion: moving"),
    f"{PEDESTRIAN}, rehearsal=camera_missing: no longer judged": (LIMIT, LIMIT.replace("pedestrian", "vehicle")),
    f"{PEDESTRIAN}, region=munich, against others by region: allowance 0.15 -> 0.2": ("allowance: 0.15", "allowance: 0.2"),
    f"{PEDESTRIAN}, light=dusk: no longer judged": ("[day, dusk, night]", "[day, night]"),
    "light=dusk: left the operating domain": ("[day, dusk, night]", "[day, night]"),
    "class=pedestrian, distance=15-30: left the operating domain":
        ("{class: pedestrian, distance: 30-48}", "{class: pedestrian, distance: 15-30}"),
}  # fmt: skip


@pytest.mark.parametrize("text", LOOSENED)
def test_what_is_looser_is_refused_until_somebody_put_their_name_to_it(text: str) -> None:
    looser = TEXT.replace(*LOOSENED[text])
    loosened = [change.text for change in differences(own(), own(looser)) if change.loosens]
    assert text in loosened
    with pytest.raises(FleetError, match="nobody approved it"):
        refuse_unapproved(own(), own(looser))

    approvals = "\n".join(f"- {{loosened: '{one}', by: Ada Example, why: A reason.}}" for one in loosened)
    approved = own(f"{looser}approvals:\n{approvals}\n")
    changes = refuse_unapproved(own(), approved)
    assert {change.approval.by for change in changes if change.approval} == {"Ada Example"}
    with pytest.raises(FleetError, match="Ada Example cannot approve"):
        refuse_unapproved(own(), approved, approvers=["Grace Example"])


def test_a_scenario_that_is_gone_or_of_another_version_is_a_loosening() -> None:
    rule = "- {metric: recall, where: {class: pedestrian, scenario: rain@1.0.0}, limit: 0.5}\nfairness:"
    with_it = own(TEXT.replace("fairness:", rule))
    assert with_it.scenarios == ("rain@1.0.0",)
    later = own(with_it.text.replace("rain@1.0.0", "rain@1.1.0"))
    gone = "pedestrian recall, scenario=rain@1.0.0: no longer judged"
    assert [change.text for change in differences(with_it, own()) if change.loosens] == [gone]
    assert [(change.text, change.loosens) for change in differences(with_it, later)] == [
        (gone, True), ("pedestrian recall, scenario=rain@1.1.0: limit 0.5, new", False),
    ]  # fmt: skip
    with pytest.raises(FleetError, match="nobody approved it"):
        refuse_unapproved(with_it, later)


def test_cells_by_scenario_follow_from_the_file_alone() -> None:
    """Also where the scenario is gone, so that a verdict of earlier can be judged anew; whoever judges now is told."""
    rule = "- {metric: recall, where: {class: each, scenario: was_once@3.0.0}, limit: 0.5}\nfairness:"
    gate = own(TEXT.replace("fairness:", rule))
    assert [limit.name for limit in gate.limits if "scenario" in limit.slice] == [
        f"{name} recall, scenario=was_once@3.0.0" for name in ("vehicle", "pedestrian", "cyclist")
    ]
    with pytest.raises(ContractError, match="there is no scenario was_once"):
        parse_gate(gate.text, Path("own.yaml"), scenario_slices())
    for name, one in load_scenarios().items():
        text = gate.text.replace("was_once@3.0.0", f"{name}@{one.version}")
        assert parse_gate(text, Path("own.yaml"), scenario_slices()).scenarios == (one.slice,)


def test_what_is_stricter_needs_no_name() -> None:
    stricter = own(TEXT.replace("limit: 0.57", "limit: 0.6").replace("level: 0.05", "level: 0.01"))
    assert {change.loosens for change in refuse_unapproved(own(), stricter)} == {False}
    assert refuse_unapproved(own(), own(TEXT + "# more\n")) == []
    assert own(TEXT + "# more\n").sha256 != own().sha256


def test_an_approval_is_for_one_change_only() -> None:
    """The next loosening of the same cell has other numbers."""
    approval = (
        f"approvals:\n- {{loosened: '{PEDESTRIAN}, light=day: limit 0.57 -> 0.56', by: Ada Example, why: A reason.}}\n"
    )
    with pytest.raises(FleetError, match=r"0\.57 -> 0\.55"):
        refuse_unapproved(own(), own(TEXT.replace("limit: 0.57", "limit: 0.55") + approval))

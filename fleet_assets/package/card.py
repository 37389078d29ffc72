"""The model card of a release.

In: verdict and evidence record. Out: a Markdown page that travels with the release.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fleet_assets.edge.verdict import PPM, Verdict
from fleet_assets.evaluate.table import markdown, verdict_rows

_TITLES = {
    "purpose": "Purpose",
    "affected_functions": "Functions",
    "target_vehicles": "For",
    "execution_conditions": "Installation",
}


def model_card(verdict: Verdict, evidence: Mapping[str, Any]) -> str:
    """A page of Markdown."""
    return "\n".join(_lines(verdict, evidence)) + "\n"


def _lines(verdict: Verdict, evidence: Mapping[str, Any]) -> Iterator[str]:
    said, source = evidence["un_r156"], evidence["provenance"]
    yield "# Model card"
    for key, title in _TITLES.items():
        yield f"\n**{title}.** {said[key]}"
    splits = ", ".join(f"{len(drives)} {split}" for split, drives in source["drives"].items())
    yield f"\n**Data.** Dataset {source['dataset']} at lake commit `{source['dataset_commit']}`; drives: {splits}."
    features = source["features"]
    yield f"\n**Features.** {features['service']} at lake commit `{features['lakefs_commit']}`."
    yield f"\n**Training.** {_pairs(source['training'])}. **Code.** {_pairs(source['code'])}."
    yield f"\n## Verdict: {verdict.status}\n"
    yield f"Gate {verdict.gate_name}, profile {verdict.profile}; one-sided bounds at {(PPM - verdict.cell_level_ppm) / PPM:.3f}."
    yield ""
    yield markdown(verdict_rows(verdict))
    yield "\n## Outside the operating domain\n"
    yield (
        "Nothing is claimed there, and a vehicle must not rely on the model:"
        if verdict.excluded
        else "Nothing is excluded."
    )
    yield from (f"- {_pairs(slice_)}" for slice_ in verdict.excluded)


def _pairs(values: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())

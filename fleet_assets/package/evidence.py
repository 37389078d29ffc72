"""The evidence record of a release: what UN Regulation No. 156 (7.1.2) asks for each software update, and where it comes from.

In: provenance, verdict, feature bundle, what people state (`policy`). Out: a JSON object, and the fields of it that are empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from fleet_assets.edge.verdict import Verdict

TYPE, VERSION = "evidence", 1


@dataclass(frozen=True)
class Provenance:
    """Where a model comes from. dataset: its name; dataset_commit: of the lake. drives: all that it was trained or judged on, by
    split. code: version, and commit if it is known. training: run, form, seed and so on, as texts."""

    dataset: str
    dataset_commit: str
    drives: Mapping[str, tuple[str, ...]]
    code: Mapping[str, str]
    training: Mapping[str, str]


def evidence_record(
    *,
    statements: Mapping[str, str],
    provenance: Provenance,
    verdict: Verdict,
    bundle: Mapping[str, Any],
    hardware: str,
    runtime: Mapping[str, Any],
    integrity: Mapping[str, str],
) -> dict[str, Any]:
    """bundle: the signed content of the feature bundle's manifest. integrity: file -> sha256."""
    counted = [
        {
            "cell": cell.name,
            "hits": cell.hits,
            "positives": cell.positives,
            "drives": cell.drives,
            "bound_ppm": cell.bound_ppm,
        }
        for cell in verdict.cells
    ]
    return {
        "_type": TYPE,
        "version": VERSION,
        "un_r156": {
            **statements,
            "software_identification": dict(verdict.bound_to),
            "integrity_validation_data": dict(integrity),
            "compatible_configurations": {"hardware": hardware, **runtime},
            "verification_and_validation": {
                "status": str(verdict.status),
                "profile": verdict.profile,
                "gate": verdict.gate_name,
                "gate_sha256": verdict.gate_sha256,
                "cells": counted,
            },
        },
        "provenance": {
            **asdict(provenance),
            "drives": {split: list(drives) for split, drives in provenance.drives.items()},
            "features": {
                key: bundle[key] for key in ("service", "lakefs_commit", "delta_versions", "views", "kernels")
            },
        },
    }


def empty_fields(record: Mapping[str, Any]) -> list[str]:
    """Names of fields that say nothing; such a record holds no release up to an audit."""
    return list(_empty(record, ""))


def _empty(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _empty(item, f"{place}.{key}".lstrip("."))
    elif value is None or value in ("", [], {}, ()) or (isinstance(value, str) and not value.strip()):
        yield place

"""What a release candidate is made of, found in an installation.

In: the folders of a model and of the record of its evaluation, and the manifest of the dataset. Out: Parts for `candidate`, with
the installation's feature bundle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fleet_assets import __version__
from fleet_assets.edge.payload import read_document
from fleet_assets.features.assets import SERVICE
from fleet_assets.features.service_snapshot import bundle_folder, installation_key
from fleet_assets.package.candidate import Parts
from fleet_assets.package.evidence import Provenance
from fleet_assets.services.home import Home


def gather(home: Home, model: Path, evaluation: Path, dataset: Mapping[str, Any]) -> Parts:
    """dataset: the document of its manifest (curate/manifest.py)."""
    versions = read_document(model / "model.json").get("versions")
    return Parts(
        model=model,
        features=bundle_folder(home, SERVICE),
        features_key=installation_key(home).public,
        evaluation=evaluation,
        provenance=provenance_of(dataset, versions if isinstance(versions, dict) else {}),
    )


def provenance_of(dataset: Mapping[str, Any], versions: Mapping[str, Any]) -> Provenance:
    """dataset: as gather. versions: what model.json says of the training, as texts or not."""
    drives: dict[str, tuple[str, ...]] = {}
    for drive in dataset["drives"]:
        split = str(drive["split"])
        drives[split] = (*drives.get(split, ()), str(drive["drive_id"]))
    code = {"version": __version__, **{str(name): str(value) for name, value in dataset["code"].items()}}
    training = {name: value if isinstance(value, str) else json.dumps(value) for name, value in versions.items()}
    return Provenance(str(dataset["name"]), str(dataset["commit_id"]), drives, code, training)

"""The bill of materials of a release: CycloneDX 1.6, with the model's card in it (ML-BOM).

In: verdict, evidence record, hashes, and the packages that run the model. Out: JSON, the same bytes for the same release, valid
by CycloneDX' own schema.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import Any

from fleet_assets.edge.verdict import PPM, Verdict
from fleet_assets.errors import FleetError

RUN_BY = ("cryptography", "mcap", "numba", "numpy", "onnxruntime", "securesystemslib", "tuf")
_NAMESPACE = uuid.UUID("6f5c1a1e-52a0-4c5e-9a34-0d7c5a3b9a51")
_MODEL, _DATA, _FEATURES = "model", "dataset", "features"


def bill_of_materials(verdict: Verdict, evidence: Mapping[str, Any], model_sha256: str) -> bytes:
    """model_sha256: of the network's file. Raises FleetError if the schema refuses the result."""
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6

    source = evidence["provenance"]
    identity = json.dumps(verdict.to_document(), sort_keys=True) + model_sha256
    release = Component(name="release", type=ComponentType.FIRMWARE, bom_ref="release")
    model = Component(
        name="perception", type=ComponentType.MACHINE_LEARNING_MODEL, bom_ref=_MODEL, version=model_sha256[:12],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model_sha256)],
    )  # fmt: skip
    data = Component(name=source["dataset"], type=ComponentType.DATA, bom_ref=_DATA, version=source["dataset_commit"])
    features = source["features"]
    bundle = Component(
        name=features["service"], type=ComponentType.DATA, bom_ref=_FEATURES, version=features["lakefs_commit"]
    )
    code = Component(
        name="fleet-assets", type=ComponentType.APPLICATION, bom_ref="code", version=source["code"].get("version")
    )
    libraries = [
        Component(name=name, type=ComponentType.LIBRARY, bom_ref=name, version=metadata.version(name))
        for name in RUN_BY
    ]
    bom = Bom(serial_number=uuid.uuid5(_NAMESPACE, identity), metadata=BomMetaData(component=release))
    for component in (model, data, bundle, code, *libraries):
        bom.components.add(component)
    bom.register_dependency(release, [model, bundle, code])
    bom.register_dependency(model, [data, bundle])
    bom.register_dependency(code, libraries)
    document = json.loads(JsonV1Dot6(bom).output_as_string())
    del document["metadata"]["timestamp"]  # the same release has the same bytes
    for component in document["components"]:
        if component["bom-ref"] == _MODEL:
            component["modelCard"] = _model_card(verdict, evidence)
    return _valid(document)


def _model_card(verdict: Verdict, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """CycloneDX' model card; the library does not write it yet."""
    metrics = [
        {
            "type": cell.metric,
            "value": f"{cell.estimate_ppm / PPM:.6f}",
            "slice": _slice(cell.slice),
            "confidenceInterval": {"lowerBound": f"{cell.bound_ppm / PPM:.6f}"},
        }
        for cell in verdict.cells
    ]
    said = evidence["un_r156"]
    return {
        "modelParameters": {"task": "object detection", "datasets": [{"ref": _DATA}]},
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {
            "useCases": [said["purpose"]],
            "technicalLimitations": [f"not to be relied on: {_slice(slice_)}" for slice_ in verdict.excluded],
        },
    }


def _slice(slice_: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in slice_.items())


def _valid(document: Mapping[str, Any]) -> bytes:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = json.dumps(document, sort_keys=True, indent=1)
    found = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    errors: Iterable[Any] = found if isinstance(found, list) else [found] if found else []
    for error in errors:
        raise FleetError("The bill of materials is not valid", where=str(error)[:200], remedy="Report it.")
    return text.encode()

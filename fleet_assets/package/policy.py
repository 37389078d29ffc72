"""What releases need and what people say about them: a versioned contract file.

In: `contracts/policies/release.yaml`. Out: ReleasePolicy. A mistake is a ContractError with file, line, place and remedy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import fleet_assets.contracts
from fleet_assets.contracts.document import Node, read_document
from fleet_assets.edge.payload import HARDWARE
from fleet_assets.errors import FleetError

PATH = Path(fleet_assets.contracts.__file__).parent / "policies" / "release.yaml"
# What people say for UN R156, 7.1.2; the rest of the record is measured. See `evidence`.
STATEMENTS = (
    "rxswin", "purpose", "target_vehicles", "affected_functions", "type_approved_systems", "effect_on_type_approval",
    "approval_sought", "execution_conditions", "safe_and_secure", "driver_information",
)  # fmt: skip
_LIMITS = ("memory_mb", "seconds", "frame_ms")  # of the trial (edge/trial.py)


@dataclass(frozen=True)
class ReleasePolicy:
    """hardware: class -> limits of the trial on a vehicle. statements: by STATEMENTS."""

    version: str
    hardware: Mapping[str, Mapping[str, Any]]
    statements: Mapping[str, str]

    def runtime(self, hardware: str) -> dict[str, Any]:
        """What a vehicle of the class must have. Raises FleetError for a class that is not known."""
        if hardware not in self.hardware:
            raise FleetError(
                f"{hardware!r} is no hardware class", remedy=f"Classes are {', '.join(self.hardware)}; see {PATH.name}."
            )
        major, minor = metadata.version("onnxruntime").split(".")[:2]
        return {**self.hardware[hardware], "onnxruntime": f"{major}.{minor}"}


@lru_cache(maxsize=4)
def load_release_policy(path: Path = PATH) -> ReleasePolicy:
    """Reads and checks the policy. Raises ContractError; statements may be empty here, for the record of a release finds that."""
    document = read_document(path)
    document.only(("version", "description", "hardware", "statements"))
    document["statements"].only(STATEMENTS)
    return ReleasePolicy(
        document["version"].text,
        {name: _hardware(name, document["hardware"][name]) for name in document["hardware"].of(dict)},
        {name: document["statements"][name].of(str) for name in STATEMENTS},
    )


def _hardware(name: str, node: Node) -> dict[str, Any]:
    node.only(("machine", *_LIMITS))
    if not HARDWARE.fullmatch(name):
        raise node.error(f"{name!r} is no name of a class", "Take small letters, digits, - and _.")
    limits = {key: int(node[key].positive) for key in _LIMITS}
    return {"machine": node["machine"].text, **limits}

"""What a feature is: the kernel that computes it, to the letter (edge/identity.py says what that means).

In: the kernels and the contracts of the tables that hold their features. Out: identities, and what rows were made by.

`identities.json` keeps the identity of every version that ever was. A kernel that changes without a new VERSION is found by
`check`, which a test runs; `fleet features history --record` writes new versions down.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from fleet_assets.contracts.loader import load_tables
from fleet_assets.edge.feed import LIVE
from fleet_assets.edge.identity import identity_of, identity_of_transform, path_of_transform
from fleet_assets.errors import FleetError
from fleet_assets.features import places
from fleet_assets.kernels.features import lane_curvature
from fleet_assets.kernels.features.on_demand import ON_DEMAND

# What makes tables: the live kernels, visits and history of places, and what is made ahead for all lanes.
PLACES = ("place_visits", "place_context")
KERNELS: Mapping[str, ModuleType] = {**LIVE, **dict.fromkeys(PLACES, places), "lane_curvature": lane_curvature}
PATH = Path(__file__).with_name("identities.json")
REPO = Path(__file__).parents[2] / "feature_repo"


@lru_cache(maxsize=1)
def identities() -> Mapping[str, str]:
    """Identity of every table that a kernel makes, and of every on-demand transform, as the code is now."""
    tables = {name: identity_of(kernel, load_tables()[f"features.{name}"].version) for name, kernel in KERNELS.items()}
    return tables | {name: identity_of_transform(transform) for name, transform in ON_DEMAND.items()}


def versions() -> dict[str, int]:
    """Version of each of them, by name."""
    made = {name: transform.version for name, transform in ON_DEMAND.items()}
    return made | {name: kernel.VERSION for name, kernel in KERNELS.items()}


def in_bundle(name: str) -> dict[str, str]:
    """What a bundle says of the kernel of a table or an on-demand transform."""
    if name in ON_DEMAND:
        return {"feature": name, "kernel": path_of_transform(ON_DEMAND[name]), "identity": identities()[name]}
    version = load_tables()[f"features.{name}"].version
    return {"feature": name, "kernel": KERNELS[name].__name__, "identity": identities()[name], "contract": version}


def code_version(views: Iterable[str]) -> str:
    """What rows of these views are made by, for lake.versions: `<view>@v<version>:<identity>`, joined by spaces."""
    return " ".join(f"{view}@v{versions()[view]}:{identities()[view]}" for view in sorted(views))


def code_version_of_drives() -> str:
    """Of the rows of a drive: live features, and visits of places."""
    return code_version([*LIVE, "place_visits"])


def repo_hash() -> str:
    """sha256 of the definitions, 16 digits: the code version of what is made from them."""
    digest = hashlib.sha256()
    for path in sorted(REPO.rglob("*")):
        if path.suffix in (".py", ".yaml"):
            digest.update(path.relative_to(REPO).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def recorded() -> dict[str, dict[str, str]]:
    """View -> version -> identity, as written down."""
    found: dict[str, dict[str, str]] = json.loads(PATH.read_text())
    return found


def check() -> list[FleetError]:
    """Views whose kernel is not the one that their version stands for."""
    known = recorded()
    findings = []
    for view, identity in identities().items():
        version = str(versions()[view])
        written = known.get(view, {}).get(version)
        if written is None:
            remedy = "Run `fleet features history --record`."
            findings.append(FleetError(f"{view} version {version} is not written down", where=PATH.name, remedy=remedy))
        elif written != identity:
            findings.append(
                FleetError(
                    f"{view} has changed and is still version {version}",
                    where=f"{identity}, written down {written}",
                    remedy="Raise its VERSION, then run `fleet features history --record`; or take the change back.",
                )
            )
    return findings


def record() -> list[str]:
    """Writes new versions down; what is written is never changed. Raises FleetError where a version would change."""
    changed = [finding for finding in check() if "has changed" in finding.what]
    if changed:
        raise changed[0]
    known = recorded()
    added = []
    for view, identity in identities().items():
        version = str(versions()[view])
        if version not in known.setdefault(view, {}):
            known[view][version] = identity
            added.append(f"{view} version {version}: {identity}")
    PATH.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n")
    return added

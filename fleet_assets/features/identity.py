"""What a feature is: the kernel that computes it, to the letter.

In: a kernel module and the contract of the table that holds its features. Out: the identity, a hexadecimal string: import path,
what the source means (its own and that of every kernel module it imports), parameters and contract. It changes with any of
them, and with nothing else: not with comments, layout or docstrings.

`identities.json` keeps the identity of every version that ever was. A kernel that changes without a new VERSION is found by
`check`, which a test runs; `fleet features history --record` writes new versions down.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fleet_assets.contracts.loader import load_tables
from fleet_assets.edge.feed import LIVE
from fleet_assets.errors import FleetError
from fleet_assets.features import places
from fleet_assets.kernels.features import lane_curvature
from fleet_assets.kernels.features import on_demand as transforms
from fleet_assets.kernels.features.on_demand import ON_DEMAND, OnDemand

# What makes tables: the live kernels, visits and history of places, and what is made ahead for all lanes.
PLACES = ("place_visits", "place_context")
KERNELS: Mapping[str, ModuleType] = {**LIVE, **dict.fromkeys(PLACES, places), "lane_curvature": lane_curvature}
PATH = Path(__file__).with_name("identities.json")
REPO = Path(__file__).parents[2] / "feature_repo"
_KERNELS = "fleet_assets.kernels"


def identity_of(kernel: ModuleType, contract_version: str) -> str:
    """32 hexadecimal digits."""
    parts = [
        kernel.__name__,
        {name: _meaning(importlib.import_module(name)) for name in sorted(_modules(kernel))},
        _parameters(kernel),
        contract_version,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@lru_cache(maxsize=1)
def identities() -> Mapping[str, str]:
    """Identity of every table that a kernel makes, and of every on-demand transform, as the code is now."""
    tables = {name: identity_of(kernel, load_tables()[f"features.{name}"].version) for name, kernel in KERNELS.items()}
    return tables | {name: _of_transform(transform) for name, transform in ON_DEMAND.items()}


def versions() -> dict[str, int]:
    """Version of each of them, by name."""
    made = {name: transform.version for name, transform in ON_DEMAND.items()}
    return made | {name: kernel.VERSION for name, kernel in KERNELS.items()}


def _of_transform(transform: OnDemand) -> str:
    """As identity_of: of its module, without the other transforms."""
    tree = _plain_tree(transforms)
    others = ON_DEMAND.keys() - {transform.name}
    tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name in others)]
    parts = [f"{transforms.__name__}.{transform.name}", ast.dump(tree)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


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


def _modules(kernel: ModuleType) -> set[str]:
    """The kernel's module and all kernel modules that it is made of."""
    found: set[str] = set()
    waiting = [kernel.__name__]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imported(importlib.import_module(name))
    return found


def _imported(module: ModuleType) -> list[str]:
    names = []
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(_KERNELS):
            source = importlib.import_module(node.module)
            inside = {alias.name for alias in node.names if isinstance(getattr(source, alias.name), ModuleType)}
            names += [f"{node.module}.{name}" for name in sorted(inside)]
            if len(inside) < len(node.names):
                names.append(node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith(_KERNELS)]
    return names


def _tree(module: ModuleType) -> ast.Module:
    assert module.__file__ is not None  # noqa: S101 - a kernel comes from a file
    return ast.parse(Path(module.__file__).read_text())


def _meaning(module: ModuleType) -> str:
    return ast.dump(_plain_tree(module))


def _plain_tree(module: ModuleType) -> ast.Module:
    """Without docstrings."""
    tree = _tree(module)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return tree


def _parameters(kernel: ModuleType) -> dict[str, Any]:
    """Constants of the module as they are when it runs, wherever they come from."""
    found: dict[str, Any] = {}
    for name, value in sorted(vars(kernel).items()):
        if name.isupper() and name != "VERSION":
            found[name] = repr(value.descr if isinstance(value, np.dtype) else value)
    return found

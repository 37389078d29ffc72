"""What a kernel is, to the letter; and whether a vehicle has the kernels that its bundle names.

In: a kernel, as this installation would run it. Out: its identity, 32 hexadecimal digits: import path, what the source means (its
own and that of every kernel module it imports), parameters, and the contract of the table that holds its features. It changes
with any of them, and with nothing else: not with comments, layout or docstrings.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from fleet_assets.edge.feed import LIVE
from fleet_assets.errors import FleetError
from fleet_assets.kernels.features import on_demand as transforms
from fleet_assets.kernels.features.on_demand import ON_DEMAND, OnDemand

_KERNELS = "fleet_assets.kernels"


def identity_of(kernel: ModuleType, contract_version: str) -> str:
    """Of a module that makes the features of a table."""
    parts = [
        kernel.__name__,
        {name: _meaning(importlib.import_module(name)) for name in sorted(_modules(kernel))},
        _parameters(kernel),
        contract_version,
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def identity_of_transform(transform: OnDemand) -> str:
    """Of an on-demand transform: its module, without the other transforms."""
    tree = _plain_tree(transforms)
    others = ON_DEMAND.keys() - {transform.name}
    tree.body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name in others)]
    parts = [path_of_transform(transform), ast.dump(tree)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def path_of_transform(transform: OnDemand) -> str:
    """Where it is imported from."""
    return f"{transforms.__name__}.{transform.name}"


def check_kernels(named: Sequence[Mapping[str, str]], names: Iterable[str]) -> None:
    """Raises FleetError unless the kernels of these names, live views and transforms, are here what a bundle names.

    named: what the bundle's manifest says of its kernels, see edge/bundle.py.
    """
    entries = {entry["feature"]: entry for entry in named}
    for name in names:
        remedy = "Install a bundle and the software of one release."
        entry = entries.get(name)
        if entry is None:
            raise FleetError(f"The bundle does not say which kernel makes {name}", remedy=remedy)
        if name in ON_DEMAND:
            path, own = path_of_transform(ON_DEMAND[name]), identity_of_transform(ON_DEMAND[name])
        elif name in LIVE:
            path, own = LIVE[name].__name__, identity_of(LIVE[name], entry.get("contract", ""))
        else:
            raise FleetError(f"This software has no kernel for {name}, which the bundle names", remedy=remedy)
        if (entry["kernel"], entry["identity"]) != (path, own):
            told = f"{entry['kernel']} {entry['identity']} in the bundle, {path} {own} here"
            raise FleetError(f"{name} is made by another kernel than the bundle's", where=told, remedy=remedy)


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

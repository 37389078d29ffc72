"""The manifest of a dataset: what it is made of, so that it can be made again, and whoever reads it can tell.

In: a document, from here or from the lake. Out: the same as canonical JSON, named by its hash; what differs between two.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fleet_assets.errors import FleetError

FORMAT = 1
_NEEDED: Mapping[str, type] = {
    "format": int, "name": str, "commit_id": str, "recipe": dict, "policies": dict, "contracts": dict, "code": dict,
    "drives": list, "left_out": dict, "clips": dict, "findings": dict,
}  # fmt: skip
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Manifest:
    """document: plain data, as JSON has it. commit_id in it: the commit at which all of its drives were read."""

    document: Mapping[str, Any]

    @cached_property
    def data(self) -> bytes:
        """Canonical: the same document gives the same bytes."""
        return json.dumps(self.document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def path(self) -> str:
        """Where it lies in the lake."""
        return f"datasets/{self.sha256}.json"

    @property
    def name(self) -> str:
        return str(self.document["name"])

    @property
    def commit_id(self) -> str:
        return str(self.document["commit_id"])

    @cached_property
    def drives(self) -> dict[str, Mapping[str, Any]]:
        """Drives in order, each with split, slices, labels, tables (version and rows), clips and frames."""
        return {str(drive["drive_id"]): drive for drive in self.document["drives"]}

    @classmethod
    def read(cls, data: bytes, path: str) -> Manifest:
        """Raises FleetError when the bytes are not those that the path names, or no manifest."""
        found = hashlib.sha256(data).hexdigest()
        if path != f"datasets/{found}.json":
            raise FleetError(
                f"{path} is not what it was", where=f"sha256 {found}", remedy="The lake's storage is damaged."
            )
        try:
            document = json.loads(data)
        except ValueError as error:
            raise FleetError(f"{path} is no JSON", where=str(error)) from error
        if not isinstance(document, dict):
            raise FleetError(f"{path} is no manifest")
        wrong = [name for name, kind in _NEEDED.items() if not isinstance(document.get(name), kind)]
        if wrong or document["format"] != FORMAT:
            raise FleetError(f"{path} is no manifest of format {FORMAT}", where=", ".join(wrong) or "format")
        return cls(document)


def checked_name(name: str) -> str:
    """Raises FleetError for what a dataset cannot be called; its name is part of a tag."""
    if not _NAME.fullmatch(name):
        raise FleetError(
            f"A dataset cannot be called {name!r}", remedy="Use up to 64 lower case letters, digits, - and _."
        )
    return name


def difference(one: Manifest, other: Manifest) -> list[dict[str, Any]]:
    """What is not the same in two datasets: rows of what, in one, in the other."""
    rows = []

    def differ(what: str, left: Any, right: Any) -> None:
        if left != right:
            rows.append({"what": what, one.name: left, other.name: right})

    differ("commit", one.commit_id[:12], other.commit_id[:12])
    for part in ("recipe", "policies", "contracts", "code"):
        left, right = one.document[part], other.document[part]
        for key in sorted({*left, *right}):
            differ(f"{part} {key}", left.get(key), right.get(key))
    for drive in sorted({*one.drives, *other.drives}):
        left, right = one.drives.get(drive), other.drives.get(drive)
        if left is None or right is None:
            differ(f"drive {drive}", _has(left), _has(right))
            continue
        for key in ("split", "clips", "frames", "labels"):
            differ(f"drive {drive}: {key}", left.get(key), right.get(key))
        for table in sorted({*left["tables"], *right["tables"]}):
            versions = [side["tables"].get(table, {}).get("version") for side in (left, right)]
            differ(f"drive {drive}: {table}", *versions)
    return rows


def _has(drive: Mapping[str, Any] | None) -> str:
    return "not in it" if drive is None else str(drive["split"])

"""What a drive's rows were made from, as one short hash.

In: recordings, versions of the inputs, code, contracts, policy. Out: a version. Same version, same content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class DriveVersion:
    """The version of one drive's rows, for all tables of a transaction. inputs: name -> version."""

    version: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    code_version: str = ""


def version_of(
    *, inputs: Mapping[str, str], code_version: str, contracts: Iterable[str], policy: str = ""
) -> DriveVersion:
    """inputs: recording ids or upstream versions by name; contracts: fingerprints; policy: fingerprint."""
    text = json.dumps([sorted(inputs.items()), code_version, sorted(contracts), policy])
    return DriveVersion(hashlib.sha256(text.encode()).hexdigest()[:16], dict(inputs), code_version)

"""The trace of a release, or of what a vehicle reports.

In: the folder of releases. Out: as `edge.trace` says; no server is asked, and the archive is not unpacked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fleet_assets.edge.payload import EVIDENCE, read_document
from fleet_assets.edge.trace import trace
from fleet_assets.errors import FleetError
from fleet_assets.package.releases import Releases, releases_of


def trace_of(releases: Releases, wanted: str) -> dict[str, Any]:
    """wanted: the start of an id, or the file of a vehicle's report. Raises FleetError if no release here is meant."""
    path = Path(wanted)
    if path.is_file():
        found = read_document(path).get("release")
        if not isinstance(found, str):
            raise FleetError(f"{path} names no release", remedy="Take a report: python -m fleet_assets.edge trace")
        wanted = found
    id_ = releases.find(wanted)
    signed = next((targets for targets in releases.history() if id_ in releases_of(targets)), releases.approval(id_))
    approvers = releases.approvers(signed) if signed is not None else {}
    return {
        **trace(id_, releases.document(id_, EVIDENCE), releases.verdict(id_), approvers),
        "state": str(releases.release(id_).state),
    }

"""Recordings of test drives out of the lake, to judge a model on.

In: a snapshot, drives, a folder. Out: per drive its recordings as files, in order of time; copied in pieces, so that memory stays
bounded, and once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fleet_assets.edge.recording import Recording
from fleet_assets.errors import FleetError
from fleet_assets.lake.tables import Snapshot

TABLE = "ingest.recordings"
_PIECE_BYTES = 64 << 20


def fetch_recordings(snapshot: Snapshot, drives: Sequence[str], folder: Path) -> dict[str, list[Path]]:
    """Raises FleetError for a drive without a recording in the lake."""
    folder.mkdir(parents=True, exist_ok=True)
    found: dict[str, list[Path]] = {drive: [] for drive in drives}
    for row in snapshot.scan(TABLE, ["drive_id", "object", "further_objects"], drives=drives).to_pylist():
        for key in (row["object"], *(row["further_objects"] or ())):
            if key:
                found[row["drive_id"]].append(_fetch(snapshot, key, folder))
    lacking = [drive for drive, paths in found.items() if not paths]
    if lacking:
        raise FleetError(
            f"{lacking[0]} has no recording with sensors in the lake",
            where=snapshot.commit_id[:12],
            remedy="Judge on drives that have: what the vehicle would make of the others, nobody can tell.",
        )
    return {drive: sorted(paths, key=_first_arrival_ns) for drive, paths in found.items()}


def _fetch(snapshot: Snapshot, key: str, folder: Path) -> Path:
    """Objects are named by their content: one that is there is the same."""
    repository, path = snapshot.repository, folder / Path(key).name
    size = next((item.bytes for item in repository.list(snapshot.commit_id, key) if item.path == key), 0)
    if path.exists() and path.stat().st_size == size:
        return path
    with open(path, "wb") as file:
        for offset in range(0, size, _PIECE_BYTES):
            length = min(_PIECE_BYTES, size - offset)
            file.write(repository.get_range(snapshot.commit_id, key, offset, length))
    return path


def _first_arrival_ns(path: Path) -> int:
    return next((t_host_ns for *_, t_host_ns in Recording.open(path).messages()), 0)

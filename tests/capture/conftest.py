"""Recordings of a few bytes: delivery and scanning do not care what is in them."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.capture.manifest import NAME, Manifest, ManifestFile

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CONTENT = {"drive.mcap": b"payload", "calibration/front.yaml": b"f: 1"}


def put_files(folder: Path, content: dict[str, bytes]) -> list[ManifestFile]:
    files = []
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
        files.append(ManifestFile(name, len(data), hashlib.sha256(data).hexdigest()))
    return files


def put_recording(folder: Path, content: dict[str, bytes] = CONTENT, vehicle: str = "car7") -> Manifest:
    """A complete recording."""
    manifest = Manifest(DriveKey.of(vehicle, START), tuple(put_files(folder, content)), {})
    manifest.write(folder)
    return manifest


def document(**changes: Any) -> dict[str, Any]:
    """The JSON of a right manifest of one file `a` with the bytes b"a", with changes."""
    file = {"path": "a", "bytes": 1, "sha256": hashlib.sha256(b"a").hexdigest()}
    return {
        "manifest_version": 1,
        "vehicle": "car7",
        "start": "2026-01-02T03:04:05Z",
        "files": [file],
        "context": {},
        **changes,
    }


def put_document(folder: Path, content: Any) -> Path:
    """A folder with the file `a` and this manifest: JSON, or bytes as they are."""
    put_files(folder, {"a": b"a"})
    (folder / NAME).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


@pytest.fixture
def landing(tmp_path: Path) -> Path:
    (tmp_path / "landing").mkdir()
    return tmp_path / "landing"

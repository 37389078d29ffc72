"""Two slots on a vehicle: one holds the release that runs, the other the one before, or the next.

In: a verified archive, and a trial. Out: the release unpacked in the slot that does not run, tried there, and made active in one
step. Whatever happens on the way, power cut included, the active slot stays as it is.

    ROOT/slots/a/payload/, ROOT/slots/a/slot.json    the release, and stamps of its files
    ROOT/slots/b/...
    ROOT/slots/active.json                           {"slot": "a"}
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fleet_assets.edge.payload import Payload, read_document, unpack
from fleet_assets.errors import FleetError
from fleet_assets.signing.files import one_at_a_time, sync_folder, write_durably

NAMES = ("a", "b")
_ACTIVE, _ABOUT, _PAYLOAD = "active.json", "slot.json", "payload"
_REMEDY = "Update from the channel: a release that is whole replaces it."


@dataclass(frozen=True)
class Slot:
    """A release that was verified and tried on this vehicle. folder: its payload. approvers: key id -> holder. fetched: how it
    came: bytes, whether as a delta, and if not, why not."""

    name: str
    release: str
    folder: Path
    manifest: Mapping[str, Any]
    approvers: Mapping[str, str]
    fetched: Mapping[str, Any]


class Slots:
    """root: folder of the slots."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def active(self) -> Slot | None:
        """What runs; None before the first installation. Files whose stamps are not those of the installation are hashed.

        Raises FleetError if the slot was damaged.
        """
        if not (self.root / _ACTIVE).exists():
            return None
        name = read_document(self.root / _ACTIVE).get("slot")
        if name not in NAMES:
            raise FleetError(f"{self.root / _ACTIVE} is damaged", remedy=_REMEDY)
        about = read_document(self.root / str(name) / _ABOUT)
        folder = self.root / str(name) / _PAYLOAD
        if about.get("stamps") == _stamps(folder):
            payload = Payload(folder, read_document(folder / "manifest.json"))
        else:
            payload = Payload.open(folder)
        approvers, fetched = about.get("approvers"), about.get("fetched")
        if not isinstance(approvers, dict) or not isinstance(fetched, dict):
            raise FleetError(f"{self.root / str(name) / _ABOUT} is damaged", remedy=_REMEDY)
        return Slot(str(name), str(about.get("release")), folder, payload.manifest, approvers, fetched)

    def install(
        self,
        archive: Path,
        release: str,
        approvers: Mapping[str, str],
        fetched: Mapping[str, Any],
        trial: Callable[[Payload], None],
    ) -> Slot:
        """Unpacks, tries and activates. approvers, fetched: as a Slot tells them. trial: raises if the release must not run here;
        then nothing changes."""
        with one_at_a_time(self.root):
            self._sweep()
            running = self._running()
            name = next(name for name in NAMES if name != running)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".new-") as scratch:
                new = Path(scratch, "slot")
                new.mkdir(mode=0o700)
                payload = unpack(archive, new / _PAYLOAD)
                trial(payload)
                about = {
                    "release": release, "approvers": dict(approvers), "fetched": dict(fetched), "stamps": _stamps(payload.folder),
                }  # fmt: skip
                write_durably(new / _ABOUT, json.dumps(about).encode())
                if (self.root / name).exists():
                    os.replace(self.root / name, Path(scratch, "old"))
                os.replace(new, self.root / name)
            sync_folder(self.root)
            write_durably(self.root / _ACTIVE, json.dumps({"slot": name}).encode())
            return Slot(name, release, self.root / name / _PAYLOAD, payload.manifest, approvers, fetched)

    def _running(self) -> str | None:
        """The active slot, or None if nobody can say: then either may be overwritten."""
        try:
            slot = self.active()
        except FleetError:
            return None
        return slot.name if slot else None

    def _sweep(self) -> None:
        """What installations that were cut off left behind."""
        for path in self.root.glob(".new-*"):
            shutil.rmtree(path)


def _stamps(folder: Path) -> dict[str, list[int]]:
    """What changes when a file does: size, inode, times."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            status = os.stat(path, follow_symlinks=False)
            found[path.relative_to(folder).as_posix()] = [
                status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns,
            ]  # fmt: skip
    return dict(sorted(found.items()))

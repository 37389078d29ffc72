"""A flood of arrivals, worked off in steps: what has been registered, and how far everything is.

In: the landing folder, and what the landing sensor remembers. Out: the next step; and a count of recordings by state. Of a
recording that was registered eight bytes are remembered, while it lies in the landing folder.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path

from fleet_assets.capture.recordings import Scan, manifests, marks, scan


@dataclass(frozen=True)
class Cursor:
    """seen: marks of the recordings that were registered. after: the folder name behind which the next step starts."""

    seen: frozenset[bytes] = field(default_factory=frozenset)
    after: str = ""

    @classmethod
    def decode(cls, text: str | None) -> Cursor:
        """What no cursor of this kind says, is taken for none: recordings are then registered again, which doubles nothing."""
        try:
            said = json.loads(text or "{}")
            packed = base64.b64decode(said["seen"], validate=True)
            return cls(frozenset(packed[at : at + 8] for at in range(0, len(packed), 8)), str(said["after"]))
        except (ValueError, KeyError, TypeError, binascii.Error):
            return cls()

    def encode(self) -> str:
        return json.dumps({"after": self.after, "seen": base64.b64encode(b"".join(sorted(self.seen))).decode()})


def step(landing: Path, cursor: Cursor, limit: int) -> tuple[Scan, Cursor]:
    """Looks at the next folders, at most limit of those that are not registered; and the cursor behind them."""
    found = scan(landing, seen=cursor.seen, after=cursor.after, limit=limit)
    # What has left the landing folder is forgotten, or the cursor would grow for ever.
    kept = cursor.seen & marks(landing)
    return found, Cursor(kept | frozenset(found.marks.values()), found.after)


def progress(
    landing: Path,
    *,
    registered: Collection[str],
    running: Collection[str],
    published: Collection[str],
    quarantined: Collection[str],
    read: Collection[str],
) -> dict[str, int]:
    """How many recordings of the landing folder are how far; each counts once among registered and what follows. One whose files
    a larger one of its drive holds too is never read itself: it is as far as that one.

    registered, running, published, quarantined: drives. read: ids of the recordings that the lake knows. Waiting: registered,
    and no run has them yet.
    """
    counts: Counter[str] = Counter()
    every = [(str(found.drive), found.manifest) for found in manifests(landing)]
    held: dict[str, list[set[str]]] = {}  # by drive, the files of each recording that was read
    for drive, manifest in every:
        if manifest.recording_id in read:
            held.setdefault(drive, []).append({file.sha256 for file in manifest.files})
    for drive, manifest in every:
        is_read = any(files.issuperset(file.sha256 for file in manifest.files) for files in held.get(drive, ()))
        counts["landed"] += 1
        counts["registered"] += drive in registered
        if drive in running and not is_read:
            counts["running"] += 1
        elif not is_read:
            counts["waiting"] += drive in registered
        elif drive in quarantined:
            counts["quarantined"] += 1
        elif drive in published:
            counts["published"] += 1
    states = ("landed", "registered", "waiting", "running", "published", "quarantined")
    return {state: counts[state] for state in states}

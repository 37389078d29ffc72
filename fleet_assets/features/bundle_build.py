"""A snapshot becomes a bundle for vehicles.

In: a snapshot file, the kernels that make its features, a key. Out: a folder with snapshot and signed manifest; or one that
holds, instead of the snapshot, what changed since another bundle.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fleet_assets.edge.bundle import DELTA, MANIFEST, SNAPSHOT, TYPE, Manifest, hash_file
from fleet_assets.edge.delta import Steps, write_delta
from fleet_assets.edge.snapshot import Snapshot, View
from fleet_assets.errors import FleetError
from fleet_assets.signing.documents import sign
from fleet_assets.signing.keys import KeyRing, SigningKey


def build_bundle(
    snapshot: Path,
    folder: Path,
    keys: Sequence[SigningKey],
    *,
    kernels: Sequence[Mapping[str, str]] = (),
    on_demand: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> Manifest:
    """Writes a new folder. kernels: of each view that a kernel makes, and of each transform, see identity.in_bundle. on_demand:
    {"transforms", "sources"} by view. The manifest is written last."""
    opened = Snapshot.open(snapshot)
    if folder.exists():
        raise FleetError(f"{folder} is there already", remedy="Name a new folder.")
    folder.mkdir(parents=True)
    shutil.copyfile(snapshot, folder / SNAPSHOT)
    size, digest = hash_file(folder / SNAPSHOT)
    views = {view.name: view for view in opened.views.values()}
    document = {
        "_type": TYPE,
        "service": opened.metadata["service"],
        "lakefs_commit": opened.metadata["lakefs_commit"],
        "delta_versions": opened.metadata["delta_versions"],
        "schema_hash": opened.schema_hash,
        "views": {name: {"version": view.version, "identity": view.identity} for name, view in views.items()},
        "kernels": list(map(dict, kernels)),
        "on_demand": {
            name: {key: list(names) for key, names in about.items()} for name, about in (on_demand or {}).items()
        },
        "files": {SNAPSHOT: {"bytes": size, "sha256": digest}},
    }
    (folder / MANIFEST).write_bytes(sign(document, keys))
    return Manifest.read(folder, KeyRing(key.public for key in keys))


def build_delta(base: Path, bundle: Path, folder: Path, keys: KeyRing) -> Path:
    """A folder from which a device with `base` active installs `bundle`: the same manifest, and what is new.

    Rows that are the same in both are copied on the device. The result is worth what the manifest's hash says, so the delta
    itself needs no signature.
    """
    Manifest.read(base, keys).check(base)
    manifest = Manifest.read(bundle, keys)
    manifest.check(bundle)
    old, new = Snapshot.open(base / SNAPSHOT), Snapshot.open(bundle / SNAPSHOT)
    folder.mkdir(parents=True)
    write_delta(folder / DELTA, hashlib.sha256(old.data.data).digest(), new.data.data, snapshot_steps(old, new))
    (folder / MANIFEST).write_bytes(manifest.envelope)
    return folder


def snapshot_steps(old: Snapshot, new: Snapshot) -> list[tuple[int, int]]:
    """(offset in the old file or -1 for new bytes, length), for the whole of the new file in its order."""
    found = Steps()
    at = 0
    for view in sorted({v.name: v for v in new.views.values()}.values(), key=lambda v: v.layout.buckets_offset):
        before = old.views.get(view.name)
        layout = view.layout
        found.add(-1, layout.buckets_offset - at)
        length = layout.rows_offset - layout.buckets_offset
        same = before is not None and np.array_equal(before.buckets, view.buckets)
        found.add(before.layout.buckets_offset if same and before is not None else -1, length)
        for source, rows in _row_runs(before, view):
            found.add(source, rows * layout.row_bytes)
        at = layout.rows_offset + layout.rows * layout.row_bytes
    found.add(-1, new.data.size - at)
    return found.steps


def _row_runs(before: View | None, view: View) -> list[tuple[int, int]]:
    """Runs of rows: (offset in the old file, or -1 where they are new; how many)."""
    layout = view.layout
    if before is None or before.layout.row_bytes != layout.row_bytes or before.layout.key_bytes != layout.key_bytes:
        return [(-1, layout.rows)] if layout.rows else []
    words = layout.row_bytes // 8
    key_words = np.ascontiguousarray(view.rows["key"])
    # Both lie in the order of their hashes, which also tell how many words of a padded key count.
    found = _find_padded(before, key_words, view)
    there = np.flatnonzero(found >= 0)
    new_rows = view.rows.view(np.uint64).reshape(-1, words)
    old_rows = before.rows.view(np.uint64).reshape(-1, words)
    same = (new_rows[there] == old_rows[found[there]]).all(axis=1)
    source = np.full(layout.rows, -1, dtype=np.int64)
    source[there[same]] = found[there[same]]
    breaks = np.flatnonzero(np.where(source[1:] < 0, source[:-1] >= 0, source[1:] != source[:-1] + 1)) + 1
    starts = np.concatenate(([0], breaks)) if layout.rows else np.zeros(0, np.int64)
    lengths = np.diff(np.append(starts, layout.rows))
    first = source[starts]
    offsets = np.where(first < 0, -1, before.layout.rows_offset + first * layout.row_bytes)
    return list(zip(offsets.tolist(), lengths.tolist(), strict=True))


def _find_padded(before: View, key_words: np.ndarray, view: View) -> np.ndarray:
    """Rows of the old view for keys as they lie in rows of the new one."""
    if set(view.entity_types) == {"int64"}:
        return before.find_many(key_words, np.full(len(key_words), key_words.shape[1]))
    filled = key_words != 0
    used = np.where(filled.any(axis=1), key_words.shape[1] - np.argmax(filled[:, ::-1], axis=1), 1)
    return before.find_many(key_words, used)

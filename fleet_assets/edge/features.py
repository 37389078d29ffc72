"""Features in the vehicle: `FeatureBundle.open(root, keys)`, then `lookup(view, key, out)`.

In: an installed bundle, keys of entities, values that the device itself observes. Out: values as float64, a status per feature,
the event time and the versions of everything. Works without Numba (a few microseconds); with compiled=True about one.
With on_demand=True, views that are computed from others when they are looked up are there too.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from fleet_assets.edge import bundle as bundles
from fleet_assets.edge.answer import Answer, Answers, Status, Versions
from fleet_assets.edge.numba_cache import use_own_cache
from fleet_assets.edge.rows import Observed, Rows
from fleet_assets.edge.sketch import Recorder, Sketch
from fleet_assets.edge.snapshot import Snapshot
from fleet_assets.errors import FleetError
from fleet_assets.signing.keys import KeyRing

if TYPE_CHECKING:
    from fleet_assets.edge.on_demand import Derived

__all__ = ["Answer", "FeatureBundle", "Status", "Versions"]


class FeatureBundle:
    """The active version of an installed bundle. Look-ups never touch the file system; `refresh` takes up a new version."""

    def __init__(self, root: Path, keys: KeyRing, compiled: bool, on_demand: bool) -> None:
        self._root, self._keys, self._on_demand = root, keys, on_demand
        self._compiled: ModuleType | None = None
        self._observed: dict[str, Observed] = {}
        if compiled or on_demand:
            use_own_cache()
        if compiled:
            from fleet_assets.kernels import lookup

            self._compiled = lookup
        self._load()

    @classmethod
    def open(cls, path: Path, keys: KeyRing, *, compiled: bool = False, on_demand: bool = False) -> FeatureBundle:
        """path: where bundles are installed (its active version is opened), or one bundle's own folder (hashed in full).

        keys: whose signatures count; there is no default. compiled: look up through Numba, which takes a second and 190 MB to
        load. on_demand: also look up what is computed from other views, by kernels, which Numba compiles; they must be those that
        the bundle names. Raises FleetError if anything is not as it was signed.
        """
        return cls(Path(path), keys, compiled, on_demand)

    def _load(self) -> None:
        folder, stamp = self._root, self._state_stamp()
        if (folder / bundles.MANIFEST).exists():
            stamp = None
            manifest = bundles.Manifest.read(folder, self._keys)
            manifest.check(folder)
        else:
            active = bundles.state(self._root)["active"]
            if active is None:
                raise FleetError(f"{self._root} has no active bundle", remedy="Install one and activate it.")
            folder = bundles.version_folder(self._root, active)
            manifest = bundles.Manifest.read(folder, self._keys)
            if manifest.id != active:
                raise FleetError(f"{folder} holds another version", remedy="Install the bundle anew.")
            bundles.check_quickly(folder, manifest)
        snapshot = Snapshot.open(folder / bundles.SNAPSHOT)
        views = {view.name: view for view in snapshot.views.values()}
        versions = Versions(
            bundle=manifest.id,
            service=manifest.signed["service"],
            lakefs_commit=manifest.signed["lakefs_commit"],
            delta_versions=snapshot.metadata["delta_versions"],
            schema_hash=snapshot.schema_hash,
            views={name: view.version for name, view in views.items()},
        )
        rows = {
            name: Rows(view, snapshot, versions, self._observed.setdefault(view.name, {}), self._compiled)
            for name, view in snapshot.views.items()
        }
        derived: dict[str, Derived] = {}
        if self._on_demand and manifest.on_demand:
            from fleet_assets.edge.on_demand import derived_views

            derived = derived_views(manifest, rows, versions)
        # One assignment: an on-demand view has its sources, and each view its versions, so an answer is of one version whole.
        self._views: Mapping[str, Rows | Derived] = {**rows, **derived}
        self.versions, self.manifest, self.snapshot = versions, manifest, snapshot
        # Only now: a version that could not be taken up is tried again by the next refresh.
        self._stamp, self._folder = stamp, folder

    def _state_stamp(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._root / bundles.STATE)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def refresh(self) -> bool:
        """Takes up the active version if it changed; gives whether it did. Two microseconds if it did not.

        Raises FleetError while the active version is not as it was signed; look-ups then go on in the one before.
        """
        if self._stamp is None or self._state_stamp() == self._stamp:
            return False
        before = self.versions.bundle
        self._load()
        return self.versions.bundle != before

    def verify(self) -> None:
        """Hashes every file again. Raises FleetError for one that is not as signed."""
        self.manifest.check(self._folder)

    def check_kernels(self, views: Iterable[str]) -> None:
        """Raises FleetError unless this software makes these live views by the kernels that the bundle names."""
        from fleet_assets.edge.identity import check_kernels  # loads Numba

        check_kernels(self.manifest.signed["kernels"], views)

    def answer(self, view: str) -> Answer:
        """Memory for look-ups in a view."""
        return self._view(view).answer()

    def lookup(self, view: str, key: Any, out: Answer, now_ns: int | None = None) -> Answer:
        """One row by its key, into out. key: the entity's value, or a tuple of one per entity column.

        now_ns: the device's clock, by default the system's. Raises FleetError for a view or key that cannot be, and for
        memory of other features than the view now has.
        """
        try:
            found = self._views[view]  # quicker than to ask first
        except KeyError:
            found = self._view(view)
        found.lookup(key, out, time.time_ns() if now_ns is None else now_ns)
        return out

    def lookup_many(self, view: str, keys: Sequence[Any], now_ns: int | None = None) -> Answers:
        """Many rows: values float64 [n, features], status uint8 [n, features], event times int64 [n], versions.

        keys: an int64 array, or a sequence of values or tuples. Observed values of the device count here too.
        """
        return self._view(view).lookup_many(keys, time.time_ns() if now_ns is None else now_ns)

    def observe(self, view: str, key: Any, values: Mapping[str, float], t_ns: int) -> None:
        """Values of the device for a row, which count wherever they are newer than the bundle's.

        They are kept in memory, for the rows.OBSERVED_LIMIT rows that were observed last, across versions of the bundle.
        """
        self._rows(view).observe(key, values, t_ns)

    def recorder(self, view: str) -> Recorder:
        """Takes rows of the view as look-ups give them, and sketches them with the bins of training."""
        rows = self._rows(view)
        known, versions = rows.view, rows.versions
        empty = {name: Sketch.from_json(sketch).like() for name, sketch in known.sketches.items()}
        return Recorder(known.features, empty, {"bundle": versions.bundle, "service": versions.service, "view": view})

    def _view(self, view: str) -> Rows | Derived:
        views = self._views
        if view in views:
            return views[view]
        if view in self.manifest.on_demand:
            raise _no_rows(view, "Open the bundle with on_demand=True.")
        raise FleetError(f"The bundle has no view {view}", remedy=f"It has {', '.join(sorted(views))}.")

    def _rows(self, view: str) -> Rows:
        found = self._view(view)
        if not isinstance(found, Rows):
            raise _no_rows(view, "Name the view that has the rows.")
        return found


def _no_rows(view: str, remedy: str) -> FleetError:
    return FleetError(f"{view} has no rows: it is computed when it is looked up", remedy=remedy)

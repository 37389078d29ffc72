"""Features in the vehicle: `FeatureBundle.open(root, keys)`, then `lookup(view, key, out)`.

In: an installed bundle, keys of entities, values that the device itself observes. Out: values as float64, a status per feature,
the event time and the versions of everything. Works without Numba (a few microseconds); with compiled=True about one.
With on_demand=True, views that are computed from others when they are looked up are there too.
"""

from __future__ import annotations

import operator
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fleet_assets.edge import bundle as bundles
from fleet_assets.edge import keys as key_bytes
from fleet_assets.edge.numba_cache import use_own_cache
from fleet_assets.edge.sketch import Recorder, Sketch
from fleet_assets.edge.snapshot import Snapshot, View
from fleet_assets.errors import FleetError
from fleet_assets.signing.keys import KeyRing

if TYPE_CHECKING:
    from fleet_assets.edge.on_demand import Derived

OBSERVED_LIMIT = 65_536  # rows of values that the device observed; the oldest go first


class Status(IntEnum):
    """Of one feature in one answer."""

    FRESH = 0
    STALE = 1  # by the device's clock, older than its view's time to live; the value is there
    NULL = 2  # the row is there, and has no value
    MISSING = 3  # no such row


@dataclass(frozen=True)
class Versions:
    """What an answer was read from. bundle: sha256 of what was signed; views: name -> version."""

    bundle: str
    service: str
    lakefs_commit: str
    delta_versions: Mapping[str, int]
    schema_hash: str
    views: Mapping[str, int]


class Answer:
    """Memory for the answers of one view, filled anew by each look-up.

    values: float64 [features], NaN where there is none. status: uint8 [features], Status. versions: of the last answer.
    """

    __slots__ = ("_block", "_sources", "_time", "features", "status", "values", "versions")

    def __init__(self, features: tuple[str, ...], versions: Versions, sources: tuple[Answer, ...] = ()) -> None:
        """sources: answers of the views that an on-demand one is computed from."""
        count = len(features)
        self.features, self.versions, self._sources = features, versions, sources
        self._block = np.zeros(count + 1 + -(-count // 8), dtype=np.uint64)
        self.values: np.ndarray = self._block[:count].view(np.float64)
        self._time = self._block[count : count + 1].view(np.int64)
        self.status: np.ndarray = self._block[count + 1 :].view(np.uint8)[:count]
        self.values[:] = np.nan
        self.status[:] = Status.MISSING

    @property
    def event_time_ns(self) -> int:
        """Of the row, UTC; 0 if it is missing. Of an on-demand view: of the oldest row that it follows from."""
        return int(self._time[0])

    def to_dict(self) -> dict[str, float]:
        return dict(zip(self.features, self.values.tolist(), strict=True))


class _Reader:
    """One view with what look-ups need at hand."""

    def __init__(self, view: View, snapshot: Snapshot, compiled: bool) -> None:
        self.view, self.features = view, view.features
        self.one_int = view.entity_types == ("int64",)
        self.index = {name: index for index, name in enumerate(view.features)}
        self.words = snapshot.words
        self.where = view.numba_view() if compiled else None


# What look-ups read, of one version: versions, views with rows, on-demand views.
_Current = tuple[Versions, dict[str, _Reader], "dict[str, Derived]"]


class FeatureBundle:
    """The active version of an installed bundle. Look-ups never touch the file system; `refresh` takes up a new version."""

    def __init__(self, root: Path, keys: KeyRing, compiled: bool, on_demand: bool) -> None:
        self._root, self._keys, self._compiled, self._on_demand = root, keys, compiled, on_demand
        self._observed: dict[str, dict[Any, dict[str, tuple[float, int]]]] = {}
        if compiled or on_demand:
            use_own_cache()
        if compiled:
            from fleet_assets.kernels import lookup

            self._lookup, self._lookup_int, self._lookup_many = lookup.lookup, lookup.lookup_int, lookup.lookup_many
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
        # One assignment: an answer takes versions and rows from the same one.
        readers = {name: _Reader(view, snapshot, self._compiled) for name, view in snapshot.views.items()}
        derived = _derived(manifest, readers) if self._on_demand else {}
        self._current: _Current = (versions, readers, derived)
        self.manifest, self.snapshot = manifest, snapshot
        # Only now: a version that could not be taken up is tried again by the next refresh.
        self._stamp, self._folder = stamp, folder

    def _state_stamp(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._root / bundles.STATE)
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    @property
    def versions(self) -> Versions:
        return self._current[0]

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
        _check_kernels(self.manifest, views)

    def answer(self, view: str) -> Answer:
        """Memory for look-ups in a view."""
        versions, readers, derived = self._current
        if view in derived:
            sources = tuple(Answer(readers[source].features, versions) for source in derived[view].sources)
            return Answer(derived[view].features, versions, sources)
        return Answer(self._reader(readers, view).features, versions)

    def lookup(
        self, view: str, key: Any, out: Answer, now_ns: int | None = None, _of: _Current | None = None
    ) -> Answer:
        """One row by its key, into out. key: the entity's value, or a tuple of one per entity column.

        now_ns: the device's clock, by default the system's. Raises FleetError for a view or key that cannot be, and for
        memory of other features than the view now has.
        """
        versions, readers, derived = current = _of or self._current
        reader = readers.get(view)
        if reader is None:
            if view in derived:
                return self._lookup_derived(current, view, key, out, now_ns)
            reader = self._reader(readers, view)
        if out.features is not reader.features and out.features != reader.features:
            raise _other_features(view)
        if now_ns is None:
            now_ns = time.time_ns()
        out.versions = versions
        if reader.where is not None and reader.one_int and type(key) is int:
            try:
                self._lookup_int(reader.words, reader.where, key, now_ns, out._block)
            except OverflowError:
                raise FleetError(f"{key} is no 64-bit integer", remedy="Keys of this view are.") from None
        else:
            encoded = reader.view.key(key if isinstance(key, tuple) else (key,))
            if reader.where is not None:
                self._lookup(reader.words, reader.where, np.frombuffer(encoded, np.uint64), now_ns, out._block)
            else:
                _fill(reader.view, encoded, now_ns, out)
        if self._observed:
            self._overlay(reader, key, now_ns, out)
        return out

    def lookup_many(
        self, view: str, keys: Sequence[Any], now_ns: int | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Versions]:
        """Many rows: values float64 [n, features], status uint8 [n, features], event times int64 [n], versions.

        keys: an int64 array, or a sequence of values or tuples. Observed values of the device count here too.
        """
        current = self._current
        now_ns = time.time_ns() if now_ns is None else now_ns
        if view not in current[2]:
            return self._many(current, view, keys, now_ns)
        derived = current[2][view]
        found = [self._many(current, source, keys, now_ns) for source in derived.sources]
        shape = (len(found[0][0]), len(derived.features))
        values, status = np.empty(shape), np.empty(shape, dtype=np.uint8)
        derived.fill([one[:2] for one in found], values, status)
        return values, status, np.minimum.reduce([times_ns for _, _, times_ns, _ in found]), current[0]

    def _lookup_derived(self, current: _Current, view: str, key: Any, out: Answer, now_ns: int | None) -> Answer:
        derived = current[2][view]
        if out.features != derived.features or len(out._sources) != len(derived.sources):
            raise _other_features(view)
        now_ns = time.time_ns() if now_ns is None else now_ns
        for source, part in zip(derived.sources, out._sources, strict=True):
            self.lookup(source, key, part, now_ns, current)
        derived.fill(
            [(part.values[None], part.status[None]) for part in out._sources], out.values[None], out.status[None]
        )
        out._time[0] = min(part.event_time_ns for part in out._sources)
        out.versions = current[0]
        return out

    def _many(
        self, current: _Current, view: str, keys: Sequence[Any], now_ns: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, Versions]:
        versions, readers, _ = current
        reader = self._reader(readers, view)
        columns = _columns(keys, len(reader.view.entities))
        words, used = key_bytes.encode_keys(columns, reader.view.entity_types)
        shape = (len(words), len(reader.features))
        values, status = np.full(shape, np.nan), np.full(shape, Status.MISSING, dtype=np.uint8)
        times_ns = np.zeros(len(words), dtype=np.int64)
        if reader.where is not None:
            self._lookup_many(reader.words, reader.where, words, used, now_ns, values, status, times_ns)
        else:
            _fill_many(reader.view, reader.view.find_many(words, used), now_ns, values, status, times_ns)
        if self._observed.get(reader.view.name):
            for index, key in enumerate(zip(*columns, strict=True)):
                patch = self._observed[reader.view.name].get(tuple(map(_plain, key)))
                if patch:
                    _put(reader, patch, int(times_ns[index]), now_ns, values[index], status[index])
        return values, status, times_ns, versions

    # ---- what the device itself observes -------------------------------------------------------------------------------

    def observe(self, view: str, key: Any, values: Mapping[str, float], t_ns: int) -> None:
        """Values of the device for a row, which count wherever they are newer than the bundle's.

        They are kept in memory, for the OBSERVED_LIMIT rows that were observed last, across versions of the bundle.
        """
        reader = self._reader(self._current[1], view)
        absent = [name for name in values if name not in reader.index]
        if absent:
            raise FleetError(f"{view} has no feature {absent[0]}", remedy=f"It has {', '.join(reader.features)}.")
        whole = tuple(map(_plain, key if isinstance(key, tuple) else (key,)))
        reader.view.key(whole)  # refuses what is no key
        rows = self._observed.setdefault(reader.view.name, {})
        patch = rows.pop(whole, {})
        for name, value in values.items():
            if name not in patch or patch[name][1] <= t_ns:
                patch[name] = (float(value), t_ns)
        rows[whole] = patch
        if len(rows) > OBSERVED_LIMIT:
            del rows[next(iter(rows))]

    def _overlay(self, reader: _Reader, key: Any, now_ns: int, out: Answer) -> None:
        rows = self._observed.get(reader.view.name)
        patch = rows and rows.get(tuple(map(_plain, key if isinstance(key, tuple) else (key,))))
        if patch:
            _put(reader, patch, out.event_time_ns, now_ns, out.values, out.status)

    def _reader(self, readers: Mapping[str, _Reader], view: str) -> _Reader:
        found = readers.get(view)
        if found is not None:
            return found
        if view not in self.manifest.on_demand:
            raise FleetError(f"The bundle has no view {view}", remedy=f"It has {', '.join(sorted(readers))}.")
        remedy = "Name the view that has the rows." if self._on_demand else "Open the bundle with on_demand=True."
        raise FleetError(f"{view} has no rows: it is computed when it is looked up", remedy=remedy)

    # ---- skew ------------------------------------------------------------------------------------------------------------

    def recorder(self, view: str) -> Recorder:
        """Takes rows of the view as look-ups give them, and sketches them with the bins of training."""
        versions, readers, _ = self._current
        known = self._reader(readers, view).view
        empty = {name: Sketch.from_json(sketch).like() for name, sketch in known.sketches.items()}
        return Recorder(known.features, empty, {"bundle": versions.bundle, "service": versions.service, "view": view})


def _derived(manifest: bundles.Manifest, readers: Mapping[str, _Reader]) -> dict[str, Derived]:
    """The on-demand views of a bundle. Raises FleetError for one that this software would compute otherwise."""
    found: dict[str, Derived] = {}
    for name, (transforms, sources) in manifest.on_demand.items():
        from fleet_assets.edge.on_demand import Derived

        absent = [source for source in sources if source not in readers]
        keys = {(readers[one].view.entities, readers[one].view.entity_types) for one in sources if one in readers}
        if absent or len(keys) != 1:
            why = f"has no view {absent[0]}" if absent else f"finds {' and '.join(sources)} by different keys"
            raise FleetError(f"{name} cannot be computed: the bundle {why}", remedy="Build the bundle anew.")
        found[name] = Derived(name, transforms, {source: readers[source].features for source in sources})
        _check_kernels(manifest, transforms)
    return found


def _check_kernels(manifest: bundles.Manifest, names: Iterable[str]) -> None:
    from fleet_assets.edge.identity import check_kernels  # loads Numba

    check_kernels(manifest.signed["kernels"], names)


def _other_features(view: str) -> FleetError:
    return FleetError(f"The answer is for other features than {view} has now", remedy="Make a new one: `answer`.")


def _plain(value: Any) -> Any:
    """A value of a key as Python has it, so that numpy's numbers are the same key."""
    return value if isinstance(value, str) else operator.index(value)


def _columns(keys: Sequence[Any], entities: int) -> list[Any]:
    if isinstance(keys, np.ndarray) and keys.ndim == 1 and entities == 1:
        return [keys]
    rows = [key if isinstance(key, tuple) else (key,) for key in keys]
    if any(len(row) != entities for row in rows):
        raise FleetError(f"A key has not {entities} values", remedy="Give one per entity column.")
    return [list(column) for column in zip(*rows, strict=True)] or [[] for _ in range(entities)]


def _fill(view: View, key: bytes, now_ns: int, out: Answer) -> None:
    """What kernels.lookup.lookup does, without Numba."""
    row = view.find(key)
    if row < 0:
        out.values[:] = np.nan
        out.status[:] = Status.MISSING
        out._time[0] = 0
        return
    time_ns = view.event_time_ns(row)
    out._time[0] = time_ns
    whole = view.fill(row, out.values)
    out.status[:] = _status(view, time_ns, now_ns)
    if not whole:
        out.status[~view.valid(np.array([row]))[0]] = Status.NULL


def _fill_many(
    view: View, rows: np.ndarray, now_ns: int, values: np.ndarray, status: np.ndarray, times_ns: np.ndarray
) -> None:
    there = np.flatnonzero(rows >= 0)
    found = rows[there]
    times_ns[there] = view.rows["event_time_ns"][found]
    stale = (times_ns[there] < now_ns - view.ttl_ns) & (view.ttl_ns > 0)
    valid = view.valid(found)
    status[there] = np.where(valid, np.where(stale, Status.STALE, Status.FRESH)[:, None], Status.NULL)
    for index in range(values.shape[1]):
        values[there, index] = np.where(valid[:, index], view.column(index, found), np.nan)


def _status(view: View, time_ns: int, now_ns: int) -> Status:
    return Status.STALE if view.ttl_ns and now_ns - time_ns > view.ttl_ns else Status.FRESH


def _put(
    reader: _Reader,
    patch: Mapping[str, tuple[float, int]],
    row_ns: int,
    now_ns: int,
    values: np.ndarray,
    status: np.ndarray,
) -> None:
    """Observed values over those of the bundle, where they are not older."""
    for name, (value, t_ns) in patch.items():
        index = reader.index.get(name)  # a later version may have dropped it
        if index is not None and (t_ns >= row_ns or status[index] == Status.MISSING):
            values[index] = value
            status[index] = _status(reader.view, t_ns, now_ns)

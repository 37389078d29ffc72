"""Look-ups in one view of a bundle's snapshot, with what the device itself observed.

In: a view of one version, keys, the device's clock. Out: rows, in the caller's memory or as arrays; by compiled code or without.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from fleet_assets.edge import keys as key_bytes
from fleet_assets.edge.answer import Answer, Answers, Status, Versions, other_features
from fleet_assets.edge.snapshot import Snapshot, View
from fleet_assets.errors import FleetError

OBSERVED_LIMIT = 65_536  # rows of values that the device observed; the oldest go first

# Of one view: by key, values that the device observed, with their times.
Observed = dict[tuple[Any, ...], dict[str, tuple[float, int]]]


class Rows:
    """The rows of one view, of one version of the bundle, with what look-ups need at hand."""

    __slots__ = ("_compiled", "_index", "_observed", "_of_int", "_where", "_words", "features", "versions", "view")

    def __init__(
        self, view: View, snapshot: Snapshot, versions: Versions, observed: Observed, compiled: ModuleType | None
    ) -> None:
        """observed: is added to, and outlives the version. compiled: kernels.lookup."""
        self.view, self.features, self.versions = view, view.features, versions
        self._observed, self._compiled, self._words = observed, compiled, snapshot.words
        self._where = view.numba_view() if compiled else None
        # The shortest way, for one whole number as a key.
        self._of_int = compiled.lookup_int if compiled and view.entity_types == ("int64",) else None
        self._index = {name: index for index, name in enumerate(view.features)}

    def answer(self) -> Answer:
        return Answer(self.features, self.versions)

    def lookup(self, key: Any, out: Answer, now_ns: int) -> None:
        """See FeatureBundle.lookup."""
        if out.features is not self.features and out.features != self.features:
            raise other_features(self.view.name)
        out.versions = self.versions
        if self._of_int is not None and type(key) is int:
            try:
                self._of_int(self._words, self._where, key, now_ns, out.block)
            except OverflowError:
                raise FleetError(f"{key} is no 64-bit integer", remedy="Keys of this view are.") from None
        else:
            encoded = self.view.key(key if isinstance(key, tuple) else (key,))
            if self._compiled is not None:
                self._compiled.lookup(self._words, self._where, np.frombuffer(encoded, np.uint64), now_ns, out.block)
            else:
                _fill(self.view, encoded, now_ns, out)
        if self._observed:
            patch = self._observed.get(_whole(key))
            if patch:
                self._put(patch, out.event_time_ns, now_ns, out.values, out.status)

    def lookup_many(self, keys: Sequence[Any], now_ns: int) -> Answers:
        """See FeatureBundle.lookup_many."""
        columns = _columns(keys, len(self.view.entities))
        words, used = key_bytes.encode_keys(columns, self.view.entity_types)
        shape = (len(words), len(self.features))
        values, status = np.full(shape, np.nan), np.full(shape, Status.MISSING, dtype=np.uint8)
        times_ns = np.zeros(len(words), dtype=np.int64)
        if self._compiled is not None:
            self._compiled.lookup_many(self._words, self._where, words, used, now_ns, values, status, times_ns)
        else:
            _fill_many(self.view, self.view.find_many(words, used), now_ns, values, status, times_ns)
        if self._observed:
            for index, key in enumerate(zip(*columns, strict=True)):
                patch = self._observed.get(_whole(key))
                if patch:
                    self._put(patch, int(times_ns[index]), now_ns, values[index], status[index])
        return values, status, times_ns, self.versions

    def observe(self, key: Any, values: Mapping[str, float], t_ns: int) -> None:
        """See FeatureBundle.observe."""
        absent = [name for name in values if name not in self._index]
        if absent:
            raise FleetError(
                f"{self.view.name} has no feature {absent[0]}", remedy=f"It has {', '.join(self.features)}."
            )
        whole = _whole(key)
        self.view.key(whole)  # refuses what is no key
        patch = self._observed.pop(whole, {})
        for name, value in values.items():
            if name not in patch or patch[name][1] <= t_ns:
                patch[name] = (float(value), t_ns)
        self._observed[whole] = patch
        if len(self._observed) > OBSERVED_LIMIT:
            del self._observed[next(iter(self._observed))]

    def _put(
        self,
        patch: Mapping[str, tuple[float, int]],
        row_ns: int,
        now_ns: int,
        values: np.ndarray,
        status: np.ndarray,
    ) -> None:
        """Observed values over those of the bundle, where they are not older."""
        for name, (value, t_ns) in patch.items():
            index = self._index.get(name)  # a later version may have dropped it
            if index is not None and (t_ns >= row_ns or status[index] == Status.MISSING):
                values[index] = value
                status[index] = _status(self.view, t_ns, now_ns)


def _whole(key: Any) -> tuple[Any, ...]:
    """A key as Python has it, so that numpy's numbers are the same key."""
    values = key if isinstance(key, tuple) else (key,)
    return tuple(value if isinstance(value, str) else operator.index(value) for value in values)


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
        out.time_ns[0] = 0
        return
    time_ns = view.event_time_ns(row)
    out.time_ns[0] = time_ns
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

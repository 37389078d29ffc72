"""On-demand transforms in a row, on the matrix of a look-up.

In: names of the matrix' columns, and of transforms. Out: a matrix that holds what they give, transform after transform:
one may take what an earlier one gave. Used by the vehicle, and by Feast's on-demand views; a Derived is such a view of a bundle,
which looks up the views that it is computed from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fleet_assets.edge.answer import Answer, Answers, Versions, other_features
from fleet_assets.edge.bundle import Manifest
from fleet_assets.edge.identity import check_kernels
from fleet_assets.edge.rows import Rows
from fleet_assets.errors import FleetError
from fleet_assets.kernels.features.on_demand import ON_DEMAND, OnDemand
from fleet_assets.kernels.lookup import status_of_derived


def wanted(transforms: Sequence[str]) -> list[str]:
    """What the transforms need from outside, in order."""
    given: set[str] = set()
    found: list[str] = []
    for name in transforms:
        found += [one for one in ON_DEMAND[name].inputs if one not in given and one not in found]
        given |= set(ON_DEMAND[name].outputs)
    return found


class Chain:
    """outputs: names of the columns that `apply` gives. Raises ValueError for an input that nothing provides."""

    def __init__(self, columns: Sequence[str], transforms: Sequence[str] = tuple(ON_DEMAND)) -> None:
        self.inputs = list(columns)
        self._transforms: list[tuple[OnDemand, np.ndarray, np.ndarray]] = []
        names = list(columns)
        for name in transforms:
            transform = ON_DEMAND[name]
            missing = [wanted for wanted in transform.inputs if wanted not in names]
            if missing:
                raise ValueError(
                    f"{name} needs {', '.join(missing)}, which neither the look-up nor an earlier transform gives"
                )
            column = np.array([names.index(wanted) for wanted in transform.inputs])
            target = np.arange(len(names), len(names) + len(transform.outputs))
            names += transform.outputs
            self._transforms.append((transform, column, target))
        self.outputs = names[len(columns) :]

    def apply(self, matrix: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """matrix: float64 [n, columns]. Gives float64 [n, columns + outputs], in `out` where it is given."""
        count = len(self.inputs)
        if out is None:
            out = np.empty((matrix.shape[0], count + len(self.outputs)))
        out[:, :count] = matrix
        for transform, column, target in self._transforms:
            transform.kernel(out, column, out, target)
        return out


class Derived:
    """An on-demand view: transforms on what look-ups of its sources give for one key. features: what the transforms give."""

    def __init__(self, name: str, transforms: Sequence[str], sources: Mapping[str, Rows], versions: Versions) -> None:
        """sources: by view, of one version; of two with one feature, the first counts. Raises FleetError for a transform that
        this software does not have, and for an input that no source has."""
        absent = [transform for transform in transforms if transform not in ON_DEMAND]
        if absent:
            raise FleetError(
                f"This software has no transform {absent[0]}, which {name} is made by",
                remedy="Install a bundle and the software of one release.",
            )
        inputs = wanted(transforms)
        self._name, self.versions, self._sources = name, versions, tuple(sources.values())
        self._chain = Chain(inputs, transforms)
        self.features = tuple(self._chain.outputs)
        of = {feature: view for view in reversed(list(sources)) for feature in sources[view].features}
        missing = [feature for feature in inputs if feature not in of]
        if missing:
            raise FleetError(
                f"{name} needs {missing[0]}, which {' and '.join(sources)} have not", remedy="Build the bundle anew."
            )
        # Per source: which of its features are which inputs.
        self._columns = []
        for view, rows in sources.items():
            own = [feature for feature in inputs if of[feature] == view]
            places = [rows.features.index(feature) for feature in own]
            self._columns.append(
                (np.array(places, np.int64), np.array([inputs.index(feature) for feature in own], np.int64))
            )

    def answer(self) -> Answer:
        return Answer(self.features, self.versions, tuple(rows.answer() for rows in self._sources))

    def lookup(self, key: Any, out: Answer, now_ns: int) -> None:
        """See FeatureBundle.lookup."""
        if out.features != self.features or len(out.sources) != len(self._sources):
            raise other_features(self._name)
        for rows, part in zip(self._sources, out.sources, strict=True):
            rows.lookup(key, part, now_ns)
        self._fill([(part.values[None], part.status[None]) for part in out.sources], out.values[None], out.status[None])
        out.time_ns[0] = min(part.event_time_ns for part in out.sources)
        out.versions = self.versions

    def lookup_many(self, keys: Sequence[Any], now_ns: int) -> Answers:
        """See FeatureBundle.lookup_many."""
        found = [rows.lookup_many(keys, now_ns) for rows in self._sources]
        shape = (len(found[0][0]), len(self.features))
        values, status = np.empty(shape), np.empty(shape, dtype=np.uint8)
        self._fill([one[:2] for one in found], values, status)
        return values, status, np.minimum.reduce([times_ns for _, _, times_ns, _ in found]), self.versions

    def _fill(self, found: Sequence[tuple[np.ndarray, np.ndarray]], values: np.ndarray, status: np.ndarray) -> None:
        """found: per source, values float64 [n, features] and status uint8 [n, features] of its look-ups. Fills values and status
        [n, features] of this view: what no value follows from is missing where an input's row is, else null; what follows from a
        stale value is stale."""
        inputs, count = len(self._chain.inputs), values.shape[0]
        matrix, states = np.empty((count, inputs + len(self.features))), np.empty((count, inputs), dtype=np.uint8)
        for (places, columns), (source, state) in zip(self._columns, found, strict=True):
            matrix[:, columns], states[:, columns] = source[:, places], state[:, places]
        self._chain.apply(matrix[:, :inputs], matrix)
        values[:] = matrix[:, inputs:]
        status_of_derived(states, values, status)


def derived_views(manifest: Manifest, views: Mapping[str, Rows], versions: Versions) -> dict[str, Derived]:
    """The on-demand views of a bundle. Raises FleetError for one that this software would compute otherwise."""
    found = {}
    for name, (transforms, sources) in manifest.on_demand.items():
        absent = [source for source in sources if source not in views]
        keys = {(views[one].view.entities, views[one].view.entity_types) for one in sources if one in views}
        if absent or len(keys) != 1:
            why = f"has no view {absent[0]}" if absent else f"finds {' and '.join(sources)} by different keys"
            raise FleetError(f"{name} cannot be computed: the bundle {why}", remedy="Build the bundle anew.")
        found[name] = Derived(name, transforms, {source: views[source] for source in sources}, versions)
        check_kernels(manifest.signed["kernels"], transforms)
    return found

"""On-demand transforms in a row, on the matrix of a look-up.

In: names of the matrix' columns, and of transforms. Out: a matrix that holds what they give, transform after transform:
one may take what an earlier one gave. Used by the vehicle, and by Feast's on-demand views.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fleet_assets.kernels.features.on_demand import ON_DEMAND, OnDemand


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

"""Labels as a model is trained and judged by them.

In: columns of labels, a frame for each. Out: Objects: those of known classes that lie inside the grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from fleet_assets.edge.inputs import in_grid
from fleet_assets.edge.objects import CLASSES, Objects


def labelled_objects(frame: np.ndarray, labels: pa.Table) -> Objects:
    """frame: int32 [n], ascending. labels: [n] class_name, x_m, y_m [m, frame of the vehicle], moving, visible_fraction."""
    names = _values(labels, "class_name", "")
    class_id = np.full(frame.size, -1, dtype=np.int8)
    for number, known in enumerate(CLASSES):
        class_id[names == known] = number
    x_m, y_m = (_values(labels, name, float("nan")).astype(np.float32) for name in ("x_m", "y_m"))
    rows = np.flatnonzero((class_id >= 0) & in_grid(x_m, y_m))
    return Objects(
        frame[rows].astype(np.int32), class_id[rows], x_m[rows], y_m[rows], np.ones(rows.size, dtype=np.float32),
        np.hypot(x_m, y_m)[rows], _values(labels, "moving", False)[rows].astype(np.bool_),
        _values(labels, "visible_fraction", float("nan"))[rows].astype(np.float32),
    )  # fmt: skip


def _values(labels: pa.Table, name: str, unknown: Any) -> np.ndarray:
    return np.asarray(pc.fill_null(labels[name], unknown).to_numpy())

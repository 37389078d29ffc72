"""On-demand transforms, per row of 1,000: our kernels beside Feast's pandas and python modes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from benchmarks.harness import Options, Row, fastest, row
from fleet_assets.edge.on_demand import Chain, wanted

ROWS = 1_000
_NAMES = ["stopping", "driving_margin"]


def rows(options: Options) -> list[Row]:
    needed = wanted(_NAMES)
    matrix = np.abs(np.random.default_rng(0).normal(5, 2, (ROWS, len(needed))))
    chain = Chain(needed, _NAMES)
    out = np.empty((ROWS, len(needed) + len(chain.outputs)))
    calls: dict[str, Callable[[], Any]] = {"ours": lambda: chain.apply(matrix, out)}
    calls |= {f"Feast {mode}": _feast(mode, matrix, needed, chain) for mode in ("pandas", "python")}
    calls["floor"] = lambda: np.copyto(out[:, : len(needed)], matrix)
    times = {name: seconds / ROWS for name, seconds in fastest(calls).items()}
    note = "numba loaded; Feast calls the same kernels; floor: copy of the inputs"
    return [row(f"on-demand chain of {len(_NAMES)} transforms, per row of {ROWS}", times, note=note)]


def _feast(mode: str, matrix: np.ndarray, needed: list[str], chain: Chain) -> Callable[[], Any]:
    """What Feast does with an on-demand view, on its own path."""
    from feast import Field, OnDemandFeatureView, RequestSource
    from feast.types import Float64

    def in_pandas(inputs: pd.DataFrame) -> pd.DataFrame:
        from fleet_assets.features.on_demand import in_pandas as transform

        return transform(_NAMES, inputs)

    def in_python(inputs: dict[str, Any]) -> dict[str, Any]:
        values = np.array([inputs[name] for name in needed], dtype=np.float64).T
        made = chain.apply(np.ascontiguousarray(values))
        return {name: made[:, len(needed) + n].tolist() for n, name in enumerate(chain.outputs)}

    view = OnDemandFeatureView(
        name="margins",
        sources=[RequestSource(name="request", schema=[Field(name=name, dtype=Float64) for name in needed])],
        schema=[Field(name=name, dtype=Float64) for name in chain.outputs],
        udf=in_pandas if mode == "pandas" else in_python,
        udf_string="",
        mode=mode,
    )
    if mode == "pandas":
        table = pa.table({name: matrix[:, n] for n, name in enumerate(needed)})
        return lambda: view.transform_arrow(table)
    columns = {name: matrix[:, n].tolist() for n, name in enumerate(needed)}
    return lambda: view.transform_dict(columns)

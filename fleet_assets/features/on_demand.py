"""On-demand transforms as Feast calls them.

In: a transform's name, and its inputs as Feast gives them. Out: its outputs, by the same kernel that a vehicle calls.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from fleet_assets.edge.on_demand import Chain, wanted


def in_pandas(names: list[str], inputs: pd.DataFrame) -> pd.DataFrame:
    """A chain of transforms on columns named as their inputs."""
    needed = wanted(names)
    chain = Chain(needed, names)
    made = chain.apply(inputs[needed].to_numpy(dtype=np.float64))
    return pd.DataFrame(made[:, len(needed) :], columns=chain.outputs, index=inputs.index)

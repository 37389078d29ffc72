"""On-demand views: transforms of fleet_assets/kernels/features/on_demand.py, as Feast calls them."""

import pandas as pd
from feast import Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64
from views import ego_motion, scene_context

from fleet_assets.kernels.features.on_demand import ON_DEMAND

KERNELS = ("stopping", "driving_margin")


@on_demand_feature_view(
    sources=[ego_motion, scene_context],
    # Without descriptions: Feast compares these fields with those that it infers from the function.
    schema=[
        Field(name="stopping_distance_m", dtype=Float64),
        Field(name="visibility_margin_m", dtype=Float64),
        Field(name="curve_speed_margin_mps", dtype=Float64),
        Field(name="driving_margin", dtype=Float64),
    ],
    mode="pandas",
    owner="team:fleet",
    description="How far the vehicle rolls until it stands, and what is then left of its view; by how much it is slower than its "
    "curve allows; and the smaller of the two as a share, -1 to 1.",
    tags={"kernels": " ".join(f"{name}@v{ON_DEMAND[name].version}" for name in KERNELS)},
)
def driving_margins(inputs: pd.DataFrame) -> pd.DataFrame:
    # Feast keeps this source and executes it elsewhere: the import belongs inside.
    from fleet_assets.features.on_demand import in_pandas

    return in_pandas(["stopping", "driving_margin"], inputs)

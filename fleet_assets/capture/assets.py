"""Recordings as Dagster sees them: made by vehicles, not by us.

In: the landing folder. Out: one external asset, reported by the landing sensor.
"""

import dagster as dg

from fleet_assets.partitions import DRIVES

recordings = dg.AssetSpec(
    dg.AssetKey(["capture", "recordings"]),
    description=(
        "Recordings in the landing folder. One is complete when its manifest is there, which is written last; "
        "`fleet ingest` writes it."
    ),
    group_name="capture",
    owners=["team:fleet"],
    kinds={"file"},
    partitions_def=DRIVES,
)

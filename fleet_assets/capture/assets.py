"""Recordings as Dagster sees them: made by vehicles, not by us.

In: the landing folder, the context folder. Out: two external assets, reported by sensors.
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

context_files = dg.AssetSpec(
    dg.AssetKey(["capture", "context_files"]),
    description=(
        "Files of the context folder: weather.csv, zones.csv, vehicles.csv, lanes.csv. A new version of the first three makes "
        "the context of all drives anew, without reading recordings; the last is published with the features."
    ),
    group_name="capture",
    owners=["team:fleet"],
    kinds={"csv"},
)

"""What a synchronised batch looks like: how far each channel's records are from their frames.

In: a snapshot and drives. Out: one small PNG per table where a picture says more than numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow.compute as pc

from fleet_assets.lake.plots import figure, png
from fleet_assets.lake.tables import Snapshot
from fleet_assets.synchronise.policy import load_alignment

_FRAMES = 2000  # more points would not be seen


def plots(snapshot: Snapshot, drives: Sequence[str]) -> dict[str, bytes]:
    """synchronise.matches: dt per channel, under the first policy, over the frames of the first drive that has any."""
    policy = load_alignment().policies[0].name
    for drive in drives:
        columns = ["frame", "channel", "dt_ns"]
        matches = snapshot.scan("synchronise.matches", columns, drives=[drive], predicate=f"policy = '{policy}'")
        matches = matches.filter(pc.and_(pc.is_valid(matches["dt_ns"]), pc.less(matches["frame"], _FRAMES)))
        if not matches.num_rows:
            continue
        drawing, axes = figure(f"{drive}: record minus frame", "frame", "dt [ms]")
        for channel in sorted(pc.unique(matches["channel"]).to_pylist()):
            rows = matches.filter(pc.equal(matches["channel"], channel))
            dt_ms = pc.divide(rows["dt_ns"].cast("double"), 1e6)
            axes.plot(rows["frame"].to_numpy(), dt_ms.to_numpy(), ".", markersize=3, label=channel)
        axes.legend(fontsize=7, loc="upper right")
        return {"synchronise.matches": png(drawing)}
    return {}

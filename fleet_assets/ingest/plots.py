"""What an ingested batch looks like: when each stream of a drive has records.

In: a snapshot and drives. Out: one small PNG per table where a picture says more than numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

from fleet_assets.lake.plots import figure, png
from fleet_assets.lake.tables import Snapshot

_COLUMNS = ["drive_id", "stream", "t_first_ns", "t_last_ns", "rate_hz", "gaps"]
_BARS = 30


def plots(snapshot: Snapshot, drives: Sequence[str]) -> dict[str, bytes]:
    """ingest.streams: the time that each stream covers, with its rate and gaps."""
    rows = [row for row in snapshot.scan("ingest.streams", _COLUMNS, drives=drives).to_pylist() if row["t_first_ns"]]
    if not rows:
        return {}
    rows = sorted(rows, key=lambda row: (row["drive_id"], row["stream"]))[:_BARS]
    drawing, axes = figure("time that each stream covers", "seconds from the drive's first stamp", "")
    first_ns = {
        drive: min(r["t_first_ns"] for r in rows if r["drive_id"] == drive) for drive in {r["drive_id"] for r in rows}
    }
    for place, row in enumerate(rows):
        start_s = (row["t_first_ns"] - first_ns[row["drive_id"]]) / 1e9
        length_s = max((row["t_last_ns"] - row["t_first_ns"]) / 1e9, 1e-3)
        axes.barh(place, length_s, left=start_s, height=0.7, color="tab:orange" if row["gaps"] else "tab:blue")
    labels = [f"{row['drive_id'].split('--')[0]} {row['stream']} {row['rate_hz'] or 0:.0f} Hz" for row in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=6)
    axes.invert_yaxis()
    return {"ingest.streams": png(drawing)}

"""A picture of a benchmark's result: bars per row, ours, the floor and the peers; of one that watches memory, its peaks.

In: what harness.run gives. Out: a PNG that names the machine by its cores and processor.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

_OURS, _FLOOR, _PEER = "#1f77b4", "#7f7f7f", "#ffbf80"


def draw(name: str, result: dict[str, Any], folder: Path) -> Path:
    """Writes <name>.png into the folder."""
    from matplotlib.figure import Figure

    memory = all("peak_mib" in row for row in result["rows"])
    bars = [bar for row in result["rows"] for bar in (_peaks(row) if memory else _bars(row))]
    figure = Figure(figsize=(9, 0.6 + 0.24 * len(bars)), dpi=80, layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(bars)), [value for _, value, _ in bars], color=[color for _, _, color in bars])
    axes.set_yticks(range(len(bars)), [label for label, _, _ in bars], fontsize=7)
    for position, (_, value, _) in enumerate(bars):
        axes.text(value, position, f" {value:.0f}" if memory else f" {value:.3g}", va="center", fontsize=7)
    axes.invert_yaxis()
    axes.set_xscale("linear" if memory else "log")  # whether memory grows shows from nought only
    axes.set_xlabel("MiB, most at once of all processes" if memory else "seconds", fontsize=8)
    axes.margins(x=0.12)
    machine = result["machine"]
    axes.set_title(f"fleet bench {name}: {machine['cores']} cores of {machine['cpu']}", fontsize=9)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.png"
    figure.savefig(path, metadata={"Software": None})
    return path


def _bars(row: dict[str, Any]) -> list[tuple[str, float, str]]:
    found = [(f"{row['work']}: ours", row["ours_s"], _OURS)]
    if row["floor_s"] is not None:
        found.append(("floor", row["floor_s"], _FLOOR))
    return found + [(peer, seconds, _PEER) for peer, seconds in row["peers_s"].items()]


def _peaks(row: dict[str, Any]) -> list[tuple[str, float, str]]:
    return [(row["work"], row["peak_mib"], _OURS)]

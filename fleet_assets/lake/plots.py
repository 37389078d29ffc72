"""Small pictures for asset metadata.

In: a title and axes' names. Out: a figure to draw on, and its PNG bytes, drawn without a display.
"""

from __future__ import annotations

import io
from typing import Any


def figure(title: str, x_name: str, y_name: str) -> tuple[Any, Any]:
    """A small figure and its axes."""
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(6.0, 2.8), dpi=80, layout="constrained")
    axes = drawing.subplots()
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(x_name, fontsize=8)
    axes.set_ylabel(y_name, fontsize=8)
    axes.tick_params(labelsize=7)
    return drawing, axes


def png(drawing: Any) -> bytes:
    """The figure as PNG."""
    target = io.BytesIO()
    drawing.savefig(target, format="png")
    return target.getvalue()

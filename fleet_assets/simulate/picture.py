"""The picture of the simulator in docs/: `python -m fleet_assets.simulate.picture FILE`.

In: a scene of each light, and fog. Out: one PNG: per scene the camera's image with its labels, LiDAR and radar from above.
"""

from __future__ import annotations

import io
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.simulate.conditions import draw
from fleet_assets.simulate.parameters import parameters, setup
from fleet_assets.simulate.scene import MOUNT_M, Scene, generator

_SCENES = (
    ("munich", "day", "clear"),
    ("hamburg", "dusk", "rain"),
    ("hamburg", "night", "clear"),
    ("munich", "day", "fog"),
)
_SEED, _EXPOSURE = 12, 180
_COLOURS = {"vehicle": "#ff9f1c", "pedestrian": "#e71d36", "cyclist": "#2ec4b6"}
_REACH_M = 45
_COLOURS_IN_ALL = 160


def draw_picture(path: Path) -> None:
    """A row per scene, in so few colours that it stays small."""
    import matplotlib
    from PIL import Image

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(_SCENES), 3, figsize=(9.6, 7.2), width_ratios=[4, 1.5, 1.5], layout="constrained"
    )
    for row, (region, light, weather) in zip(axes, _SCENES, strict=True):
        conditions = draw(generator(_SEED, "conditions"), datetime(2026, 3, 4, tzinfo=UTC), region, light, weather)
        scene = Scene(_SEED, conditions, setup("fine"), 30.0)
        _camera(row[0], scene, f"{region}, {light}, {weather}: camera")
        _lidar(row[1], scene)
        _radar(row[2], scene)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=80)
    pyplot.close(figure)
    Image.open(drawn).convert("RGB").quantize(_COLOURS_IN_ALL).save(path, optimize=True)


def _camera(axis: Any, scene: Scene, title: str) -> None:
    axis.imshow(scene.image("camera_front", _EXPOSURE), interpolation="nearest")
    for label in scene.labels(_EXPOSURE):
        left, top, right, bottom = label.box_px
        corners = ([left, right, right, left, left], [top, top, bottom, bottom, top])
        axis.plot(*corners, color=_COLOURS[label.figure.class_name], linewidth=0.8)
    axis.set_title(title, fontsize=8)
    axis.axis("off")


def _lidar(axis: Any, scene: Scene) -> None:
    points = scene.points(_EXPOSURE)
    axis.scatter(-points[:, 1], points[:, 0], s=0.3, c=points[:, 2], cmap="viridis", vmin=0, vmax=3, linewidths=0)
    for label in scene.labels(_EXPOSURE):
        axis.plot(-label.y_m, label.x_m, "+", color=_COLOURS[label.figure.class_name], markersize=5)
    _from_above(axis, "LiDAR", "white")


def _radar(axis: Any, scene: Scene) -> None:
    radar = scene.setup.radar
    number = round(_EXPOSURE / scene.setup.camera.rate_hz * radar.rate_hz)
    edge_rad = np.radians(radar.beam_deg) * (radar.beams / 2 - np.arange(radar.beams + 1))
    edge_m = np.arange(radar.bins + 1) * radar.bin_m
    across, ahead = -np.outer(edge_m, np.sin(edge_rad)), MOUNT_M + np.outer(edge_m, np.cos(edge_rad))
    axis.pcolormesh(across, ahead, scene.radar(number)[..., 0], cmap="magma", vmin=20, vmax=255, rasterized=True)
    for label in scene.labels(_EXPOSURE):
        axis.plot(-label.y_m, label.x_m, "+", color=_COLOURS[label.figure.class_name], markersize=5)
    _from_above(axis, "radar", "black")


def _from_above(axis: Any, title: str, ground: str) -> None:
    axis.set_xlim(-_REACH_M * 0.6, _REACH_M * 0.6)
    axis.set_ylim(0, _REACH_M)
    axis.set_aspect("equal")
    axis.set_facecolor(ground)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=8)


if __name__ == "__main__":
    draw_picture(Path(sys.argv[1]))
    print(f"parameters {parameters()['version']}")

"""What things are made of: each a few upright boxes and cylinders that camera, LiDAR and radar all see.

In: a kind, a size, colours. Out: rows of shapes in the frame of the thing (x where it faces, z from the ground), see
kernels/raycast.py; and Things, which collects them for a scene.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fleet_assets.kernels import raycast as rc
from fleet_assets.kernels.camera_image import BODY, FACADE, FOLIAGE, GLASS, PLAIN, STRIPES

Colour = tuple[float, float, float]
SKIN = ((0.80, 0.60, 0.48), (0.55, 0.38, 0.28), (0.28, 0.19, 0.14), (0.72, 0.52, 0.38))
CLOTHES = (
    (0.70, 0.12, 0.12), (0.12, 0.22, 0.62), (0.85, 0.75, 0.20), (0.15, 0.45, 0.22), (0.80, 0.80, 0.78), (0.12, 0.12, 0.14),
    (0.55, 0.25, 0.50), (0.85, 0.45, 0.15), (0.30, 0.55, 0.70),
)  # fmt: skip
TROUSERS = ((0.10, 0.12, 0.22), (0.08, 0.08, 0.09), (0.35, 0.30, 0.22), (0.20, 0.24, 0.30))
PAINT = (
    (0.75, 0.75, 0.76), (0.10, 0.10, 0.11), (0.45, 0.46, 0.48), (0.60, 0.08, 0.08), (0.10, 0.18, 0.45), (0.82, 0.82, 0.80),
    (0.16, 0.30, 0.20),
)  # fmt: skip
STONE: Colour = (0.42, 0.42, 0.40)
DARK: Colour = (0.09, 0.09, 0.10)
ORANGE: Colour = (0.90, 0.35, 0.05)
RED: Colour = (0.75, 0.08, 0.06)
GREEN: Colour = (0.14, 0.26, 0.10)
BARK: Colour = (0.22, 0.16, 0.11)


@dataclass(frozen=True)
class Figure:
    """shapes: [n, SHAPE_COLUMNS]. class_name empty: it is not labelled. section: radar cross-section, relative."""

    shapes: np.ndarray
    length_m: float
    width_m: float
    height_m: float
    section: float
    class_name: str = ""
    subtype: str = ""


def box(
    x: float, y: float, half_length: float, half_width: float, bottom: float, top: float, colour: Colour,
    pattern: int = PLAIN, reflectivity: float = 0.4, yaw: float = 0.0,
) -> list[float]:  # fmt: skip
    return [rc.BOX, 0, x, y, yaw, half_length, half_width, bottom, top, *colour, pattern, reflectivity, 0.0]


def cylinder(
    x: float, y: float, radius: float, bottom: float, top: float, colour: Colour, pattern: int = PLAIN,
    reflectivity: float = 0.3, swing: float = 0.0,
) -> list[float]:  # fmt: skip
    return [rc.CYLINDER, 0, x, y, 0.0, radius, 0.0, bottom, top, *colour, pattern, reflectivity, swing]


def _pick(random: np.random.Generator, colours: tuple[Colour, ...]) -> Colour:
    tint = random.uniform(0.8, 1.15)
    red, green, blue = colours[int(random.integers(len(colours)))]
    return (min(red * tint, 0.95), min(green * tint, 0.95), min(blue * tint, 0.95))


def pedestrian(random: np.random.Generator, subtype: str, coat: Colour | None = None) -> Figure:
    """subtype: adult, child or wheelchair."""
    coat, skin, cloth = coat or _pick(random, CLOTHES), _pick(random, SKIN), float(random.uniform(0.1, 0.5))
    if subtype == "wheelchair":
        shapes = [
            box(-0.05, 0.0, 0.35, 0.29, 0.05, 0.58, DARK, reflectivity=0.5),
            box(-0.36, 0.0, 0.04, 0.22, 0.5, 0.95, DARK),
            cylinder(0.35, 0.0, 0.12, 0.1, 0.6, _pick(random, TROUSERS)),
            cylinder(-0.1, 0.0, 0.22, 0.55, 1.12, coat, reflectivity=cloth),
            cylinder(-0.08, 0.0, 0.11, 1.14, 1.38, skin),
        ]
        return Figure(np.array(shapes), 1.0, 0.62, 1.38, 0.3, "pedestrian", subtype)
    tall = float(random.uniform(1.58, 1.95) if subtype == "adult" else random.uniform(1.0, 1.4))
    k = tall / 1.75
    trousers = _pick(random, TROUSERS)
    head = 0.11 * k if subtype == "adult" else 0.11
    shapes = [
        cylinder(0.0, 0.09 * k, 0.085 * k, 0.0, 0.84 * k, trousers, swing=0.22 * k),
        cylinder(0.0, -0.09 * k, 0.085 * k, 0.0, 0.84 * k, trousers, swing=-0.22 * k),
        cylinder(0.0, 0.0, 0.21 * k, 0.8 * k, 1.46 * k, coat, reflectivity=cloth),
        cylinder(0.0, 0.0, head, 1.47 * k, tall, skin),
    ]
    return Figure(np.array(shapes), 0.6 * k, 0.5 * k, tall, 0.18 * k, "pedestrian", subtype)


def cyclist(random: np.random.Generator) -> Figure:
    trousers = _pick(random, TROUSERS)
    shapes = [
        box(0.0, 0.0, 0.85, 0.04, 0.08, 0.78, DARK, reflectivity=0.5),
        box(0.55, 0.0, 0.05, 0.26, 0.9, 1.02, DARK),
        cylinder(0.05, 0.1, 0.09, 0.3, 0.98, trousers, swing=0.12),
        cylinder(0.05, -0.1, 0.09, 0.3, 0.98, trousers, swing=-0.12),
        cylinder(-0.02, 0.0, 0.2, 0.95, 1.5, _pick(random, CLOTHES), reflectivity=0.35),
        cylinder(0.12, 0.0, 0.13, 1.52, 1.78, _pick(random, CLOTHES)),
    ]
    return Figure(np.array(shapes), 1.75, 0.55, 1.78, 0.9, "cyclist", "bicycle")


def vehicle(random: np.random.Generator, subtype: str, colour: Colour | None = None) -> Figure:
    """subtype: car, van, truck or bus."""
    paint = colour or _pick(random, PAINT)
    shine = float(random.uniform(0.25, 0.6))
    if subtype == "car":
        half, wide, tall = (
            float(random.uniform(1.95, 2.35)),
            float(random.uniform(0.86, 0.94)),
            float(random.uniform(1.4, 1.62)),
        )
        shapes = [
            box(0.0, 0.0, half, wide, 0.16, 0.62 * tall, paint, BODY, shine),
            box(-0.15 * half, 0.0, 0.56 * half, wide - 0.1, 0.4, tall, paint, GLASS, 0.2),
        ]
        return Figure(np.array(shapes), 2 * half, 2 * wide, tall, float(random.uniform(8, 16)), "vehicle", subtype)
    if subtype == "van":
        shapes = [
            box(0.0, 0.0, 2.6, 1.0, 0.2, 1.15, paint, BODY, shine),
            box(-0.5, 0.0, 2.1, 0.97, 0.4, 2.15, paint, PLAIN, shine),
            box(1.7, 0.0, 0.45, 0.9, 0.4, 1.95, paint, GLASS, 0.2),
        ]
        return Figure(np.array(shapes), 5.2, 2.0, 2.15, float(random.uniform(10, 18)), "vehicle", subtype)
    if subtype == "bus":
        shapes = [
            box(0.0, 0.0, 5.7, 1.27, 0.25, 1.25, paint, BODY, shine),
            box(0.0, 0.0, 5.65, 1.26, 0.5, 3.05, paint, GLASS, 0.25),
        ]
        return Figure(np.array(shapes), 11.4, 2.54, 3.05, float(random.uniform(18, 30)), "vehicle", subtype)
    cargo = _pick(random, ((0.8, 0.8, 0.78), (0.65, 0.6, 0.5), (0.2, 0.35, 0.55))) if colour is None else colour
    shapes = [
        box(0.0, 0.0, 4.3, 1.22, 0.3, 1.05, paint, BODY, shine),
        box(-1.0, 0.0, 3.2, 1.24, 0.6, 3.4, cargo, PLAIN, 0.5),
        box(3.3, 0.0, 0.95, 1.15, 0.5, 2.75, paint, GLASS, 0.25),
    ]
    return Figure(np.array(shapes), 8.6, 2.48, 3.4, float(random.uniform(18, 30)), "vehicle", "truck")


def distractor(random: np.random.Generator) -> Figure:
    """About the size of a person, and none: post boxes, bollards, signs, clipped trees, statues."""
    kind = int(random.integers(6))
    if kind == 0:
        shapes = [cylinder(0, 0, 0.24, 0.0, 1.45, _pick(random, ((0.85, 0.7, 0.1), (0.7, 0.1, 0.1))), reflectivity=0.5)]
    elif kind == 1:
        shapes = [cylinder(0, 0, 0.2, 0.0, float(random.uniform(1.0, 1.9)), DARK if random.random() < 0.5 else STONE)]
    elif kind == 2:
        plate = float(random.uniform(1.2, 1.6))
        shapes = [
            cylinder(0, 0, 0.05, 0.0, plate + 0.6, STONE, reflectivity=0.6),
            box(0, 0, 0.03, 0.28, plate, plate + 0.6, _pick(random, CLOTHES), reflectivity=0.9),
        ]
    elif kind == 3:
        shapes = [
            cylinder(0, 0, float(random.uniform(0.22, 0.4)), 0.0, float(random.uniform(1.1, 1.9)), GREEN, FOLIAGE)
        ]
    elif kind == 4:
        tall = float(random.uniform(1.5, 1.9))
        shapes = [cylinder(0, 0, 0.2, 0.0, tall - 0.3, STONE), cylinder(0, 0, 0.12, tall - 0.28, tall, STONE)]
    else:
        shapes = [
            cylinder(0, 0, 0.27, 0.0, 0.85, DARK),
            cylinder(0, 0, 0.2, 0.85, 1.25, _pick(random, CLOTHES), reflectivity=0.5),
        ]
    return Figure(np.array(shapes), 0.6, 0.6, float(shapes[-1][rc.TOP]), float(random.choice([0.1, 0.3, 1.2])))


def tree(random: np.random.Generator) -> Figure:
    bottom, top = float(random.uniform(1.9, 2.8)), float(random.uniform(4.5, 8.0))
    colour = (GREEN[0] * random.uniform(0.7, 1.6), GREEN[1] * random.uniform(0.8, 1.4), GREEN[2])
    shapes = [
        cylinder(0, 0, 0.16, 0.0, bottom + 0.3, BARK),
        cylinder(0, 0, float(random.uniform(1.0, 1.9)), bottom, top, colour, FOLIAGE, 0.35),
    ]
    return Figure(np.array(shapes), 3.0, 3.0, top, 0.6)


def lamp_post() -> Figure:
    shapes = [cylinder(0, 0, 0.07, 0.0, 6.0, STONE, reflectivity=0.5), box(0.4, 0, 0.4, 0.1, 5.9, 6.05, STONE)]
    return Figure(np.array(shapes), 0.8, 0.2, 6.0, 0.7)


def building(random: np.random.Generator, length: float, depth: float, height: float, colour: Colour) -> Figure:
    shapes = [
        box(0, 0, length / 2, depth / 2, 0.0, height, colour, FACADE),
        box(0, 0, length / 2 + 0.25, depth / 2 + 0.25, height, height + 0.4, (0.3, 0.18, 0.14)),
    ]
    return Figure(np.array(shapes), length, depth, height, 3.0)


def barrier() -> Figure:
    return Figure(np.array([box(0, 0, 1.0, 0.05, 0.25, 1.0, RED, STRIPES, 0.8)]), 2.0, 0.1, 1.0, 0.5)


def cone() -> Figure:
    shapes = [
        cylinder(0, 0, 0.2, 0.0, 0.3, ORANGE, reflectivity=0.7),
        cylinder(0, 0, 0.1, 0.3, 0.75, ORANGE, STRIPES, 0.8),
    ]
    return Figure(np.array(shapes), 0.4, 0.4, 0.75, 0.05)


@dataclass
class Things:
    """The things of a scene, in order; place says where each is at the start."""

    figures: list[Figure] = field(default_factory=list)
    places: list[tuple[float, float, float]] = field(default_factory=list)

    def add(self, figure: Figure, x_m: float = 0.0, y_m: float = 0.0, yaw_rad: float = 0.0) -> int:
        """Gives its number."""
        self.figures.append(figure)
        self.places.append((x_m, y_m, yaw_rad))
        return len(self.figures) - 1

    def shapes(self) -> np.ndarray:
        """Of all things, with the number of the thing in each."""
        rows = []
        for number, figure in enumerate(self.figures):
            part = figure.shapes.astype(np.float64)
            part[:, rc.OBJECT] = number
            rows.append(part)
        return np.concatenate(rows)

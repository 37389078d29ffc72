"""RADIATE's sensors, placed as models were taught to see: a part of quality_radiate.py.

In: payloads of the RADIATE reader, the calibration that travels with the recording. Out: payloads of the same types and stamps,
LiDAR points from the vehicle's origin on the ground, the left camera's picture as the model's own camera would take it; the other
sensors are left out. Source of the calibration's conventions: the RADIATE SDK: offsets from the radar to the right, down and
ahead in metres, turns about these axes in degrees, distortion by two radial terms (Brown, 1966).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import yaml

from fleet_assets.edge import inputs
from fleet_assets.edge.messages import decode
from fleet_assets.errors import FleetError
from fleet_assets.formats import ros2
from fleet_assets.formats.reader import Payload
from fleet_assets.simulate.messages import png
from fleet_assets.simulate.parameters import setup

# The road below the sensors, a plane through the returns of it, median of the 42 sweeps: the LiDAR's height, and how far the road
# seems to rise to the right and ahead, which is the tilt of the mount. The SDK says 1.8 m for all sensors.
LIDAR_HEIGHT_M, RISE_RIGHT, RISE_AHEAD = 2.0, -0.049, 0.021
_OWN_M = 2.0  # nearer than this it sees its own vehicle
_INTENSITY = 255.0  # of the sensor's scale; ours ends at 1
_FINER = 4  # cells of the re-projected picture to a cell of the model's, each way
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])


@dataclass(frozen=True)
class Calibration:
    """lidar_m: right, down and ahead of the radar. camera_deg: turns about these. focal_px, centre_px: of columns, of rows.
    radial: factors of the square of the distance from the axis, and of its square."""

    lidar_m: np.ndarray
    camera_deg: np.ndarray
    focal_px: tuple[float, float]
    centre_px: tuple[float, float]
    radial: tuple[float, float]

    @classmethod
    def read(cls, folder: Path) -> Calibration:
        """Raises FleetError."""
        path = folder / "config" / "default-calib.yaml"
        try:
            said = yaml.safe_load(path.read_text(encoding="utf-8"))
            lidar, camera = said["lidar_calib"], said["left_cam_calib"]
            numbers = {name: float(camera[name]) for name in ("fx", "fy", "cx", "cy", "k1", "k2")}
            return cls(
                lidar_m=np.array(lidar["T"], dtype=np.float64).reshape(3),
                camera_deg=np.array(camera["R"], dtype=np.float64).reshape(3),
                focal_px=(numbers["fx"], numbers["fy"]),
                centre_px=(numbers["cx"], numbers["cy"]),
                radial=(numbers["k1"], numbers["k2"]),
            )
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise FleetError(f"{path} is no calibration: {error}", remedy="Copy the recording anew.") from error


def placed(payloads: Iterable[Payload], calibration: Calibration) -> Iterator[Payload]:
    """LiDAR and left camera. What cannot be decoded is left out, as a vehicle would."""
    columns, rows = source_px(calibration)
    for payload in payloads:
        stamp_ns = payload.t_device_ns or 0
        if payload.topic == "/lidar":
            points = decode("lidar", payload.schema_name, payload.data).content
            if points is not None:
                points = in_vehicle(points, calibration).astype(np.float32).view(_POINT)[:, 0]
                yield replace(payload, data=ros2.point_cloud2(stamp_ns, "base_link", points))
        elif payload.topic == "/camera/left":
            pixels = decode("camera", payload.schema_name, payload.data).content
            if pixels is not None:
                picture = png(inputs.camera_input(_looked_up(pixels, columns, rows)))
                yield replace(payload, data=ros2.compressed_image(stamp_ns, "camera", "png", picture))


def in_vehicle(points: np.ndarray, calibration: Calibration) -> np.ndarray:
    """float64 [m, 4] (x ahead, y left, z from the road [m], intensity 0 to 1) of the sensor's [n, 4] (x right, y ahead, z up,
    intensity 0 to 255), those in the field of the LiDAR that models know; the radar is where they take sensors to sit."""
    right, ahead, up, intensity = points.T
    half = math.radians(setup("default").lidar.field_deg) / 2
    seen = (np.abs(np.arctan2(right, ahead)) < half) & (np.hypot(right, ahead) > _OWN_M)
    height = LIDAR_HEIGHT_M + up - RISE_RIGHT * right - RISE_AHEAD * ahead
    x, y = inputs.MOUNT_M + calibration.lidar_m[2] + ahead, -(calibration.lidar_m[0] + right)
    return np.stack([x, y, height, intensity / _INTENSITY], axis=1)[seen]


def source_px(calibration: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows of the camera's raw picture, float64 [rows, columns] of the model's camera, made finer: where the same ray
    meets it. Only turns can be undone so; that it hangs half a metre higher than the model's camera stays."""
    rows, columns = inputs.CAMERA_SHAPE[0] * _FINER, inputs.CAMERA_SHAPE[1] * _FINER
    focal = columns / 2 / math.tan(math.radians(inputs.CAMERA_FIELD_DEG) / 2)
    horizon = round(inputs.CAMERA_HORIZON * inputs.CAMERA_SHAPE[0]) * _FINER
    right, down = np.meshgrid(
        (np.arange(columns) + 0.5 - columns / 2) / focal, (np.arange(rows) + 0.5 - horizon) / focal
    )
    rays = np.stack([right, down, np.ones_like(right)], axis=-1) @ _levelled().T
    x, y, z = np.moveaxis(rays @ _turned(-calibration.camera_deg), -1, 0)
    x, y = x / z, y / z
    square = x * x + y * y
    bent = 1 + square * (calibration.radial[0] + square * calibration.radial[1])
    return (
        calibration.focal_px[0] * x * bent + calibration.centre_px[0],
        calibration.focal_px[1] * y * bent + calibration.centre_px[1],
    )


def _levelled() -> np.ndarray:
    """[3, 3]: its columns are right, down and ahead along the road, in the radar's right, down and ahead."""
    down = np.array([RISE_RIGHT, 1.0, RISE_AHEAD]) / math.sqrt(1 + RISE_RIGHT**2 + RISE_AHEAD**2)
    ahead = np.array([0.0, 0.0, 1.0]) - down[2] * down
    ahead /= np.linalg.norm(ahead)
    return np.stack([np.cross(down, ahead), down, ahead], axis=1)


def _turned(angles_deg: np.ndarray) -> np.ndarray:
    """[3, 3], by which the SDK multiplies rows of (right, ahead, up) from the right, here for rows of (right, down, ahead)."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.radians(angles_deg)), np.sin(np.radians(angles_deg))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    return about_x @ about_y @ about_z


def _looked_up(pixels: np.ndarray, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """uint8 [rows, columns, 3]: the nearest pixel; black outside the picture."""
    column, row = np.rint(columns).astype(np.int64), np.rint(rows).astype(np.int64)
    inside = (column >= 0) & (column < pixels.shape[1]) & (row >= 0) & (row < pixels.shape[0])
    found = pixels[np.where(inside, row, 0), np.where(inside, column, 0), :3] * inside[..., None]
    return np.asarray(found, dtype=np.uint8)

"""What is inside the files of KITTI's raw and tracking sets.

In: lines and files. Out: columns, messages, labels. Sources: the development kits (dataformat.txt, readme.txt) and Geiger et
al., 2013. The vehicle frame here is the LiDAR's: x forward, y left, z up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, TreeBuilder
from xml.parsers import expat

import numpy as np
import pyarrow as pa

from fleet_assets.formats import ros2
from fleet_assets.formats.folders import FileRecord, read_file

OXTS_NUMBERS = 30
POINT_BYTES = 16
MAX_TEXT_BYTES = 16 * 1024 * 1024
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4")])
_CLASSES: Mapping[str, tuple[str, str | None]] = {
    **{name: ("vehicle", name.lower()) for name in ("Car", "Van", "Truck", "Tram")},
    "Pedestrian": ("pedestrian", None),
    "Person": ("pedestrian", "sitting"),
    "Person_sitting": ("pedestrian", "sitting"),
    "Person (sitting)": ("pedestrian", "sitting"),
    "Cyclist": ("cyclist", None),
    "Misc": ("other", None),
    "DontCare": ("unlabelled", None),  # a region of the image in which objects were not labelled
}
_MOST_DEPTH = 20
_LARGEST = 1e6  # of a calibration: metres
_NAN = float("nan")
Columns = dict[str, np.ndarray | pa.Array]
Refuse = Callable[[str, str], None]


def oxts_numbers(text: str) -> np.ndarray:
    """A record of the inertial unit, float64 [30]. Raises ValueError."""
    words = text.split()
    if len(words) != OXTS_NUMBERS:
        raise ValueError(f"it has {len(words)} numbers, not {OXTS_NUMBERS}")
    return np.array([float(word) for word in words])


def oxts_imu(values: np.ndarray) -> Columns:
    """values: [n, 30]. Accelerations and rates are in the vehicle's axes; the orientation is against east, north, up."""
    roll, pitch, yaw = values[:, 3:6].T / 2
    with np.errstate(invalid="ignore"):
        cr, sr, cp, sp, cy, sy = (f(angle) for angle in (roll, pitch, yaw) for f in (np.cos, np.sin))
    return {
        **{f"accel_{axis}_mps2": values[:, 11 + at] for at, axis in enumerate("xyz")},
        **{f"gyro_{axis}_radps": values[:, 17 + at] for at, axis in enumerate("xyz")},
        "orientation_x": sr * cp * cy - cr * sp * sy,
        "orientation_y": cr * sp * cy + sr * cp * sy,
        "orientation_z": cr * cp * sy - sr * sp * cy,
        "orientation_w": cr * cp * cy + sr * sp * sy,
    }


def oxts_fix(values: np.ndarray) -> Columns:
    """values: [n, 30]. KITTI counts its yaw from east to the left, a heading from north to the right."""
    with np.errstate(invalid="ignore", over="ignore"):
        satellites = np.where(np.isfinite(values[:, 26]), np.clip(values[:, 26], 0, 1e6), 0).astype(np.int64)
        return {
            **{name: values[:, at] for at, name in enumerate(("latitude_deg", "longitude_deg", "altitude_m"))},
            "speed_mps": np.hypot(values[:, 6], values[:, 7]),
            "heading_deg": np.mod(90 - np.degrees(values[:, 5]), 360.0),
            "accuracy_m": values[:, 23],
            "satellites": satellites,
        }


def cloud(record: FileRecord) -> bytes:
    """A sensor_msgs/msg/PointCloud2 of a velodyne file: x, y, z, reflectance in float32. Raises ValueError."""
    data = read_file(record.path)
    if not data or len(data) % POINT_BYTES:
        raise ValueError(f"its {len(data)} bytes are no whole number of points")
    return ros2.point_cloud2(0, "velodyne", np.frombuffer(data, dtype=_POINT))


# ---- labels ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Label:
    """One object of one frame; NaN is not known."""

    t_ns: int
    track_id: str | None
    kind: str
    x_m: float
    y_m: float
    z_m: float
    length_m: float
    width_m: float
    height_m: float
    yaw_rad: float
    box_px: tuple[float, float, float, float] = (_NAN,) * 4


def label_columns(labels: Iterable[Label], image_stream: str | None) -> Columns:
    """In order of time. image_stream: in whose image the boxes are."""
    rows = sorted(labels, key=lambda label: label.t_ns)
    classes = [_CLASSES.get(row.kind, (row.kind or None, None)) for row in rows]
    numbers = np.array([astuple(row)[3:10] + row.box_px for row in rows], dtype=np.float64).reshape(-1, 11)
    names = (
        "x_m", "y_m", "z_m", "length_m", "width_m", "height_m", "yaw_rad", "left_px", "top_px", "right_px", "bottom_px",
    )  # fmt: skip
    columns: Columns = dict(zip(names, numbers.T, strict=True))
    yaw = columns["yaw_rad"]
    with np.errstate(invalid="ignore"):
        columns["yaw_rad"] = np.arctan2(np.sin(yaw), np.cos(yaw))
    return {
        **columns,
        "t_host_ns": np.array([row.t_ns for row in rows], dtype=np.int64),
        "track_id": pa.array([row.track_id for row in rows], type=pa.string()),
        "class_name": pa.array([name for name, _ in classes], type=pa.string()),
        "subtype": pa.array([subtype for _, subtype in classes], type=pa.string()),
        "image_stream": pa.repeat(pa.scalar(image_stream, type=pa.string()), len(rows)),
    }


def tracking_labels(text: str, stamp: Callable[[int], int], to_lidar: np.ndarray | None, refuse: Refuse) -> list[Label]:
    """Lines of label_02: frame, track, type, truncated, occluded, alpha, box in pixels, height, width, length, bottom centre
    and turn in the rectified camera, [score]. to_lidar: [4, 4] from there; None leaves the place unknown."""
    labels = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            frame = int(words[0])
            if len(words) not in (17, 18) or not 0 <= frame < 10**9:
                raise ValueError
            values = [float(word) for word in words[3:17]]
        except ValueError:
            refuse("the label line cannot be read", f"line {number}")
            continue
        height, width, length, x, y, z, turn = values[7:]
        place, yaw = (_NAN, _NAN, _NAN), _NAN
        if words[2] == "DontCare":
            height = width = length = _NAN
        elif to_lidar is not None:
            with np.errstate(invalid="ignore", over="ignore"):
                place = tuple((to_lidar @ np.array([x, y - height / 2, z, 1.0]))[:3])
                ahead = to_lidar[:3, :3] @ np.array([np.cos(turn), 0.0, -np.sin(turn)])
                yaw = float(np.arctan2(ahead[1], ahead[0]))
        track = words[1] if words[1] != "-1" else None
        left, top, right, bottom = values[3:7]
        label = Label(stamp(frame), track, words[2], *place, length, width, height, yaw, (left, top, right, bottom))
        labels.append(label)
    return labels


def camera_to_lidar(text: str) -> np.ndarray:
    """[4, 4] from the rectified camera to the LiDAR, out of a calibration file of the tracking set. Raises ValueError."""
    found: dict[str, np.ndarray] = {}
    for line in text.splitlines():
        name, *words = line.replace(":", " ").split() or [""]
        if name in ("R_rect", "R0_rect") and len(words) == 9:
            found["rectify"] = np.array([float(word) for word in words]).reshape(3, 3)
        elif name in ("Tr_velo_cam", "Tr_velo_to_cam") and len(words) == 12:
            found["lidar"] = np.array([float(word) for word in words]).reshape(3, 4)
    if found.keys() != {"rectify", "lidar"}:
        raise ValueError("it lacks R_rect or Tr_velo_cam")
    if any(not (np.abs(matrix) < _LARGEST).all() for matrix in found.values()):
        raise ValueError("its matrices are no rotation and shift")
    chain = np.eye(4)
    chain[:3] = found["rectify"] @ found["lidar"]
    if not 0.5 < abs(np.linalg.det(chain[:3, :3])) < 2:  # of a rotation it is 1
        raise ValueError("its matrices are no rotation and shift")
    return np.asarray(np.linalg.inv(chain))


def tracklets(path: Path, stamps: Mapping[int, int], refuse: Refuse) -> list[Label]:
    """Objects of tracklet_labels.xml, one label per object and frame. Raises ValueError when the file is broken."""
    root = _parse(path)
    found = root.find("tracklets")
    if found is None:
        raise ValueError("it holds no tracklets")
    labels = []
    for number, item in enumerate(found.findall("item")):
        place = f"tracklet {number}"
        try:
            first = int(_text(item, "first_frame"))
            height, width, length = (float(_text(item, name)) for name in "hwl")
            poses = item.find("poses")
        except ValueError:
            refuse("the tracklet cannot be read", place)
            continue
        for at, pose in enumerate(poses.findall("item") if poses is not None else ()):
            if first + at not in stamps:
                refuse("the label is of a frame that has no stamp", f"{place}, frame {first + at}")
                continue
            try:
                x, y, z, yaw = (float(_text(pose, name)) for name in ("tx", "ty", "tz", "rz"))
            except ValueError:
                refuse("the pose of a label cannot be read", f"{place}, pose {at}")
                continue
            kind = _text(item, "objectType")[:100]
            stamp = stamps[first + at]
            labels.append(Label(stamp, str(number), kind, x, y, z + height / 2, length, width, height, yaw))
    return labels


def _text(element: Element, name: str) -> str:
    """Text of a child. Raises ValueError when there is none."""
    found = element.findtext(name)
    if found is None:
        raise ValueError(f"{name} is missing")
    return found.strip()


def _parse(path: Path) -> Element:
    """XML without entities, which could unpack to any size. Raises ValueError."""
    if path.stat().st_size > MAX_TEXT_BYTES:
        raise ValueError(f"it is larger than {MAX_TEXT_BYTES} bytes")
    builder, depth = TreeBuilder(), 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _MOST_DEPTH:
            raise ValueError("it is nested too deeply")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    def entity(*_: Any) -> None:
        raise ValueError("it declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, ParseError, LookupError) as error:  # LookupError: of an encoding that nobody knows
        raise ValueError(f"it is no XML: {error}") from error

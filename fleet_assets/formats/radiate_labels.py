"""RADIATE's labels: boxes in the radar image, frame by frame.

In: annotations.json of a sequence and the radar's stamps by frame number. Out: columns of labels. Source: the RADIATE SDK: a
box is left, top, width and height in pixels, turned about its centre by `rotation` degrees; entry n of an object's boxes
belongs to radar frame n + 1; an empty entry says that the object is not seen.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

IMAGE_STREAM = "radar"
MAX_BYTES = 16 * 1024 * 1024
METRES_PER_PIXEL = 0.173611
_CENTRE_PX = 576.0
_CLASSES = {
    **{name: ("vehicle", name) for name in ("car", "van", "truck", "bus", "motorbike")},
    "bicycle": ("cyclist", None),
    "pedestrian": ("pedestrian", None),
    "group_of_pedestrians": ("pedestrian", "group"),
}
Box = tuple[int, str, str, float, float, float, float, float]


def read_labels(
    path: Path, stamps: Mapping[int, int], refuse: Callable[[str, str], None]
) -> dict[str, np.ndarray | pa.Array]:
    """stamps: radar frame -> t_device_ns. Labels in order of frame and object. Raises ValueError when the file is broken."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it is larger than {MAX_BYTES} bytes")
    try:
        objects = json.loads(path.read_bytes())
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(objects, list):
        raise ValueError("it is no list of objects")
    boxes: list[Box] = []
    for number, item in enumerate(objects):
        entries = item.get("bboxes") if isinstance(item, dict) else None
        if not isinstance(entries, list):
            refuse("the object has no boxes", f"object {number}")
            continue
        for at, entry in enumerate(entries):
            if not entry:
                continue
            place = f"object {number}, frame {at + 1}"
            if at + 1 not in stamps:
                refuse("the label is of a radar frame that has no stamp", place)
            elif (box := _box(stamps[at + 1], item, entry)) is None:
                refuse("the label is no box", place)
            else:
                boxes.append(box)
    boxes.sort(key=lambda box: box[0])
    return _columns(boxes)


def _box(t_ns: int, item: dict[str, Any], entry: Any) -> Box | None:
    try:
        left, top, width, height = map(float, entry["position"])
        turn = float(entry.get("rotation", 0.0))
        values = (left, top, width, height, turn)
        if not all(map(math.isfinite, values)):
            return None
        return (t_ns, str(item.get("id", ""))[:100], str(item.get("class_name", ""))[:100], *values)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None


def _columns(boxes: list[Box]) -> dict[str, np.ndarray | pa.Array]:
    left, top, width, height, turn = np.array([box[3:] for box in boxes], dtype=np.float64).reshape(-1, 5).T
    classes = [_CLASSES.get(box[2], (box[2] or None, None)) for box in boxes]
    with np.errstate(over="ignore", invalid="ignore"):
        x, y, yaw = left + width / 2, top + height / 2, np.radians(turn)
        # The box that holds the turned one.
        half_x = (np.abs(np.cos(yaw)) * width + np.abs(np.sin(yaw)) * height) / 2
        half_y = (np.abs(np.sin(yaw)) * width + np.abs(np.cos(yaw)) * height) / 2
        return {
            "t_device_ns": np.array([box[0] for box in boxes], dtype=np.int64),
            "track_id": pa.array([box[1] or None for box in boxes], type=pa.string()),
            "class_name": pa.array([name for name, _ in classes], type=pa.string()),
            "subtype": pa.array([kind for _, kind in classes], type=pa.string()),
            # The vehicle is in the middle of the image and looks up.
            "x_m": (_CENTRE_PX - y) * METRES_PER_PIXEL,
            "y_m": (_CENTRE_PX - x) * METRES_PER_PIXEL,
            "length_m": height * METRES_PER_PIXEL,
            "width_m": width * METRES_PER_PIXEL,
            "yaw_rad": np.arctan2(np.sin(yaw), np.cos(yaw)),
            "image_stream": pa.repeat(pa.scalar(IMAGE_STREAM), len(boxes)),
            "left_px": x - half_x,
            "right_px": x + half_x,
            "top_px": y - half_y,
            "bottom_px": y + half_y,
        }

"""JSON messages -> columns, and images of them -> ROS 2.

In: messages. Out: columns of a layout; CompressedImage messages. JSON is read one message at a time: it has no other way.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pyarrow as pa

from fleet_assets.formats import ros2
from fleet_assets.formats.cdr import Columns, Decoded
from fleet_assets.formats.foxglove import Layout

_MAX_STRING = 4096


def parsed(data: bytes) -> dict[str, Any]:
    """Raises ValueError when it is no JSON object."""
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("it is no object")
    return value


def stamp_ns(message: dict[str, Any], path: str) -> int:
    """sec and nsec (ROS 2: nanosec); 0 where nobody set it. Raises ValueError when it is no time."""
    stamp = _at(message, path)
    if stamp is None:
        return 0
    if not isinstance(stamp, dict):
        raise ValueError("its stamp is none")
    seconds, rest = stamp.get("sec", 0), stamp.get("nsec", stamp.get("nanosec", 0))
    if not (type(seconds) is int and type(rest) is int and 0 <= seconds < 2**33 and 0 <= rest < 1_000_000_000):
        raise ValueError("its stamp is none")
    return seconds * 1_000_000_000 + rest


def decode_json(data: np.ndarray, offset: np.ndarray, length: np.ndarray, layout: Layout) -> Decoded:
    """data: uint8; offset, length: int64 [n]. ok: False for messages that are no such JSON."""
    count = len(offset)
    ok, t_ns = np.zeros(count, dtype=bool), np.zeros(count, dtype=np.int64)
    values: dict[str, list[Any]] = {column: [None] * count for column in layout.columns}
    for row, (start, size) in enumerate(zip(offset.tolist(), length.tolist(), strict=True)):
        try:
            message = parsed(data[start : start + size].tobytes())
            t_ns[row] = stamp_ns(message, layout.time)
            for column, path in layout.columns.items():
                values[column][row] = _value(_at(message, path.rstrip("*")), text=path.endswith("*"))
            ok[row] = True
        except ValueError:
            continue
    columns: Columns = {
        column: pa.array(values[column], type=pa.string() if path.endswith("*") else pa.float64(), from_pandas=True)
        for column, path in layout.columns.items()
    }
    return Decoded(columns, t_ns, ok)


def image(data: bytes) -> tuple[bytes, int | None]:
    """foxglove.CompressedImage -> sensor_msgs/msg/CompressedImage, and its stamp. Raises ValueError."""
    message = parsed(data)
    t_ns = stamp_ns(message, "timestamp")
    frame, form, content = (message.get(name, "") for name in ("frame_id", "format", "data"))
    if not all(isinstance(text, str) for text in (frame, form, content)):
        raise ValueError("its members are no texts")
    image_bytes = base64.b64decode(content, validate=True)  # binascii.Error is a ValueError
    return ros2.compressed_image(t_ns, frame[:_MAX_STRING], form[:_MAX_STRING], image_bytes), t_ns or None


def _at(message: dict[str, Any], path: str) -> Any:
    value: Any = message
    for part in path.split("."):
        if value is None:
            return None
        if not isinstance(value, dict):
            raise ValueError(f"{path} is not there")
        value = value.get(part)
    return value


def _value(value: Any, *, text: bool) -> Any:
    if value is None:
        return None
    if text and isinstance(value, str):
        value.encode()  # half a surrogate pair is a ValueError
        return value[:_MAX_STRING]
    if not text and type(value) in (int, float):
        try:
            return float(value)
        except OverflowError as error:
            raise ValueError("a number is too large") from error
    raise ValueError("a member has another type")

"""Messages in protobuf and JSON: which are read, and where in them the columns are.

In: names of schemas. Out: paths of members. Foxglove's schemas, and messages that are called like ROS 2's and have their members
(a bridge writes such JSON). Source: github.com/foxglove/foxglove-sdk, schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fleet_assets.formats.reader import PAYLOAD_KINDS
from fleet_assets.formats.ros2_rows import RADAR_TOPIC

ENCODINGS = ("protobuf", "json")


@dataclass(frozen=True)
class Layout:
    """time: path of the stamp. columns: column -> path; ending in * for a text."""

    kind: str
    time: str
    columns: Mapping[str, str] = field(default_factory=dict)


_POSE = {
    **{f"{axis}_m": f"pose.position.{axis}" for axis in "xyz"},
    **{f"orientation_{axis}": f"pose.orientation.{axis}" for axis in "xyzw"},
}
_FIX = {"latitude_deg": "latitude", "longitude_deg": "longitude", "altitude_m": "altitude"}
_IMU = {
    **{f"accel_{axis}_mps2": f"linear_acceleration.{axis}" for axis in "xyz"},
    **{f"gyro_{axis}_radps": f"angular_velocity.{axis}" for axis in "xyz"},
}
_SIGNAL = {"message": "message*", "signal": "signal*", "value": "value", "unit": "unit*"}
LAYOUTS: Mapping[str, Layout] = {
    "foxglove.CompressedImage": Layout("camera", "timestamp"),
    "foxglove.CompressedVideo": Layout("camera", "timestamp"),
    "foxglove.RawImage": Layout("camera", "timestamp"),
    "foxglove.PointCloud": Layout("lidar", "timestamp"),
    "foxglove.LaserScan": Layout("lidar", "timestamp"),
    "foxglove.LocationFix": Layout("gnss", "timestamp", _FIX),
    "foxglove.PoseInFrame": Layout("pose", "timestamp", {"frame": "frame_id*", **_POSE}),
    "sensor_msgs.Imu": Layout("imu", "header.stamp", _IMU),
    "sensor_msgs.NavSatFix": Layout("gnss", "header.stamp", _FIX),
    "geometry_msgs.PoseStamped": Layout("pose", "header.stamp", {"frame": "header.frame_id*", **_POSE}),
    "fleet_msgs.Signal": Layout("bus", "header.stamp", _SIGNAL),
}
# Payload that is base64 inside of JSON is no use where it lies; these are rewritten.
REWRITTEN_JSON = ("foxglove.CompressedImage",)


def layout_of(schema_name: str) -> Layout | None:
    """sensor_msgs/msg/Imu, sensor_msgs/Imu and sensor_msgs.Imu are one."""
    return LAYOUTS.get(schema_name.replace("/msg/", ".").replace("/", "."))


def kind_of_message(topic: str, schema_name: str, encoding: str) -> str | None:
    """Kind of stream; None: not one that is read."""
    layout = layout_of(schema_name)
    if layout is None or (encoding == "json" and layout.kind in PAYLOAD_KINDS and schema_name not in REWRITTEN_JSON):
        return None
    return "radar" if layout.kind in PAYLOAD_KINDS and topic.startswith(RADAR_TOPIC) else layout.kind

"""A short drive as ROS 2 messages, which several formats carry.

In: a length. Out: messages. Same bytes every time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from formats.sample import T0_NS

from fleet_assets.formats import ros2

UP = np.array([0.0, 0.0, 9.81])
CAR = ros2.Object(
    "vehicle",
    "car7",
    "car",
    True,
    10.0,
    -2.0,
    0.5,
    4.4,
    1.8,
    1.5,
    0.1,
    12.0,
    0.75,
    "camera_front",
    (1.0, 2.0, 30.0, 40.0),
)
UNTURNED = np.array([0.0, 0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Message:
    topic: str
    schema: str
    t_host_ns: int
    data: bytes


def drive(seconds: float = 2.0, *, image_bytes: int = 2000) -> list[Message]:
    """A short drive: camera 10 Hz, LiDAR 10 Hz, radar 4 Hz, IMU 100 Hz, GNSS 1 Hz, bus 20 Hz, pose 50 Hz, labels 10 Hz (of
    one object each). Host stamps are 3 ms late."""
    points = np.zeros(40, dtype=[("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("ring", "<u2")])
    noise = np.random.default_rng(1).bytes(image_bytes)
    zero = np.zeros(3)
    makers: list[tuple[str, str, float, Callable[[int, int], bytes]]] = [
        (
            "/camera/front",
            "sensor_msgs/msg/CompressedImage",
            10,
            lambda t, n: ros2.compressed_image(t, "cam", "png", noise),
        ),
        ("/lidar", "sensor_msgs/msg/PointCloud2", 10, lambda t, n: ros2.point_cloud2(t, "lidar", points)),
        ("/radar", "sensor_msgs/msg/CompressedImage", 4, lambda t, n: ros2.compressed_image(t, "radar", "png", noise)),
        ("/imu", "sensor_msgs/msg/Imu", 100, lambda t, n: ros2.imu(t, "imu", UP + n, zero)),
        ("/gnss", "sensor_msgs/msg/NavSatFix", 1, lambda t, n: ros2.nav_sat_fix(t, "gnss", 55.0 + n, 10.0, 3.0, 1.5)),
        (
            "/bus/vehicle",
            "fleet_msgs/msg/Signal",
            20,
            lambda t, n: ros2.signal(t, "bus", "wheel" + "s" * (n % 3), "v", n, "m/s"),
        ),
        (
            "/pose",
            "nav_msgs/msg/Odometry",
            50,
            lambda t, n: ros2.odometry(t, "map", "body", UP * n, UNTURNED, UP, zero),
        ),
        ("/labels", "fleet_msgs/msg/ObjectArray", 10, lambda t, n: ros2.object_array(t, "body", [CAR])),
    ]
    messages = []
    for topic, schema, rate_hz, make in makers:
        for n in range(round(seconds * rate_hz)):
            t_ns = T0_NS + round(n * 1e9 / rate_hz)
            messages.append(Message(topic, schema, t_ns + 3_000_000, make(t_ns, n)))
    return sorted(messages, key=lambda message: (message.t_host_ns, message.topic))


def counts(messages: list[Message]) -> dict[str, int]:
    return {topic: sum(m.topic == topic for m in messages) for topic in sorted({m.topic for m in messages})}

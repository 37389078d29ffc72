"""What a live kernel is fed: one record of one sensor.

In: nothing. Out: the layout of a record, the numbers of the sources, and what the values of each mean.
"""

from __future__ import annotations

import numpy as np

VALUES = 8
# t_device_ns is NO_TIME where a record has no stamp of its own.
RECORD = np.dtype(
    [
        ("t_host_ns", "<i8"),
        ("t_device_ns", "<i8"),
        ("sequence", "<i8"),
        ("source", "<i4"),
        ("stream", "<i4"),  # rank of the stream's name, which orders records that arrive at one instant
        ("values", "<f8", (VALUES,)),
    ]
)
NO_TIME = np.iinfo(np.int64).min

# Sources, and their values; what is not known is NaN.
IMU = 0  # accel x, y, z [m/s^2]; gyro x, y, z [rad/s]
GNSS = 1  # latitude [deg], longitude [deg], speed [m/s], heading [deg], accuracy [m]
SPEED = 2  # speed [m/s]
STEERING = 3  # steering angle [deg]
CAMERA = 4  # checksum; mean luminance, contrast, sharpness, share of saturated pixels (payload.image_summary)
LIDAR = (
    5  # checksum; returns, mean range [m], far range [m], share of near returns, mean intensity (payload.cloud_summary)
)
RADAR = 6  # as LIDAR; of an image: checksum; returns, NaN, NaN, share of returns that stand alone, mean intensity (radar_summary)
SOURCES = ("imu", "gnss", "speed", "steering", "camera", "lidar", "radar")
COUNT = len(SOURCES)

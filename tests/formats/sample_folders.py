"""Small recordings in formats of many files: comma2k19, KITTI raw, KITTI tracking.

In: an empty folder. Out: the files, as the data sets' own documentation lays them out, and what they hold.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from formats.sample import Folder, Sample, png

from fleet_assets.formats.comma2k19 import Comma2k19Reader
from fleet_assets.formats.kitti import KittiRawReader, KittiTrackingReader

BOOT_S = 46_408.5
SEGMENT = "0123456789abcdef|2018-08-02--08-34-47/40"


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def comma2k19(root: Path) -> Sample:
    """Two seconds: bus 90 Hz, IMU 100 Hz (stored by columns, as in the real one), GNSS 10 and 0.5 Hz, poses 20 Hz, radar
    tracks in bursts of 8 at 20 Hz, two of each burst with one stamp."""
    folder = Folder(root)

    def signal(name: str, t_s: np.ndarray, values: np.ndarray) -> None:
        folder.put(f"{SEGMENT}/processed_log/{name}/t", npy(t_s))
        folder.put(f"{SEGMENT}/processed_log/{name}/value", npy(values))

    bus_s = BOOT_S + np.arange(180) / 90
    signal("CAN/speed", bus_s, 10.0 + np.arange(180.0)[:, None] / 10)
    signal("CAN/steering_angle", bus_s - 0.004, np.arange(180.0) / 10)
    signal("CAN/wheel_speed", bus_s, 10.0 + np.arange(180.0)[:, None] / 10 + np.arange(4.0))
    bursts_s = (BOOT_S + np.arange(40) / 20)[:, None] + np.repeat(np.arange(4), 2) * 5e-6
    tracks = np.tile([74.5, -2.75, 3.5, np.nan, np.nan, 528.0, 0.0], (320, 1))
    signal("CAN/radar", bursts_s.ravel(), tracks)
    imu_s = BOOT_S + np.arange(200) / 100
    signal("IMU/accelerometer", imu_s, np.asfortranarray(np.tile([0.5, 0.25, -9.75], (200, 1))))
    signal("IMU/gyro", imu_s, np.asfortranarray(np.tile([0.01, -0.02, 0.125], (200, 1))))
    signal("IMU/magnetometer", imu_s[::10], np.ones((20, 3)))
    start_ms = 1_533_226_488_299.0
    for name, period_s, count in (("live_gnss_ublox", 0.1, 20), ("live_gnss_qcom", 2.0, 1)):
        n = np.arange(float(count))
        fix = np.column_stack([37.72 + n / 1e5, -122.47 + 0 * n, 7.5 + n, start_ms + n * period_s * 1e3, 33 + n, n])
        signal(f"GNSS/{name}", BOOT_S + 0.1 + n * period_s, fix)
    frames = np.arange(40.0)
    turned = np.tile([0.5, -0.5, 0.5, 0.5], (40, 1))  # w, x, y, z
    poses = {
        "frame_times": BOOT_S + frames / 20,
        "frame_gps_times": np.column_stack([np.full(40, 2012.0), 404_106.397 + frames / 20]),
        "frame_positions": np.array([-2_712_087.5, -4_261_670.0, 3_881_014.5]) + frames[:, None],
        "frame_orientations": turned,
        "frame_velocities": np.tile([1.0, 2.0, 3.0], (40, 1)),
    }
    for name, values in poses.items():
        folder.put(f"{SEGMENT}/global_pose/{name}", npy(values))
    folder.put("LICENSE", "MIT")
    folder.put(f"{SEGMENT}/preview.png", png(1))
    rows = {"/bus/vehicle": 180 * 6, "/imu": 200, "/gnss/ublox": 20, "/gnss/qcom": 1, "/gnss/time": 40, "/pose": 40}
    main = f"{SEGMENT}/processed_log/IMU/accelerometer/value"
    return Sample(Comma2k19Reader, folder.files, rows, main, payloads={"/radar/tracks": 320}, refused=20)


OXTS = (
    "49.0150038 8.4342971 112.5 0.02 0.01 1.5707963 8.0 0.5 8.01 0.1 0.02 0.3 -0.2 9.8 0.31 -0.21 9.79 0.001 0.002 0.03 "
    "0.0011 0.0021 0.031 0.05 0.01 4 10 4 4 0"
)
TRACKLETS = """<?xml version="1.0" encoding="UTF-8" standalone="yes" ?>
<!DOCTYPE boost_serialization>
<boost_serialization signature="serialization::archive" version="9">
<tracklets class_id="0" tracking_level="0" version="0">
<count>2</count><item_version>1</item_version>
<item class_id="1" tracking_level="0" version="1"><objectType>Van</objectType><h>2.0</h><w>1.8</w><l>4.5</l>
<first_frame>1</first_frame><poses class_id="2" tracking_level="0" version="0"><count>3</count><item_version>2</item_version>
{poses}</poses><finished>1</finished></item>
<item><objectType>Cyclist</objectType><h>1.7</h><w>0.6</w><l>1.8</l><first_frame>4</first_frame>
<poses><count>1</count><item_version>2</item_version>{pose}</poses><finished>1</finished></item>
</tracklets>
</boost_serialization>
"""
TRACKLET_POSE = (
    '<item class_id="3" tracking_level="0" version="2"><tx>{x}</tx><ty>-4.0</ty><tz>-1.5</tz><rx>0</rx><ry>0</ry>'
    "<rz>0.25</rz><state>2</state><occlusion>0</occlusion><occlusion_kf>0</occlusion_kf><truncation>0</truncation></item>"
)


def points(seed: int) -> bytes:
    return (np.random.default_rng(seed).random((50, 4)) * 30).astype("<f4").tobytes()


def kitti_raw(root: Path, *, whole: bool = False) -> Sample:
    """Six frames at 10 Hz; unless it is whole, the third sweep is missing, and the last image has no stamp."""
    folder = Folder(root)
    base = "2011_09_26/2011_09_26_drive_0001_sync"

    def stamps(sensor: str, count: int, shift_ns: int) -> None:
        lines = (f"2011-09-26 13:02:{25 + n // 10}.{n % 10 * 100_000_000 + shift_ns:09d}\n" for n in range(count))
        folder.put(f"{base}/{sensor}/timestamps.txt", "".join(lines))

    for number in range(4):
        for n in range(6):
            folder.put(f"{base}/image_{number:02d}/data/{n:010d}.png", png(n))
        stamps(f"image_{number:02d}", 5 if number == 3 and not whole else 6, 1_000)
    for n in range(6):
        if n != 2 or whole:
            folder.put(f"{base}/velodyne_points/data/{n:010d}.bin", points(n))
        folder.put(f"{base}/oxts/data/{n:010d}.txt", OXTS)
    stamps("velodyne_points", 6, 12_345_678)
    stamps("oxts", 6, 2_000_000)
    folder.put(f"{base}/velodyne_points/timestamps_start.txt", "2011-09-26 13:02:24.964389445\n")
    folder.put(f"{base}/oxts/dataformat.txt", "lat: latitude of the oxts-unit (deg)\n")
    poses = "".join(TRACKLET_POSE.format(x=10 + n) for n in range(3))
    folder.put(f"{base}/tracklet_labels.xml", TRACKLETS.format(poses=poses, pose=TRACKLET_POSE.format(x=20)))
    folder.put("2011_09_26/calib_cam_to_cam.txt", "calib_time: 09-Jan-2012 13:57:47\n")
    lacking = 0 if whole else 1
    cameras = {f"/camera/{number:02d}": 6 - lacking if number == 3 else 6 for number in range(4)}
    return Sample(
        KittiRawReader,
        folder.files,
        {"/oxts": 6, "/oxts/fix": 6, "/labels": 4},
        f"{base}/oxts/timestamps.txt",
        payloads={**cameras, "/lidar/velodyne": 6 - lacking},
        refused=2 * lacking,
    )


CALIBRATION = """P0: 721.5 0 609.5 0 0 721.5 172.8 0 0 0 1 0
R_rect 1 0 0 0 1 0 0 0 1
Tr_velo_cam 0 -1 0 0 0 0 -1 -0.1 1 0 0 -0.25
Tr_imu_velo 1 0 0 -0.8 0 1 0 0.3 0 0 1 -0.8
"""
TRACKING_LABELS = """0 0 Van 0 0 -1.79 296.7 161.8 455.2 292.4 2.0 1.8 4.5 -4.5 1.75 13.5 -1.5707963
0 -1 DontCare -1 -1 -10 219.3 188.5 245.5 218.6 -1000 -1000 -1000 -10 -1 -1 -1
1 0 Van 0 1 -1.8 294.9 156.0 452.2 284.6 2.0 1.8 4.5 -4.6 1.7 13.3 -1.57
1 1 Person_sitting 1 0 0.5 10 20 30 40 1.2 0.6 0.8 3.0 1.6 8.0 0.0
"""


def kitti_tracking(root: Path) -> Sample:
    """Five frames of sequence 0007 of training."""
    folder = Folder(root)
    for n in range(5):
        for camera in ("image_02", "image_03"):
            folder.put(f"training/{camera}/0007/{n:06d}.png", png(n))
        folder.put(f"training/velodyne/0007/{n:06d}.bin", points(n))
    folder.put("training/oxts/0007.txt", (OXTS + "\n") * 5)
    folder.put("training/label_02/0007.txt", TRACKING_LABELS)
    folder.put("training/calib/0007.txt", CALIBRATION)
    return Sample(
        KittiTrackingReader,
        folder.files,
        {"/oxts": 5, "/oxts/fix": 5, "/labels": 4},
        "training/oxts/0007.txt",
        payloads={"/camera/02": 5, "/camera/03": 5, "/lidar/velodyne": 5},
    )

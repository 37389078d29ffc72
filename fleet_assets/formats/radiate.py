"""The RADIATE folder format: one folder per sensor, one index file `<sensor>.txt` beside it.

In: a recording folder that holds a RADIATE sequence. Out: GPS/IMU as signals; LiDAR, cameras and radar as payload, to be
rewritten as MCAP. Stamps are the sensors' own (`Frame: N Time: T`, seconds with nine decimals); there are no host stamps.
Source: the RADIATE SDK and paper (Sheeny et al., 2021).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.csv

from fleet_assets.formats import ros2
from fleet_assets.formats.reader import (
    BATCH_ROWS,
    SCHEMAS,
    Batch,
    Channel,
    Payload,
    RecordingFiles,
    RecordingInfo,
    Refusal,
    head,
)

_LINE = re.compile(rb"Frame: (\d{1,9}) Time: (\d{1,10})\.(\d{9})\s*")
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("ring", "<u2")])
MAX_FILE_BYTES = 64 * 1024 * 1024
# Not records of a sensor: they are delivered and kept, and nothing is lost by not reading them.
NOT_RECORDS = re.compile(r"(.*/)?(LICENSE|README[^/]*|meta\.json|config/[^/]+\.yaml)")


@dataclass(frozen=True)
class _Sensor:
    folder: str
    suffix: str
    topic: str
    kind: str
    schema_name: str


SENSORS = (
    _Sensor("velo_lidar", ".csv", "/lidar", "lidar", "sensor_msgs/msg/PointCloud2"),
    _Sensor("zed_left", ".png", "/camera/left", "camera", "sensor_msgs/msg/CompressedImage"),
    _Sensor("zed_right", ".png", "/camera/right", "camera", "sensor_msgs/msg/CompressedImage"),
    _Sensor("Navtech_Cartesian", ".png", "/radar", "radar", "sensor_msgs/msg/CompressedImage"),
    _Sensor("Navtech_Polar", ".png", "/radar/polar", "radar", "sensor_msgs/msg/CompressedImage"),
)
GPS_IMU = _Sensor("GPS_IMU_Twist", ".txt", "/gps/imu", "imu", "")
GPS_IMU_FIX_TOPIC = "/gps/imu/fix"


@dataclass(frozen=True)
class _Entry:
    frame: int
    t_device_ns: int
    path: Path


class RadiateReader:
    format: ClassVar[str] = "radiate"
    payload_in_place: ClassVar[bool] = False

    def __init__(self, files: RecordingFiles) -> None:
        self._files = files
        self._base = _sequence_folder(files)
        self._names = set(files.names)
        self.refusals: list[Refusal] = []
        self._account_for_the_rest()

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        base = _sequence_folder(files)
        if base is None:
            return False
        indexes = [files.root / base / f"{sensor.folder}.txt" for sensor in (*SENSORS, GPS_IMU)]
        return any(_LINE.match(head(index, 64)) for index in indexes)

    def info(self) -> RecordingInfo:
        first = [entry.t_device_ns for sensor in SENSORS for entry in self._entries(sensor, [])[:1]]
        # The folder's name is the sequence's: town, motorway, fog and so on.
        return RecordingInfo(None, min(first, default=None), {"sequence": self._folder.name})

    @property
    def _folder(self) -> PurePosixPath:
        return self._base or PurePosixPath()

    def channels(self) -> list[Channel]:
        found = [s for s in SENSORS if f"{self._folder / s.folder}.txt" in self._names]
        channels = [Channel(s.topic, s.kind, s.schema_name) for s in found]
        if f"{self._folder / GPS_IMU.folder}.txt" in self._names:
            channels += [Channel(GPS_IMU.topic, "imu", "text"), Channel(GPS_IMU_FIX_TOPIC, "gnss", "text")]
        return channels

    def payloads(self) -> Iterator[Payload]:
        """Sensor by sensor; a file that cannot be read is a refusal."""
        for sensor in SENSORS:
            encode: Callable[[_Entry], bytes] = _cloud if sensor.kind == "lidar" else _image
            for entry in self._entries(sensor, self.refusals):
                try:
                    data = encode(entry)
                except (ValueError, OSError, pa.ArrowInvalid) as error:
                    place = f"{sensor.folder}/{entry.path.name}"
                    self.refusals.append(Refusal(sensor.topic, f"the file cannot be read: {_first_line(error)}", place))
                    continue
                yield Payload(sensor.topic, entry.t_device_ns, None, sensor.schema_name, data)

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        wanted = [t for t in (GPS_IMU.topic, GPS_IMU_FIX_TOPIC) if topics is None or t in topics]
        if not wanted:
            return
        entries = self._entries(GPS_IMU, self.refusals, also=GPS_IMU_FIX_TOPIC)
        rows, stamps = [], []
        for entry in entries:
            try:
                rows.append(_numbers(entry.path))
                stamps.append(entry.t_device_ns)
            except (ValueError, OSError) as error:
                for topic in wanted:
                    self.refusals.append(
                        Refusal(topic, f"the file cannot be read: {_first_line(error)}", entry.path.name)
                    )
        values = np.array(rows, dtype=np.float64).reshape(-1, _NUMBERS)
        t_ns = np.array(stamps, dtype=np.int64)
        sequence = np.arange(len(t_ns))
        keep = np.ones(len(t_ns), dtype=bool)
        if t_from_ns is not None:
            keep &= t_ns >= t_from_ns
        if t_to_ns is not None:
            keep &= t_ns < t_to_ns
        for topic in wanted:
            columns = _imu(values) if topic == GPS_IMU.topic else _fix(values)
            kind = "imu" if topic == GPS_IMU.topic else "gnss"
            columns |= {"sequence": sequence, "t_device_ns": t_ns}
            for start in range(0, int(keep.sum()), BATCH_ROWS):
                index = np.flatnonzero(keep)[start : start + BATCH_ROWS]
                yield Batch(topic, kind, _table(kind, columns, index))

    def _entries(self, sensor: _Sensor, refusals: list[Refusal], also: str | None = None) -> list[_Entry]:
        """Index lines with their file, in order of the index; what does not match both ways is refused."""
        index_name = f"{self._folder / sensor.folder}.txt"
        if index_name not in self._names:
            return []
        index = self._files.root / index_name
        topics = [sensor.topic, *([also] if also else [])]
        prefix = f"{self._folder / sensor.folder}/"
        files = {
            int(PurePosixPath(name).stem): self._files.root / name
            for name in self._names
            if name.startswith(prefix) and name.endswith(sensor.suffix) and PurePosixPath(name).stem.isdecimal()
        }
        entries, used = [], set()
        for number, line in enumerate(index.read_bytes().splitlines(), 1):
            match = _LINE.fullmatch(line)
            if match is None:
                if line.strip():
                    refusals += [
                        Refusal(t, "the index line cannot be read", f"{index.name}: line {number}") for t in topics
                    ]
                continue
            frame, t_ns = int(match[1]), int(match[2]) * 1_000_000_000 + int(match[3])
            if frame not in files:
                why = "the index names a file that is not there"
                refusals += [Refusal(t, why, f"{index.name}: line {number}") for t in topics]
                continue
            used.add(frame)
            entries.append(_Entry(frame, t_ns, files[frame]))
        for frame in sorted(set(files) - used):
            place = f"{sensor.folder}/{files[frame].name}"
            refusals += [Refusal(t, "the file has no stamp in the index", place) for t in topics]
        return entries

    def _account_for_the_rest(self) -> None:
        """Files that belong to no sensor: labels are read in a later version, others are not known."""
        known = tuple(f"{self._folder / sensor.folder}/" for sensor in (*SENSORS, GPS_IMU))
        indexes = {f"{self._folder / sensor.folder}.txt" for sensor in (*SENSORS, GPS_IMU)}
        for name in sorted(self._names):
            if name.startswith(known) or name in indexes or NOT_RECORDS.fullmatch(name):
                continue
            labels = name.startswith(f"{self._folder / 'annotations'}/")
            topic, why = (
                ("/annotations", "labels are not read yet") if labels else (None, "the file belongs to no sensor")
            )
            self.refusals.append(Refusal(topic, why, name))


def _sequence_folder(files: RecordingFiles) -> PurePosixPath | None:
    """The folder that holds the index files; None unless there is exactly one."""
    index_names = {f"{sensor.folder}.txt" for sensor in SENSORS}
    found = {PurePosixPath(name).parent for name in files.names if PurePosixPath(name).name in index_names}
    return found.pop() if len(found) == 1 else None


def _read(path: Path) -> bytes:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    return path.read_bytes()


def _image(entry: _Entry) -> bytes:
    data = _read(entry.path)
    if not data.startswith(b"\x89PNG\r\n\x1a\n") or not data.rstrip(b"\0").endswith(b"IEND\xaeB`\x82"):
        raise ValueError("it is no whole PNG")
    return ros2.compressed_image(entry.t_device_ns, entry.path.parent.name, "png", data)


def _cloud(entry: _Entry) -> bytes:
    """Lines x, y, z [m], intensity, ring."""
    options = pa.csv.ReadOptions(column_names=list(_POINT.names or ()))
    types = {name: pa.float64() for name in _POINT.names or ()}
    data = _read(entry.path)
    if not data.strip():
        raise ValueError("it is empty")
    table = pa.csv.read_csv(pa.py_buffer(data), options, convert_options=pa.csv.ConvertOptions(column_types=types))
    points = np.zeros(table.num_rows, dtype=_POINT)
    for name in _POINT.names or ():
        points[name] = table[name].to_numpy()
    return ros2.point_cloud2(entry.t_device_ns, entry.path.parent.name, points)


_NUMBERS = 15


def _numbers(path: Path) -> np.ndarray:
    """What is taken of a GPS_IMU_Twist file: latitude, longitude, altitude; variances east and north; quaternion x, y, z,
    w; angular velocity; linear acceleration. What follows in the file (covariances, twist) is not."""
    words = _read(path).decode("ascii").replace(",", " ").split()
    if len(words) < 22:
        raise ValueError(f"it has {len(words)} numbers, not 22 or more")
    numbers = np.array([float(word) for word in words[:22]])
    return np.concatenate([numbers[:4], numbers[7:8], numbers[12:22]])


def _imu(values: np.ndarray) -> dict[str, np.ndarray]:
    return {
        **{f"orientation_{axis}": values[:, 5 + index] for index, axis in enumerate("xyzw")},
        **{f"gyro_{axis}_radps": values[:, 9 + index] for index, axis in enumerate("xyz")},
        **{f"accel_{axis}_mps2": values[:, 12 + index] for index, axis in enumerate("xyz")},
    }


def _fix(values: np.ndarray) -> dict[str, np.ndarray]:
    with np.errstate(invalid="ignore"):
        accuracy = np.sqrt((values[:, 3] + values[:, 4]) / 2)
    return {
        "latitude_deg": values[:, 0],
        "longitude_deg": values[:, 1],
        "altitude_m": values[:, 2],
        "accuracy_m": accuracy,
        "valid": np.ones(len(values), dtype=bool),
    }


def _table(kind: str, columns: dict[str, np.ndarray], index: np.ndarray) -> pa.Table:
    schema = SCHEMAS[kind]
    return pa.table(
        [
            pa.array(columns[field.name][index], type=field.type, from_pandas=True)
            if field.name in columns
            else pa.nulls(len(index), field.type)
            for field in schema
        ],
        schema=schema,
    )


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__

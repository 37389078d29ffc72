"""The RADIATE folder format: one folder per sensor, one index file `<sensor>.txt` beside it.

In: a recording folder that holds a RADIATE sequence. Out: GPS/IMU and labels as signals; LiDAR, cameras and radar as payload, to
be rewritten as MCAP. Stamps are the sensors' own (`Frame: N Time: T`, seconds with nine decimals); there are no host stamps.
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
from fleet_assets.formats.folders import (
    FileRecord,
    first_line,
    interleaved,
    png_image,
    read_file,
    refusing,
)
from fleet_assets.formats.radiate_labels import read_labels
from fleet_assets.formats.reader import (
    BATCH_ROWS,
    Accounted,
    Batch,
    Channel,
    Payload,
    RecordingFiles,
    RecordingInfo,
    Refusals,
    batch_table,
    head,
    in_window,
)

_LINE = re.compile(rb"Frame: (\d{1,9}) Time: (\d{1,10})\.(\d{9})\s*")
_FRAME = re.compile(r"\d{1,9}", re.ASCII)
_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("intensity", "<f4"), ("ring", "<u2")])
# Not records of a sensor: they are delivered and kept, and nothing is lost by not reading them.
NOT_RECORDS = re.compile(r"(.*/)?(LICENSE|README[^/]*|meta\.json|config/[^/]+\.yaml)")


@dataclass(frozen=True)
class _Sensor:
    folder: str
    suffix: str
    topic: str
    kind: str
    schema_name: str


PAYLOAD_SENSORS = (
    _Sensor("velo_lidar", ".csv", "/lidar", "lidar", "sensor_msgs/msg/PointCloud2"),
    _Sensor("zed_left", ".png", "/camera/left", "camera", "sensor_msgs/msg/CompressedImage"),
    _Sensor("zed_right", ".png", "/camera/right", "camera", "sensor_msgs/msg/CompressedImage"),
    _Sensor("Navtech_Cartesian", ".png", "/radar", "radar", "sensor_msgs/msg/CompressedImage"),
    _Sensor("Navtech_Polar", ".png", "/radar/polar", "radar", "sensor_msgs/msg/CompressedImage"),
)
GPS_IMU = _Sensor("GPS_IMU_Twist", ".txt", "/gps/imu", "imu", "")
GPS_IMU_FIX_TOPIC = "/gps/imu/fix"
LABELS_TOPIC = "/labels"
SENSORS = (*PAYLOAD_SENSORS, GPS_IMU)
_SENSOR_OF = {sensor.topic: sensor for sensor in PAYLOAD_SENSORS}


class RadiateReader(Accounted):
    format: ClassVar[str] = "radiate"
    payload_in_place: ClassVar[bool] = False

    def __init__(self, files: RecordingFiles) -> None:
        self._files = files
        self._folder = _sequence_folder(files) or PurePosixPath()
        super().__init__()

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        base = _sequence_folder(files)
        if base is None:
            return False
        indexes = [f"{base / sensor.folder}.txt" for sensor in SENSORS]
        return any(_LINE.match(head(files.root / name, 64)) for name in indexes if name in files.names)

    def info(self) -> RecordingInfo:
        """t_start_ns: the first stamp of a camera, LiDAR or radar; the folder's name is the sequence's."""
        stamps = [entry.t_ns for sensor in PAYLOAD_SENSORS for entry in self._entries(sensor, Refusals())]
        return RecordingInfo(None, min(stamps, default=None), {"sequence": self._folder.name})

    def channels(self) -> list[Channel]:
        channels = [Channel(s.topic, s.kind, s.schema_name) for s in PAYLOAD_SENSORS if self._index(s) is not None]
        if self._index(GPS_IMU) is not None:
            channels += [Channel(GPS_IMU.topic, "imu", "text"), Channel(GPS_IMU_FIX_TOPIC, "gnss", "text")]
        if self._annotations is not None:
            channels.append(Channel(LABELS_TOPIC, "label", "json"))
        return channels

    def payloads(self) -> Iterator[Payload]:
        """In order of the stamps; a file that cannot be read is a refusal."""
        self._payload_log.clear()
        for entry in interleaved([self._entries(sensor, self._payload_log) for sensor in PAYLOAD_SENSORS]):
            sensor = _SENSOR_OF[entry.topic]
            data = refusing(self._payload_log, entry, _cloud if sensor.kind == "lidar" else _image)
            if data is not None:
                yield Payload(entry.topic, entry.t_ns, None, sensor.schema_name, data)

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """GPS, IMU and labels; the other topics come through payloads. Stamps are the device's."""
        self._signal_log.clear()
        wanted = [t for t in (GPS_IMU.topic, GPS_IMU_FIX_TOPIC) if topics is None or t in topics]
        if wanted:
            yield from self._gps_imu(wanted, (t_from_ns, t_to_ns))
        if (topics is None or LABELS_TOPIC in topics) and self._annotations is not None:
            yield from self._labels(self._annotations, (t_from_ns, t_to_ns))

    def _labels(self, path: Path, window: tuple[int | None, int | None]) -> Iterator[Batch]:
        def refuse(reason: str, place: str) -> None:
            self._signal_log.add(LABELS_TOPIC, reason, f"{path.name}: {place}")

        radar = next(sensor for sensor in PAYLOAD_SENSORS if sensor.topic == "/radar")
        stamps = {int(entry.path.stem): entry.t_ns for entry in self._entries(radar, Refusals())}
        try:
            columns = read_labels(path, stamps, refuse)
        except (ValueError, OSError) as error:
            self._signal_log.add(LABELS_TOPIC, "the file cannot be read", f"{path.name}: {first_line(error)}", 0)
            return
        table = batch_table("label", columns, in_window(columns["t_device_ns"], *window), first=0)
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield Batch(LABELS_TOPIC, "label", table.slice(start, BATCH_ROWS))

    def _gps_imu(self, wanted: list[str], window: tuple[int | None, int | None]) -> Iterator[Batch]:
        entries = self._entries(GPS_IMU, self._signal_log, wanted)
        counts = dict.fromkeys(wanted, 0)
        for start in range(0, len(entries), BATCH_ROWS):
            rows, stamps = [], []
            for entry in entries[start : start + BATCH_ROWS]:
                try:
                    rows.append(_numbers(entry.path))
                    stamps.append(entry.t_ns)
                except (ValueError, OSError) as error:
                    for topic in wanted:
                        place = f"{entry.place}: {first_line(error)}"
                        self._signal_log.add(topic, "the file cannot be read", place)
            values = np.array(rows, dtype=np.float64).reshape(-1, _NUMBERS)
            t_ns = np.array(stamps, dtype=np.int64)
            keep = in_window(t_ns, *window)
            for topic in wanted:
                columns = _imu(values) if topic == GPS_IMU.topic else _fix(values)
                kind = "imu" if topic == GPS_IMU.topic else "gnss"
                table = batch_table(kind, columns | {"t_device_ns": t_ns}, keep, first=counts[topic])
                counts[topic] += table.num_rows
                if table.num_rows:
                    yield Batch(topic, kind, table)

    def _index(self, sensor: _Sensor) -> Path | None:
        name = f"{self._folder / sensor.folder}.txt"
        return self._files.root / name if name in self._files.names else None

    @property
    def _annotations(self) -> Path | None:
        name = str(self._folder / "annotations" / "annotations.json")
        return self._files.root / name if name in self._files.names else None

    def _entries(self, sensor: _Sensor, log: Refusals, topics: Collection[str] | None = None) -> list[FileRecord]:
        """Index lines with their file, in order of the index; what does not match both ways is refused for each topic."""

        def refuse(reason: str, place: str) -> None:
            for topic in topics or [sensor.topic]:
                log.add(topic, reason, place)

        files = self._frames(sensor, refuse)
        index = self._index(sensor)
        if index is None:
            for path in files.values():
                refuse("the sensor has no index of stamps", f"{sensor.folder}/{path.name}")
            return []
        try:
            lines = read_file(index).splitlines()
        except (ValueError, OSError) as error:
            refuse("the index cannot be read", f"{index.name}: {first_line(error)}")
            return []
        entries, used = [], set()
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{index.name}: line {number}"
            match = _LINE.fullmatch(line)
            if match is None:
                refuse("the index line cannot be read", place)
                continue
            frame, t_ns = int(match[1]), int(match[2]) * 1_000_000_000 + int(match[3])
            if t_ns > np.iinfo(np.int64).max:
                refuse("the stamp is no time", place)
            elif frame not in files:
                refuse("the index names a file that is not there", place)
            elif frame in used:
                refuse("the index names a file again", place)
            else:
                used.add(frame)
                entries.append(FileRecord(sensor.topic, t_ns, files[frame]))
        for frame in sorted(set(files) - used):
            refuse("the file has no stamp in the index", f"{sensor.folder}/{files[frame].name}")
        return entries

    def _frames(self, sensor: _Sensor, refuse: Callable[[str, str], None]) -> dict[int, Path]:
        """Files of a sensor by frame number."""
        files: dict[int, Path] = {}
        for name in sorted(self._files.names):
            path = PurePosixPath(name)
            if path.parent != self._folder / sensor.folder:
                continue
            place = f"{sensor.folder}/{path.name}"
            if path.suffix != sensor.suffix or not _FRAME.fullmatch(path.stem):
                refuse("the file's name is no frame of the sensor", place)
            elif int(path.stem) in files:
                refuse("two files have the same frame number", place)
            else:
                files[int(path.stem)] = self._files.root / name
        return files

    def _account_for_the_rest(self, log: Refusals) -> None:
        """Files that belong to no sensor."""
        folders = {self._folder / sensor.folder for sensor in SENSORS}
        indexes = {f"{folder}.txt" for folder in folders}
        for name in sorted(self._files.names):
            parent = PurePosixPath(name).parent
            read = (
                parent in folders or name in indexes or name == str(self._folder / "annotations" / "annotations.json")
            )
            if not read and not NOT_RECORDS.fullmatch(name):
                log.add(None, "the file belongs to no sensor", name)


def _sequence_folder(files: RecordingFiles) -> PurePosixPath | None:
    """The folder that holds the index files; None unless there is exactly one."""
    index_names = {f"{sensor.folder}.txt" for sensor in SENSORS}
    found = {PurePosixPath(name).parent for name in files.names if PurePosixPath(name).name in index_names}
    return found.pop() if len(found) == 1 else None


def _image(entry: FileRecord) -> bytes:
    return png_image(entry, entry.t_ns)


def _cloud(entry: FileRecord) -> bytes:
    """Lines x, y, z [m], intensity, ring."""
    options = pa.csv.ReadOptions(column_names=list(_POINT.names or ()))
    types = {name: pa.float64() for name in _POINT.names or ()}
    data = read_file(entry.path)
    if not data.strip():
        raise ValueError("it is empty")
    table = pa.csv.read_csv(pa.py_buffer(data), options, convert_options=pa.csv.ConvertOptions(column_types=types))
    ring = table["ring"].to_numpy()
    if not np.all((ring >= 0) & (ring <= np.iinfo(np.uint16).max)):
        raise ValueError("a ring is no number of a laser")
    points = np.zeros(table.num_rows, dtype=_POINT)
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and stays visible
        for name in _POINT.names or ():
            points[name] = table[name].to_numpy()
    return ros2.point_cloud2(entry.t_ns, entry.path.parent.name, points)


_NUMBERS = 15


def _numbers(path: Path) -> np.ndarray:
    """What is taken of a GPS_IMU_Twist file: latitude, longitude, altitude; variances east and north; quaternion x, y, z,
    w; angular velocity; linear acceleration (gravity is not in it). The SDK's description names three covariances next,
    which no table holds, and nothing after them: the twist that some files end with is left out, for its frame is unknown.
    """
    words = read_file(path).decode("ascii").replace(",", " ").split()
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
    }

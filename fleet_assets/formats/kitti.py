"""KITTI's raw and tracking sets: folders with one file per record.

In: one drive of the raw set (`image_0x`, `velodyne_points` and `oxts`, each with `timestamps.txt` and `data`, and
`tracklet_labels.xml`), or one sequence of the tracking set (`image_0x/NNNN`, `velodyne/NNNN`, `oxts/NNNN.txt`,
`label_02/NNNN.txt`, `calib/NNNN.txt`). Out: inertial unit and labels as signals; cameras and LiDAR as payload, to be rewritten
as MCAP. Stamps are those of the computer that recorded (host). The tracking set has none: its frame number at 10 Hz is the
only clock there is. Source: Geiger et al., 2013, and the development kits.
"""

from __future__ import annotations

import calendar
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import ClassVar

import numpy as np

from fleet_assets.errors import FleetError
from fleet_assets.formats import kitti_values as kitti
from fleet_assets.formats.folders import PNG_MAGIC, FileRecord, first_line, interleaved, png_image, read_file, refusing
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

LIDAR, IMU, FIX, LABELS = "/lidar/velodyne", "/oxts", "/oxts/fix", "/labels"
CAMERAS = {f"image_{number:02d}": f"/camera/{number:02d}" for number in range(4)}
SCHEMAS = {LIDAR: "sensor_msgs/msg/PointCloud2", **dict.fromkeys(CAMERAS.values(), "sensor_msgs/msg/CompressedImage")}
FRAME_PERIOD_NS = 100_000_000
NOT_RECORDS = re.compile(
    r"(.*/)?(LICENSE|README[^/]*|calib[^/]*\.txt|calib/[^/]*|dataformat\.txt|timestamps_(start|end)\.txt)"
)
_STAMP = re.compile(rb"(\d{4})-(\d\d)-(\d\d) (\d\d):(\d\d):(\d\d)\.(\d{9})\s*")
_FRAME = re.compile(r"\d{1,10}", re.ASCII)
Oxts = Iterator[tuple[int, np.ndarray]]


class KittiReader(Accounted):
    """What both sets share."""

    payload_in_place: ClassVar[bool] = False

    def __init__(self, files: RecordingFiles) -> None:
        self._files = files
        self._names = set(files.names)
        super().__init__()

    def _account_for_the_rest(self, log: Refusals) -> None:
        for name in sorted(self._names - self._read):
            if not NOT_RECORDS.fullmatch(name):
                log.add(None, "the file belongs to no sensor", name)

    @property
    @abstractmethod
    def _read(self) -> set[str]:
        """Names of files that are read, or refused, by the passes."""

    @property
    @abstractmethod
    def _topics(self) -> list[str]:
        """What the recording has."""

    @abstractmethod
    def _records(self, topic: str, log: Refusals) -> list[FileRecord]:
        """Files of a payload topic in order of their frames; others are refused."""

    @abstractmethod
    def _oxts(self, refuse: kitti.Refuse) -> Oxts:
        """Stamps and numbers of the inertial unit."""

    @abstractmethod
    def _labels(self, refuse: kitti.Refuse) -> tuple[list[kitti.Label], str | None]:
        """Labels, and the stream in whose image their boxes are."""

    def channels(self) -> list[Channel]:
        kinds = {LIDAR: "lidar", IMU: "imu", FIX: "gnss", LABELS: "label"}
        return [Channel(topic, kinds.get(topic, "camera"), SCHEMAS.get(topic, "text")) for topic in self._topics]

    def payloads(self) -> Iterator[Payload]:
        """In order of the stamps; a file that cannot be read is a refusal."""
        self._payload_log.clear()
        records = [self._records(topic, self._payload_log) for topic in self._topics if topic in SCHEMAS]
        for record in interleaved(records):
            encode = kitti.cloud if record.topic == LIDAR else _image
            data = refusing(self._payload_log, record, encode)
            if data is not None:
                yield Payload(record.topic, None, record.t_ns, SCHEMAS[record.topic], data)

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """Inertial unit and labels; the other topics come through payloads."""
        self._signal_log.clear()
        wanted = [topic for topic in self._topics if topics is None or topic in topics]
        if unit := [topic for topic in wanted if topic in (IMU, FIX)]:
            yield from self._unit(unit, (t_from_ns, t_to_ns))
        if LABELS in wanted:
            labels, stream = self._labels(lambda reason, place: self._signal_log.add(LABELS, reason, place))
            columns = kitti.label_columns(labels, stream)
            table = batch_table("label", columns, in_window(columns["t_host_ns"], t_from_ns, t_to_ns), first=0)
            for start in range(0, table.num_rows, BATCH_ROWS):
                yield Batch(LABELS, "label", table.slice(start, BATCH_ROWS))

    def _unit(self, topics: list[str], window: tuple[int | None, int | None]) -> Iterator[Batch]:
        def refuse(reason: str, place: str) -> None:
            for topic in topics:
                self._signal_log.add(topic, reason, place)

        first, rows = dict.fromkeys(topics, 0), self._oxts(refuse)
        while part := list(islice(rows, BATCH_ROWS)):
            t_ns = np.array([stamp for stamp, _ in part], dtype=np.int64)
            values = np.array([numbers for _, numbers in part])
            for topic in topics:
                kind, columns = ("imu", kitti.oxts_imu(values)) if topic == IMU else ("gnss", kitti.oxts_fix(values))
                keep = in_window(t_ns, *window)
                table = batch_table(kind, columns | {"t_host_ns": t_ns}, keep, first=first[topic])
                first[topic] += table.num_rows
                if table.num_rows:
                    yield Batch(topic, kind, table)


class KittiRawReader(KittiReader):
    format: ClassVar[str] = "kitti_raw"
    _SENSORS: ClassVar[dict[str, tuple[str, ...]]] = {
        **{folder: (topic,) for folder, topic in CAMERAS.items()},
        "velodyne_points": (LIDAR,),
        "oxts": (IMU, FIX),
    }
    _SUFFIXES: ClassVar[dict[str, str]] = {"velodyne_points": ".bin", "oxts": ".txt"}  # else png

    def __init__(self, files: RecordingFiles) -> None:
        super().__init__(files)
        self._base = _raw_base(files) or PurePosixPath()

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        base = _raw_base(files)
        names = [f"{base / folder}/timestamps.txt" for folder in cls._SENSORS] if base is not None else []
        return any(_STAMP.match(head(files.root / name, 64)) for name in names if name in files.names)

    def info(self) -> RecordingInfo:
        """t_start_ns: the first stamp of a sensor; KITTI does not say of which zone its time is, and is taken as UTC."""
        found = [min(stamps.values()) for folder in self._SENSORS if (stamps := self._stamps(folder, lambda *_: None))]
        return RecordingInfo(None, min(found, default=None), {"sequence": self._base.name} if self._base.name else {})

    @property
    def _topics(self) -> list[str]:
        present = [folder for folder in self._SENSORS if f"{self._base / folder}/timestamps.txt" in self._names]
        topics = [topic for folder in present for topic in self._SENSORS[folder]]
        return [*topics, *([LABELS] if self._tracklets in self._names else [])]

    @property
    def _tracklets(self) -> str:
        return str(self._base / "tracklet_labels.xml")

    @property
    def _read(self) -> set[str]:
        folders = [self._base / folder for folder in self._SENSORS if set(self._SENSORS[folder]) & set(self._topics)]
        inside = {name for name in self._names if PurePosixPath(name).parent in [folder / "data" for folder in folders]}
        return inside | {f"{folder}/timestamps.txt" for folder in folders} | {self._tracklets}

    def _records(self, topic: str, log: Refusals) -> list[FileRecord]:
        folder = next(folder for folder, topics in self._SENSORS.items() if topic in topics)
        return self._matched(folder, topic, lambda reason, place: log.add(topic, reason, place))

    def _oxts(self, refuse: kitti.Refuse) -> Oxts:
        for record in self._matched("oxts", IMU, refuse):
            try:
                yield record.t_ns, kitti.oxts_numbers(read_file(record.path).decode("ascii"))
            except (ValueError, OSError) as error:
                refuse("the file cannot be read", f"{record.place}: {first_line(error)}")

    def _labels(self, refuse: kitti.Refuse) -> tuple[list[kitti.Label], str | None]:
        stamps = self._stamps("velodyne_points", lambda *_: None)
        try:
            return kitti.tracklets(self._files.root / self._tracklets, stamps, refuse), None
        except (ValueError, OSError) as error:
            self._signal_log.add(LABELS, "the file cannot be read", f"{self._tracklets}: {first_line(error)}", 0)
            return [], None

    def _stamps(self, folder: str, refuse: kitti.Refuse) -> dict[int, int]:
        """Line n of timestamps.txt is of frame n."""
        name = f"{self._base / folder}/timestamps.txt"
        if name not in self._names:
            return {}
        stamps = {}
        try:
            lines = read_file(self._files.root / name).splitlines()
        except (ValueError, OSError) as error:
            refuse("the stamps cannot be read", f"{name}: {first_line(error)}")
            return {}
        for frame, line in enumerate(lines):
            t_ns = _stamp_ns(line)
            if t_ns is not None:
                stamps[frame] = t_ns
            elif line.strip():
                refuse("the stamp cannot be read", f"{name}: line {frame + 1}")
        return stamps

    def _matched(self, folder: str, topic: str, refuse: kitti.Refuse) -> list[FileRecord]:
        """Frames that have a stamp and a file."""
        suffix = self._SUFFIXES.get(folder, ".png")
        files = _frames(self._files, self._base / folder / "data", suffix, refuse)
        stamps = self._stamps(folder, refuse)
        for frame in sorted(files.keys() - stamps.keys()):
            refuse("the file has no stamp in the index", f"{folder}/{files[frame].name}")
        for frame in sorted(stamps.keys() - files.keys()):
            refuse("the index names a file that is not there", f"{folder}: frame {frame}")
        return [FileRecord(topic, stamps[frame], files[frame]) for frame in sorted(files.keys() & stamps.keys())]


class KittiTrackingReader(KittiReader):
    format: ClassVar[str] = "kitti_tracking"
    _SENSORS: ClassVar[dict[str, tuple[str, str]]] = {
        **{folder: (topic, ".png") for folder, topic in CAMERAS.items()},
        "velodyne": (LIDAR, ".bin"),
    }

    def __init__(self, files: RecordingFiles) -> None:
        super().__init__(files)
        found = _tracking_sequences(files)
        if len(found) > 1:
            names = ", ".join(f"{base / sequence}" for base, sequence in sorted(found)[:5])
            remedy = "Deliver each in a folder of its own: a recording is of one drive."
            raise FleetError(f"The folder holds {len(found)} sequences of KITTI", where=names, remedy=remedy)
        self._base, self._sequence = next(iter(found), (PurePosixPath(), ""))

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        return bool(_tracking_sequences(files))

    def info(self) -> RecordingInfo:
        """No start: the set has no stamps."""
        return RecordingInfo(None, None, {"sequence": self._sequence})

    @property
    def _topics(self) -> list[str]:
        topics = [topic for folder, (topic, _) in self._SENSORS.items() if self._inside(folder)]
        topics += [IMU, FIX] if self._text("oxts") in self._names else []
        return topics + ([LABELS] if self._text("label_02") in self._names else [])

    @property
    def _read(self) -> set[str]:
        inside = {name for folder in self._SENSORS for name in self._inside(folder)}
        return inside | {self._text(folder) for folder in ("oxts", "label_02", "calib")}

    def _inside(self, folder: str) -> list[str]:
        parent = self._base / folder / self._sequence
        return [name for name in self._names if PurePosixPath(name).parent == parent]

    def _text(self, folder: str) -> str:
        return f"{self._base / folder / self._sequence}.txt"

    def _records(self, topic: str, log: Refusals) -> list[FileRecord]:
        folder, suffix = next((f, suffix) for f, (name, suffix) in self._SENSORS.items() if name == topic)
        parent = self._base / folder / self._sequence
        files = _frames(self._files, parent, suffix, lambda reason, place: log.add(topic, reason, place))
        return [FileRecord(topic, _frame_ns(frame), files[frame]) for frame in sorted(files)]

    def _oxts(self, refuse: kitti.Refuse) -> Oxts:
        """One line per frame."""
        name = self._text("oxts")
        lines = self._lines(name, refuse)
        for frame in range(len(lines), self._frame_count):
            refuse("the frame has no line of the inertial unit", f"{name}: frame {frame}")
        for frame, line in enumerate(lines):
            try:
                yield _frame_ns(frame), kitti.oxts_numbers(line)
            except ValueError as error:
                refuse("the line cannot be read", f"{name}: line {frame + 1}: {first_line(error)}")

    def _labels(self, refuse: kitti.Refuse) -> tuple[list[kitti.Label], str | None]:
        name, calibration, to_lidar = self._text("label_02"), self._text("calib"), None
        if calibration in self._names:
            try:
                to_lidar = kitti.camera_to_lidar("\n".join(self._lines(calibration, refuse)))
            except ValueError as error:
                place = f"{calibration}: {first_line(error)}"
                self._signal_log.add(LABELS, "without a calibration labels have no place", place, 0)
        text = "\n".join(self._lines(name, refuse))
        return kitti.tracking_labels(text, _frame_ns, to_lidar, refuse), "camera_02"

    @property
    def _frame_count(self) -> int:
        """Frames that cameras and LiDAR have files of, at most: a name may be any number."""
        return max((len(self._inside(folder)) for folder in self._SENSORS), default=0)

    def _lines(self, name: str, refuse: kitti.Refuse) -> list[str]:
        try:
            return read_file(self._files.root / name).decode("ascii", "replace").splitlines()
        except (ValueError, OSError) as error:
            refuse("the file cannot be read", f"{name}: {first_line(error)}")
            return []


def _image(record: FileRecord) -> bytes:
    return png_image(record, 0)


def _frame_ns(frame: int) -> int:
    """From 1: a stamp of zero says in ROS that nobody set it."""
    return (frame + 1) * FRAME_PERIOD_NS


def _stamp_ns(line: bytes) -> int | None:
    """2011-09-26 13:02:25.964389445 -> nanoseconds of UTC; None when it is no time."""
    match = _STAMP.fullmatch(line)
    if match is None:
        return None
    year, month, day, hour, minute, second, rest = map(int, match.groups())
    if not (1970 <= year < 2200 and 1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    return calendar.timegm((year, month, day, hour, minute, second)) * 1_000_000_000 + rest


def _frames(
    files: RecordingFiles, folder: PurePosixPath, suffix: str, refuse: Callable[[str, str], None]
) -> dict[int, Path]:
    """Files of a folder by frame number."""
    found: dict[int, Path] = {}
    for name in sorted(files.names):
        path = PurePosixPath(name)
        if path.parent != folder:
            continue
        if path.suffix != suffix or not _FRAME.fullmatch(path.stem):
            refuse("the file's name is no frame of the sensor", name)
        elif int(path.stem) in found:
            refuse("two files have the same frame number", name)
        else:
            found[int(path.stem)] = files.root / name
    return found


def _raw_base(files: RecordingFiles) -> PurePosixPath | None:
    """The folder that holds the sensors' folders; None unless there is exactly one."""
    found = {
        path.parents[1]
        for path in map(PurePosixPath, files.names)
        if path.name == "timestamps.txt" and path.parent.name in KittiRawReader._SENSORS
    }
    return found.pop() if len(found) == 1 else None


_SEQUENCE = re.compile(r"\d{4}", re.ASCII)
_LABEL = re.compile(rb"\d{1,6} -?\d{1,6} [A-Z][A-Za-z_]{2,20} -?\d")
_OXTS = re.compile(rb"-?\d{1,3}\.\d{4,} -?\d{1,3}\.\d{4,} -?\d")


def _tracking_sequences(files: RecordingFiles) -> set[tuple[PurePosixPath, str]]:
    """Folder and number of sequences, told by the content of a label, inertial, calibration or image file."""
    found: set[tuple[PurePosixPath, str]] = set()
    for name in files.names:
        path = PurePosixPath(name)
        if path.suffix == ".txt" and len(path.parents) > 1 and _SEQUENCE.fullmatch(path.stem):
            place, begins = (path.parents[1], path.stem), head(files.root / name, 64)
            told = {"label_02": _LABEL.match(begins), "oxts": _OXTS.match(begins), "calib": begins.startswith(b"P0:")}
            if place not in found and told.get(path.parent.name):
                found.add(place)
        elif path.suffix == ".png" and len(path.parents) > 2 and path.parents[1].name in CAMERAS:
            place = (path.parents[2], path.parent.name)
            if place not in found and _SEQUENCE.fullmatch(place[1]) and head(files.root / name, 8) == PNG_MAGIC:
                found.add(place)
    return found

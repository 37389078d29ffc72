"""comma2k19: numpy arrays of stamps and values, one folder per signal.

In: `processed_log/<group>/<signal>/{t,value}` and `global_pose/frame_*` of one or more segments. Out: vehicle bus, IMU, GNSS
and reference poses as signals; radar tracks as payload, one message per track, in bursts as they came. All stamps are the
boot time of the device that logged (host), in float seconds, converted once, here. Source: the data set's documentation
(Schafer et al., 2018); its device frame is forward, right, down.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from pathlib import PurePosixPath
from typing import ClassVar

import numpy as np
import pyarrow as pa

from fleet_assets.formats import ros2
from fleet_assets.formats.npy import MAGIC, NpyFile, NpyRows, to_ns
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

BUS, IMU, POSE, RADAR = "/bus/vehicle", "/imu", "/pose", "/radar/tracks"
UBLOX, QCOM, FRAME_TIME = "/gnss/ublox", "/gnss/qcom", "/gnss/time"
KINDS = {BUS: "bus", IMU: "imu", UBLOX: "gnss", QCOM: "gnss", FRAME_TIME: "gnss", POSE: "pose", RADAR: "radar"}
RADAR_SCHEMA = "sensor_msgs/msg/PointCloud2"
ACCEL, GYRO, TRACKS = "IMU/accelerometer", "IMU/gyro", "CAN/radar"
FIXES = {UBLOX: "GNSS/live_gnss_ublox", QCOM: "GNSS/live_gnss_qcom"}
# Signal folder -> message, signals in order of the columns, unit.
SIGNALS = {
    "CAN/speed": ("speed", ("speed",), "m/s"),
    "CAN/steering_angle": ("steering_angle", ("steering_angle",), "deg"),
    "CAN/wheel_speed": ("wheel_speed", ("front_left", "front_right", "rear_left", "rear_right"), "m/s"),
}
FRAMES = "global_pose"
TIMES, POSE_ARRAYS = "frame_times", {"frame_positions": 3, "frame_orientations": 4, "frame_velocities": 3}
GPS_TIMES = "frame_gps_times"
_GPS_EPOCH_S, _WEEK_S = 315_964_800, 604_800
_GPS_MINUS_UTC_S = 18  # since 2017; the data set is of 2018
_TRACK = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("speed_mps", "<f4"), ("address", "<u2"), ("new_track", "<u2")]
)
_ROUTE = re.compile(r"([0-9a-f]{16})[|_](\d{4}-\d{2}-\d{2}--\d{2}-\d{2}-\d{2})")
NOT_RECORDS = re.compile(r"(.*/)?(LICENSE|README[^/]*|preview\.png)")
Columns = dict[str, np.ndarray | pa.Array]


class Comma2k19Reader(Accounted):
    format: ClassVar[str] = "comma2k19"
    payload_in_place: ClassVar[bool] = False

    def __init__(self, files: RecordingFiles) -> None:
        self._files = files
        self._names = set(files.names)
        self._segments = _segments(files)
        super().__init__()

    @classmethod
    def sniff(cls, files: RecordingFiles) -> bool:
        return any(
            head(files.root / name, len(MAGIC)) == MAGIC for base in _segments(files) for name in _stamps(files, base)
        )

    def info(self) -> RecordingInfo:
        """t_start_ns: the first UTC that a GNSS receiver tells."""
        start = None
        for base in self._segments:
            for topic in FIXES:
                pair = self._pair(base, FIXES[topic], 6, topic, Refusals())
                first = next(pair.windows(1), None) if pair else None
                if start is None and first is not None:
                    start = _utc_ns(first[1][:, 3])[0].as_py()
        route = next((found for name in self._files.names if (found := _ROUTE.search(name))), None)
        context = {"segments": " ".join(base.name for base in self._segments)}
        if route is not None:
            context["route"] = route[2]
        return RecordingInfo(route[1] if route else None, start, context)

    def channels(self) -> list[Channel]:
        needed = {
            BUS: [f"processed_log/{folder}/t" for folder in SIGNALS],
            IMU: [f"processed_log/{ACCEL}/t"],
            UBLOX: [f"processed_log/{FIXES[UBLOX]}/t"],
            QCOM: [f"processed_log/{FIXES[QCOM]}/t"],
            FRAME_TIME: [f"{FRAMES}/{GPS_TIMES}"],
            POSE: [f"{FRAMES}/{TIMES}"],
            RADAR: [f"processed_log/{TRACKS}/t"],
        }
        return [
            Channel(topic, KINDS[topic], RADAR_SCHEMA if topic == RADAR else "numpy")
            for topic, names in needed.items()
            if any(str(base / name) in self._names for base in self._segments for name in names)
        ]

    def payloads(self) -> Iterator[Payload]:
        """Radar tracks, in order of the array."""
        self._payload_log.clear()
        for base in self._segments:
            pair = self._pair(base, TRACKS, 7, RADAR, self._payload_log)
            for t_ns, values in pair.windows() if pair else ():
                tracks = np.zeros(len(values), dtype=_TRACK)
                with np.errstate(over="ignore"):
                    tracks["x"], tracks["y"], tracks["speed_mps"] = values[:, 0], values[:, 1], values[:, 2]
                    numbers = np.clip(np.nan_to_num(values[:, 5:7]), 0, 65_535)
                tracks["address"], tracks["new_track"] = numbers.T
                for row, t in enumerate(t_ns.tolist()):
                    cloud = ros2.point_cloud2(0, "radar", tracks[row : row + 1])
                    yield Payload(RADAR, None, t, RADAR_SCHEMA, cloud)

    def read(
        self, topics: Collection[str] | None = None, t_from_ns: int | None = None, t_to_ns: int | None = None
    ) -> Iterator[Batch]:
        """All but the radar, topic by topic. Stamps are the host's."""
        self._signal_log.clear()
        sources: dict[str, Callable[[PurePosixPath], Iterator[Columns]]] = {
            BUS: self._bus,
            IMU: self._imu,
            UBLOX: lambda base: self._fixes(base, UBLOX),
            QCOM: lambda base: self._fixes(base, QCOM),
            FRAME_TIME: self._frame_times,
            POSE: self._poses,
        }
        for topic, rows in sources.items():
            if topics is not None and topic not in topics:
                continue
            first = 0
            for columns in (part for base in self._segments for part in rows(base)):
                keep = in_window(columns["t_host_ns"], t_from_ns, t_to_ns)
                table = batch_table(KINDS[topic], columns, keep, first=first)
                first += table.num_rows
                for start in range(0, table.num_rows, BATCH_ROWS):
                    yield Batch(topic, KINDS[topic], table.slice(start, BATCH_ROWS))

    # ---- what each topic is made of ----------------------------------------------------------------------------------

    def _bus(self, base: PurePosixPath) -> Iterator[Columns]:
        pairs = {
            folder: pair
            for folder, (_, signals, _) in SIGNALS.items()
            if (pair := self._pair(base, folder, len(signals), BUS, self._signal_log))
        }
        for parts in _merged({folder: pair.windows() for folder, pair in pairs.items()}):
            rows = [_signal_rows(*SIGNALS[folder], t_ns, values) for folder, (t_ns, values) in parts.items()]
            order = np.argsort(np.concatenate([latest for latest, _ in rows]), kind="stable")
            names = ("t_host_ns", "message", "signal", "value", "unit")
            joined = {name: np.concatenate([columns[name] for _, columns in rows])[order] for name in names}
            yield {name: pa.array(values) if values.dtype == object else values for name, values in joined.items()}

    def _imu(self, base: PurePosixPath) -> Iterator[Columns]:
        """Samples of the accelerometer, with the gyroscope's of the same stamp; axes turned to forward, left, up."""
        accel = self._pair(base, ACCEL, 3, IMU, self._signal_log)
        gyro = self._pair(base, GYRO, 3, IMU, self._signal_log)
        turn = np.array([1.0, -1.0, -1.0])
        left_t_ns, left = np.empty(0, dtype=np.int64), np.empty((0, 3))
        gyro_windows = gyro.windows() if gyro else iter(())
        for t_ns, values in accel.windows() if accel else ():
            rates = np.full_like(values, np.nan)
            while left_t_ns.size == 0 or left_t_ns.max() < t_ns.max():
                more = next(gyro_windows, None)
                if more is None:
                    break
                left_t_ns, left = np.concatenate([left_t_ns, more[0]]), np.concatenate([left, more[1]])
                early = left_t_ns < t_ns.min()
                self._unmatched(int(early.sum()), left_t_ns)
                left_t_ns, left = left_t_ns[~early], left[~early]
            _, here, there = np.intersect1d(t_ns, left_t_ns, return_indices=True)
            rates[here] = left[there]
            due = left_t_ns <= t_ns.max()
            self._unmatched(int(due.sum()) - len(there), t_ns)
            left_t_ns, left = left_t_ns[~due], left[~due]
            columns: Columns = {"t_host_ns": t_ns}
            columns |= {f"accel_{axis}_mps2": values[:, i] * turn[i] for i, axis in enumerate("xyz")}
            columns |= {f"gyro_{axis}_radps": rates[:, i] * turn[i] for i, axis in enumerate("xyz")}
            yield columns
        for t_ns in [left_t_ns, *(t_ns for t_ns, _ in gyro_windows)]:
            self._unmatched(t_ns.size, t_ns)

    def _unmatched(self, count: int, t_ns: np.ndarray) -> None:
        if count:
            why = "no sample of the accelerometer has the gyroscope's stamp"
            self._signal_log.add(IMU, why, f"{GYRO} near {t_ns[0]} ns", count)

    def _fixes(self, base: PurePosixPath, topic: str) -> Iterator[Columns]:
        pair = self._pair(base, FIXES[topic], 6, topic, self._signal_log)
        for t_ns, values in pair.windows() if pair else ():
            names = ("latitude_deg", "longitude_deg", "speed_mps", None, "altitude_m", "heading_deg")
            columns: Columns = {name: values[:, at] for at, name in enumerate(names) if name}
            yield {"t_host_ns": t_ns, "t_gnss_ns": _utc_ns(values[:, 3]), **columns}

    def _frame_times(self, base: PurePosixPath) -> Iterator[Columns]:
        """When the camera took its frames, in the device's time and in that of GNSS (week, second of the week)."""
        pair = self._frames(base, {GPS_TIMES: 2}, FRAME_TIME)
        for t_ns, values in pair.windows() if pair else ():
            known = np.isfinite(values).all(axis=1) & (np.abs(values) < 1e7).all(axis=1)
            week, second = np.where(known[:, None], values, 0).T
            whole_s = np.round(week).astype(np.int64) * _WEEK_S + _GPS_EPOCH_S - _GPS_MINUS_UTC_S
            t_gnss_ns = whole_s * 1_000_000_000 + to_ns(second)[0]
            yield {"t_host_ns": t_ns, "t_gnss_ns": pa.array(t_gnss_ns, mask=~known)}

    def _poses(self, base: PurePosixPath) -> Iterator[Columns]:
        """Position and orientation in ECEF; the orientation as of a body whose axes are forward, left, up."""
        pair = self._frames(base, POSE_ARRAYS, POSE)
        for t_ns, values in pair.windows() if pair else ():
            position, orientation, velocity = values[:, :3], values[:, 3:7], values[:, 7:]
            w, x, y, z = orientation.T
            columns: Columns = {f"{axis}_m": position[:, i] for i, axis in enumerate("xyz")}
            # Times a half turn about the forward axis: from forward, right, down to forward, left, up.
            columns |= {"orientation_x": w, "orientation_y": z, "orientation_z": -y, "orientation_w": -x}
            forward, right, down = _to_body(orientation, velocity)
            columns |= {"velocity_x_mps": forward, "velocity_y_mps": -right, "velocity_z_mps": -down}
            yield {"t_host_ns": t_ns, "frame": pa.repeat("ecef", len(t_ns)), **columns}

    # ---- files -------------------------------------------------------------------------------------------------------

    def _pair(self, base: PurePosixPath, folder: str, width: int, topic: str, log: Refusals) -> NpyRows | None:
        """None, with a refusal, when there is no such signal or it cannot be read."""
        path = base / "processed_log" / folder
        return self._open(path / "t", {path / "value": width}, topic, log)

    def _frames(self, base: PurePosixPath, arrays: dict[str, int], topic: str) -> NpyRows | None:
        files = {base / FRAMES / name: width for name, width in arrays.items()}
        return self._open(base / FRAMES / TIMES, files, topic, self._signal_log)

    def _open(
        self, stamps: PurePosixPath, values: dict[PurePosixPath, int], topic: str, log: Refusals
    ) -> NpyRows | None:
        missing = [path for path in (stamps, *values) if str(path) not in self._names]
        if missing:
            if len(missing) <= len(values):
                log.add(topic, "the array that belongs to others is missing", str(missing[0]), 0)
            return None
        arrays = []
        for path, columns in {stamps: 1, **values}.items():
            try:
                arrays.append(NpyFile(self._files.root / path, columns))
            except (ValueError, OSError) as error:
                log.add(topic, "the array cannot be read", f"{path}: {error}"[:300], 0)
                return None
        place = next(iter(values))
        return NpyRows(arrays[0], arrays[1:], lambda why, at, count: log.add(topic, why, f"{place}: {at}", count))

    def _account_for_the_rest(self, log: Refusals) -> None:
        """Arrays that no table holds, and files that are no arrays of ours."""
        folders = [*SIGNALS, ACCEL, GYRO, TRACKS, *FIXES.values()]
        used = {
            str(base / "processed_log" / folder / name)
            for base in self._segments
            for folder in folders
            for name in ("t", "value")
        } | {str(base / FRAMES / name) for base in self._segments for name in (TIMES, GPS_TIMES, *POSE_ARRAYS)}
        for name in sorted(self._names - used):
            path = PurePosixPath(name)
            if NOT_RECORDS.fullmatch(name) or (path.name == "value" and str(path.parent / "t") in self._names):
                continue
            if head(self._files.root / path, len(MAGIC)) == MAGIC and path.name == "t":
                try:
                    rows = NpyFile(self._files.root / path, 1).rows
                except (ValueError, OSError):
                    rows = 0
                log.add(
                    f"/{path.parent.parent.name.lower()}/{path.parent.name}", "no table holds such values", name, rows
                )
            else:
                log.add(None, "the file belongs to no sensor", name)


def _segments(files: RecordingFiles) -> list[PurePosixPath]:
    """Folders that hold processed_log or global_pose, in order of their numbers."""
    found = set()
    for name in files.names:
        for parent in PurePosixPath(name).parents:
            if parent.name in ("processed_log", FRAMES):
                found.add(parent.parent)
    return sorted(found, key=lambda base: (int(base.name) if re.fullmatch(r"\d{1,9}", base.name) else -1, str(base)))


def _stamps(files: RecordingFiles, base: PurePosixPath) -> list[str]:
    known = [*SIGNALS, ACCEL, GYRO, TRACKS, *FIXES.values()]
    names = [f"{base / 'processed_log' / folder / 't'}" for folder in known] + [f"{base / FRAMES / TIMES}"]
    present = set(files.names)
    return [name for name in names if name in present]


def _utc_ns(t_ms: np.ndarray) -> pa.Array:
    """UTC in milliseconds -> nanoseconds; what is no time becomes null."""
    t_ns, known = to_ns(t_ms, 1_000_000)
    return pa.array(t_ns, mask=~known | (t_ns <= 0))


def _to_body(orientation_wxyz: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Vectors of the frame that the quaternions [n, 4] turn the body to -> in the body, [3, n]."""
    w, axis = orientation_wxyz[:, :1], -orientation_wxyz[:, 1:]  # conjugate: the way back
    with np.errstate(invalid="ignore", over="ignore"):
        twice = 2 * np.cross(axis, vector)
        return np.asarray((vector + w * twice + np.cross(axis, twice)).T)


def _signal_rows(
    message: str, signals: tuple[str, ...], unit: str, t_ns: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """What to sort the rows by (a source's own order stays: stamps that run backwards must not be hidden), and columns."""
    count = len(signals)
    latest = np.repeat(np.maximum.accumulate(t_ns), count)
    return latest, {
        "t_host_ns": np.repeat(t_ns, count),
        "message": np.full(values.size, message, dtype=object),
        "signal": np.tile(np.array(signals, dtype=object), len(t_ns)),
        "value": values.ravel(),
        "unit": np.full(values.size, unit, dtype=object),
    }


Window = tuple[np.ndarray, np.ndarray]


def _merged(sources: dict[str, Iterator[Window]]) -> Iterator[dict[str, Window]]:
    """Windows of several sources, cut so that what is given out is not later than what comes next; in bounded memory."""
    held: dict[str, Window] = {}
    while True:
        for name in list(sources):
            if name not in held:
                window = next(sources[name], None)
                if window is None:
                    del sources[name]
                else:
                    held[name] = window
        if not held:
            return
        # Up to here every source is known: the earliest of the last stamps of sources that may go on.
        until = min((t_ns.max() for name, (t_ns, _) in held.items() if name in sources), default=None)
        parts = {}
        for name, (t_ns, values) in list(held.items()):
            count = t_ns.size if until is None else int((np.maximum.accumulate(t_ns) <= until).sum())
            if count:
                parts[name] = (t_ns[:count], values[:count])
            if count == t_ns.size:
                del held[name]
            else:
                held[name] = (t_ns[count:], values[count:])
        yield parts

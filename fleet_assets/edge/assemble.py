"""Frames from messages as they arrive: the same code in the vehicle and for whoever trains or judges a model.

In: messages of a vehicle's streams, in order of arrival. Out: per frame the model's inputs, how old each record is, and the live
features at its time. A frame is due when its key record has arrived and the longest wait is over; what arrives later does not
count. Memory does not grow with the drive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from fleet_assets.edge.feed import LIVE, Feed, in_order_of_arrival, records_of
from fleet_assets.edge.inputs import (
    CONTEXT,
    RADAR_LONGEST_NS,
    RADAR_SWEEPS,
    SPEED,
    YAW_RATE,
    camera_input,
    lidar_input,
    radar_input,
)
from fleet_assets.edge.messages import Decoded, decode, signal_values, stamp_of
from fleet_assets.edge.rig import SENSORS, Rig, Stream
from fleet_assets.errors import FleetError
from fleet_assets.kernels.arrived import nearest_arrived
from fleet_assets.kernels.earlier import earlier_rows
from fleet_assets.kernels.features.records import NO_TIME

_KEPT = 16  # records of a sensor among which a frame's is looked for
_MOST_WAITING = 4096  # records that wait for a frame, which may never come
_SET_BACK_NS = 1_000_000_000  # without a frame, while the key sensor speaks: its clock was set
_VIEWS = tuple(dict.fromkeys(name.partition(":")[0] for name in CONTEXT))


@dataclass(frozen=True)
class Frame:
    """t_ns: of the key record, on its sensor's clock. t_cut_ns: arrival clock, what came by then counts. camera, lidar, radar: as
    edge/inputs.py makes them. age_s: float32 [3], NaN without a record. features: view -> float64 [features] (edge/feed.py)."""

    t_ns: int
    t_cut_ns: int
    camera: np.ndarray
    lidar: np.ndarray
    radar: np.ndarray
    age_s: np.ndarray
    features: Mapping[str, np.ndarray]

    @property
    def context(self) -> np.ndarray:
        """float32 [features] of CONTEXT."""
        return context_of(self.features)


def context_of(features: Mapping[str, np.ndarray]) -> np.ndarray:
    """float32 [features] of CONTEXT, from the values of each view."""
    found = np.empty(len(CONTEXT), dtype=np.float32)
    for index, (view, column) in enumerate(_COLUMNS):
        found[index] = features[view][column]
    return found


_COLUMNS = [
    (view, LIVE[view].FEATURES.index(name)) for view, _, name in (feature.partition(":") for feature in CONTEXT)
]


@dataclass
class _Sensor:
    """The latest records of one sensor: time it looks ahead, arrival, content."""

    stream: Stream
    t_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT))
    t_arrival_ns: deque[int] = field(default_factory=lambda: deque(maxlen=_KEPT))
    content: deque[np.ndarray | None] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def at(self, t_ns: int, t_ready_ns: int, earlier: int = 0) -> list[tuple[np.ndarray | None, float]]:
        """Content and age [s] of the record that belongs to a frame, and of so many before it; nothing for none. Which they are
        follows from stamps and arrival alone: the lake knows no more of a record that cannot be decoded."""
        times = np.array(self.t_ns, dtype=np.int64)
        order = np.argsort(times, kind="stable")
        arrived = np.array(self.t_arrival_ns, dtype=np.int64)[order]
        index, _ = nearest_arrived(
            np.array([t_ns]), np.array([t_ready_ns + self.stream.wait_ns]), times[order], arrived,
            np.uint64(self.stream.before_ns), np.uint64(self.stream.after_ns),
        )  # fmt: skip
        if index[0] < 0:
            return []
        row = int(order[index[0]])
        before = earlier_rows(times, np.array([row]), earlier, np.uint64(RADAR_LONGEST_NS))[0]
        rows = [row, *before[before >= 0].tolist()]
        return [(self.content[row], (t_ns - self.t_ns[row]) * 1e-9) for row in rows]


class Assembler:
    """One drive. topics: those that the vehicle has. key: the sensor whose records set the frames. Raises FleetError if none of
    them can."""

    def __init__(self, rig: Rig, topics: list[str]) -> None:
        chosen = rig.chosen(topics)
        names = sorted({stream.name for _, stream in chosen.values()})
        self._rank = {name: number for number, name in enumerate(names)}
        self._of_topic: dict[str, list[Stream]] = {}
        for topic, stream in chosen.values():
            self._of_topic.setdefault(topic, []).append(stream)
        self._sensors = {source: _Sensor(chosen[source][1]) for source in SENSORS if source in chosen}
        keys = [source for source in rig.keys if source in self._sensors]
        if not keys:
            raise FleetError("No stream can set the frames", remedy=f"One of {', '.join(rig.keys)} is needed.")
        self.key = keys[0]
        self._wait_ns = rig.wait_ns
        self._feed = Feed(_VIEWS)
        self._count: dict[str, int] = {}
        self._records: list[np.ndarray] = []
        self._waiting: deque[tuple[int, int]] = deque()
        self._now_ns, self._last_ns, self._last_arrival_ns = NO_TIME, NO_TIME, NO_TIME
        self.left_out = 0  # key records that came out of order, or had no stamp

    def push(self, topic: str, schema_name: str, message: bytes, t_host_ns: int) -> list[Frame]:
        """Takes a message in; gives the frames that were due before it. A clock that is set back stands still."""
        self._now_ns = max(self._now_ns, t_host_ns)
        due = self._due(self._now_ns)
        if len(self._records) >= _MOST_WAITING:  # all of them arrived before any frame that waits is cut
            self._observe(np.zeros(0, dtype=np.int64))
        for stream in self._of_topic.get(topic, ()):
            self._take(stream, schema_name, message)
        return due

    def flush(self) -> list[Frame]:
        """The frames that still wait, at the end of a drive."""
        return self._due(int(np.iinfo(np.int64).max))

    def _take(self, stream: Stream, schema_name: str, message: bytes) -> None:
        sensor = self._sensors.get(stream.source)
        if sensor is not None:
            decoded = decode(stream.source, schema_name, message)
        else:
            values = signal_values(schema_name, message, stream.signal)
            if values is None:
                return
            decoded = Decoded(values, None)
        stamp_ns = stamp_of(message)
        number = self._count[stream.source] = self._count.get(stream.source, -1) + 1
        self._records.append(
            records_of(
                stream.source, self._rank[stream.name], np.array([self._now_ns]),
                None if stamp_ns is None else np.array([stamp_ns]), np.array([number]), list(decoded.values.reshape(-1, 1)),
            )
        )  # fmt: skip
        if sensor is None:
            return
        if stamp_ns is not None:
            sensor.t_ns.append(stamp_ns + stream.ahead_ns)
            sensor.t_arrival_ns.append(self._now_ns)
            sensor.content.append(decoded.content)
        if stream.source == self.key:
            self._set_frame(None if stamp_ns is None else stamp_ns + stream.ahead_ns)

    def _set_frame(self, t_ns: int | None) -> None:
        """By a key record. One that is not later than the last comes out of order; where that goes on for a while, the sensor's
        clock was set back, or one stamp was far ahead, and frames go on from here."""
        set_back = t_ns is not None and t_ns < self._last_ns and self._now_ns - self._last_arrival_ns > _SET_BACK_NS
        if t_ns is None or not (t_ns > self._last_ns or set_back):
            self.left_out += 1
            return
        self._last_ns, self._last_arrival_ns = t_ns, self._now_ns
        self._waiting.append((t_ns, self._now_ns))

    def _due(self, now_ns: int) -> list[Frame]:
        frames = []
        while self._waiting and self._waiting[0][1] + self._wait_ns < now_ns:
            frames.append(self._frame(*self._waiting.popleft()))
        return frames

    def _observe(self, cut_ns: np.ndarray) -> dict[str, np.ndarray]:
        found = self._feed.push(in_order_of_arrival(self._records), cut_ns)
        self._records.clear()
        return found

    def _frame(self, t_ns: int, t_ready_ns: int) -> Frame:
        t_cut_ns = t_ready_ns + self._wait_ns
        features = {view: values[0] for view, values in self._observe(np.array([t_cut_ns])).items()}
        at = {
            source: sensor.at(t_ns, t_ready_ns, RADAR_SWEEPS - 1 if source == "radar" else 0)
            for source, sensor in self._sensors.items()
        }
        own = {source: found[0] for source, found in at.items() if found and found[0][0] is not None}
        newest = {source: own.get(source, (None, np.nan)) for source in SENSORS}
        age_s = np.array([newest[source][1] for source in SENSORS], dtype=np.float32)
        context = context_of(features)
        radar = radar_input(at.get("radar", []), float(context[SPEED]), float(context[YAW_RATE]))
        return Frame(
            t_ns, t_cut_ns, camera_input(newest["camera"][0]), lidar_input(newest["lidar"][0]), radar, age_s, features
        )

"""When each stream of a drive speaks, and with what stamps.

In: rates of a set-up, clocks. Out: a Schedule per stream: which measurement each message carries, its stamp, its arrival. Faults
act on schedules (faults.py), so that nothing needs to be measured to lose, repeat or disorder it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fleet_assets.simulate.clocks import Clock, delays
from fleet_assets.simulate.parameters import Setup, parameters


@dataclass(frozen=True)
class Stream:
    """Measurements are offset_s after multiples of their period, and stamped after_s later. messages: for one measurement."""

    name: str
    topic: str
    rate_hz: float
    clock: str
    offset_s: float = 0.0
    after_s: float = 0.0
    messages: int = 1


@dataclass
class Schedule:
    """Per message: its number (see Stream.messages), stamp, arrival; int64 [n]. broken: messages whose content a fault changes,
    by the fault's name; bool [n] each."""

    stream: Stream
    number: np.ndarray
    t_device_ns: np.ndarray
    t_arrival_utc_ns: np.ndarray
    broken: dict[str, np.ndarray] = field(default_factory=dict)

    def take(self, index: np.ndarray) -> None:
        """Keeps the messages of an index, in its order; a message may come twice."""
        self.number, self.t_device_ns, self.t_arrival_utc_ns = (
            values[index] for values in (self.number, self.t_device_ns, self.t_arrival_utc_ns)
        )
        self.broken = {name: mask[index] for name, mask in self.broken.items()}

    def thin(self, every_s: float, by_s: float, last: int) -> None:
        """Keeps, for each multiple of every_s, the last measurements, so many, whose stamps are at most by_s later."""
        tick, stream = self.number // self.stream.messages, self.stream
        times_s = np.arange(0.0, (tick.max(initial=0) + 1) / stream.rate_hz + every_s, every_s)
        kept = np.floor((times_s + by_s - stream.offset_s - stream.after_s) * stream.rate_hz + 1e-6)
        self.take(np.flatnonzero(np.isin(tick, kept.astype(np.int64)[:, np.newaxis] - np.arange(last))))

    def broken_at(self, at: int) -> str:
        """Name of the fault that changes a message; empty for none."""
        return next((name for name, mask in self.broken.items() if mask[at]), "")


def streams_of(setup: Setup) -> list[Stream]:
    rates, later = parameters()["rates_hz"], parameters()["sweep_after_exposure_ms"] / 1000
    camera, lidar, radar = setup.camera, setup.lidar, setup.radar
    return [
        *(Stream(name, _topic(name), camera.rate_hz, "vehicle_pc") for name in setup.cameras),
        Stream("lidar", "/lidar", lidar.rate_hz, "vehicle_pc", later, 0.5 / lidar.rate_hz),
        Stream("radar_polar", "/radar/polar", radar.rate_hz, "vehicle_pc", later, 0.5 / radar.rate_hz),
        Stream("labels", "/labels", rates["labels"], "vehicle_pc"),
        Stream("pose", "/pose", rates["pose"], "vehicle_pc"),
        Stream("imu", "/imu", rates["imu"], "logger"),
        Stream("gnss", "/gnss", rates["gnss"], "logger"),
        Stream("gnss_time", "/gnss/time", rates["gnss_time"], "logger"),
        Stream("bus_vehicle", "/bus/vehicle", rates["bus_vehicle"], "logger", messages=2),
    ]


def _topic(camera: str) -> str:
    """camera_front_left is /camera/front_left; camera_fast_front is /camera_fast/front."""
    for family in ("camera_fast", "camera"):
        if camera.startswith(f"{family}_"):
            return f"/{family}/{camera.removeprefix(f'{family}_')}"
    raise ValueError(camera)


def plan(
    random: np.random.Generator, stream: Stream, clocks: dict[str, Clock], t_start_ns: int, duration_s: float
) -> Schedule:
    """Messages whose stamps lie within the drive."""
    after_s = stream.offset_s + stream.after_s
    ticks = np.arange(max(0, int(np.ceil((duration_s - after_s) * stream.rate_hz - 1e-9))), dtype=np.int64)
    tick = np.repeat(ticks, stream.messages)
    t_utc_ns = t_start_ns + np.round((tick / stream.rate_hz + after_s) * 1e9).astype(np.int64)
    # On its way to the logger, no message of a stream overtakes another.
    arrival = np.maximum.accumulate(t_utc_ns + delays(random, tick.size))
    return Schedule(stream, np.arange(tick.size, dtype=np.int64), clocks[stream.clock].shows(t_utc_ns), arrival)

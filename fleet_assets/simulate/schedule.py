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
    """after_s: from the middle of a measurement to its stamp. A message of the bus is one signal."""

    name: str
    topic: str
    rate_hz: float
    clock: str
    offset_s: float = 0.0
    after_s: float = 0.0


@dataclass
class Schedule:
    """Per message, in order of the measurements: its number, true time of the stamp, stamp, arrival; all int64 [n].

    altered: measurements whose content a fault changes; broken: how (a name of faults.CONTENT).
    """

    stream: Stream
    number: np.ndarray
    t_utc_ns: np.ndarray
    t_device_ns: np.ndarray
    t_host_ns: np.ndarray
    altered: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    broken: str = ""

    def take(self, index: np.ndarray) -> None:
        """Keeps the messages of an index, in its order; a message may come twice."""
        for name in ("number", "t_utc_ns", "t_device_ns", "t_host_ns", "altered"):
            setattr(self, name, getattr(self, name)[index])


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
        Stream("bus_vehicle", "/bus/vehicle", rates["bus_vehicle"], "logger"),
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
    last = duration_s - stream.offset_s - stream.after_s
    number = np.arange(max(0, int(np.ceil(last * stream.rate_hz - 1e-9))), dtype=np.int64)
    after_s = stream.offset_s + stream.after_s
    t_utc_ns = t_start_ns + np.round((number / stream.rate_hz + after_s) * 1e9).astype(np.int64)
    arrival = clocks["logger"].shows(t_utc_ns) + delays(random, number.size)
    device = clocks[stream.clock].shows(t_utc_ns)
    return Schedule(stream, number, t_utc_ns, device, arrival, np.zeros(number.size, dtype=bool))

"""Simulated drives.

In: a seed, a start, a duration, a set-up, conditions, faults by name. Out: one MCAP file with ROS 2 messages that Foxglove and
Rerun open, and, beside it, the truth about clocks and faults, which ingest never reads. The same arguments give the same bytes,
with any number of threads. Images, points and labels are written as they are made; motion and stamps of all of it are in memory.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.formats.rewrite import McapFile
from fleet_assets.simulate import faults as faulty
from fleet_assets.simulate.clocks import Clock, draw_clocks
from fleet_assets.simulate.conditions import Conditions, draw
from fleet_assets.simulate.faults import FAULTS, Fault
from fleet_assets.simulate.messages import Message, Messages
from fleet_assets.simulate.parameters import parameters
from fleet_assets.simulate.parameters import setup as setup_of
from fleet_assets.simulate.scene import Scene, generator
from fleet_assets.simulate.schedule import Schedule, plan, streams_of

__all__ = ["FAULTS", "Truth", "write_drive"]

Progress = Callable[[int, int], None]  # messages written, messages in all
_AHEAD = 256  # messages that are being made while others are written
_FRAME_SWEEPS = 4  # of the radar, that one frame is made of: its own, and those before it


@dataclass(frozen=True)
class Truth:
    """What a recording does not tell. clocks: segments per clock (clocks.Segment); streams: clock and messages of each;
    faults: name, target, and what was done."""

    simulator: str
    seed: int
    vehicle: str
    start: str
    duration_s: float
    setup: str
    region: str
    light: str
    weather: str
    clocks: dict[str, list[dict[str, Any]]]
    streams: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)

    @property
    def messages(self) -> int:
        return sum(stream["messages"] for stream in self.streams.values())


def write_drive(
    path: Path,
    *,
    seed: int,
    start: datetime,
    duration_s: float = 30.0,
    vehicle: str = "sim",
    faults: Sequence[str] = (),
    setup: str = "default",
    region: str | None = None,
    light: str | None = None,
    weather: str | None = None,
    unique_s: float | None = None,
    payload_every_s: float | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Truth:
    """Writes the recording, and its truth beside it as `<name>.truth.json`.

    start: with time zone; the light follows from it if it is not given, region and weather from the seed. faults: names of
    FAULTS, alone or together, each `name` or `name:target`. unique_s: makes images, points and labels of so many seconds only
    and repeats them with new stamps, for large recordings in little time; motion, positions and stamps go on. payload_every_s:
    makes images, points, sweeps and labels only so often, and as many as one frame needs, for many drives in little time.
    threads: the machine's cores if not given. Raises FleetError for a name that is not known.
    """
    t_start_ns = int(start.timestamp()) * 1_000_000_000
    conditions = draw(generator(seed, "conditions"), start, region, light, weather)
    sensors = setup_of(setup)
    streams = streams_of(sensors)
    clocks = draw_clocks(generator(seed, "clocks"), t_start_ns)
    wanted = faulty.parse(faults, clocks, [stream.name for stream in streams])
    done: dict[Fault, dict[str, Any]] = {fault: {} for fault in wanted}
    for fault in wanted:
        done[fault] |= faulty.on_clocks(fault, clocks, generator(seed, f"{fault}"), t_start_ns, duration_s)
    schedules = {
        stream.name: plan(generator(seed, f"plan {stream.name}"), stream, clocks, t_start_ns, duration_s)
        for stream in streams
    }
    for fault in wanted:
        done[fault] |= faulty.on_schedules(fault, schedules, generator(seed, f"{fault}"))

    if any(fault.name == "wrong_content" for fault in wanted):
        path.write_bytes(b"")
        schedules.clear()
    else:
        scene = Scene(seed, conditions, sensors, duration_s)
        messages = Messages(scene, t_start_ns, unique_s)
        if payload_every_s is not None:
            sweep = next(stream for stream in streams if stream.name == "lidar")
            for schedule in filter(messages.payload, schedules.values()):
                last = _FRAME_SWEEPS if schedule.stream.name == "radar_polar" else 1
                schedule.thin(payload_every_s, sweep.offset_s + sweep.after_s, last)
        shown = datetime.fromtimestamp(int(clocks["logger"].shows(np.array([t_start_ns]))[0]) / 1e9, UTC)
        with McapFile(path, _context(vehicle, shown, setup, conditions, seed)) as target:
            _write(
                target, list(schedules.values()), clocks["logger"], messages, threads or os.cpu_count() or 1, progress
            )
    for fault in wanted:
        done[fault] |= faulty.on_file(fault, path, generator(seed, f"{fault}"))

    truth = _truth(seed, vehicle, start, duration_s, setup, conditions, clocks, schedules, done)
    path.with_suffix(".truth.json").write_text(json.dumps(asdict(truth), indent=1) + "\n", encoding="utf-8")
    return truth


def _context(vehicle: str, start: datetime, setup: str, conditions: Conditions, seed: int) -> dict[str, str]:
    """What the recording says of itself. The same vehicle always has the same hardware; firmware changes. start: by the logger's
    clock, so that parts of the recording are one drive."""
    known = parameters()["vehicle"]
    return {
        "vehicle": vehicle,
        "hardware": f"{known['hardware']}/{setup}",
        "firmware": str(generator(seed, "firmware").choice(known["firmware"])),
        "region": conditions.region,
        "light": conditions.light,
        "weather": conditions.weather,
        "start": start.isoformat(),
        "simulator": str(parameters()["version"]),
    }


def _write(
    target: McapFile,
    schedules: list[Schedule],
    logger: Clock,
    messages: Messages,
    threads: int,
    progress: Progress | None,
) -> None:
    """In order of arrival, whatever the logger's clock shows. Payload is made by threads, some messages ahead of the writing."""
    owner = np.concatenate([np.full(schedule.number.size, number) for number, schedule in enumerate(schedules)])
    position = np.concatenate([np.arange(schedule.number.size) for schedule in schedules])
    arrival = np.concatenate([schedule.t_arrival_utc_ns for schedule in schedules])
    order = np.lexsort((position, owner, arrival))
    host_ns = logger.shows(arrival[order]).tolist()
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[Schedule, int, Future[Message] | None]] = deque()

        def made() -> Iterator[tuple[Schedule, Message]]:
            for row in order.tolist():
                schedule, at = schedules[owner[row]], int(position[row])
                heavy = messages.payload(schedule)
                waiting.append((schedule, at, pool.submit(messages.message, schedule, at) if heavy else None))
                if len(waiting) > _AHEAD:
                    yield _next()
            while waiting:
                yield _next()

        def _next() -> tuple[Schedule, Message]:
            schedule, at, future = waiting.popleft()
            return schedule, future.result() if future else messages.message(schedule, at)

        for count, (schedule, (schema_name, data)) in enumerate(made(), start=1):
            target.write(schedule.stream.topic, schema_name, data, host_ns[count - 1])
            if progress:
                progress(count, order.size)


def _truth(
    seed: int,
    vehicle: str,
    start: datetime,
    duration_s: float,
    setup: str,
    conditions: Conditions,
    clocks: dict[str, Clock],
    schedules: dict[str, Schedule],
    done: dict[Fault, dict[str, Any]],
) -> Truth:
    return Truth(
        simulator=str(parameters()["version"]),
        seed=seed,
        vehicle=vehicle,
        start=start.astimezone(UTC).isoformat(),
        duration_s=duration_s,
        setup=setup,
        region=conditions.region,
        light=conditions.light,
        weather=conditions.weather,
        clocks={name: clock.told() for name, clock in clocks.items()},
        streams={
            name: {"clock": schedule.stream.clock, "messages": int(schedule.number.size)}
            for name, schedule in schedules.items()
        },
        faults=[{"name": fault.name, "target": fault.target, **what} for fault, what in done.items()],
    )

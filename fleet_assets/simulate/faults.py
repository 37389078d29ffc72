"""What goes wrong in a fleet, on demand, alone or together.

In: names, each with a target if it is not the usual one (`drops`, `drops:lidar`, `offset:logger`); clocks, schedules or a
written file. Out: those with the fault in them, and what was done, for the truth beside the recording.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.errors import FleetError
from fleet_assets.simulate.clocks import Clock, jumping, steady
from fleet_assets.simulate.schedule import Schedule, Stream

Done = dict[str, Any]
CAMERA = "camera"  # as a target: the first camera of the set-up


@dataclass(frozen=True)
class Kind:
    """target: a clock, a stream, or nothing when the whole file is meant."""

    what: str
    target: str = ""


FAULTS: Mapping[str, Kind] = {
    "offset": Kind("a clock is off by a minute or so", "vehicle_pc"),
    "skew": Kind("a clock runs some hundred ppm fast or slow", "vehicle_pc"),
    "clock_jump": Kind("a clock is set in the middle of the drive", "vehicle_pc"),
    "unknown_stream": Kind("a sensor that no contract covers speaks too"),
    "missing_stream": Kind("a sensor says nothing", "lidar"),
    "stuck_sensor": Kind("a sensor repeats one measurement, with new stamps", CAMERA),
    "stuck_clock": Kind("the stamps of a sensor stand still", "lidar"),
    "jitter": Kind("the stamps of a sensor scatter by a quarter of its period", "lidar"),
    "drops": Kind("one message in twenty is lost", CAMERA),
    "bursts": Kind("messages are held back and arrive together", "imu"),
    "reordering": Kind("one message in twenty is overtaken", "lidar"),
    "duplicates": Kind("one message in ten comes twice", "imu"),
    "nan_imu": Kind("a third of the accelerations are not numbers", "imu"),
    "wrong_contract": Kind("an inertial unit without the turn rates that its contract demands", "imu"),
    "truncation": Kind("the file ends in the middle of a chunk, as after a loss of power"),
    "corrupt_chunk": Kind("bytes in the middle of the file are overwritten"),
    "wrong_content": Kind("the file is no recording at all"),
}


@dataclass(frozen=True)
class Fault:
    name: str
    target: str


def parse(wanted: Iterable[str], clocks: Iterable[str], streams: Iterable[str]) -> list[Fault]:
    """In the order of FAULTS, so that the order of asking does not matter. Raises FleetError for what is not known."""
    clocks, streams = list(clocks), list(streams)
    found: set[Fault] = set()
    for text in wanted:
        name, _, target = text.partition(":")
        if name not in FAULTS:
            raise FleetError(f"No fault is called {name}", remedy=f"There are {', '.join(FAULTS)}.")
        usual = FAULTS[name].target
        target = target or (streams[0] if usual == CAMERA else usual)
        possible = _targets(name, clocks, streams)
        if target not in possible:
            how = f"It can to {', '.join(possible)}." if usual else f"Say {name} alone: it happens to the whole file."
            raise FleetError(f"{name} cannot happen to {target}", remedy=how)
        found.add(Fault(name, target))
    order = list(FAULTS)
    return sorted(found, key=lambda fault: (order.index(fault.name), fault.target))


def _targets(name: str, clocks: list[str], streams: list[str]) -> list[str]:
    usual = FAULTS[name].target
    if not usual:
        return [""]
    if usual in clocks:
        return clocks
    return ["imu"] if name in _OF_IMU else streams


# ---- clocks ----------------------------------------------------------------------------------------------------------


def on_clocks(
    fault: Fault, clocks: dict[str, Clock], random: np.random.Generator, t_start_ns: int, duration_s: float
) -> Done:
    """Changes the clock in place; what was done, or nothing if the fault is of another kind."""
    if fault.name not in ("offset", "skew", "clock_jump"):
        return {}
    clock, sign = clocks[fault.target], int(random.choice([-1, 1]))
    first = clock.segments[0]
    if fault.name == "offset":
        by_ns = sign * int(random.integers(20_000, 90_000)) * 1_000_000
        clocks[fault.target] = steady(t_start_ns, first.offset_ns + by_ns, first.skew_ppm)
        return {"by_ns": by_ns}
    if fault.name == "skew":
        by_ppm = sign * float(random.integers(200, 400))
        clocks[fault.target] = steady(t_start_ns, first.offset_ns, first.skew_ppm + by_ppm)
        return {"by_ppm": by_ppm}
    at_ns = t_start_ns + round(float(random.uniform(0.4, 0.6)) * duration_s * 1e9)
    by_ns = sign * int(random.integers(500, 3_000)) * 1_000_000
    clocks[fault.target] = jumping(clock, at_ns, by_ns)
    return {"t_utc_ns": at_ns, "by_ns": by_ns}


# ---- schedules -------------------------------------------------------------------------------------------------------


def on_schedules(fault: Fault, schedules: dict[str, Schedule], random: np.random.Generator) -> Done:
    """Changes the stream's schedule in place; what was done, or nothing if the fault is of another kind."""
    if fault.name == "missing_stream":
        return {"messages": schedules.pop(fault.target).number.size}
    if fault.name == "unknown_stream":
        return _unknown(schedules)
    change = _ON_STREAM.get(fault.name)
    # Another fault may have taken the stream away.
    return change(schedules[fault.target], random) if change and fault.target in schedules else {}


def _unknown(schedules: dict[str, Schedule]) -> Done:
    """A message a second, timed as the receiver's."""
    known = schedules["gnss"]
    stream = Stream("thermal", "/thermal", known.stream.rate_hz, known.stream.clock)
    arrays = (known.number.copy(), known.t_device_ns.copy(), known.t_arrival_utc_ns.copy())
    schedules[stream.name] = Schedule(stream, *arrays)
    return {"topic": stream.topic, "messages": known.number.size}


def _stuck_sensor(schedule: Schedule, random: np.random.Generator) -> Done:
    first = int(0.4 * schedule.number.size)
    each = schedule.stream.messages
    held = first // each * each
    schedule.number[held:] = schedule.number[held] + schedule.number[held:] % each
    return {"from_message": held}


def _stuck_clock(schedule: Schedule, random: np.random.Generator) -> Done:
    schedule.t_device_ns[:] = schedule.t_device_ns[:1]
    return {"messages": schedule.number.size}


def _jitter(schedule: Schedule, random: np.random.Generator) -> Done:
    period_ns = 1e9 / schedule.stream.rate_hz
    off_ns = np.clip(random.normal(0.0, 0.25, schedule.number.size), -0.45, 0.45) * period_ns
    schedule.t_device_ns += np.round(off_ns).astype(np.int64)
    return {"standard_deviation_ns": round(float(np.std(off_ns)))}


def _drops(schedule: Schedule, random: np.random.Generator) -> Done:
    lost = _some(schedule, random, 0.05)
    schedule.take(np.setdiff1d(np.arange(schedule.number.size), lost))
    return {"messages": lost.size}


def _bursts(schedule: Schedule, random: np.random.Generator) -> Done:
    """Every few seconds, arrivals of most of a second come together at its end."""
    held, until = np.zeros(schedule.number.size, dtype=bool), int(schedule.t_arrival_utc_ns[0]) + 1_000_000_000
    while until < schedule.t_arrival_utc_ns[-1]:
        waits = (schedule.t_arrival_utc_ns >= until - 800_000_000) & (schedule.t_arrival_utc_ns < until)
        schedule.t_arrival_utc_ns[waits] = until + np.arange(int(waits.sum())) * 10_000
        held |= waits
        until += int(random.integers(2_000, 5_000)) * 1_000_000
    return {"messages": int(held.sum())}


def _reordering(schedule: Schedule, random: np.random.Generator) -> Done:
    first = _some(schedule, random, 0.05)
    first = first[np.diff(first, prepend=-10) > 1]
    # It is held back until the next one has come: nothing arrives before it was sent.
    schedule.t_arrival_utc_ns[first] = schedule.t_arrival_utc_ns[first + 1] + 1_000
    return {"messages": first.size}


def _duplicates(schedule: Schedule, random: np.random.Generator) -> Done:
    twice = _some(schedule, random, 0.1)
    schedule.take(np.sort(np.concatenate([np.arange(schedule.number.size), twice])))
    return {"messages": twice.size}


def _some(schedule: Schedule, random: np.random.Generator, share: float) -> np.ndarray:
    """At least one of the messages that have one before and one behind, in order."""
    inner = np.arange(1, max(schedule.number.size - 2, 1))
    return np.sort(random.choice(inner, max(1, round(share * inner.size)), replace=False))


def _broken(name: str, share: float) -> Callable[[Schedule, np.random.Generator], Done]:
    def change(schedule: Schedule, random: np.random.Generator) -> Done:
        schedule.broken[name] = random.random(schedule.number.size) < share
        return {"messages": int(schedule.broken[name].sum())}

    return change


_OF_IMU = ("nan_imu", "wrong_contract")
_ON_STREAM: Mapping[str, Callable[[Schedule, np.random.Generator], Done]] = {
    "stuck_sensor": _stuck_sensor,
    "stuck_clock": _stuck_clock,
    "jitter": _jitter,
    "drops": _drops,
    "bursts": _bursts,
    "reordering": _reordering,
    "duplicates": _duplicates,
    "nan_imu": _broken("nan_imu", 0.33),
    "wrong_contract": _broken("wrong_contract", 1.0),
}


# ---- files -----------------------------------------------------------------------------------------------------------


def on_file(fault: Fault, path: Path, random: np.random.Generator) -> Done:
    """Damages a written file; what was done, or nothing if the fault is of another kind."""
    size = path.stat().st_size
    if fault.name == "truncation":
        os.truncate(path, int(size * 0.7))
        return {"bytes": int(size * 0.7)}
    if fault.name == "corrupt_chunk":
        with open(path, "r+b") as file:
            file.seek(size // 2)
            file.write(random.bytes(512))
        return {"from_byte": size // 2, "bytes": 512}
    if fault.name == "wrong_content":
        path.write_bytes(random.bytes(4096))
        return {"bytes": 4096}
    return {}

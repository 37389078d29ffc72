"""Simulated sensors: frames a second of camera, LiDAR and radar together, alone, encoded, and written as MCAP."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.harness import Options, Row, fastest, row
from fleet_assets.simulate.conditions import draw
from fleet_assets.simulate.drives import write_drive
from fleet_assets.simulate.messages import png
from fleet_assets.simulate.parameters import setup
from fleet_assets.simulate.scene import Scene, generator

_FRAMES = 400
_START = datetime(2026, 3, 4, 11, tzinfo=UTC)


def rows(options: Options) -> list[Row]:
    """400 frames of the default set-up (camera 64x256, LiDAR 20x256, radar 64x48); then whole drives."""
    scene = _scene("default")
    cores = os.cpu_count() or 1

    def measured(number: int) -> None:
        scene.image("camera_front", number)
        scene.points(number)
        scene.radar(number)

    def encoded(number: int) -> None:
        png(scene.image("camera_front", number))
        scene.points(number).tobytes()
        png(scene.radar(number))

    found = []
    for what, work in (("measured", measured), ("measured and encoded", encoded)):
        times = fastest({"ours": _all(work, cores), "one thread": _all(work, 1)}, repeats=3)
        began = time.process_time()
        _all(work, 1)()
        each_ms = (time.process_time() - began) / _FRAMES * 1e3
        note = f"{_FRAMES / times['ours']:.0f} frames/s; goal 400; {each_ms:.1f} ms of one core per frame"
        found.append(row(f"{_FRAMES} frames {what}, {cores} threads", times, note=note))
    return [*found, _drive("default", 20.0), _drive("dense", 2.0)]


def _scene(name: str) -> Scene:
    return Scene(0, draw(generator(0, "conditions"), _START, "munich", "day", "clear"), setup(name), 60.0)


def _all(work: Callable[[int], None], threads: int) -> Callable[[], None]:
    """Every call takes other frames: a scene keeps the last few exposures."""
    first = iter(range(0, 1_000_000, _FRAMES))

    def run() -> None:
        begin = next(first)
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, range(begin, begin + _FRAMES)))

    return run


def _drive(name: str, seconds: float) -> Row:
    """A whole recording: labels, motion, arrival, MCAP."""
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "bench.mcap")

        def write() -> None:
            write_drive(path, seed=0, start=_START, duration_s=seconds, setup=name, weather="clear")

        began = time.perf_counter()
        write()
        times = {"ours": time.perf_counter() - began}
        megabytes = path.stat().st_size / 1e6
    pace = seconds / times["ours"]
    return row(f"{seconds:.0f} s of {name} written", times, note=f"{megabytes:.0f} MB, {pace:.1f} times real time")

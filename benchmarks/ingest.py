"""From an MCAP file on disk to `synchronise/frames` on main, beside rosbag-resurrector, and decoding plus a plain upload.

In: nothing, or hours of drive instead of a quarter, a half and one. Out: a row per length, one for a dense recording of 20 s,
and one that says how time grows with length. Ours is the whole way, on real lakeFS and Spark: a manifest for the file in the
landing folder, decoding and upload in Spark tasks, audit and publishing, and again for synchronise; before them, a short drive
tells what a process's first run costs. The floor is every message decoded by the mcap library, then one upload of the file to the
same lake.
rosbag-resurrector reads and aligns the file of the first length and the dense one, without pictures, and keeps nothing.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from benchmarks import recordings
from benchmarks.harness import Options, Row, installation
from fleet_assets import console
from fleet_assets.capture.deliver import deliver
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.lake.client import MAIN
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home
from fleet_assets.synchronise.batch import synchronise_batch

_HOURS = (0.25, 0.5, 1.0)
_DENSE_S = 20.0
_BRANCH = "bench-floor"


def rows(options: Options) -> list[Row]:
    """One installation for all. Each length is taken once: it is long, and its steps are told apart."""
    hours = options.sizes or _HOURS
    with installation(["lakefs", "spark"]) as home:
        Lake.open(home).repository.create_branch(_BRANCH, MAIN)
        bench = _Bench(home)
        found = [bench.row("first run of a process, 10 s of drive", 10.0, recordings.STANDARD)]
        lengths = [
            bench.row(f"{length:g} h of drive", 3600.0 * length, recordings.STANDARD, peer=length == hours[0])
            for length in hours
        ]
        found += lengths
        if len(hours) > 1:
            found.append(_growth(hours, lengths))
        dense = bench.row(f"dense, {_DENSE_S:g} s of drive", _DENSE_S, recordings.DENSE, peer=True)
        dense["note"] += f"; {_DENSE_S / dense['ours_s']:.2f} times real time"
        return [*found, dense]


def _growth(hours: tuple[float, ...], lengths: list[Row]) -> Row:
    """Seconds per hour of drive, by least squares; how far from the line the times are says whether it is one."""
    slopes = {}
    for name in ("ours_s", "floor_s"):
        taken = np.array([row[name] for row in lengths])
        slope, fixed = np.polyfit(hours, taken, 1)
        slopes[name] = float(slope)
        off = float(np.abs(taken - (fixed + slope * np.array(hours))).max())
        if name == "ours_s":
            note = f"slope over {len(hours)} lengths; beside it {fixed:.1f} s a run; at most {off:.1f} s off the line"
    return {"work": "each further hour of drive", "peers_s": {}, "note": note, **slopes}


class _Bench:
    def __init__(self, home: Home) -> None:
        self.home = home
        self.lake = Lake.open(home)
        self.drives = 0

    def row(self, work: str, seconds: float, setup: recordings.Setup, *, peer: bool = False) -> Row:
        self.drives += 1
        path, messages = recordings.land(self.home.landing, seconds, setup, f"bench{self.drives}")
        steps = self._ours(path.parent, messages, round(seconds * setup.lidar_hz))
        floor_s = _timed(lambda: self._floor(path, messages))
        peers = {"rosbag-resurrector": _timed(lambda: _resurrector(path))} if peer else {}
        size = path.stat().st_size
        shutil.rmtree(path.parent)
        told = ", ".join(f"{name} {took:.1f} s" for name, took in steps.items())
        note = f"{size / 1e9:.2f} GB, {messages} messages: {told}"
        console.say(f"{work}: ours {sum(steps.values()):.1f} s, floor {floor_s:.1f} s; {note}")
        return {"work": work, "ours_s": sum(steps.values()), "peers_s": peers, "floor_s": floor_s, "note": note}

    def _ours(self, folder: Path, messages: int, frames: int) -> dict[str, float]:
        began = time.perf_counter()
        drive = deliver(folder, self.home.landing).drive_id
        steps = {"deliver": time.perf_counter() - began}
        for name, batch in (("ingest", ingest_batch), ("synchronise", synchronise_batch)):
            began = time.perf_counter()
            outcome = batch(self.home, self.lake, [drive], run_id=f"bench-{drive}")
            steps[name] = time.perf_counter() - began
            assert outcome.published is not None, outcome.audit_summary
            assert [made.status for made in outcome.drives] == ["published"], outcome.drives
        snapshot = self.lake.at()
        made = snapshot.scan("synchronise.frames", ["frame"], drives=[drive])["frame"]
        assert pc.count_distinct(made).as_py() == frames
        ledger = snapshot.scan("ingest.ledger", drives=[drive]).to_pylist()
        assert sum(entry["published_rows"] for entry in ledger) == messages, ledger
        return steps

    def _floor(self, path: Path, messages: int) -> None:
        from mcap.reader import make_reader
        from mcap_ros2.decoder import DecoderFactory

        with open(path, "rb") as file:
            reader = make_reader(file, decoder_factories=[DecoderFactory()])
            assert sum(1 for _ in reader.iter_decoded_messages()) == messages
        self.lake.repository.upload(_BRANCH, f"bench/{self.drives}.mcap", path)


def _resurrector(path: Path) -> None:
    """Its nearest records to every sweep, of what is no picture."""
    from resurrector.core.bag_frame import BagFrame

    logging.getLogger("resurrector").setLevel(logging.ERROR)  # it warns of every type it does not know
    topics = ["/lidar", "/radar", "/imu", "/gnss", "/bus/vehicle"]
    assert BagFrame(path).sync(topics, anchor="/lidar").height


def _timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began

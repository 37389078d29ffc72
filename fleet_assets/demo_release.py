"""The demo's second half: from the drives of a small fleet to a signed release, and a vehicle that drives with it.

In: an installation whose servers are up. Out: a dataset, a model, its verdict; a release that two people approved, with
throw-away keys; a vehicle that installed it and drove a recording nobody trained on. All in profile `demo`: one fusion form, a
small gate.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fleet_assets import console, runs
from fleet_assets.definitions import defs
from fleet_assets.edge.floor import Floor
from fleet_assets.edge.verdict import Status
from fleet_assets.errors import FleetError
from fleet_assets.evaluate.table import verdict_rows
from fleet_assets.package.assets import HARDWARE
from fleet_assets.package.releases import Release, Releases
from fleet_assets.services.home import Home
from fleet_assets.simulate.drives import write_drive
from fleet_assets.simulate.fleet import Plan, plan_fleet
from fleet_assets.throw_away import APPROVERS, Ceremony, hold
from fleet_assets.throw_away import run as fleet

PROFILE = "demo"
DRIVES, DURATION_S = 48, 10.0
_SEED = 5
_CHANNEL = 'key:"deploy/release_channel"'


def plans() -> list[Plan]:
    """The fleet's drives, by day and by night, even in weather and region. Dusk is outside of the demo's operating domain."""
    return [plan for plan in plan_fleet(2 * DRIVES, _SEED) if plan.light != "dusk"][:DRIVES]


def simulate_fleet(folder: Path) -> list[tuple[Path, str, datetime]]:
    """The recordings of the fleet's drives: file, vehicle, start."""
    console.say(f"Simulating {DRIVES} drives of {DURATION_S:.0f} s, half of them by night, to train and to judge by")
    made = []
    with console.progress("drives") as advance:
        for plan in plans():
            path = folder / plan.file_name
            _write(path, plan)
            made.append((path, plan.vehicle, plan.start))
            advance(len(made), DRIVES)
    return made


def _write(path: Path, plan: Plan) -> None:
    write_drive(
        path, seed=plan.seed, start=plan.start, duration_s=DURATION_S, vehicle=plan.vehicle, region=plan.region,
        light=plan.light, weather=plan.weather,
    )  # fmt: skip


def release_and_drive(home: Home, scratch: Path) -> bool:
    """False: a run failed, or the gate did not say PASS; what is to be known has been said."""
    whole = runs.select("*", defs).whole
    console.say(f"Features, dataset, training, evaluation, candidate: profile {PROFILE}")
    if not _run(home, whole):
        _say_verdict(Releases(home.releases))
        return False
    releases = Releases(home.releases)
    found = _say_verdict(releases)
    if found is None or found.verdict.status is not Status.PASS:
        return False
    _approve(home, releases, found.id)
    if not _run(home, runs.select(_CHANNEL, defs).whole):
        return False
    _drive(home, releases, scratch)
    console.out.print(
        f"Release:    .venv/bin/fleet release show {found.id[:12]}; where it comes from: .venv/bin/fleet trace {found.id[:12]}",
        markup=False,
    )
    return True


def _run(home: Home, keys: Sequence[Any]) -> bool:
    with runs.instance_of(home) as instance, console.progress("run") as advance:
        ended = runs.follow_whole(instance, runs.launch_whole(home, keys, PROFILE), len(keys), advance)
    for run_id, why in ended.failures:
        console.say(f"run {run_id[:8]} failed: {why}")
    return ended.ok


def _say_verdict(releases: Releases) -> Release | None:
    """Of the latest candidate, a row per cell."""
    ids = releases.ids()
    if not ids:
        return None
    found = releases.release(ids[-1])
    title = f"\nVerdict on {found.id[:12]}, profile {found.profile}: {found.verdict.status}"
    console.print_rows(verdict_rows(found.verdict), title=title, empty="", as_json=False)
    return found


def _approve(home: Home, releases: Releases, id_: str) -> None:
    """By two of three, with people's commands and throw-away keys that lie in the installation: who has it needs no approval."""
    ceremony = Ceremony(home.root / "demo" / "keys")
    if not releases.roots.versions():
        hold(releases, ceremony.folder)
    for name in APPROVERS[:2]:
        done = fleet("release", "sign", id_, *ceremony.with_key(name), "--releases", releases.folder)
        key = ceremony.folder / name
        console.say(f"  {name}: fleet release sign {id_[:12]} --key {key}; {done['missing']} more must sign")


@dataclass(frozen=True)
class _Vehicle:
    folder: Path

    def call(self, *arguments: str | Path) -> dict[str, Any]:
        command = [sys.executable, "-m", "fleet_assets.edge", *map(str, arguments), "--vehicle", str(self.folder)]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            raise FleetError("The vehicle refused", where=ended.stderr.strip(), remedy="See docs/releases.md.")
        return dict(json.loads(ended.stdout))


def _drive(home: Home, releases: Releases, scratch: Path) -> None:
    """A vehicle with the demo's own floor installs what the channel offers, and drives a recording that is not in the lake."""
    plan = Plan(_SEED + 1, "demo_edge", datetime(2026, 3, 2, 22, tzinfo=UTC), plans()[0].region, "night", "rain")
    recording = scratch / plan.file_name
    _write(recording, plan)
    vehicle = _Vehicle(home.root / "demo" / "vehicle")
    if not vehicle.folder.exists():
        floor = scratch / "floor.json"
        floor.write_text(json.dumps(Floor(profile=PROFILE).to_document()))
        vehicle.call("init", "--root", releases.roots.path(1), "--hardware", HARDWARE, "--floor", floor)
    installed = vehicle.call("update", "--channel", releases.folder / "channel")
    log = home.root / "demo" / "decisions.jsonl"
    driven = vehicle.call("run", "--recording", recording, "--log", log)
    console.say(
        f"The vehicle runs {installed['release'][:12]} on {recording.name}, by night, in rain; decisions: {log}"
    )
    row = {name: driven[name] for name in ("frames", "objects", "model_ms", "outside_ms", "relied_on")}
    console.print_rows([row], title="\nOn the vehicle", empty="", as_json=False)

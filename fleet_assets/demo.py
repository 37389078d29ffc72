"""The demo: a few simulated drives with faults and a fleet of short ones, carried to features, and on to a release and a vehicle.

In: an installation (started if it is down). Out: published and quarantined drives, with reasons; what demo_release.py says;
features looked up three ways; and where to look.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fleet_assets import console, runs, show
from fleet_assets.capture.deliver import deliver
from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.definitions import defs
from fleet_assets.demo_release import release_and_drive, simulate_fleet
from fleet_assets.lake.lake import Lake, Snapshot
from fleet_assets.lake.schema import apply
from fleet_assets.services import supervisor
from fleet_assets.services.home import Home
from fleet_assets.simulate.drives import write_drive


@dataclass(frozen=True)
class _Scene:
    vehicle: str
    start: str
    faults: tuple[str, ...]
    story: str


SCENES = (
    _Scene("demo1", "2026-01-05T10:00:00Z", (), "clean, by day"),
    _Scene(
        "demo1",
        "2026-01-05T17:00:00Z",
        ("clock_jump", "drops"),
        "by night; a clock was set on the way, images got lost",
    ),
    _Scene("demo2", "2026-01-05T10:30:00Z", ("truncation", "unknown_stream"), "cut off by a power loss"),
    _Scene("demo2", "2026-01-05T12:00:00Z", ("nan_imu",), "a third of its accelerations are not numbers"),
)
DURATION_S = 30.0
_FRAME = 100  # whose features are shown

_Recording = tuple[Path, str, datetime]  # file, vehicle, start


def demo(home: Home) -> bool:
    """Runs the main job on generated drives and says what came of it. A repeat replaces, and doubles nothing.

    False: a run failed, the gate did not pass, or features differ between lake, online store and vehicle.
    """
    started = time.monotonic()
    console.say(f"Servers of {home.root}")
    supervisor.up(home, progress=console.say)
    lake = Lake.open(home)
    if changes := apply(lake):
        console.say(f"Tables made or evolved from their contracts: {len(changes)}")

    recordings = home.scratch / "demo"
    recordings.mkdir(parents=True, exist_ok=True)
    _deliver(home, [*_simulate_scenes(recordings), *simulate_fleet(recordings)])

    with runs.instance_of(home) as instance:
        keys = runs.select("*", defs).per_drive
        with console.progress("landing sensor") as advance:
            runs.await_landed(instance, home, advance)
        with console.progress("runs") as advance:
            ended = runs.run(instance, home, keys, None, advance)
        for run_id, why in ended.failures:
            console.say(f"run {run_id[:8]} failed: {why}")
    ok = ended.ok and release_and_drive(home, recordings)
    ok = ok and _features(home)
    _summary(home, lake.at("main"), time.monotonic() - started)
    return ok


def _simulate_scenes(folder: Path) -> list[_Recording]:
    console.say(f"Simulating {len(SCENES)} drives of {DURATION_S:.0f} s")
    made = []
    for seed, scene in enumerate(SCENES):
        path = folder / f"{scene.vehicle}-{seed}.mcap"
        start = datetime.fromisoformat(scene.start)
        write_drive(path, seed=seed, start=start, duration_s=DURATION_S, vehicle=scene.vehicle, faults=scene.faults)
        made.append((path, scene.vehicle, start))
        console.say(f"  {path.name}: {scene.story}")
    return made


def _deliver(home: Home, recordings: list[_Recording]) -> None:
    """All at once, so that they are one batch."""
    console.say(f"Delivering {len(recordings)} recordings to {home.landing}")
    for path, vehicle, start in recordings:
        deliver(path, home.landing, vehicle=vehicle, start=f"{start:%Y-%m-%dT%H:%M:%SZ}")
        path.unlink()


def _features(home: Home) -> bool:
    """Features of a published drive, looked up in the lake, online and on a vehicle. False: they are not the same, or not
    there."""
    from fleet_assets.features.assets import SERVICE
    from fleet_assets.features.checks import drives_of
    from fleet_assets.features.service_snapshot import three_ways

    drives = drives_of(Lake.open(home).at())
    found = three_ways(home, SERVICE, "ego_motion", {"drive_id": drives[0], "frame": _FRAME})
    rows = [{"feature": name, **ways, "equal": len(set(ways.values())) == 1} for name, ways in found.items()]
    columns = ("feature", "lake", "online", "vehicle", "equal")
    _print(rows, columns, f"Features of frame {_FRAME} of {drives[0]}: at a commit, through Feast, from the bundle")
    known = any(value is not None for ways in found.values() for value in ways.values())
    return known and all(row["equal"] for row in rows)


def _summary(home: Home, snapshot: Snapshot, seconds: float) -> None:
    every, ours = show.drives(snapshot), {scene.vehicle for scene in SCENES}
    drives = [drive for drive in every if DriveKey.parse(drive["drive_id"]).vehicle in ours]
    columns = ("drive_id", "status", "streams", "frames", "complete_frames", "reasons")
    _print(drives, columns, "Drives, beside those of the fleet")
    refused = [row for drive in drives for row in _refused(snapshot, drive["drive_id"])]
    _print(refused, ("drive_id", "stream", "refused_rows", "reasons"), "Records that were read and not published")
    quality = [
        {"drive_id": drive["drive_id"], **row}
        for drive in drives
        for row in show.match_quality(snapshot, drive["drive_id"])
    ]
    _print(quality, ("drive_id", "channel", "method", "frames", "matched", "dt_p95_ms"), "Synchronisation")
    published = sum(drive["status"] == "published" for drive in every)
    console.out.print(
        f"\n{published} drives published, {len(every) - published} quarantined, at lake commit "
        f"{snapshot.commit_id[:12]}, in {seconds:.0f} s.\n"
        f"Lineage:    {home.webserver_url}/asset-groups\n"
        f"Lake:       {home.lakefs_url}/repositories (sign in with the keys in {home.root / 'secrets.json'})\n"
        f"One drive:  .venv/bin/fleet show drive {drives[0]['drive_id'] if drives else 'KEY'}\n"
        "Stop:       .venv/bin/fleet down",
        markup=False,
    )


def _print(rows: list[dict[str, Any]], columns: tuple[str, ...], title: str) -> None:
    picked = [{name: row[name] for name in columns} for row in rows]
    console.print_rows(picked, title=f"\n{title}", empty=f"{title}: none.", as_json=False)


def _refused(snapshot: Snapshot, drive_id: str) -> list[dict[str, Any]]:
    """Ledger rows of a drive that say something was not published."""
    return [
        {**row, "reasons": list(map(show.refused, row["reasons"]))}
        for row in snapshot.scan("ingest.ledger", drives=[drive_id]).to_pylist()
        if row["reasons"]
    ]

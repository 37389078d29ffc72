"""What runs in a vehicle: `python -m fleet_assets.edge init | update | run | trace`.

In: arguments. Out: one JSON line on standard output per thing done; errors as one sentence on standard error, exit code 1. Needs
the base dependencies and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fleet_assets.errors import FleetError

if TYPE_CHECKING:
    from fleet_assets.edge.vehicle import Vehicle


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code: 0 done, 1 failed, 3 driven with the release of before, for the update failed."""
    begun_s = time.perf_counter()
    given = _parser().parse_args(arguments)
    given.begun_s = begun_s
    try:
        return int(given.command(given))
    except (FleetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fleet_assets.edge", description="A vehicle's software.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Any, about: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=about, description=about)
        found.add_argument("--vehicle", type=Path, default=_default_folder(), help="its folder; default %(default)s")
        found.set_defaults(command=function)
        return found

    init = command("init", _init, "Provision: the first root, hardware class and floor, brought by hand, once.")
    init.add_argument("--root", type=Path, required=True, metavar="FILE", help="root metadata, such as 1.root.json")
    init.add_argument("--hardware", required=True, metavar="CLASS", help="such as cpu_x86_64")
    init.add_argument(
        "--floor", type=Path, metavar="FILE", help="the least that a release must have shown; default: full"
    )
    update = command("update", _update, "Install what the channel's approvers want here.")
    update.add_argument("--channel", type=Path, required=True, metavar="DIR")
    run = command("run", _run, "Update if the channel has something, then drive with what runs.")
    run.add_argument("--channel", type=Path, metavar="DIR", help="none: drive with what is installed")
    run.add_argument(
        "--recording",
        type=Path,
        required=True,
        metavar="FILE",
        help="in MCAP; -: a live stream of it on standard input",
    )
    run.add_argument(
        "--log", type=Path, metavar="FILE", help="decision log; default: decisions/ of the vehicle's folder"
    )
    command("trace", _trace, "Where the running release comes from; `fleet trace` takes the output.")
    return parser


def _default_folder() -> Path:
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "fleet" / "vehicle"


def _init(given: argparse.Namespace) -> int:
    from fleet_assets.edge.floor import Floor
    from fleet_assets.edge.vehicle import Vehicle

    floor = Floor.read(given.floor) if given.floor else Floor()
    vehicle = Vehicle.init(given.vehicle, given.root, given.hardware, floor)
    _say({"vehicle": str(vehicle.root), "hardware": vehicle.hardware, "floor": floor.to_document()})
    return 0


def _update(given: argparse.Namespace) -> int:
    vehicle = _opened(given)
    slot, new = vehicle.update(given.channel)
    _say({"release": slot.release, "slot": slot.name, "new": new, "fetched": dict(slot.fetched)})
    return 0


def _run(given: argparse.Namespace) -> int:
    vehicle, code = _opened(given), 0
    if given.channel is not None:
        try:
            vehicle.update(given.channel)
        except (FleetError, OSError) as error:
            print(f"{error}", file=sys.stderr)  # whatever it is, what runs goes on
            code = 3
    _say(vehicle.drive(given.recording, given.log, begun_s=given.begun_s))
    return code


def _opened(given: argparse.Namespace) -> Vehicle:
    """Numba keeps what it compiled in the vehicle's folder: the trial of an installation warms it for the drive."""
    from fleet_assets.edge.numba_cache import use_own_cache
    from fleet_assets.edge.vehicle import Vehicle

    vehicle = Vehicle.open(given.vehicle)
    os.environ.setdefault("NUMBA_CACHE_DIR", str(vehicle.root / "numba"))
    use_own_cache()
    return vehicle


def _trace(given: argparse.Namespace) -> int:
    from fleet_assets.edge.vehicle import Vehicle

    _say(Vehicle.open(given.vehicle).trace())
    return 0


def _say(document: dict[str, Any]) -> None:
    print(json.dumps(document), flush=True)


if __name__ == "__main__":
    sys.exit(main())

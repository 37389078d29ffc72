"""The main job in a network namespace of its own, where there is nothing but loopback: `unshare -n python offline.py HOME`.

In: an empty folder for an installation, and a drive key. Out: one JSON document: what `fleet` says of the drive, and how
many packets somebody wanted to send to the outside.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from recordings import write

_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1


def loopback_up() -> None:
    """What `ip link set lo up` does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(control, _SIOCGIFFLAGS, request))
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", flags | _IFF_UP))


def without_route() -> int:
    """Packets of this namespace that had nowhere to go: an attempt to reach the outside, a look-up of a name too."""
    names, values = (line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Ip:"))
    count = int(values[names.index("OutNoRoutes")])
    for line in Path("/proc/net/snmp6").read_text().splitlines() if Path("/proc/net/snmp6").exists() else ():
        name, value = line.split()
        count += int(value) if name == "Ip6OutNoRoutes" else 0
    return count


def fleet(*arguments: str) -> Any:
    command = [sys.executable, "-m", "fleet_assets", *arguments, "--json"]
    ended = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=500)
    return json.loads(ended.stdout)


def carry(scratch: Path, drive: str) -> dict[str, Any]:
    """`fleet ingest`, `fleet run`, `fleet show drive` on a recording of the drive."""
    vehicle, _, start = drive.partition("--")
    recording = write(scratch / f"{vehicle}.mcap", drive)
    fleet("contracts", "apply")
    fleet("ingest", str(recording), "--vehicle", vehicle, "--start", start)
    ended = fleet("run")
    return {"ok": ended["ok"], "failures": ended["failures"], **fleet("show", "drive", drive)}


def main() -> None:
    from fleet_assets.services import supervisor
    from fleet_assets.services.home import Home

    loopback_up()
    outside = [name for _, name in socket.if_nameindex() if name != "lo"]
    with socket.socket() as probe:
        probe.settimeout(5)
        reached = probe.connect_ex(("192.0.2.1", 443)) == 0
    probed = without_route()  # so the count works, and this is ours
    os.environ["FLEET_HOME"] = sys.argv[1]
    home = Home.open()
    try:
        supervisor.up(home, bound_to=os.getpid())
        drive = carry(home.scratch, sys.argv[2])
    finally:
        supervisor.down(home)
    facts = {"interfaces": outside, "reached": reached, "probed": probed, "attempts": without_route() - probed}
    print(json.dumps({**facts, "drive": drive}))


if __name__ == "__main__":
    main()

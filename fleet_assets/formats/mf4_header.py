"""What an MF4 file says about itself, without its records.

In: a file. Out: start time and the logger's description. Source: ASAM MDF 4.1, ID and HD blocks; the description is the MD
block's XML as CSS Electronics writes it. A few kilobytes are read, whatever the lengths in the file say.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fleet_assets.formats.reader import Unreadable

MAGICS = (b"MDF     4", b"UnFinMF 4")
_COMMENT_BYTES = 65_536
_LOCAL_TIME = 1
_CONTEXT = {"firmware version": "firmware", "hardware version": "hardware", "device type": "device_type"}


@dataclass(frozen=True)
class Header:
    """t_start_ns: UTC. serial: of the logger, if it names one."""

    t_start_ns: int
    serial: str | None
    context: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Raises Unreadable when the header is cut off, or gives no UTC."""
    with open(path, "rb") as file:
        fixed = file.read(64 + 104)
        if len(fixed) < 64 + 104 or fixed[64:68] != b"##HD":
            raise _unreadable(path, "its header is cut off")
        comment_at = struct.unpack_from("<Q", fixed, 64 + 24 + 5 * 8)[0]
        t_start_ns, _, _, flags = struct.unpack_from("<QhhB", fixed, 64 + 24 + 6 * 8)
        if flags & _LOCAL_TIME:
            raise _unreadable(path, "its start is local time, and UTC cannot be known")
        if not 0 < t_start_ns < 2**63:
            raise _unreadable(path, "it has no start time")
        text = ""
        if 0 < comment_at < path.stat().st_size:
            file.seek(comment_at)
            block = file.read(_COMMENT_BYTES)
            length = int.from_bytes(block[8:16], "little")
            if block[:4] == b"##MD":
                text = block[24 : min(length, len(block))].decode("utf-8", "replace")
    entries = dict(re.findall(r'<e name="([^"<]{1,60})"[^>]{0,100}>([^<]{0,200})</e>', text))
    serial = entries.get("serial number", "").strip() or None
    return Header(t_start_ns, serial, {to: entries[name].strip() for name, to in _CONTEXT.items() if name in entries})


def _unreadable(path: Path, why: str) -> Unreadable:
    return Unreadable(f"An MF4 file cannot be used: {why}", where=path.name, remedy="Deliver the recording again.")

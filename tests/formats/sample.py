"""What a small recording is, and pieces that several formats use.

In: nothing. Out: Sample, and images. Same bytes every time.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from fleet_assets.formats.reader import Reader, RecordingFiles

T0_NS = 1_700_000_000_123_456_789


@dataclass
class Sample:
    """rows: records per topic that read() delivers; payloads: per topic, through payloads(). main: the file to damage."""

    reader: type[Reader]
    files: RecordingFiles
    rows: dict[str, int]
    main: str
    payloads: dict[str, int] = field(default_factory=dict)
    refused: int = 0

    @property
    def path(self) -> Path:
        return self.files.root / self.main


class Folder:
    """Files of a recording, as they are written."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: list[str] = []

    def put(self, name: str, content: bytes | str) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        self.names.append(name)

    @property
    def files(self) -> RecordingFiles:
        return RecordingFiles(self.root, tuple(sorted(self.names)))


def png(seed: int) -> bytes:
    """A whole grey image of 8 by 8 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pixels = b"".join(b"\0" + bytes((seed + row + column) % 256 for column in range(8)) for row in range(8))
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")

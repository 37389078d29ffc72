"""What formats with one file per record share.

In: files. Out: their bytes, checked; records of several sensors in order of time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from fleet_assets.formats import ros2
from fleet_assets.formats.reader import Refusals

MAX_FILE_BYTES = 64 * 1024 * 1024
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"


@dataclass(frozen=True)
class FileRecord:
    """One record: its stamp on the clock of its format, and its file."""

    topic: str
    t_ns: int
    path: Path

    @property
    def place(self) -> str:
        return f"{self.path.parent.name}/{self.path.name}"


def interleaved(sensors: list[list[FileRecord]]) -> list[FileRecord]:
    """Records of all sensors by time. A sensor's own order stays: stamps that run backwards must not be hidden."""
    keyed = []
    for records in sensors:
        latest = accumulate((record.t_ns for record in records), max)
        keyed += [
            (t_ns, record.topic, at, record) for at, (t_ns, record) in enumerate(zip(latest, records, strict=True))
        ]
    return [record for *_, record in sorted(keyed, key=lambda item: item[:3])]


def read_file(path: Path) -> bytes:
    """Raises ValueError when it is too large to be one record; OSError."""
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes")
    return path.read_bytes()


def png_image(record: FileRecord, t_device_ns: int) -> bytes:
    """A sensor_msgs/msg/CompressedImage of a PNG file. Raises ValueError when the file is not whole."""
    data = read_file(record.path)
    if not data.startswith(PNG_MAGIC) or not data.rstrip(b"\0").endswith(_PNG_END):
        raise ValueError("it is no whole PNG")
    return ros2.compressed_image(t_device_ns, record.path.parent.name, "png", data)


def refusing(log: Refusals, record: FileRecord, encode: Callable[[FileRecord], bytes]) -> bytes | None:
    """The record's message; None, with a refusal, when its file cannot be read."""
    try:
        return encode(record)
    except (ValueError, OSError) as error:  # pyarrow's are ValueErrors
        log.add(record.topic, "the file cannot be read", f"{record.place}: {first_line(error)}")
        return None


def first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]

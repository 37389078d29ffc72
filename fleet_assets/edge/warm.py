"""Everything that a drive compiles, compiled before the first drive, and loaded before its first frame.

In: a model. Out: Numba's cache, filled; or, where it is, the code of the cache in this process, which else is loaded call by call
and makes the first frames late. Messages of nothing real go the way of a drive's messages, so that what is compiled is what a
drive will call.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from fleet_assets.edge.assemble import Assembler
from fleet_assets.edge.memory import Memory
from fleet_assets.edge.model import Model
from fleet_assets.edge.rig import Rig

_FRAMES, _PERIOD_NS = 4, 100_000_000
_HEIGHT, _WIDTH, _POINTS = 128, 512, 64  # of a camera larger than a model's input, so that it is shrunk


def warm(model: Model) -> None:
    """Drives a few frames of grey pictures and a few points, as images, compressed images and points."""
    rig = model.description.rig
    named = Rig(tuple(replace(one, topics=(re.escape(one.name),)) for one in rig.streams), rig.keys)
    assembler = Assembler(named, [stream.name for stream in named.streams])
    frames = []
    for number in range(_FRAMES):
        t_ns = (number + 1) * _PERIOD_NS
        for stream in named.streams:
            kind, content = _message(stream.source, number)
            message = _cdr([("i", t_ns // 10**9), ("I", t_ns % 10**9), ("s", "warm"), *content])
            frames += assembler.push(stream.name, kind, message, t_ns)
    memory = Memory(model.lag)
    for frame in [*frames, *assembler.flush()]:
        context, age_s = frame.context[None], frame.age_s[None]
        inputs = model.prepare(frame.camera[None], frame.lidar[None], frame.radar[None], context, age_s)
        outputs = model.run(inputs | memory.recall(frame.t_ns, frame.context))
        memory.keep(frame.t_ns, frame.context, outputs.memory)
        model.found(outputs)


def _message(source: str, number: int) -> tuple[str, list[tuple[str, int | str | bytes]]]:
    """Type and content of a message, in turn as an image and compressed."""
    if source == "lidar":
        points = np.linspace(1, 20, 4 * _POINTS, dtype="<f4").tobytes()
        fields = [part for at, name in enumerate(("x", "y", "z", "intensity")) for part in _field(name, 4 * at)]
        shape = [("I", 1), ("I", _POINTS), ("I", 4), *fields, ("B", 0), ("I", 16), ("I", 16 * _POINTS)]
        return "sensor_msgs/msg/PointCloud2", [*shape, ("raw", points), ("B", 1)]
    if number % 2:
        return "sensor_msgs/msg/CompressedImage", [("s", "png"), ("raw", _png())]
    pixels = bytes(_HEIGHT * _WIDTH * 3)
    shape = [("I", _HEIGHT), ("I", _WIDTH), ("s", "rgb8"), ("B", 0), ("I", 3 * _WIDTH)]
    return "sensor_msgs/msg/Image", [*shape, ("raw", pixels)]


def _field(name: str, offset: int) -> list[tuple[str, int | str | bytes]]:
    return [("s", name), ("I", offset), ("B", 7), ("I", 1)]


def _png() -> bytes:
    head = struct.pack(">IIBBBBB", _WIDTH, _HEIGHT, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(_HEIGHT * (1 + 3 * _WIDTH)))
    chunks = ((b"IHDR", head), (b"IDAT", body), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(one)) + name + one + struct.pack(">I", zlib.crc32(name + one)) for name, one in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _cdr(parts: Iterable[tuple[str, int | str | bytes]]) -> bytes:
    """A little-endian CDR body of numbers (by struct's letter), texts ("s") and bytes ("raw")."""
    out = bytearray(b"\0\1\0\0")

    def number(form: str, value: int) -> None:
        out.extend(bytes(-(len(out) - 4) % struct.calcsize(form)))
        out.extend(struct.pack(f"<{form}", value))

    for form, value in parts:
        if isinstance(value, int):
            number(form, value)
        else:
            content = value.encode() + b"\0" if isinstance(value, str) else value
            number("I", len(content))
            out.extend(content)
    return bytes(out)

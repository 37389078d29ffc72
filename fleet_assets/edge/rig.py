"""What the vehicle listens to, and how its streams make a frame.

In: a JSON document, which travels with the model that was trained on such frames. Out: Rig. The platform makes it from the
contracts of the streams and the causal alignment policy (train/rig.py): the vehicle has neither.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from fleet_assets.errors import FleetError
from fleet_assets.kernels.features.records import SOURCES

SENSORS = ("camera", "lidar", "radar")  # those whose content is a model's input, in the order of age_s
_LONGEST_NS = 3_600_000_000_000
_MOST_STREAMS, _MOST_TEXT = 256, 200


@dataclass(frozen=True)
class Stream:
    """topics: regular expressions, one of which must fit a topic as a whole. signal: of a bus. ahead_ns: from a record's stamp to
    the time at which the sensor looks ahead. before_ns, after_ns, wait_ns: how old or early a record of a frame may be, and how
    long a frame waits for it from the arrival of its key record; of signals, nothing counts but the wait."""

    name: str
    source: str
    topics: tuple[str, ...]
    signal: str | None
    ahead_ns: int
    before_ns: int
    after_ns: int
    wait_ns: int


@dataclass(frozen=True)
class Rig:
    """streams: of each source the best first; the first that a vehicle has is taken. keys: sources whose records set the frames,
    the best first."""

    streams: tuple[Stream, ...]
    keys: tuple[str, ...]

    @property
    def wait_ns(self) -> int:
        """From the arrival of a frame's key record to when its features are read."""
        return max(stream.wait_ns for stream in self.streams)

    def chosen(self, topics: list[str]) -> dict[str, tuple[str, Stream]]:
        """Per source the topic and stream that are taken, of a vehicle's topics."""
        found: dict[str, tuple[str, Stream]] = {}
        for stream in self.streams:
            topic = next((one for one in topics if any(re.fullmatch(pattern, one) for pattern in stream.topics)), None)
            if topic is not None:
                found.setdefault(stream.source, (topic, stream))
        return found

    def to_document(self) -> dict[str, Any]:
        return {"streams": [asdict(stream) for stream in self.streams], "keys": list(self.keys)}

    @classmethod
    def from_document(cls, document: Any, name: str) -> Rig:
        """name: what to call the file. Raises FleetError."""
        try:
            streams = tuple(_stream(entry) for entry in document["streams"])
            keys = tuple(document["keys"])
            whole = 0 < len(streams) <= _MOST_STREAMS and bool(keys) and set(keys) <= set(SENSORS)
        except (KeyError, TypeError, ValueError, re.error):
            whole = False
        if not whole:
            raise FleetError(f"{name} does not say what to listen to", remedy="Take the release anew from its channel.")
        return cls(streams, keys)


def _stream(entry: Any) -> Stream:
    """Raises KeyError, TypeError, ValueError or re.error for what is none."""
    topics = tuple(entry["topics"])
    numbers = {key: entry[key] for key in ("ahead_ns", "before_ns", "after_ns", "wait_ns")}
    texts = [entry["name"], entry["source"], *topics, *([entry["signal"]] if entry["signal"] is not None else [])]
    if not all(isinstance(text, str) and 0 < len(text) <= _MOST_TEXT for text in texts):
        raise ValueError("no text")
    if not all(type(value) is int and abs(value) <= _LONGEST_NS for value in numbers.values()):
        raise ValueError("no time")
    if (
        entry["source"] not in SOURCES
        or not topics
        or min(numbers["before_ns"], numbers["after_ns"], numbers["wait_ns"]) < 0
    ):
        raise ValueError("no stream")
    for pattern in topics:
        re.compile(pattern)
    return Stream(entry["name"], entry["source"], topics, entry["signal"], **numbers)

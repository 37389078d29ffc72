"""Schemas and channels of an MCAP file.

In: the contents of schema and channel records. Out: what each channel carries. Source: the MCAP specification, "Records".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_MAX_NAME_BYTES = 1024


class NotWellFormed(ValueError):
    """A record that does not follow the specification."""


@dataclass(frozen=True)
class Topic:
    """encoding: of the messages; cdr for ROS 2."""

    name: str
    schema_name: str
    encoding: str


@dataclass
class Channels:
    """Declarations by number. The specification allows repeats that are equal; one that differs is not well formed."""

    topics: dict[int, Topic] = field(default_factory=dict)
    _schemas: dict[int, str] = field(default_factory=dict)

    def learn_schema(self, content: bytes) -> None:
        number = int.from_bytes(content[:2], "little")
        name, _ = text(content, 2)
        if self._schemas.setdefault(number, name) != name:
            raise NotWellFormed

    def learn_channel(self, content: bytes) -> None:
        number, schema = (int.from_bytes(content[at : at + 2], "little") for at in (0, 2))
        name, at = text(content, 4)
        encoding, _ = text(content, at)
        topic = Topic(name, self._schemas.get(schema, ""), encoding)
        if self.topics.setdefault(number, topic) != topic:
            raise NotWellFormed


def text(content: bytes, at: int) -> tuple[str, int]:
    """A length-prefixed string, and where it ends. Raises NotWellFormed."""
    length = int.from_bytes(content[at : at + 4], "little")
    raw = content[at + 4 : at + 4 + length]
    if at + 4 > len(content) or len(raw) != length or length > _MAX_NAME_BYTES:
        raise NotWellFormed
    try:
        return raw.decode("utf-8"), at + 4 + length
    except UnicodeDecodeError as error:
        raise NotWellFormed from error


def mapping(content: bytes, at: int, form: str) -> dict[int, int]:
    """A map of fixed-size entries. Raises NotWellFormed."""
    length = int.from_bytes(content[at : at + 4], "little")
    entries = content[at + 4 : at + 4 + length]
    if at + 4 > len(content) or len(entries) != length or length % struct.calcsize(form):
        raise NotWellFormed
    return dict(struct.iter_unpack(form, entries))

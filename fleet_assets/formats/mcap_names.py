"""Schemas and channels of an MCAP file.

In: the contents of schema and channel records. Out: what each channel carries. Source: the MCAP specification, "Records".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

_MAX_NAME_BYTES = 1024
_MAX_SCHEMA_BYTES = 64 * 1024 * 1024  # of all schemas that are kept


class NotWellFormed(ValueError):
    """A record that does not follow the specification."""


@dataclass(frozen=True)
class Topic:
    """encoding: of the messages; cdr for ROS 2. schema: what describes them, if that is needed to read them (protobuf)."""

    name: str
    schema_name: str
    encoding: str
    schema: bytes = b""


@dataclass
class Channels:
    """Declarations by number. The specification allows repeats that are equal; one that differs is not well formed."""

    topics: dict[int, Topic] = field(default_factory=dict)
    _schemas: dict[int, tuple[str, bytes]] = field(default_factory=dict)
    _schema_bytes: int = 0

    def learn_schema(self, content: bytes) -> None:
        number = int.from_bytes(content[:2], "little")
        name, at = text(content, 2)
        encoding, at = text(content, at)
        length = int.from_bytes(content[at : at + 4], "little")
        schema = content[at + 4 : at + 4 + length] if encoding == "protobuf" else b""
        if number not in self._schemas:
            self._schema_bytes += len(schema)
            if self._schema_bytes > _MAX_SCHEMA_BYTES:
                raise NotWellFormed
        if self._schemas.setdefault(number, (name, schema)) != (name, schema):
            raise NotWellFormed

    def learn_channel(self, content: bytes) -> None:
        number, schema = (int.from_bytes(content[at : at + 2], "little") for at in (0, 2))
        name, at = text(content, 4)
        encoding, _ = text(content, at)
        schema_name, described = self._schemas.get(schema, ("", b""))
        topic = Topic(name, schema_name, encoding, described)
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

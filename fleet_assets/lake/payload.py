"""Camera, LiDAR and radar messages by key: range reads of recordings in the lake.

In: rows of ingest.messages. Out: the bytes of each message, in the order of the rows. Rows of one chunk are read together, so
are messages that lie side by side, and what is left in parallel; memory holds the reads in flight and what was asked for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import pyarrow as pa

from fleet_assets.errors import FleetError
from fleet_assets.formats.mcap_scan import MAX_CHUNK_BYTES, Damaged, decompress
from fleet_assets.lake.client import Repository
from fleet_assets.lake.refusals import LakeUnreachable

# A server on the same machine is busy with eight; more only wait.
THREADS = 8
# A request costs as much as this many bytes that nobody asked for; one read takes no more than the other.
_NEAR_BYTES = 128 * 1024
_READ_BYTES = 8 * 1024 * 1024
KEY_COLUMNS = (
    "object",
    "chunk_offset",
    "chunk_length",
    "chunk_size",
    "codec",
    "message_offset",
    "message_length",
)


@dataclass(frozen=True)
class _Read:
    """One range of one object, and the rows that it serves: (row, offset in the range's content, length)."""

    object: str
    offset: int
    length: int
    codec: str
    size: int
    rows: tuple[tuple[int, int, int], ...]


def read_payload(repository: Repository, ref: str, rows: pa.Table, *, threads: int = THREADS) -> list[bytes]:
    """The messages of the rows, in their order. ref: a reference that holds the recordings, such as a snapshot's commit.

    rows: any rows of ingest.messages with KEY_COLUMNS. Raises FleetError that names the object and the place when a recording
    does not hold what the index says, LakeUnreachable when there is no server.
    """
    found: list[bytes | None] = [None] * rows.num_rows
    for row, data in stream_payload(repository, ref, rows, threads=threads):
        found[row] = data
    return [data for data in found if data is not None]


def stream_payload(
    repository: Repository, ref: str, rows: pa.Table, *, threads: int = THREADS
) -> Iterator[tuple[int, bytes]]:
    """(row, message) read by read, in the order in which the rows first name what is read; at most 2 * threads reads are in
    memory."""
    reads = _plan(rows)
    with ThreadPoolExecutor(max_workers=max(1, min(threads, len(reads)))) as pool:
        running: deque[Future[list[tuple[int, bytes]]]] = deque()
        for read in reads:
            if len(running) == 2 * threads:
                yield from running.popleft().result()
            running.append(pool.submit(_run, repository, ref, read))
        while running:
            yield from running.popleft().result()


def _plan(rows: pa.Table) -> list[_Read]:
    by_chunk: dict[tuple[str, int, int, str, int], list[tuple[int, int, int]]] = {}
    by_object: dict[str, list[tuple[int, int, int]]] = {}
    columns = [rows[name].to_pylist() for name in KEY_COLUMNS]
    for row, (key, offset, length, size, codec, at, count) in enumerate(zip(*columns, strict=True)):
        if codec == "none":  # byte-addressable: the message itself is the range
            by_object.setdefault(key, []).append((at, count, row))
        else:
            by_chunk.setdefault((key, offset, length, codec, size), []).append((row, at, count))
    reads = [_Read(*where, tuple(served)) for where, served in by_chunk.items()]
    reads += [read for key, messages in by_object.items() for read in _joined(key, messages)]
    return sorted(reads, key=lambda read: min(row for row, _, _ in read.rows))


def _joined(key: str, messages: list[tuple[int, int, int]]) -> Iterator[_Read]:
    """Messages (offset, length, row) of one object; those that lie side by side are one read."""
    together: list[tuple[int, int, int]] = []
    start = end = 0
    for at, count, row in sorted(messages):
        if together and (at - end > _NEAR_BYTES or at + count - start > _READ_BYTES):
            yield _read(key, start, end, together)
            together = []
        if not together:
            start = end = at
        end = max(end, at + count)
        together.append((row, at - start, count))
    yield _read(key, start, end, together)


def _read(key: str, start: int, end: int, served: list[tuple[int, int, int]]) -> _Read:
    return _Read(key, start, end - start, "none", end - start, tuple(served))


def _run(repository: Repository, ref: str, read: _Read) -> list[tuple[int, bytes]]:
    place = f"bytes {read.offset} to {read.offset + read.length}"
    if not 0 < read.length <= MAX_CHUNK_BYTES or not 0 < read.size <= MAX_CHUNK_BYTES:
        raise _broken(read, place, f"a range of {read.length} bytes that hold {read.size}")
    try:
        stored = repository.get_range(ref, read.object, read.offset, read.length)
    except LakeUnreachable:
        raise
    except FleetError as error:
        raise _broken(read, place, str(error)) from error
    if len(stored) != read.length:
        raise _broken(read, place, f"only {len(stored)} bytes are there")
    try:
        content = decompress(read.codec, stored, read.size)
    except Damaged as error:
        raise _broken(read, place, str(error)) from error
    messages = []
    for row, at, count in read.rows:
        if at < 0 or count < 0 or at + count > len(content):
            raise _broken(read, place, f"a message at {at} of {count} bytes")
        messages.append((row, content[at : at + count]))
    return messages


def _broken(read: _Read, place: str, why: str) -> FleetError:
    return FleetError(
        f"{read.object} does not hold what ingest.messages says",
        where=f"{place}: {why}",
        remedy="Ingest the drive again: `fleet run --drives KEY`.",
    )

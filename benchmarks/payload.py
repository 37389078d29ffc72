"""Camera, LiDAR and radar messages by key from the lake, beside one object per frame, a Delta blob column, and plain reads.

In: nothing. Out: two rows, 1,000 random messages and 10,000 consecutive ones of one recording in real lakeFS. The floor asks for
the same bytes as plain range reads, and as one stream. What every way gives is compared, byte by byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks import recordings
from benchmarks.harness import Options, Row, fastest, installation, row
from fleet_assets.formats.reader import PAYLOAD_KINDS, RecordingFiles, open_recording
from fleet_assets.lake.client import MAIN, Repository
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.payload import THREADS, read_payload, stream_payload

_BRANCH, _OBJECT = "bench-payload", "recordings/bench.mcap"
_BLOBS = "bench/blobs"
_SECONDS = 320.0
_RANDOM, _CONSECUTIVE = 1_000, 10_000
_BLOB_ROWS = 256  # rows in a group: 8 to 16 MB, as curate/samples has them


def rows(options: Options) -> list[Row]:
    """All on a branch of an installation of its own."""
    with installation(["lakefs"]) as home:
        repository = Lake.open(home).repository
        repository.create_branch(_BRANCH, MAIN)
        path = home.scratch / "bench.mcap"
        recordings.write(path, _SECONDS)
        repository.upload(_BRANCH, _OBJECT, path)
        index = _index(path)
        first = index.num_rows // 2 - _CONSECUTIVE // 2
        messages = index.slice(first, _CONSECUTIVE)  # those that the peers hold too
        contents = _contents(path, messages)
        _put_objects(repository, contents)
        _put_blobs(repository, contents)
        chosen = np.random.default_rng(0).choice(_CONSECUTIVE, _RANDOM, replace=False)
        return [_random(repository, messages, contents, chosen), _consecutive(repository, messages, contents)]


def _index(path: Path) -> pa.Table:
    """Rows of ingest.messages, in order of the file."""
    reader = open_recording(RecordingFiles(path.parent, (path.name,)))
    index = pa.concat_tables([batch.table for batch in reader.read() if batch.kind in PAYLOAD_KINDS])
    index = index.append_column("object", pa.repeat(_OBJECT, index.num_rows))
    return index.sort_by("message_offset").combine_chunks()


def _contents(path: Path, messages: pa.Table) -> list[bytes]:
    with open(path, "rb") as file:
        found = []
        for offset, length in _ranges(messages):
            file.seek(offset)
            found.append(file.read(length))
        return found


def _ranges(messages: pa.Table) -> list[tuple[int, int]]:
    return list(zip(messages["message_offset"].to_pylist(), messages["message_length"].to_pylist(), strict=True))


def _random(repository: Repository, messages: pa.Table, contents: list[bytes], chosen: np.ndarray) -> Row:
    part = messages.take(pa.array(chosen))
    ranges = _ranges(part)
    work: dict[str, Callable[[], list[bytes]]] = {
        "ours": lambda: read_payload(repository, _BRANCH, part),
        "one object per frame": lambda: _objects(repository, chosen.tolist()),
        "floor": lambda: _in_threads(lambda r: repository.get_range(_BRANCH, _OBJECT, *r), ranges),
    }
    times = _compared(work, [contents[number] for number in chosen])
    # A tenth, because each costs tens of milliseconds.
    few = chosen[: _RANDOM // 10].tolist()
    blobs = _compared(
        {"blobs": lambda: [_blobs(repository, f"number = {n}")[n] for n in few]}, [contents[n] for n in few]
    )
    times["Delta blob column"] = 10 * blobs["blobs"]
    return row(
        f"{_RANDOM} random messages", times, note=_note(part, "range reads with as many threads; blobs: ten times 100")
    )


def _consecutive(repository: Repository, messages: pa.Table, contents: list[bytes]) -> Row:
    first, last = _ranges(messages)[0], _ranges(messages)[-1]
    start, end = first[0], last[0] + last[1]

    def streamed() -> list[bytes]:
        found: list[bytes] = [b""] * messages.num_rows
        for number, data in stream_payload(repository, _BRANCH, messages):
            found[number] = data
        return found

    def floor() -> list[bytes]:
        pieces = range(start, end, 8 * 2**20)
        return _in_threads(lambda at: repository.get_range(_BRANCH, _OBJECT, at, min(8 * 2**20, end - at)), pieces)

    def blobs() -> list[bytes]:
        found = _blobs(repository, None)
        return [found[number] for number in range(messages.num_rows)]

    work = {
        "ours": streamed,
        "one object per frame": lambda: _objects(repository, range(messages.num_rows)),
        "Delta blob column": blobs,
    }
    times = _compared(work, contents) | fastest({"floor": floor}, repeats=3, enough_s=20.0)
    return row(
        f"{_CONSECUTIVE} consecutive messages",
        times,
        note=_note(messages, "the bytes in pieces of 8 MiB, as many threads"),
    )


def _compared(work: dict[str, Callable[[], list[bytes]]], expected: list[bytes]) -> dict[str, float]:
    for name, call in work.items():
        assert call() == expected, f"{name}: other bytes"
    return fastest(work, repeats=3, enough_s=20.0)


def _note(part: pa.Table, floor: str) -> str:
    return f"{sum(part['message_length'].to_pylist()) / 2**20:.0f} MiB, {THREADS} threads; floor: {floor}"


def _in_threads(call: Callable[[Any], bytes], items: Any) -> list[bytes]:
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(call, items))


# ---- peers -----------------------------------------------------------------------------------------------------------


def _key(number: int) -> str:
    return f"bench/objects/{number:06d}"


def _put_objects(repository: Repository, contents: list[bytes]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda item: repository.put(_BRANCH, _key(item[0]), item[1]), enumerate(contents)))


def _objects(repository: Repository, numbers: Any) -> list[bytes]:
    return _in_threads(lambda number: repository.get(_BRANCH, _key(number)), numbers)


def _put_blobs(repository: Repository, contents: list[bytes]) -> None:
    from deltalake import WriterProperties, write_deltalake

    schema = pa.schema([("number", pa.int64()), ("payload", pa.binary())])

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(0, len(contents), _BLOB_ROWS):
            part = contents[start : start + _BLOB_ROWS]
            yield pa.record_batch(
                [pa.array(range(start, start + len(part))), pa.array(part, pa.binary())], schema=schema
            )

    write_deltalake(
        repository.uri(_BRANCH, _BLOBS),
        pa.RecordBatchReader.from_batches(schema, batches()),
        storage_options=repository.storage_options,
        writer_properties=WriterProperties(compression="UNCOMPRESSED", max_row_group_size=_BLOB_ROWS),
    )


def _blobs(repository: Repository, predicate: str | None) -> dict[int, bytes]:
    from deltalake import DeltaTable

    table = DeltaTable(repository.uri(_BRANCH, _BLOBS), storage_options=repository.storage_options)
    found = pa.RecordBatchReader.from_stream(table.scan(columns=["number", "payload"], predicate=predicate)).read_all()
    return dict(zip(found["number"].to_pylist(), found["payload"].to_pylist(), strict=True))

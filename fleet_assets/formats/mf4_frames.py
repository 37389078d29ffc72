"""CAN frames out of MF4 files, by a process of its own.

In: paths of MF4 files. Out: batches of frames in order of the file. asammdf reads the blocks; a damaged file can crash its
compiled part (seen: segmentation fault after one changed byte), make it ask for any amount of memory, or follow blocks in a
circle, so it runs in a child process with limits on memory and on the time of each file, and the rest of the recording goes on.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from fleet_assets.formats.reader import BATCH_ROWS

MAX_MEMORY_BYTES = 4 * 1024**3
FILE_CPU_S = 10  # of processor time for a file, and one second more for each MB of it
MAX_PAYLOAD_BYTES = 64  # CAN FD
_WINDOW_ROWS = 8 * BATCH_ROWS
_SCHEMA = pa.schema(
    [
        ("dt_ns", pa.int64()),
        ("identifier", pa.uint32()),
        ("extended", pa.bool_()),
        ("length", pa.uint8()),
        ("payload", pa.binary(MAX_PAYLOAD_BYTES)),
    ]
)


@dataclass(frozen=True)
class Frames:
    """Frames of one file. dt_ns: int64 [n] since the file's start; payload: uint8 [n, 64]; length: bytes used of it."""

    file: int
    dt_ns: np.ndarray
    identifier: np.ndarray
    extended: np.ndarray
    length: np.ndarray
    payload: np.ndarray


@dataclass(frozen=True)
class Lost:
    """Records of a file that could not be had; count 0: nobody knows how many."""

    file: int
    reason: str
    count: int


def read_frames(paths: Sequence[Path]) -> Iterator[Frames | Lost]:
    """Frames of the files, one file after the other. A file that kills the child is Lost, and the next ones are read."""
    file = 0
    while file < len(paths):
        child = _Child(paths[file:])
        try:
            done = yield from child.frames(file)
        finally:
            child.stop()
        file += done
        if file < len(paths):
            yield Lost(file, f"the decoder stopped in the file ({child.fate})", 0)
            file += 1


class _Child:
    def __init__(self, paths: Sequence[Path]) -> None:
        limits = {"memory": MAX_MEMORY_BYTES, "file_cpu_s": FILE_CPU_S}
        command = [sys.executable, "-m", __name__, json.dumps({"paths": [str(path) for path in paths], **limits})]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def frames(self, first: int) -> Generator[Frames | Lost, None, int]:
        """Gives how many files were read to their end."""
        done = 0
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        try:
            with pa.ipc.open_stream(self._process.stdout) as stream:
                while True:
                    batch, about = stream.read_next_batch_with_custom_metadata()
                    if batch.num_rows:
                        yield _frames(first + done, batch)
                    elif about is not None and b"reason" in about:
                        yield Lost(first + done, about[b"reason"].decode(), int(about[b"count"]))
                    else:
                        done += 1
        except (StopIteration, pa.ArrowInvalid, OSError):
            return done  # its end, orderly or not: the caller compares with what it asked for

    def stop(self) -> None:
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def fate(self) -> str:
        code = self._process.returncode
        if code == -signal.SIGPROF:
            return "it took more processor time than a file of its size may"
        return signal.Signals(-code).name if code and code < 0 else f"exit status {code}"


def _frames(file: int, batch: pa.RecordBatch) -> Frames:
    payload = np.frombuffer(batch["payload"].buffers()[1], dtype=np.uint8)
    return Frames(
        file,
        batch["dt_ns"].to_numpy(),
        batch["identifier"].to_numpy(),
        batch["extended"].to_numpy(zero_copy_only=False),
        batch["length"].to_numpy(),
        payload.reshape(-1, MAX_PAYLOAD_BYTES)[: batch.num_rows],
    )


def _main() -> None:
    """The child: frames as an Arrow stream on standard output, one empty batch at the end of each file."""
    import resource
    import warnings

    order = json.loads(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (order["memory"], order["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    target = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # asammdf prints what it stumbles over
    warnings.simplefilter("ignore")
    _send([Path(path) for path in order["paths"]], target, order["file_cpu_s"])


def _send(paths: list[Path], target: BinaryIO, file_cpu_s: int) -> None:
    from asammdf import MDF

    nothing = pa.RecordBatch.from_pylist([], schema=_SCHEMA)
    with target, pa.ipc.new_stream(target, _SCHEMA) as stream:
        for path in paths:
            try:
                _renew_limit(file_cpu_s + path.stat().st_size // 1_000_000)
                with MDF(path) as mdf:
                    for number in range(len(mdf.groups)):
                        for item in _group(mdf, number):
                            if isinstance(item, pa.RecordBatch):
                                stream.write_batch(item)
                            else:
                                stream.write_batch(nothing, {"reason": item[0], "count": str(item[1])})
                    stream.write_batch(nothing)
            except BrokenPipeError:
                return
            except Exception as error:  # asammdf raises whatever a damaged file leads it to
                reason = f"the file cannot be read ({type(error).__name__}: {str(error)[:200]})"
                stream.write_batch(nothing, {"reason": reason, "count": "0"})
                stream.write_batch(nothing)
            target.flush()  # if the next file ends the process, this one has ended before


def _renew_limit(cpu_s: int) -> None:
    """SIGPROF after so much more processor time. RLIMIT_CPU counts from the start of the process, and by another clock than a
    process can read: over many files the two drift apart, and a file would be stopped for what others took."""
    signal.setitimer(signal.ITIMER_PROF, cpu_s)


def _group(mdf: Any, number: int) -> Iterator[pa.RecordBatch | tuple[str, int]]:
    """Batches of one channel group; or why its records cannot be used, and how many they are."""
    group = mdf.groups[number]
    rows = int(group.channel_group.cycles_nr)
    if rows == 0:
        return
    index = {channel.name.removeprefix("CAN_DataFrame."): at for at, channel in enumerate(group.channels)}
    if "ID" not in index or "DataBytes" not in index:
        name = next((c.name for c in group.channels if c.name.lower() not in ("time", "timestamp", "t")), "?")
        yield f"a group of records is no CAN data ({name[:60]})", rows
        return
    for start in range(0, rows, _WINDOW_ROWS):

        def column(name: str, start: int = start) -> Any:
            # raw: a conversion to text would only be in the way.
            return mdf.get(group=number, index=index[name], raw=True, record_offset=start, record_count=_WINDOW_ROWS)

        identifier = column("ID")
        found = len(identifier.samples)
        raw_id = identifier.samples.astype(np.uint32)
        extended = column("IDE").samples.astype(bool) if "IDE" in index else raw_id >> 31 > 0
        data = column("DataBytes").samples
        payload = np.zeros((found, MAX_PAYLOAD_BYTES), dtype=np.uint8)
        width = min(data.shape[1] if data.ndim > 1 else data.dtype.itemsize, MAX_PAYLOAD_BYTES)
        payload[:, :width] = np.ascontiguousarray(data).view(np.uint8).reshape(found, -1)[:, :width]
        length = column("DataLength").samples.astype(np.int64) if "DataLength" in index else np.full(found, width)
        columns = [
            np.round(identifier.timestamps * 1e9).astype(np.int64),  # float seconds, converted once
            raw_id & np.uint32(0x1FFFFFFF),
            extended,
            np.clip(length, 0, width).astype(np.uint8),
        ]
        for at in range(0, found, BATCH_ROWS):
            part = slice(at, at + BATCH_ROWS)
            block = payload[part]
            fixed = pa.FixedSizeBinaryArray.from_buffers(_SCHEMA[4].type, len(block), [None, pa.py_buffer(block)])
            yield pa.record_batch([*(pa.array(values[part]) for values in columns), fixed], schema=_SCHEMA)
        if found < min(_WINDOW_ROWS, rows - start):
            yield "records are missing from the file", rows - start - found
            return


if __name__ == "__main__":
    _main()

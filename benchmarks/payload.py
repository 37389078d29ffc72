"""Camera, LiDAR and radar messages by key from the lake, beside the same bytes from a local file."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa

from benchmarks.harness import Row, medians, row
from fleet_assets.formats.reader import PAYLOAD_KINDS, RecordingFiles, open_recording
from fleet_assets.lake.client import MAIN, Repository
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.payload import read_payload
from fleet_assets.services.home import Home
from fleet_assets.simulate.drives import write_drive

_BRANCH = "bench-payload"


def rows(home: Home) -> list[Row]:
    """One generated recording on a branch of its own: all messages in order, and 64 at random."""
    repository = Lake.open(home).repository
    with TemporaryDirectory() as scratch:
        path = Path(scratch, "bench.mcap")
        write_drive(path, seed=0, start=datetime(2026, 1, 1, tzinfo=UTC), duration_s=60.0)
        reader = open_recording(RecordingFiles(Path(scratch), (path.name,)))
        tables = [batch.table for batch in reader.read() if batch.kind in PAYLOAD_KINDS]
        index = pa.concat_tables(tables)
        index = index.append_column("object", pa.repeat("recordings/bench.mcap", index.num_rows))
        repository.delete_branch(_BRANCH)
        repository.create_branch(_BRANCH, MAIN)
        try:
            repository.upload(_BRANCH, "recordings/bench.mcap", path)
            chosen = index.take(np.random.default_rng(0).choice(index.num_rows, 64, replace=False))
            return [
                _measure(f"{part.num_rows} messages {how}", repository, part, path)
                for how, part in (("in order", index), ("at random", chosen))
            ]
        finally:
            repository.delete_branch(_BRANCH)


def _measure(work: str, repository: Repository, part: pa.Table, path: Path) -> Row:
    ranges = sorted(
        {(o, n) for o, n in zip(part["chunk_offset"].to_pylist(), part["chunk_length"].to_pylist(), strict=True)}
    )

    def floor() -> int:
        with open(path, "rb") as file:
            total = 0
            for offset, length in ranges:
                file.seek(offset)
                total += len(file.read(length))
            return total

    times = medians(
        {
            "ours": lambda: read_payload(repository, _BRANCH, part),
            "one thread": lambda: read_payload(repository, _BRANCH, part, threads=1),
            "floor": floor,
        }
    )
    mebibytes = sum(part["message_length"].to_pylist()) / 2**20
    return row(
        work, times, note=f"{mebibytes:.1f} MiB of messages in {len(ranges)} chunks; floor: compressed from a file"
    )

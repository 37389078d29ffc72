"""Messages by key from a real lake: the bytes that the recording holds, and a clear error where it does not hold them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from formats.samples import drive, write_mcap
from lake.conftest import new_lake
from mcap.reader import make_reader
from mcap.writer import CompressionType

from fleet_assets.errors import FleetError
from fleet_assets.formats.reader import PAYLOAD_KINDS, RecordingFiles, open_recording
from fleet_assets.lake import payload
from fleet_assets.lake.client import Repository
from fleet_assets.lake.payload import KEY_COLUMNS, read_payload, stream_payload
from fleet_assets.lake.refusals import LakeUnreachable
from fleet_assets.lake.tables import VERSIONS
from fleet_assets.services.home import Home

pytestmark = pytest.mark.services
FILES: dict[str, dict[str, Any]] = {
    "zstd": {"compression": CompressionType.ZSTD},
    "lz4": {"compression": CompressionType.LZ4},
    "uncompressed": {"compression": CompressionType.NONE},
    "unchunked": {"chunked": False},
    "unindexed": {"indexed": False},
}


@pytest.fixture(scope="module")
def recordings(lakefs_home: Home, tmp_path_factory: pytest.TempPathFactory) -> tuple[Repository, pa.Table, list[bytes]]:
    """Every kind of MCAP on one branch, with the rows of ingest.messages and the bytes that the mcap library reads."""
    repository = new_lake(lakefs_home, [VERSIONS]).repository
    folder = tmp_path_factory.mktemp("recordings")
    repository.create_branch("payload", "main")
    tables, expected = [], []
    for name, options in FILES.items():
        path = write_mcap(folder / f"{name}.mcap", drive(3.0), **options)
        repository.upload("payload", f"recordings/{path.name}", path)
        for batch in open_recording(RecordingFiles(folder, (path.name,))).read():
            if batch.kind in PAYLOAD_KINDS:
                where = pa.repeat(f"recordings/{path.name}", batch.table.num_rows)
                tables.append(batch.table.select(KEY_COLUMNS[1:]).append_column("object", where))
                with open(path, "rb") as file:
                    sent = make_reader(file).iter_messages(topics=[batch.topic], log_time_order=False)
                    expected += [message.data for _, _, message in sent]
    return repository, pa.concat_tables(tables).combine_chunks(), expected


def changed(rows: pa.Table, **values: Any) -> pa.Table:
    for name, value in values.items():
        at = rows.column_names.index(name)
        rows = rows.set_column(at, name, pa.repeat(pa.scalar(value, rows.schema.field(name).type), rows.num_rows))
    return rows


Recordings = tuple[Repository, pa.Table, list[bytes]]


def test_every_message_of_every_codec(recordings: Recordings) -> None:
    repository, rows, expected = recordings
    assert set(rows["codec"].to_pylist()) == {"zstd", "lz4", "none"}
    assert len(expected) == rows.num_rows == 5 * 72
    assert read_payload(repository, "payload", rows) == expected


@pytest.mark.parametrize("threads", [1, 3, 16])
def test_in_any_order_and_again(recordings: Recordings, threads: int) -> None:
    repository, rows, expected = recordings
    chosen = np.random.default_rng(threads).integers(0, rows.num_rows, 150)
    found = read_payload(repository, "payload", rows.take(pa.array(chosen)), threads=threads)
    assert found == [expected[row] for row in chosen]


def test_a_chunk_is_read_once_however_many_rows_are_in_it(
    recordings: Recordings, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository, rows, _ = recordings
    compressed = rows.filter(pa.array([codec != "none" for codec in rows["codec"].to_pylist()]))
    chunks = set(zip(compressed["object"].to_pylist(), compressed["chunk_offset"].to_pylist(), strict=True))
    read: list[tuple[str, int]] = []
    get_range = Repository.get_range

    def counted(self: Repository, ref: str, path: str, offset: int, length: int) -> bytes:
        read.append((path, offset))
        return get_range(self, ref, path, offset, length)

    monkeypatch.setattr(Repository, "get_range", counted)
    list(stream_payload(repository, "payload", compressed))
    assert sorted(read) == sorted(chunks)
    assert len(chunks) < compressed.num_rows / 3


def test_no_rows(recordings: Recordings) -> None:
    repository, rows, _ = recordings
    assert read_payload(repository, "payload", rows.slice(0, 0)) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"object": "recordings/none.mcap"}, "is not at"),
        ({"chunk_offset": 2**40}, "refused"),
        ({"chunk_offset": 0}, "decompress"),
        ({"chunk_length": 10}, "decompress"),
        ({"chunk_length": 2**20}, "only"),
        ({"chunk_length": 0}, "a range of 0 bytes"),
        ({"chunk_length": payload.MAX_CHUNK_BYTES + 1}, "a range of"),
        ({"chunk_size": 2**62}, "a range of"),
        ({"chunk_size": 1000}, "size"),
        ({"codec": "brotli"}, "size"),
        ({"message_offset": 2**30}, "a message at"),
        ({"message_offset": -1}, "a message at"),
        ({"message_length": 2**30}, "a message at"),
    ],
    ids=lambda value: "-".join(map(str, *value.items())) if isinstance(value, dict) else "",
)
def test_an_index_that_is_wrong_is_named(recordings: Recordings, change: dict[str, Any], why: str) -> None:
    repository, rows, _ = recordings
    row = changed(rows.slice(3, 1), **change)
    with pytest.raises(FleetError) as error:
        read_payload(repository, "payload", row)
    (name,) = row["object"].to_pylist()
    assert error.value.what == f"{name} does not hold what ingest.messages says"
    assert why in str(error.value.where)
    assert error.value.remedy


def test_bytes_that_are_not_in_chunks(recordings: Recordings) -> None:
    repository, rows, expected = recordings
    first = rows["codec"].to_pylist().index("none")
    assert read_payload(repository, "payload", rows.slice(first, 1)) == [expected[first]]
    with pytest.raises(FleetError, match="does not hold"):
        read_payload(repository, "payload", changed(rows.slice(first, 1), message_length=2**27))


def test_another_reference_does_not_hold_them(recordings: Recordings) -> None:
    repository, rows, _ = recordings
    with pytest.raises(FleetError, match="does not hold"):
        read_payload(repository, "main", rows.slice(0, 1))


def test_no_server_is_no_fault_of_the_recording(recordings: Recordings, monkeypatch: pytest.MonkeyPatch) -> None:
    from fleet_assets.lake import client

    _, rows, _ = recordings
    monkeypatch.setattr(client, "_RETRY_FOR_S", 0.0)
    with pytest.raises(LakeUnreachable):
        read_payload(Repository("http://127.0.0.1:9", "id", "key"), "main", rows.slice(0, 1))

"""One suite for every reader: what the protocol promises, on a small recording of each format."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from formats.samples import SAMPLES, Sample

from fleet_assets.errors import FleetError
from fleet_assets.formats.reader import (
    BATCH_ROWS,
    PAYLOAD_KINDS,
    SCHEMAS,
    Batch,
    Reader,
    RecordingFiles,
    UnknownFormat,
    open_recording,
    readers,
)
from fleet_assets.formats.rewrite import rewrite_as_mcap


# A pass over MF4 starts a process, which takes seconds.
@pytest.fixture(params=[pytest.param(n, marks=[pytest.mark.slow] if n == "mf4" else []) for n in sorted(SAMPLES)])
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> Sample:
    return SAMPLES[request.param](tmp_path)


def tables(batches: Iterator[Batch]) -> dict[str, pa.Table]:
    found: dict[str, list[pa.Table]] = {}
    for batch in batches:
        assert 0 < batch.table.num_rows <= BATCH_ROWS
        assert batch.table.schema == SCHEMAS[batch.kind]
        found.setdefault(batch.topic, []).append(batch.table)
    return {topic: pa.concat_tables(parts).combine_chunks() for topic, parts in found.items()}


def refused(reader: Reader) -> int:
    return sum(refusal.count for refusal in reader.refusals)


def is_slow(sample: Sample) -> bool:
    """Each pass over MF4 costs a process."""
    return sample.main.endswith("MF4")


def stamps(table: pa.Table) -> np.ndarray:
    return pc.coalesce(table["t_host_ns"], table["t_device_ns"]).to_numpy()


def test_every_record_is_delivered_or_refused(sample: Sample) -> None:
    reader = sample.reader(sample.files)
    delivered = tables(reader.read())
    payloads = list(reader.payloads())
    assert {topic: table.num_rows for topic, table in delivered.items()} == sample.rows
    assert {t: sum(p.topic == t for p in payloads) for t in {p.topic for p in payloads}} == sample.payloads
    assert refused(reader) == sample.refused
    assert all(refusal.reason and refusal.position for refusal in reader.refusals)


def test_sequences_are_dense_and_stamps_are_whole_numbers(sample: Sample) -> None:
    for table in tables(sample.reader(sample.files).read()).values():
        assert table["sequence"].to_pylist() == list(range(table.num_rows))
        assert table["t_host_ns"].type == table["t_device_ns"].type == pa.int64()
        assert table["t_host_ns"].null_count < table.num_rows or table["t_device_ns"].null_count < table.num_rows


def test_channels_say_what_reading_gives(sample: Sample) -> None:
    reader = sample.reader(sample.files)
    channels = {channel.topic: channel for channel in reader.channels()}
    assert len(channels) == len(reader.channels())
    for batch in reader.read():
        assert channels[batch.topic].kind == batch.kind
        assert batch.file in sample.files.names or not reader.payload_in_place
    for payload in reader.payloads():
        assert channels[payload.topic].kind in PAYLOAD_KINDS
        assert channels[payload.topic].schema_name == payload.schema_name


def test_a_second_pass_gives_the_same(sample: Sample) -> None:
    reader = sample.reader(sample.files)
    first, account = tables(reader.read()), reader.refusals
    assert tables(reader.read()) == first
    assert reader.refusals == account


def test_topics_are_chosen(sample: Sample) -> None:
    reader = sample.reader(sample.files)
    whole = tables(reader.read())
    for topic, table in whole.items():
        assert tables(reader.read(topics=[topic])) == {topic: table}
    assert tables(reader.read(topics=[])) == {}
    assert tables(reader.read(topics=["/nothing"])) == {}


def test_times_are_chosen(sample: Sample) -> None:
    reader = sample.reader(sample.files)
    whole = tables(reader.read())
    every = np.concatenate([stamps(table) for table in whole.values()])
    a, b = np.quantile(every, [0.3, 0.7]).astype(np.int64).tolist()
    windows = [(a, b), (b, None), (None, a), (int(every.min()), int(every.max())), (b, a)]
    for t_from_ns, t_to_ns in windows[: 2 if is_slow(sample) else 5]:
        chosen = tables(reader.read(t_from_ns=t_from_ns, t_to_ns=t_to_ns))
        for topic, table in whole.items():
            t_ns = stamps(table)
            keep = (t_ns >= (t_from_ns or 0)) & (t_ns < (t_to_ns or 2**62))
            expected = table.filter(pa.array(keep)).drop_columns("sequence")
            found = chosen[topic].drop_columns("sequence") if topic in chosen else expected.slice(0, 0)
            assert found == expected


def test_only_its_own_content_is_claimed(sample: Sample) -> None:
    claims = [name for name, reader in readers().items() if reader.sniff(sample.files)]
    assert [readers()[name] for name in claims] == [sample.reader]
    assert isinstance(open_recording(sample.files), sample.reader)


def test_names_do_not_decide(sample: Sample, tmp_path: Path) -> None:
    """Another format's name on the file changes nothing; another content under the name does."""
    if len(sample.files.names) == 1:
        (tmp_path / "renamed.MF4").write_bytes(sample.path.read_bytes())
        assert isinstance(open_recording(RecordingFiles(tmp_path, ("renamed.MF4",))), sample.reader)
    for content in (b"", b"nothing that anybody knows", bytes(range(256)) * 10):
        sample.path.write_bytes(content)
        with pytest.raises(UnknownFormat) as error:
            open_recording(RecordingFiles(tmp_path, (sample.main,)))
        assert sample.main in str(error.value)
        assert all(name in str(error.value) for name in readers())


def test_info_is_from_the_recording(sample: Sample) -> None:
    info = sample.reader(sample.files).info()
    assert info.t_start_ns is not None or sample.reader.format == "kitti_tracking"  # which has no stamps
    assert all(isinstance(value, str) for value in info.context.values())


def test_rewriting_repeats_byte_for_byte(sample: Sample, tmp_path: Path) -> None:
    reader = sample.reader(sample.files)
    if reader.payload_in_place:
        assert list(reader.payloads()) == []
        return
    first = rewrite_as_mcap(reader.payloads(), tmp_path / "a.mcap")
    again = rewrite_as_mcap(reader.payloads(), tmp_path / "b.mcap")
    assert first == again
    rewritten = open_recording(RecordingFiles(tmp_path, ("a.mcap",)))
    index = tables(rewritten.read())
    assert {topic: table.num_rows for topic, table in index.items()} == sample.payloads
    assert rewritten.refusals == []
    for topic, table in index.items():
        original = [payload for payload in reader.payloads() if payload.topic == topic]
        assert table["t_device_ns"].to_pylist() == [payload.t_device_ns for payload in original]
        assert table["t_host_ns"].to_pylist() == [payload.t_host_ns for payload in original]
        assert table["message_length"].to_pylist() == [len(payload.data) for payload in original]


def read_damaged(sample: Sample) -> tuple[int, int]:
    """Delivered and refused; a FleetError is a fair answer too, and gives zeros."""
    delivered = payloads = 0
    try:
        reader = sample.reader(sample.files)
        reader.info()
        reader.channels()
        for batch in reader.read():
            assert batch.table.num_rows <= BATCH_ROWS
            delivered += batch.table.num_rows
        payloads = sum(1 for _ in reader.payloads())
        assert all(refusal.count >= 0 for refusal in reader.refusals)
    except FleetError:
        return 0, 0
    return delivered + payloads, len(reader.refusals)


def total(sample: Sample) -> int:
    return sum(sample.rows.values()) + sum(sample.payloads.values())


@pytest.mark.parametrize("part", [0.0, 0.02, 0.4, 0.999])
def test_cut_off(sample: Sample, part: float) -> None:
    whole = sample.path.read_bytes()
    sample.path.write_bytes(whole[: int(len(whole) * part)])
    delivered, reasons = read_damaged(sample)
    assert delivered <= total(sample)
    assert delivered == 0 or delivered == total(sample) or reasons > 0


def test_something_else_inside(sample: Sample) -> None:
    whole = sample.path.read_bytes()
    for content in (whole[:16] + b"\0" * 5000, whole[:64] + random.Random(1).randbytes(20_000)):
        sample.path.write_bytes(content)
        assert read_damaged(sample)[0] <= total(sample)


def test_flipped_bytes(sample: Sample) -> None:
    whole = sample.path.read_bytes()
    for seed in range(2 if is_slow(sample) else 8):
        chance = random.Random(seed)
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 2, 20])):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        sample.path.write_bytes(damaged)
        assert read_damaged(sample)[0] <= 2 * total(sample)


def test_a_folder_where_a_file_should_be(sample: Sample) -> None:
    sample.path.unlink()
    sample.path.mkdir()
    assert not sample.reader.sniff(RecordingFiles(sample.files.root, (sample.main,)))

"""A recording that its logger split: indexed where it lies, as one file is, and published with all of its files."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from formats import sample_foxglove
from formats.samples import Message, write_mcap
from ingest.decoding import START, decode, faults, ledger, reasons, streams, tables
from ingest.test_identity import MESSAGES, rows
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from fleet_assets.capture.deliver import deliver
from fleet_assets.edge.objects import Objects
from fleet_assets.evaluate.fetch import fetch_recordings
from fleet_assets.evaluate.rehearsals import Drives, Rehearsal
from fleet_assets.formats.mcap_scan import decompress
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.ingest.decode import DecodedDrive
from fleet_assets.lake.garbage import collect
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.payload import read_payload
from fleet_assets.services.home import Home
from fleet_assets.simulate.drives import write_drive
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames_of_recordings
from fleet_assets.train.rig import vehicle_rig

# The last one holds no camera, LiDAR or radar.
PARTS = (MESSAGES[:150], MESSAGES[150:330], [m for m in MESSAGES[330:] if m.topic in ("/imu", "/gnss")])
WHOLE = [message for part in PARTS for message in part]


def card(folder: Path, parts: Sequence[Sequence[Message]] = PARTS, *, first: int = 8, bag: bool = False) -> Path:
    """As a logger leaves it: numbered files, drive_10 behind drive_9."""
    folder.mkdir(parents=True)
    names = [f"drive_{number}.mcap" for number, _ in enumerate(parts, first)]
    for name, part in zip(names, parts, strict=True):
        write_mcap(folder / name, list(part))
    if bag:
        listed = "".join(f"    - {name}\n" for name in names)
        (folder / "metadata.yaml").write_text(f"rosbag2_bagfile_information:\n  relative_file_paths:\n{listed}")
    return folder


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.mcap"), key=lambda path: int(path.stem.split("_")[1]))


def keys_of(folder: Path) -> list[str]:
    return [f"recordings/{hashlib.sha256(path.read_bytes()).hexdigest()}.mcap" for path in files_of(folder)]


def sent(path: Path) -> dict[tuple[str, int], bytes]:
    """As the mcap library reads it: topic and arrival -> message."""
    with open(path, "rb") as file:
        return {
            (channel.topic, message.log_time): message.data for _, channel, message in make_reader(file).iter_messages()
        }


def payload(drive: DecodedDrive) -> dict[tuple[str, int], bytes]:
    """Read by the places that ingest.messages tells, from the files that go to the lake."""
    topics = {"camera_front": "/camera/front", "lidar": "/lidar", "radar": "/radar"}
    found = {}
    for row in tables(drive)["ingest.messages"].to_pylist():
        content = drive.objects[row["object"]].read_bytes()
        if row["codec"] != "none":
            chunk = content[row["chunk_offset"] :][: row["chunk_length"]]
            content = decompress(row["codec"], chunk, row["chunk_size"])
        message = content[row["message_offset"] :][: row["message_length"]]
        found[topics[row["stream"]], row["t_host_ns"]] = message
    return found


@pytest.mark.parametrize("bag", [True, False], ids=["a bag with its metadata", "files alone"])
def test_its_tables_are_those_of_one_file_and_its_payload_stays_where_it_is(bag: bool, tmp_path: Path) -> None:
    whole = decode(tmp_path / "one", write_mcap(tmp_path / "whole.mcap", WHOLE))
    folder = card(tmp_path / "card", bag=bag)
    split = decode(tmp_path / "many", folder)
    assert rows(split) == rows(whole)
    assert streams(split) == streams(whole)
    assert {name: row["read_rows"] for name, row in ledger(split).items()} == {
        name: row["read_rows"] for name, row in ledger(whole).items()
    }
    (row,) = tables(split)["ingest.recordings"].to_pylist()
    assert [row["object"], *row["further_objects"]] == list(split.objects) == keys_of(folder)
    assert [split.objects[key].read_bytes() for key in split.objects] == [
        file.read_bytes() for file in files_of(folder)
    ]
    assert list((tmp_path / "many" / "decoded").rglob("*.mcap")) == []  # nothing is written anew
    expected = {key: data for file in files_of(folder) for key, data in sent(file).items()}
    found = payload(split)
    assert found.items() <= expected.items()
    assert len(found) == sum(m.topic in ("/camera/front", "/lidar", "/radar") for m in WHOLE) > 0
    (row,) = tables(whole)["ingest.recordings"].to_pylist()
    assert (list(whole.objects), row["further_objects"]) == ([row["object"]], None)


def cut(*at: int) -> Callable[[Path], Path]:
    borders = [0, *at, len(WHOLE)]
    return lambda folder: card(folder, [WHOLE[a:b] for a, b in pairwise(borders)])


DELIVERIES: dict[str, tuple[Callable[[Path], Path], ...]] = {
    "whole, then split": (cut(), cut(100, 300)),
    "split, then whole": (cut(100, 300), cut()),
    "split twice": (cut(200), cut(100, 300)),
}


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_once_whole_and_once_split_it_is_one_drive_and_stored_once(delivery: str, tmp_path: Path) -> None:
    whole = rows(decode(tmp_path / "one", write_mcap(tmp_path / "whole.mcap", WHOLE)))
    folders = [made(tmp_path / f"card{number}") for number, made in enumerate(DELIVERIES[delivery])]
    both = decode(tmp_path / "both", *folders)
    assert rows(both) == whole
    assert sum(row["refused_rows"] for row in ledger(both).values()) == len(WHOLE)
    assert list(both.objects) in [keys_of(folder) for folder in folders]
    assert len(payload(both)) == whole["ingest.messages"].num_rows
    stored = [[row["object"], *(row["further_objects"] or ())] for row in tables(both)["ingest.recordings"].to_pylist()]
    assert sorted(stored, key=str) == sorted([list(both.objects), [None]], key=str)


@pytest.mark.parametrize("number", [0, 1])
def test_copies_whose_payload_differs_in_any_of_their_files_are_a_conflict(number: int, tmp_path: Path) -> None:
    """Of one stamp and one length: the bytes themselves are compared, wherever either recording has them."""
    at = next(n for n, message in enumerate(WHOLE) if message.topic == "/lidar" and n > 30 + 200 * number)
    other = replace(WHOLE[at], data=WHOLE[at].data[:-1] + bytes([WHOLE[at].data[-1] ^ 1]))
    changed = [*WHOLE[:at], other, *WHOLE[at + 1 :]]
    folders = [card(tmp_path / "a", [WHOLE[:150], WHOLE[150:]]), card(tmp_path / "b", [changed[:250], changed[250:]])]
    found = faults(decode(tmp_path / "both", *folders))
    assert found == {"recordings agree": "conflict: recordings of the same time differ in 1 records of lidar"}


def test_a_damaged_file_costs_the_others_nothing(tmp_path: Path) -> None:
    folder = card(tmp_path / "card")
    second = files_of(folder)[1]
    second.write_bytes(second.read_bytes()[: second.stat().st_size // 2])
    found = decode(tmp_path / "split", folder)
    assert found.accepted, found.faults
    assert list(found.objects) == keys_of(folder)
    assert set(sent(files_of(folder)[0])) >= {key for key in payload(found) if key[1] <= WHOLE[149].t_host_ns} != set()
    assert any(reasons(row) for row in ledger(found).values())


def test_images_in_json_are_rewritten_for_all_files(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / "card").mkdir(exist_ok=True)
        sample_foxglove.write(tmp_path / "card" / f"drive_{number}.mcap", "json", compression=CompressionType.NONE)
    found = decode(tmp_path / "split", tmp_path / "card")
    (row,) = tables(found)["ingest.recordings"].to_pylist()
    assert (list(found.objects), row["further_objects"]) == ([row["object"]], None)
    assert row["object"] not in keys_of(tmp_path / "card")


# ---- on a real lake --------------------------------------------------------------------------------------------------


def split(path: Path, folder: Path, count: int) -> Path:
    """The recording as files of as many messages, in order of arrival."""
    folder.mkdir()
    with open(path, "rb") as file:
        reader = make_reader(file)
        told = [(record.name, record.metadata) for record in reader.iter_metadata()]
        messages = list(reader.iter_messages())
    for number, part in enumerate(np.array_split(np.arange(len(messages)), count)):
        with open(folder / f"drive_{number}.mcap", "wb") as file:
            writer = Writer(file, compression=CompressionType.LZ4)
            writer.start("ros2", library="test")
            for name, metadata in told:
                writer.add_metadata(name, metadata)
            channels: dict[int, int] = {}
            for schema, channel, message in (messages[index] for index in part):
                assert schema is not None
                if channel.id not in channels:
                    declared = writer.register_schema(schema.name, schema.encoding, schema.data)
                    channels[channel.id] = writer.register_channel(channel.topic, channel.message_encoding, declared)
                writer.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
            writer.finish()
    return folder


@pytest.mark.services
@pytest.mark.slow
def test_it_is_published_kept_and_judged_as_one_file_is(
    own_home: Home, own_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_LANDING", str(tmp_path / "landing"))
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    whole = tmp_path / "whole.mcap"
    write_drive(whole, seed=3, start=start, duration_s=5.0, region="munich", light="day", weather="clear")
    folder = split(whole, tmp_path / "card", 3)
    drive = deliver(folder, own_home.landing, vehicle="split", start=START).drive_id
    outcome = ingest_batch(own_home, own_lake, [drive], run_id="split", parallel=False)
    assert outcome.published is not None, outcome.audit_summary
    assert outcome.drives[0].status == "published", outcome.drives[0].reasons

    # No reference but the commit's own holds the files, and nothing collects any of them.
    storage = own_home.root / "lakefs" / "objects" / own_lake.repository.name
    then = time.time() - 25 * 3600
    for path in storage.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))
    collect(own_lake)

    snapshot = own_lake.at()
    messages = snapshot.scan("ingest.messages", drives=[drive])
    assert set(messages["object"].to_pylist()) <= set(keys_of(folder))
    every = [data for file in files_of(folder) for data in sent(file).values()]
    found = read_payload(own_lake.repository, snapshot.commit_id, messages)
    assert len(found) == messages.num_rows > 0
    assert set(found) <= set(every)

    fetched = fetch_recordings(snapshot, [drive], tmp_path / "fetched")
    assert [path.read_bytes() for path in fetched[drive]] == [file.read_bytes() for file in files_of(folder)]

    judged = frames_of_recordings([whole], every_s=0.5)
    given: list[FrameSet] = []

    def detect(frames: FrameSet) -> Objects:
        given.append(frames)
        return Objects(np.zeros(0, np.int32), np.zeros(0, np.int8), *np.zeros((3, 0), np.float32))

    Drives({whole.stem: fetched[drive]}, judged, vehicle_rig()).rehearse(Rehearsal("nothing"), detect)
    for name in ("camera", "lidar", "radar", "age_s"):
        np.testing.assert_array_equal(np.concatenate([getattr(one, name) for one in given]), getattr(judged, name))

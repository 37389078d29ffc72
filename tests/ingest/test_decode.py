"""A drive from its recordings: every record is published, quarantined or refused with a reason, whatever is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from formats import samples
from formats.sample_drive import UP
from formats.samples import T0_NS, Message, counts, write_mcap
from hypothesis import given, settings
from hypothesis import strategies as st
from ingest.decoding import START, decode, decode_landed, faults, ledger, reasons, streams, tables

from fleet_assets.capture.deliver import deliver
from fleet_assets.contracts.loader import load_streams
from fleet_assets.contracts.model import NOT_PERSONAL
from fleet_assets.formats import ros2
from fleet_assets.ingest.batch import TABLES
from fleet_assets.ingest.decode import WHOLE_RECORDING, DecodedDrive

ACCOUNTS = {"ingest.recordings", "ingest.ledger", "ingest.quarantine"}
STREAM_OF = {
    "/camera/front": "camera_front", "/lidar": "lidar", "/radar": "radar", "/imu": "imu", "/gnss": "gnss",
    "/bus/vehicle": "bus_vehicle", "/pose": "pose", "/labels": "labels",
}  # fmt: skip
SECONDS = 4.0


def accelerate(message: Message, accel: np.ndarray) -> Message:
    """An IMU message with other content."""
    return replace(message, data=ros2.imu(message.t_host_ns - 3_000_000, "imu", accel, np.zeros(3)))


def imu_where(change: Callable[[int], np.ndarray | None], seconds: float = SECONDS) -> list[Message]:
    """A drive whose n-th acceleration is change(n), or an ordinary one of its own where that is None."""
    found, number = [], 0
    for message in samples.drive(seconds):
        if message.topic == "/imu":
            accel = change(number)
            message = accelerate(message, np.array([number / 100, 0.0, 9.8]) if accel is None else accel)
            number += 1
        found.append(message)
    return found


def plain(seconds: float = SECONDS) -> list[Message]:
    """A drive with nothing wrong in it; no two IMU records are alike."""
    return imu_where(lambda n: None, seconds)


def recorded(path: Path, messages: Iterable[Message] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_mcap(path, plain() if messages is None else list(messages))


def assert_nothing_is_published(decoded: DecodedDrive) -> None:
    assert not decoded.accepted
    assert set(decoded.spool.rows) <= ACCOUNTS
    assert decoded.objects == {}
    assert all(row["published_rows"] == 0 for row in ledger(decoded).values())
    assert all(row["object"] is None for row in tables(decoded)["ingest.recordings"].to_pylist())
    quarantine = tables(decoded)["ingest.quarantine"].to_pylist()
    assert [row["rule"] for row in quarantine] == [fault.rule for fault in decoded.faults]
    assert all(row["reason"] and len(row["samples"]) <= 20 for row in quarantine)


def test_a_whole_drive(tmp_path: Path) -> None:
    sent = counts(plain())
    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap"))
    assert decoded.accepted
    account = ledger(decoded)
    assert {row["stream"]: row["published_rows"] for row in account.values()} == {
        STREAM_OF[topic]: count for topic, count in sent.items()
    }
    assert all(row["reasons"] == [] for row in account.values())
    (recording,) = tables(decoded)["ingest.recordings"].to_pylist()
    assert list(decoded.objects) == [recording["object"]] == [f"recordings/{recording['files'][0]['sha256']}.mcap"]
    (drive,) = tables(decoded)["ingest.drives"].to_pylist()
    assert (drive["vehicle"], drive["streams"], drive["recordings"]) == ("car7", 8, 1)
    assert {entry["key"]: entry["value"] for entry in drive["context"]} == {"weather": "fog"} or drive["context"] == []
    for name, table in tables(decoded).items():
        if name not in ACCOUNTS - {"ingest.recordings"}:
            assert pc.unique(table["drive_id"]).to_pylist() in ([decoded.item.drive_id], []), name
    found = streams(decoded)
    assert found["imu"]["rate_hz"] == pytest.approx(100.0)
    assert [found["imu"][name] for name in ("gaps", "backward_steps", "repeated_steps", "clock")] == [0, 0, 0, "device"]


@pytest.mark.parametrize(
    "sample", [pytest.param(name, marks=pytest.mark.slow) if name == "mf4" else name for name in samples.SAMPLES]
)
def test_every_format_adds_up(sample: str, tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    spec = samples.SAMPLES[sample](made)
    decoded = decode(tmp_path, made)
    read = sum(spec.rows.values()) + sum(spec.payloads.values()) + spec.refused
    assert sum(row["read_rows"] for row in ledger(decoded).values()) == read


def test_row_rules_refuse_rows_and_the_drive_goes_on(tmp_path: Path) -> None:
    """12 % of the IMU is wrong, each row under the first rule that hits it."""
    kinds = [np.array([np.nan, 0, 9.8]), np.array([0.0, 64.0, 9.8]), np.array([-64.0, np.nan, 99.0])]
    messages = imu_where(lambda n: kinds[n % 3] if n % 25 < 3 else None)
    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap", messages))
    assert decoded.accepted
    row = ledger(decoded)["imu"]
    assert (row["read_rows"], row["published_rows"], row["refused_rows"]) == (400, 352, 48)
    assert sum(reasons(row).values()) == 48
    assert {reason.removeprefix("broke the rule: ") for reason in reasons(row)} == {
        "acceleration x is present", "acceleration y is in range", "acceleration x is in range",
    }  # fmt: skip
    assert row["reasons"][0]["first_position"].endswith(": record 0")
    kept = tables(decoded)["ingest.imu"]
    assert kept.num_rows == 352
    for axis in "xyz":
        assert kept[f"accel_{axis}_mps2"].null_count == 0
    # A sequence names one record for good: refused ones leave holes.
    assert kept["sequence"].to_pylist() == [n for n in range(400) if n % 25 >= 3]


def test_a_drive_rule_quarantines_the_drive(tmp_path: Path) -> None:
    messages = imu_where(lambda n: np.array([np.nan, 0, 9.8]) if n % 3 == 0 else None)
    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap", messages))
    assert_nothing_is_published(decoded)
    (fault,) = decoded.faults
    assert (fault.rule, fault.table, fault.rows, len(fault.samples)) == (
        "acceleration x is mostly present", "ingest.imu", 134, 20,
    )  # fmt: skip
    assert [json.loads(sample)["sequence"] for sample in fault.samples] == [3 * n for n in range(20)]
    account = ledger(decoded)
    assert (account["imu"]["quarantined_rows"], account["imu"]["refused_rows"]) == (266, 134)
    assert account["lidar"]["quarantined_rows"] == 40


def test_a_stream_that_is_refused_whole_quarantines_the_drive(tmp_path: Path) -> None:
    def empty(message: Message) -> Message:
        fix = ros2.nav_sat_fix(message.t_host_ns, "gnss", 55.0, 10.0, 1e6, 1.5)
        return replace(message, data=fix) if message.topic == "/gnss" else message

    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap", map(empty, plain())))
    assert_nothing_is_published(decoded)
    assert set(faults(decoded)) == {"stream has records left"}


def test_an_unknown_stream_is_refused_and_costs_nothing(tmp_path: Path) -> None:
    thermal = [replace(m, topic="/thermal") for m in plain() if m.topic == "/camera/front"]
    both = sorted([*plain(), *thermal], key=lambda m: m.t_host_ns)
    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap", both))
    assert decoded.accepted
    row = ledger(decoded)["/thermal"]
    assert (row["read_rows"], row["refused_rows"]) == (40, 40)
    assert reasons(row) == {"no contract covers topic /thermal (camera)": 40}
    assert "/thermal" not in streams(decoded)
    assert tables(decoded)["ingest.drives"]["streams"].to_pylist() == [8]


def test_nothing_but_unknown_streams_is_no_drive(tmp_path: Path) -> None:
    thermal = [replace(m, topic="/thermal") for m in plain(1.0) if m.topic == "/camera/front"]
    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap", thermal))
    assert_nothing_is_published(decoded)
    assert set(faults(decoded)) == {"drive has a stream"}


# Damaged and hostile content


def landed(tmp_path: Path, *paths: Path) -> tuple[Path, str, tuple[str, ...]]:
    landing = tmp_path / "landing"
    delivered = [deliver(path, landing, vehicle="car7", start=START) for path in paths]
    return landing, delivered[0].drive_id, tuple(each.folder for each in delivered)


def test_a_truncated_recording_keeps_what_can_be_read(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "a.mcap").read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    decoded = decode(tmp_path, cut)
    assert decoded.accepted
    account = ledger(decoded)
    assert 0 < account["imu"]["published_rows"] < 400
    assert account[WHOLE_RECORDING]["reasons"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "no reader knows"), (b"PK\3\4" + bytes(5000), "no reader knows"), (b"\x89MCAP0\r\n" + bytes(50), "")],
    ids=["empty", "wrong content", "a head and nothing"],
)
def test_what_is_no_recording_is_quarantined(content: bytes, why: str, tmp_path: Path) -> None:
    file = tmp_path / "a.mcap"
    file.write_bytes(content)
    decoded = decode(tmp_path, file)
    assert_nothing_is_published(decoded)
    assert why in " ".join(faults(decoded).values()).lower()
    assert tables(decoded)["ingest.recordings"]["format"].to_pylist() in ([None], ["mcap_ros2"])


@pytest.mark.parametrize("change", ["flipped", "shorter", "longer", "gone"])
def test_a_file_that_is_not_what_the_manifest_says(change: str, tmp_path: Path) -> None:
    landing, drive_id, folders = landed(tmp_path, recorded(tmp_path / "a.mcap"))
    file = landing / folders[0] / "a.mcap"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if change == "gone":
        file.unlink()
    else:
        file.write_bytes({"flipped": content, "shorter": content[:-1], "longer": content + b"."}[change])
    decoded = decode_landed(landing, drive_id, folders, tmp_path / "decoded")
    assert_nothing_is_published(decoded)
    assert "a.mcap" in faults(decoded)["recording is readable"]


def test_a_link_in_the_landing_folder_is_not_followed(tmp_path: Path) -> None:
    landing, drive_id, folders = landed(tmp_path, recorded(tmp_path / "a.mcap"))
    file = landing / folders[0] / "a.mcap"
    file.rename(tmp_path / "elsewhere.mcap")
    file.symlink_to(tmp_path / "elsewhere.mcap")
    assert_nothing_is_published(decode_landed(landing, drive_id, folders, tmp_path / "decoded"))


@pytest.mark.parametrize("change", ["gone", "broken", "hostile"])
def test_a_manifest_that_cannot_be_used(change: str, tmp_path: Path) -> None:
    landing, drive_id, folders = landed(tmp_path, recorded(tmp_path / "a.mcap"))
    manifest = next((landing / folders[0]).glob("*.json"))
    if change == "gone":
        manifest.unlink()
    else:
        text = manifest.read_text()
        manifest.write_text(text[:-9] if change == "broken" else text.replace('"a.mcap"', '"../../secrets.json"'))
    decoded = decode_landed(landing, drive_id, folders, tmp_path / "decoded")
    assert_nothing_is_published(decoded)
    assert set(faults(decoded)) >= {"recording is readable"}


@given(data=st.data())
@settings(deadline=None, max_examples=25)
def test_flipped_bytes_never_break_the_account(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("flip")
    file = recorded(folder / "a.mcap", plain(1.0))
    content = bytearray(file.read_bytes())
    for at in data.draw(st.lists(st.integers(8, len(content) - 1), min_size=1, max_size=20)):
        content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    decoded = decode(folder, file)  # which checks that the ledger adds up
    assert decoded.accepted or decoded.faults
    shutil.rmtree(folder)


# Several recordings of one drive


def half(messages: list[Message], *, first: bool, overlap: int = 0) -> list[Message]:
    middle = len(messages) // 2
    return messages[: middle + overlap] if first else messages[middle - overlap :]


def test_the_same_content_twice_counts_once(tmp_path: Path) -> None:
    landing, drive_id, folders = landed(tmp_path, recorded(tmp_path / "a.mcap"))
    shutil.copytree(landing / folders[0], landing / "again")
    decoded = decode_landed(landing, drive_id, (*folders, "again"), tmp_path / "decoded")
    assert decoded.accepted
    assert ledger(decoded)["imu"]["read_rows"] == 400
    assert tables(decoded)["ingest.recordings"].num_rows == 1


def test_recordings_that_follow_each_other_are_one_drive(tmp_path: Path) -> None:
    messages = plain()
    files = [recorded(tmp_path / str(first) / "a.mcap", half(messages, first=first)) for first in (True, False)]
    decoded = decode(tmp_path, *files)
    assert decoded.accepted
    account = ledger(decoded)
    assert {row["stream"]: row["published_rows"] for row in account.values()} == {
        STREAM_OF[topic]: count for topic, count in counts(messages).items()
    }
    for table, stream in (("ingest.imu", "imu"), ("ingest.messages", "camera_front")):
        rows = tables(decoded)[table]
        rows = rows.filter(pc.equal(rows["stream"], stream))
        assert rows["sequence"].to_pylist() == list(range(rows.num_rows))  # one number, one record
    assert streams(decoded)["imu"]["gaps"] == 0  # none at the border either
    messages_table = tables(decoded)["ingest.messages"]
    assert len(pc.unique(messages_table["object"])) == len(decoded.objects) == 2


def test_an_overlap_that_agrees_counts_once(tmp_path: Path) -> None:
    messages = plain()
    files = [
        recorded(tmp_path / str(first) / "a.mcap", half(messages, first=first, overlap=100)) for first in (True, False)
    ]
    decoded = decode(tmp_path, *files)
    assert decoded.accepted, decoded.faults
    account = ledger(decoded)
    assert {row["stream"]: row["published_rows"] for row in account.values()} == {
        STREAM_OF[topic]: count for topic, count in counts(messages).items()
    }
    refused = {reason for row in account.values() for reason in reasons(row)}
    assert refused == {"an earlier recording of the drive has the same record"}
    assert sum(row["refused_rows"] for row in account.values()) == 200
    stamps = tables(decoded)["ingest.imu"]["t_device_ns"]
    assert len(pc.unique(stamps)) == len(stamps) == 400


def test_an_overlap_that_differs_is_a_conflict(tmp_path: Path) -> None:
    messages = plain()
    other = imu_where(lambda n: np.array([1.0, 2.0, 3.0]) if n == 200 else None)
    files = [
        recorded(tmp_path / "a" / "a.mcap", half(messages, first=True, overlap=100)),
        recorded(tmp_path / "b" / "a.mcap", half(other, first=False, overlap=100)),
    ]
    decoded = decode(tmp_path, *files)
    assert_nothing_is_published(decoded)
    assert faults(decoded) == {"recordings agree": "conflict: recordings of the same time differ in 1 records of imu"}
    assert tables(decoded)["ingest.recordings"].num_rows == 2


@pytest.mark.parametrize(
    ("said", "told", "broken"),
    [
        ({}, ("raw", "fleet region"), set()),
        ({"retention_class": "permanent", "residency_region": "japan"}, ("permanent", "japan"), set()),
        ({"retention_class": "for ever"}, None, {"retention class is known"}),
        ({"residency_region": "EU; DROP"}, None, {"residency region is well formed"}),
    ],
    ids=["as the contracts say", "as the recording says", "no class", "no region"],
)
def test_what_may_be_done_with_a_drive(
    said: dict[str, str], told: tuple[str, str] | None, broken: set[str], tmp_path: Path
) -> None:
    decoded = decode(tmp_path, write_mcap(tmp_path / "a.mcap", plain(), metadata=said))
    assert set(faults(decoded)) == broken
    if told is None:
        return assert_nothing_is_published(decoded)
    (drive,) = tables(decoded)["ingest.drives"].to_pylist()
    assert (drive["retention_class"], drive["residency_region"]) == told
    of_streams = {load_streams()[name].personal_data for name in STREAM_OF.values()}
    assert set(drive["personal_data"]) == of_streams - {NOT_PERSONAL} != set()
    return None


def test_a_licence_beside_a_recording_is_no_record(tmp_path: Path) -> None:
    recorded(tmp_path / "card" / "drive.mcap")
    (tmp_path / "card" / "LICENSE").write_text("CC BY 4.0")
    decoded = decode(tmp_path, tmp_path / "card")
    (path,) = decoded.objects.values()
    assert path.name == "drive.mcap"  # in place: it is the object that goes to the lake
    assert ledger(decoded)["lidar"]["published_rows"] == counts(plain())["/lidar"]


def test_a_recording_that_its_logger_split_is_one(tmp_path: Path) -> None:
    messages = plain()
    for number, part in enumerate((messages[:500], messages[500:])):
        recorded(tmp_path / "card" / f"drive_{number}.mcap", part)
    decoded = decode(tmp_path, tmp_path / "card", vehicle=None)
    assert decoded.item.drive_id.startswith("demo1--")  # as the first file says
    assert {row["stream"]: row["published_rows"] for row in ledger(decoded).values()} == {
        STREAM_OF[topic]: count for topic, count in counts(messages).items()
    }
    (row,) = tables(decoded)["ingest.recordings"].to_pylist()
    assert len(row["files"]) == 2
    assert set(tables(decoded)["ingest.messages"]["object"].to_pylist()) == {row["object"], *row["further_objects"]}


def test_clouds_of_one_stamp_and_length_that_differ_are_a_conflict(tmp_path: Path) -> None:
    messages = plain()
    at = next(number for number, message in enumerate(messages) if message.topic == "/lidar" and number > 500)
    other = replace(messages[at], data=messages[at].data[:-1] + bytes([messages[at].data[-1] ^ 1]))
    files = [
        recorded(tmp_path / "a" / "a.mcap", messages),
        recorded(tmp_path / "b" / "a.mcap", [*messages[:at], other, *messages[at + 1 :]]),
    ]
    decoded = decode(tmp_path, *files)
    assert faults(decoded) == {"recordings agree": "conflict: recordings of the same time differ in 1 records of lidar"}


def test_one_broken_recording_quarantines_its_drive_and_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.mcap"
    bad.write_bytes(b"nothing")
    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap"), bad)
    assert_nothing_is_published(decoded)
    assert ledger(decoded)["imu"]["quarantined_rows"] == 400
    assert tables(decoded)["ingest.recordings"]["format"].to_pylist() == ["mcap_ros2", None]


def test_the_same_recording_gives_the_same_rows(tmp_path: Path) -> None:
    landing, drive_id, folders = landed(tmp_path, recorded(tmp_path / "a.mcap"))
    first, second = (decode_landed(landing, drive_id, folders, tmp_path / name) for name in ("one", "two"))
    assert all(tables(first)[name].equals(tables(second)[name]) for name in TABLES)


def test_stamps_are_counted_as_they_come(tmp_path: Path) -> None:
    """Two records swapped, one twice, 100 ms of silence: what the streams table says."""
    imu = [m for m in plain() if m.topic == "/imu"]
    order = [*range(50), 51, 50, *range(52, 100), 99, *range(110, 400)]
    stamped = [replace(imu[source], t_host_ns=T0_NS + 10_000_000 * at) for at, source in enumerate(order)]
    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap", stamped))
    row = streams(decoded)["imu"]
    limit = load_streams()["imu"].gap_limit_ns
    steps = np.diff(np.array(order)) * 10_000_000
    assert row["gaps"] == int((steps > limit).sum()) == 3
    assert (row["longest_gap_ns"], row["backward_steps"], row["repeated_steps"]) == (110_000_000, 1, 1)
    assert tables(decoded)["ingest.imu"].num_rows == len(order)


def test_no_stamp_at_all(tmp_path: Path) -> None:
    """A device stamp before 1970 is none; the host's is used."""
    imu = [replace(m, data=ros2.imu(0, "imu", UP, np.zeros(3))) for m in plain(1.0) if m.topic == "/imu"]
    decoded = decode(tmp_path, recorded(tmp_path / "a.mcap", imu))
    table: pa.Table = tables(decoded)["ingest.imu"]
    assert table.num_rows == 100
    assert streams(decoded)["imu"]["clock"] in ("host", "device")

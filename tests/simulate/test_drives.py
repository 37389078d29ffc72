"""Simulated drives: the same bytes for the same arguments, the truth beside them, and faults that ingest finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ingest.decoding import decode, faults, ledger, reasons, streams, tables
from simulate.conftest import SENT, START, decoded_with, write
from synchronise.drives import MS, SECOND, clocks, frames, synchronised

from fleet_assets.contracts.loader import Scope, load_tables
from fleet_assets.contracts.rules import evaluate
from fleet_assets.errors import FleetError
from fleet_assets.formats.reader import RecordingFiles, open_recording
from fleet_assets.ingest.decode import WHOLE_RECORDING, DecodedDrive
from fleet_assets.simulate.drives import FAULTS, write_drive
from fleet_assets.train.recordings import frames_of_recordings

T0_NS = int(START.timestamp()) * SECOND
SCOPES: tuple[Scope, ...] = ("row", "drive", "table")
Clean = tuple[DecodedDrive, dict[str, Any]]


def published(decoded: DecodedDrive) -> dict[str, int]:
    return {
        name: row["published_rows"]
        for name, row in ledger(decoded).items()
        if row["published_rows"] and name != "labels"
    }


def stamps(decoded: DecodedDrive, stream: str) -> tuple[np.ndarray, np.ndarray]:
    """Device and host stamps of a stream, in order of the recording."""
    table = next(
        table
        for name in ("ingest.messages", "ingest.imu", "ingest.gnss")
        if (table := tables(decoded)[name]).num_rows and stream in table["stream"].to_pylist()
    )
    mine = np.array(table["stream"].to_pylist()) == stream
    return table["t_device_ns"].to_numpy()[mine], table["t_host_ns"].to_numpy()[mine]


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    every = [name for name in FAULTS if name not in ("wrong_content", "missing_stream")]
    for wanted in ((), tuple(every), ("wrong_content",)):
        paths = [tmp_path / f"{len(wanted)}-{name}.mcap" for name in ("a", "b", "other")]
        truths = [
            write(path, *wanted, seed=seed, seconds=2.0, threads=threads, unique_s=None)
            for path, seed, threads in zip(paths, (7, 7, 8), (1, 3, 1), strict=True)
        ]
        first, second, other = (path.read_bytes() for path in paths)
        assert first == second != other
        assert truths[0] == truths[1]


@pytest.mark.parametrize(
    ("wanted", "options", "said"),
    [
        (["gremlins"], {}, "No fault is called gremlins"),
        (["drops:sonar"], {}, "drops cannot happen to sonar"),
        (["truncation:lidar"], {}, "truncation cannot happen to lidar"),
        (["nan_imu:lidar"], {}, "nan_imu cannot happen to lidar"),
        (["skew:imu"], {}, "skew cannot happen to imu"),
        ([], {"setup": "huge"}, "No setup is called huge"),
        ([], {"region": "atlantis"}, "No region is called atlantis"),
        ([], {"light": "noon"}, "No light is called noon"),
        ([], {"weather": "frogs"}, "No weather is called frogs"),
    ],
)
def test_an_unknown_name_is_named(wanted: list[str], options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(FleetError, match=said) as caught:
        write(tmp_path / "a.mcap", *wanted, **options)
    assert caught.value.remedy
    assert not (tmp_path / "a.mcap").exists()


def test_a_drive_without_faults(clean: Clean) -> None:
    decoded, truth = clean
    assert decoded.accepted
    assert published(decoded) == SENT
    assert truth["faults"] == []
    assert {name: row["messages"] for name, row in truth["streams"].items()} == {**SENT, "labels": 220}
    assert all(row["reasons"] == [] for row in ledger(decoded).values())
    for stream, row in streams(decoded).items():
        # Signals of one tick, and objects of one image, have one stamp.
        assert (row["backward_steps"], row["repeated_steps"]) == (0, 0) or stream in ("bus_vehicle", "labels")
        assert row["gaps"] == 0, stream


def test_a_drive_without_faults_keeps_every_rule(clean: Clean) -> None:
    """Rows that an audit would refuse cost a whole batch."""
    decoded, _ = clean
    for name, rows in {**tables(decoded), **synchronised(decoded)}.items():
        contract = load_tables()[name]
        broken = [failure.rule.name for scope in SCOPES for failure in evaluate(contract, rows, scope)]
        assert broken == [], name


def test_a_recording_tells_its_context(tmp_path: Path) -> None:
    truth = write(tmp_path / "a.mcap", seconds=2.0, weather="fog")
    info = open_recording(RecordingFiles(tmp_path, ("a.mcap",))).info()
    assert info.vehicle == "car7"
    assert {name: info.context[name] for name in ("region", "light", "weather")} == {
        "region": truth["region"],
        "light": "day",
        "weather": "fog",
    }
    # By the logger's clock, however wrong that is, and so that parts of it need not be told.
    assert info.t_start_ns is not None
    start_ns = datetime.fromisoformat(info.context["start"]).timestamp() * SECOND
    assert start_ns == pytest.approx(info.t_start_ns, abs=100 * MS)
    assert info.context["hardware"] == "sim-rig-2/default"
    assert info.context["firmware"] in ("4.1.0", "4.2.0")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_clocks_are_told_as_they_truly_are(seed: int, tmp_path: Path) -> None:
    """Within 1 ms at both ends of the drive; every frame when its sweep truly looked ahead."""
    truth = write(tmp_path / "a.mcap", seed=seed)
    found = synchronised(decode(tmp_path, tmp_path / "a.mcap", start=START.isoformat()))
    models = clocks(found)
    assert set(models) == set(SENT)
    for stream, (model,) in models.items():
        assert model["status"] == "ok"
        (true,) = truth["clocks"][truth["streams"][stream]["clock"]]
        for t_ns in (model["t_from_ns"], model["t_to_ns"]):
            told, is_so = (
                row["offset_ns"] + row["skew_ppm"] * 1e-6 * (t_ns - row["t_anchor_ns"]) for row in (model, true)
            )
            assert told == pytest.approx(is_so, abs=MS), stream
    t_ns = np.array([row["t_ns"] for row in frames(found)])
    ahead = T0_NS + np.arange(220) * 100 * MS + 10 * MS
    assert np.abs(t_ns - ahead).max() < MS
    complete = [row["complete"] for row in frames(found)]
    assert np.mean(complete) > 0.95
    (lidar,) = models["lidar"]
    assert lidar["phase_off"] == pytest.approx(-0.1, abs=0.01)  # the camera exposes 10 ms before, of 100


# ---- faults ----------------------------------------------------------------------------------------------------------


def _offset(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    first = {name: row["t_first_ns"] for name, row in streams(decoded).items()}
    assert abs(first["lidar"] - first["imu"]) > 15 * SECOND
    (model,) = clocks(synchronised(decoded))["lidar"]
    assert abs(model["offset_ns"]) > 15 * SECOND


def _skew(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    rate_hz = streams(decoded)["lidar"]["rate_hz"]
    assert (rate_hz / 10 - 1) * 1e6 == pytest.approx(done["by_ppm"], abs=60)
    (model,) = clocks(synchronised(decoded))["lidar"]
    assert model["skew_ppm"] == pytest.approx(done["by_ppm"], abs=75)


def _clock_jump(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    row = streams(decoded)["lidar"]
    assert (row["gaps"] if done["by_ns"] > 0 else row["backward_steps"]) == 1
    before, after = clocks(synchronised(decoded))["lidar"]
    assert before["offset_ns"] - after["offset_ns"] == pytest.approx(done["by_ns"], abs=2 * MS)
    assert streams(decoded)["imu"]["gaps"] == 0


def _missing_stream(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert published(decoded) == {name: count for name, count in SENT.items() if name != "lidar"}
    assert "lidar" not in streams(decoded)
    assert {row["key_stream"] for row in frames(synchronised(decoded))} == {"camera_front"}


def _unknown_stream(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert published(decoded) == SENT
    assert reasons(ledger(decoded)["/thermal"]) == {"no contract covers topic /thermal (camera)": 22}


def _stuck_sensor(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    table = tables(decoded)["ingest.messages"]
    length = table["message_length"].to_numpy()[np.array(table["stream"].to_pylist()) == "camera_front"]
    assert np.unique(length[done["from_message"] :]).size == 1
    assert np.unique(length[: done["from_message"]]).size > 5
    assert streams(decoded)["camera_front"]["gaps"] == 0


def _stuck_clock(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert streams(decoded)["lidar"]["repeated_steps"] == 219
    found = synchronised(decoded)
    (model,) = clocks(found)["lidar"]
    assert (model["status"], model["offset_ns"]) == ("rejected", None)
    (row,) = found["synchronise.quarantine"].to_pylist()
    assert (row["rule"], row["figure"], row["limit"]) == ("complete_share", 0.0, 0.5)
    assert frames(found) == []


def _jitter(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert published(decoded) == SENT
    assert streams(decoded)["lidar"]["gaps"] > 5
    device, _ = stamps(decoded, "lidar")
    assert np.std(np.diff(device)) == pytest.approx(np.sqrt(2) * done["standard_deviation_ns"], rel=0.2)


def _drops(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert done["messages"] == 11
    assert published(decoded) == {**SENT, "camera_front": 209}
    assert 1 <= streams(decoded)["camera_front"]["gaps"] <= 11


def _bursts(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert published(decoded) == SENT
    device, host = stamps(decoded, "imu")
    late = host - device
    assert late.max() - late.min() == pytest.approx(800 * MS, abs=40 * MS)
    assert (np.diff(host) < MS // 10).sum() > 0.9 * done["messages"] > 50
    assert clocks(synchronised(decoded))["imu"][0]["status"] == "ok"


def _reordering(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert published(decoded) == SENT
    assert streams(decoded)["lidar"]["backward_steps"] == done["messages"] > 0
    device, host = stamps(decoded, "lidar")
    late = host - device - np.median(host - device)
    assert late.min() > -20 * MS  # nothing comes before it was sent
    assert (late > 80 * MS).sum() == done["messages"]
    assert [model["status"] for model in clocks(synchronised(decoded))["lidar"]] == ["ok"]


def _duplicates(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert published(decoded) == {**SENT, "imu": 2200 + done["messages"]}
    assert streams(decoded)["imu"]["repeated_steps"] == done["messages"] > 100
    assert clocks(synchronised(decoded))["imu"][0]["status"] == "ok"


def _nan_imu(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert set(faults(decoded)) == {"acceleration x is mostly present"}
    row = ledger(decoded)["imu"]
    assert reasons(row) == {"broke the rule: acceleration x is present": done["messages"]}
    assert 0.26 < done["messages"] / SENT["imu"] < 0.4


def _wrong_contract(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    row = ledger(decoded)["imu"]
    assert row["refused_rows"] == done["messages"] == SENT["imu"]
    assert any("gyro" in reason for reason in reasons(row))


def _truncation(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert decoded.accepted
    assert 0 < published(decoded)["imu"] < SENT["imu"]
    assert ledger(decoded)[WHOLE_RECORDING]["reasons"]


def _corrupt_chunk(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert decoded.accepted
    assert 0 < sum(published(decoded).values()) < sum(SENT.values())
    assert any("chunk" in reason for row in ledger(decoded).values() for reason in reasons(row))


def _wrong_content(decoded: DecodedDrive, done: dict[str, Any]) -> None:
    assert "recording is readable" in faults(decoded)
    assert published(decoded) == {}


FOUND: dict[str, Callable[[DecodedDrive, dict[str, Any]], None]] = {
    name.removeprefix("_"): check for name, check in globals().items() if name.removeprefix("_") in FAULTS
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_there_and_is_found(fault: str, tmp_path: Path) -> None:
    decoded = decoded_with(tmp_path, fault)
    (done,) = json.loads((tmp_path / "made" / "a.truth.json").read_text())["faults"]
    assert done["name"] == fault
    FOUND[fault](decoded, done)


def test_a_fault_can_be_aimed(tmp_path: Path) -> None:
    decoded = decoded_with(tmp_path, "drops:radar_polar", "clock_jump:logger")
    assert published(decoded) == {**SENT, "radar_polar": 84}
    row = streams(decoded)["imu"]
    assert row["gaps"] + row["backward_steps"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", [7, 8, 9])
def test_a_logger_that_is_set_while_it_records_changes_no_frame(seed: int, tmp_path: Path) -> None:
    """Its stamps jump, and those of the sensors that share its clock; models and frames are the truth's all the same."""
    decoded = decoded_with(tmp_path, "clock_jump:logger", seed=seed)
    truth = json.loads((tmp_path / "made" / "a.truth.json").read_text())
    assert abs(truth["faults"][0]["by_ns"]) >= 500 * MS
    found = synchronised(decoded)
    assert found["synchronise.quarantine"].num_rows == 0
    for stream, models in clocks(found).items():
        true = truth["clocks"][truth["streams"][stream]["clock"]]
        assert len(models) == len(true), stream
        for model, segment in zip(models, true, strict=True):
            told, is_so = (
                row["offset_ns"] + row["skew_ppm"] * 1e-6 * (model["t_from_ns"] - row["t_anchor_ns"])
                for row in (model, segment)
            )
            assert told == pytest.approx(is_so, abs=MS), stream
    undisturbed = synchronised(decoded_with(tmp_path / "clean", seed=seed))
    for policy in ("offline", "causal"):
        ours, theirs = frames(found, policy), frames(undisturbed, policy)
        assert [row["complete"] for row in ours] == [row["complete"] for row in theirs]
        for name, off in (("t_ns", MS), ("speed_mps", 0.05), ("yaw_rate_radps", 0.01), ("latitude_deg", 1e-6)):
            assert [row[name] for row in ours] == pytest.approx([row[name] for row in theirs], abs=off), (policy, name)


def test_faults_come_together(tmp_path: Path) -> None:
    decoded = decoded_with(tmp_path, "nan_imu", "unknown_stream", "truncation", "drops:lidar", "missing_stream:gnss")
    assert set(faults(decoded)) == {"acceleration x is mostly present"}
    account = ledger(decoded)
    assert account["/thermal"]["refused_rows"] > 0
    assert account[WHOLE_RECORDING]["reasons"]
    assert 0 < account["lidar"]["quarantined_rows"] < 0.9 * SENT["lidar"]
    assert "gnss" not in account


def test_the_truth_does_not_travel(tmp_path: Path) -> None:
    """Ingest must not be able to read what it is to find out."""
    truth = write(tmp_path / "a.mcap")
    assert b"truth" not in (content := (tmp_path / "a.mcap").read_bytes())
    for (segment,) in truth["clocks"].values():
        assert str(segment["offset_ns"]).encode() not in content
    decoded = decode(tmp_path, tmp_path / "a.mcap", start=START.isoformat())
    (recording,) = tables(decoded)["ingest.recordings"].to_pylist()
    assert [file["path"] for file in recording["files"]] == ["a.mcap"]


def test_sparse_payload_gives_the_frames_of_the_whole_drive_less_often(tmp_path: Path) -> None:
    """All that a frame needs is there, and nothing else differs."""
    for name, every_s in (("whole", None), ("sparse", 1.0)):
        write_drive(tmp_path / f"{name}.mcap", seed=7, start=START, duration_s=6.0, payload_every_s=every_s, threads=1)
    assert (tmp_path / "sparse.mcap").stat().st_size < 0.4 * (tmp_path / "whole.mcap").stat().st_size
    whole, sparse = (frames_of_recordings([tmp_path / f"{name}.mcap"]) for name in ("whole", "sparse"))
    assert len(sparse) == 4  # at 2, 3, 4 and 5 s
    at = np.searchsorted(whole.t_ns, sparse.t_ns)
    for name in ("camera", "lidar", "radar", "age_s", "t_ns"):
        np.testing.assert_array_equal(getattr(sparse, name), getattr(whole, name)[at])
    assert len(sparse.truth) == np.isin(whole.truth.frame, at).sum()

"""Damaged recordings beside a good one, in one batch: each has its reason, and the good one is published whole."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from mcap.reader import make_reader
from recordings import land, land_file, write

from fleet_assets.capture.manifest import NAME
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]
Fleet = Callable[..., Any]

GOOD = "whole--20260201T080000Z"
# Drive -> what its reason must say. All are quarantined.
QUARANTINED = {
    "empty--20260201T080000Z": "no reader knows",
    "garbage--20260201T080000Z": "no reader knows",
    "nan--20260201T080000Z": "accel",
    "changed--20260201T080000Z": "is not what its manifest says",
}
# Drive -> what its ledger must say of what was not published. They are published.
PARTLY = {
    "cut--20260201T080000Z": "",
    "unknown--20260201T080000Z": "no contract covers",
}
# Folder in the landing -> what `fleet show quarantine` must say of it.
NOT_TAKEN = {
    "damaged-1 without manifest": f"no {NAME}",
    "damaged-2 manifest is cut": "no JSON",
    "damaged-3 path leads out": "not allowed",
    "damaged-4 path is absolute": "not allowed",
    "damaged-5 link": "link",
    "damaged-6 file is missing": "missing",
    "damaged-7 size": "its manifest says",
}
DRIVES = [GOOD, *QUARANTINED, *PARTLY]


@dataclass
class Batch:
    """What the commands said when all was done."""

    good_messages: Counter[str]
    drives: dict[str, dict[str, Any]] = field(default_factory=dict)
    quarantine: dict[str, Any] = field(default_factory=dict)
    ended: dict[str, Any] = field(default_factory=dict)


def stage(staging: Path, scratch: Path) -> Counter[str]:
    """All recordings, in a landing folder that no sensor looks at; gives the good one's messages by topic."""
    path = write(scratch / "good.mcap", GOOD, duration_s=8.0)
    land_file(staging, GOOD, path)
    with open(path, "rb") as file:
        messages = Counter(channel.topic for _, channel, _ in make_reader(file).iter_messages())

    (scratch / "empty.mcap").write_bytes(b"")
    land_file(staging, "empty--20260201T080000Z", scratch / "empty.mcap")
    (scratch / "garbage.mcap").write_bytes(bytes(range(256)) * 40)
    land_file(staging, "garbage--20260201T080000Z", scratch / "garbage.mcap")
    land(staging, "nan--20260201T080000Z", faults=["nan_imu"])
    land(staging, "unknown--20260201T080000Z", faults=["unknown_stream"])
    whole = write(scratch / "cut.mcap", "cut--20260201T080000Z", duration_s=16.0).read_bytes()
    (scratch / "cut.mcap").write_bytes(whole[: len(whole) * 6 // 10])
    land_file(staging, "cut--20260201T080000Z", scratch / "cut.mcap")
    # A byte flips on the disk after delivery: same size, another hash.
    changed = staging / land(staging, "changed--20260201T080000Z").folder / "drive.mcap"
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)

    # The good one a second time, under another name.
    (folder,) = staging.glob(f"{GOOD}-*")
    shutil.copytree(folder, staging / f"{folder.name}-again")
    write_hostile(staging, folder)
    return messages


def write_hostile(staging: Path, good: Path) -> None:
    """Folders by hand, each with one thing that is wrong."""
    manifest = json.loads((good / NAME).read_text())
    (listed,) = manifest["files"]
    for name in NOT_TAKEN:
        folder = staging / name
        folder.mkdir()
        (folder / "drive.mcap").write_bytes(b"x" * listed["bytes"])
        told = {**listed, "path": "drive.mcap"}
        match name[8]:
            case "3":
                told["path"] = "../../etc/passwd"
            case "4":
                told["path"] = "/etc/passwd"
            case "5":
                (folder / "drive.mcap").unlink()
                (folder / "drive.mcap").symlink_to("/etc/passwd")
                told["bytes"] = os.stat("/etc/passwd").st_size
            case "6":
                (folder / "drive.mcap").unlink()
            case "7":
                (folder / "drive.mcap").write_bytes(b"x")
        text = json.dumps({**manifest, "vehicle": "hostile", "files": [told]})
        if name[8] != "1":
            (folder / NAME).write_text(text[: len(text) // 2] if name[8] == "2" else text)


@pytest.fixture(scope="module")
def batch(fleet_home: Home, fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Batch]:
    """Everything lands at once, and `fleet run` carries what can be carried."""
    fleet("contracts", "apply")
    # On the same disk, so that a rename brings each folder in at once.
    staging, scratch = fleet_home.root / "staging", tmp_path_factory.mktemp("damaged")
    staging.mkdir()
    done = Batch(stage(staging, scratch))
    landed = [folder.rename(fleet_home.landing / folder.name) for folder in sorted(staging.iterdir())]
    done.ended = fleet("run")
    done.drives = {drive["drive_id"]: drive for drive in fleet("show", "drives")}
    done.quarantine = fleet("show", "quarantine")
    yield done
    for folder in landed:
        shutil.rmtree(folder)
    staging.rmdir()


def test_the_run_ends_well_and_all_drives_were_one_batch(batch: Batch, fleet_home: Home) -> None:
    assert batch.ended["ok"], batch.ended["failures"]
    named = [
        set(json.loads(commit.metadata["drives"]))
        for commit in Lake.open(fleet_home).repository.log("main")
        if commit.metadata.get("name") == "ingest"
    ]
    assert any(drives >= set(DRIVES) for drives in named), named


def test_the_good_drive_is_published_whole(batch: Batch, fleet: Fleet) -> None:
    drive = fleet("show", "drive", GOOD)
    assert (drive["status"], drive["reasons"], len(drive["recordings"])) == ("published", [], 1)
    for row in drive["ledger"]:
        assert row["published_rows"] == row["read_rows"] > 0, row["stream"]
        assert row["reasons"] == []
    ledger = {row["stream"]: row["read_rows"] for row in drive["ledger"]}
    assert (ledger["imu"], ledger["lidar"]) == (batch.good_messages["/imu"], batch.good_messages["/lidar"])
    assert drive["frames"] >= drive["complete_frames"] > 0
    for table in ("ingest.imu", "ingest.messages", "synchronise.frames"):
        (counted,) = fleet("query", f"SELECT count(*) AS n FROM {table} WHERE drive_id = '{GOOD}'")
        assert counted["n"] > 0, table


@pytest.mark.parametrize("drive_id", QUARANTINED)
def test_a_bad_drive_is_quarantined_with_its_reason(batch: Batch, fleet: Fleet, drive_id: str) -> None:
    assert batch.drives[drive_id]["status"] == "quarantined"
    assert batch.drives[drive_id]["frames"] == 0
    rows = [row for row in batch.quarantine["drives"] if row["drive_id"] == drive_id]
    said = " ".join(f"{row['rule']}: {row['reason']}" for row in rows)
    assert QUARANTINED[drive_id] in said.lower()
    for table in ("ingest.imu", "ingest.gnss", "ingest.messages", "ingest.drives"):
        (counted,) = fleet("query", f"SELECT count(*) AS n FROM {table} WHERE drive_id = '{drive_id}'")
        assert counted["n"] == 0, table


@pytest.mark.parametrize("drive_id", PARTLY)
def test_what_is_lost_of_a_drive_is_counted_and_the_rest_is_published(
    batch: Batch, fleet: Fleet, drive_id: str
) -> None:
    drive = fleet("show", "drive", drive_id)
    assert drive["status"] == "published", drive["reasons"]
    reasons = [reason for row in drive["ledger"] for reason in row["reasons"]]
    assert any(PARTLY[drive_id] in reason["reason"] for reason in reasons)
    assert all(reason["first_position"] for reason in reasons)
    for row in drive["ledger"]:
        assert row["read_rows"] == row["published_rows"] + row["quarantined_rows"] + row["refused_rows"], row["stream"]
    assert drive["frames"] > 0
    assert sum(row["published_rows"] for row in drive["ledger"]) > 0


@pytest.mark.parametrize("folder", NOT_TAKEN)
def test_a_folder_that_cannot_be_taken_is_named_with_its_reason(batch: Batch, folder: str) -> None:
    told = {row["folder"]: row for row in batch.quarantine["landing"]}
    assert NOT_TAKEN[folder] in told[folder]["reason"]
    assert told[folder]["remedy"]
    assert not [drive for drive in batch.drives if drive.startswith("hostile--")]

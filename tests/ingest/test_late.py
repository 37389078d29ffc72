"""Recordings that arrive late, and recordings that have left the landing folder, on a real lake."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from formats import samples
from formats.samples import write_mcap

from fleet_assets.capture.deliver import Delivered, deliver
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.lake.batch import DriveOutcome
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home

pytestmark = [pytest.mark.services, pytest.mark.slow]


def test_a_late_recording_costs_a_drive_no_rows(
    own_home: Home, own_lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A published recording may leave the landing folder. What comes later must not take its place."""
    monkeypatch.setenv("FLEET_LANDING", str(tmp_path / "landing"))
    messages = [message for message in samples.drive(3.0) if message.topic != "/imu"]  # whose values grow beyond bounds
    middle = len(messages) // 2

    def recorded(name: str, part: slice) -> Path:
        return write_mcap(tmp_path / f"{name}.mcap", messages[part])

    def landed(path: Path) -> Delivered:
        return deliver(path, own_home.landing, vehicle="late", start="2023-11-14T22:13:20Z")

    def ingested(run_id: str) -> DriveOutcome:
        outcome = ingest_batch(own_home, own_lake, [drive], run_id=run_id, parallel=False)
        assert outcome.published is not None, outcome.audit_summary
        return outcome.drives[0]

    def rows() -> int:
        return own_lake.at().scan("ingest.gnss", ["sequence"], drives=[drive]).num_rows

    early, late = recorded("early", slice(middle)), recorded("late", slice(middle, None))
    first = landed(early)
    drive = first.drive_id
    assert ingested("early").status == "published"
    half = rows()
    shutil.rmtree(own_home.landing / first.folder)
    landed(late)
    before = own_lake.at().commit_id
    left = ingested("late")
    assert left.status == "skipped"
    (why,) = left.reasons
    assert first.recording_id[:12] in why
    assert "deliver it again" in why
    assert (rows(), own_lake.at().commit_id) == (half, before)

    # As it says.
    landed(early)
    assert ingested("again").status == "published"
    assert rows() == sum(message.topic == "/gnss" for message in messages) > half

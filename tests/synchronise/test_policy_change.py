"""Another policy, and a file that arrives late, on a real lake: what is made again, and what is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from formats import samples
from formats.samples import Message, write_mcap

from fleet_assets.capture.deliver import deliver
from fleet_assets.ingest.batch import ingest_batch
from fleet_assets.lake.lake import Lake
from fleet_assets.services.home import Home
from fleet_assets.synchronise import batch
from fleet_assets.synchronise.drive import OUTPUTS
from fleet_assets.synchronise.policy import load_alignment

pytestmark = [pytest.mark.services, pytest.mark.slow]
VEHICLES = ("early", "steady")


@pytest.fixture(scope="module")
def messages() -> list[Message]:
    return [message for message in samples.drive(3.0) if message.topic != "/imu"]  # whose values grow beyond bounds


def test_what_is_made_again(
    own_home: Home, own_lake: Lake, messages: list[Message], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEET_LANDING", str(tmp_path / "landing"))
    middle = len(messages) // 2

    def land(vehicle: str, name: str, part: list[Message]) -> str:
        path = write_mcap(tmp_path / f"{vehicle}-{name}.mcap", part, metadata={"vehicle": vehicle})
        return deliver(path, own_home.landing, vehicle=vehicle, start="2023-11-14T22:13:20Z").drive_id

    def made(run_id: str) -> dict[tuple[str, str], str]:
        """Makes both drives, as a run over their range does; versions by drive and table."""
        for what in (ingest_batch, batch.synchronise_batch):
            outcome = what(own_home, own_lake, drives, run_id=f"{what}-{run_id}"[-60:], parallel=False)
            assert outcome.published is not None, outcome.audit_summary
        return {key: version.version for key, version in own_lake.at().versions(drives).items()}

    late, steady = drives = [land(vehicle, "first", messages[:middle]) for vehicle in VEHICLES]
    first = made("first")
    assert batch.outdated(own_lake.at(), drives) == []

    # A late file: that drive alone.
    land("early", "second", messages[middle:])
    second = made("second")
    assert {key for key in first if first[key] != second[key]} >= {(late, "ingest.messages"), (late, OUTPUTS[0])}
    assert {key: version for key, version in second.items() if key[0] == steady} == {
        key: version for key, version in first.items() if key[0] == steady
    }

    # Another policy: every drive, once.
    before, alignment = batch.made_by(), load_alignment()
    monkeypatch.setattr(batch, "load_alignment", lambda: replace(alignment, fingerprint="of another policy"))
    assert batch.made_by() != before
    assert batch.outdated(own_lake.at(), drives) == drives
    third = made("third")
    assert {key for key in third if second[key] != third[key]} == {
        (drive, name) for drive in drives for name in OUTPUTS
    }
    assert batch.outdated(own_lake.at(), drives) == []

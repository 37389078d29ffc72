"""The landing sensor and the nightly schedule, as the daemon evaluates them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from capture.conftest import START, put_document, put_files, put_recording

from fleet_assets.automation import nightly, nightly_maintenance
from fleet_assets.capture import sensors
from fleet_assets.capture.manifest import NAME
from fleet_assets.capture.sensors import landing_sensor
from fleet_assets.definitions import defs
from fleet_assets.resources import FleetResource
from fleet_assets.services.home import Home

DRIVE = f"car7--{START:%Y%m%dT%H%M%SZ}"


class Sensor:
    """Ticks, with the cursor that the daemon keeps between them."""

    def __init__(self, root: Path, instance: dg.DagsterInstance) -> None:
        self.landing = Home.open(root).landing
        self.instance = instance
        self.cursor: str | None = None
        self._fleet = FleetResource(home_path=str(root))

    def tick(self) -> dg.SensorResult:
        context = dg.build_sensor_context(
            self.instance, self.cursor, resources={"fleet": self._fleet}, definitions=defs, sensor_name="landing"
        )
        with context:
            result = landing_sensor(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        return result


@pytest.fixture
def sensor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sensor]:
    monkeypatch.delenv("FLEET_LANDING", raising=False)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Sensor(tmp_path / "home", instance)


def registered(result: dg.SensorResult) -> list[str]:
    return [key for request in result.dynamic_partitions_requests or () for key in request.partition_keys]


def reported(result: dg.SensorResult) -> list[tuple[str | None, str]]:
    """(drive, folder) of every materialisation."""
    events = result.asset_events
    assert all(isinstance(event, dg.AssetMaterialization) for event in events)  # an observation would start nothing
    assert {event.asset_key.to_user_string() for event in events} <= {"capture/recordings"}
    return [(event.partition, str(event.metadata["folder"].value)) for event in events]


def test_a_complete_recording_is_registered_and_reported_once(sensor: Sensor) -> None:
    assert (registered(sensor.tick()), reported(sensor.tick())) == ([], [])
    manifest = put_recording(sensor.landing / "one")
    first = sensor.tick()
    assert (registered(first), reported(first)) == ([DRIVE], [(DRIVE, "one")])
    (event,) = first.asset_events
    assert event.metadata["recording_id"].value == manifest.recording_id
    assert (event.metadata["files"].value, event.metadata["bytes"].value) == (2, manifest.bytes)
    assert first.run_requests in (None, [])
    again = sensor.tick()
    assert (registered(again), reported(again)) == ([], [])


def test_a_late_recording_of_a_known_drive_is_reported_for_that_drive(sensor: Sensor) -> None:
    put_recording(sensor.landing / "one")
    sensor.tick()
    put_recording(sensor.landing / "two", {"more.mcap": b"late"})
    late = sensor.tick()
    assert (registered(late), reported(late)) == ([DRIVE], [(DRIVE, "two")])


def test_what_is_not_complete_or_cannot_be_taken_waits_and_costs_no_other_anything(sensor: Sensor) -> None:
    put_files(sensor.landing / "a still written", {"drive.mcap": b"half"})
    put_document(sensor.landing / "b broken", b"{")
    put_recording(sensor.landing / "c good")
    assert reported(sensor.tick()) == [(DRIVE, "c good")]
    # Both are looked at again: they may be whole by now.
    (sensor.landing / "b broken" / NAME).unlink()
    put_recording(sensor.landing / "a still written", {"other.mcap": b"whole"}, vehicle="car8")
    put_recording(sensor.landing / "b broken", {"a": b"a"}, vehicle="car9")
    assert [folder for _, folder in reported(sensor.tick())] == ["a still written", "b broken"]


def test_a_flood_is_worked_off_in_order_so_many_a_tick(sensor: Sensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensors, "RECORDINGS_PER_TICK", 3)
    for number in range(8):
        put_recording(sensor.landing / f"r{number}", {"a": b"%d" % number}, vehicle=f"car{number}")
    ticks = [[folder for _, folder in reported(sensor.tick())] for _ in range(4)]
    assert ticks == [["r0", "r1", "r2"], ["r3", "r4", "r5"], ["r6", "r7"], []]


def test_a_lost_cursor_reports_again_and_forgets_nothing(sensor: Sensor) -> None:
    put_recording(sensor.landing / "one")
    sensor.tick()
    sensor.cursor = None
    assert reported(sensor.tick()) == [(DRIVE, "one")]


def test_the_night_is_switched_on_and_asks_for_maintenance() -> None:
    assert nightly.default_status is dg.DefaultScheduleStatus.RUNNING
    assert landing_sensor.default_status is dg.DefaultSensorStatus.RUNNING
    moment = datetime(2026, 1, 1, 3, 0, tzinfo=UTC)
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_schedule_context(instance, moment)
        (request,) = nightly.evaluate_tick(context).run_requests
    assert request.job_name in (None, nightly_maintenance.name)

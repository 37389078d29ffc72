"""A flood of arrivals through the landing sensor, with Dagster's own instance; late files; what a run starts from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from capture.conftest import START, put_document, put_files

from fleet_assets.capture.assets import recordings
from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.capture.landing import Cursor, progress, step
from fleet_assets.capture.manifest import Manifest
from fleet_assets.capture.recordings import manifests
from fleet_assets.capture.sensors import RECORDINGS_PER_TICK, context_sensor, landing_sensor
from fleet_assets.definitions import defs
from fleet_assets.partitions import DRIVES
from fleet_assets.resources import FleetResource
from fleet_assets.services.home import Home
from fleet_assets.specs import asset_key

PER_DRIVE = sorted(
    ".".join(key.path)
    for key in defs.resolve_asset_graph().materializable_asset_keys
    if defs.resolve_asset_graph().get(key).partitions_def == DRIVES
)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    monkeypatch.delenv("FLEET_LANDING", raising=False)
    return Home.open(tmp_path / "home")


class Daemon:
    """What Dagster's daemon does with a sensor: a tick at a time, its results stored in the instance."""

    def __init__(self, instance: dg.DagsterInstance, home: Home) -> None:
        self.instance = instance
        self.home = home
        self.cursor: str | None = None
        self.context_cursor: str | None = None
        self.conditions: dg.AssetDaemonCursor | None = None

    def tick(self) -> list[str]:
        """Drives of the recordings that were reported, in order."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.cursor,
            resources={"fleet": FleetResource(home_path=str(self.home.root))},
            definitions=defs,
        )
        result = landing_sensor.evaluate_tick(context)
        self.cursor = result.cursor
        for request in result.dynamic_partitions_requests or ():
            self.instance.add_dynamic_partitions("drives", list(request.partition_keys))
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return [str(event.partition) for event in result.asset_events]

    def context_tick(self) -> int:
        """Number of new versions reported."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.context_cursor,
            resources={"fleet": FleetResource(home_path=str(self.home.root))},
            definitions=defs,
        )
        result = context_sensor.evaluate_tick(context)
        self.context_cursor = result.cursor
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return len(result.asset_events)

    def due(self) -> dict[str, set[str]]:
        """Drives that the automation condition asks for now, by asset."""
        everything = dg.AssetSelection.all()
        result = dg.evaluate_automation_conditions(defs, self.instance, everything, cursor=self.conditions)
        self.conditions = result.cursor
        return {key: drives for key in PER_DRIVE if (drives := set(result.get_requested_partitions(asset_key(key))))}

    def materialise(self, keys: Iterable[str], drives: set[str]) -> None:
        for key in keys:
            for drive in sorted(drives):
                self.instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(key), partition=drive))


def put_drive(landing: Path, name: str, number: int, content: bytes | None = None) -> str:
    folder = landing / name
    files = put_files(folder, {"a": content or str(number).encode()})
    drive = DriveKey.of("car7", START + timedelta(hours=number))
    Manifest(drive, tuple(files), {}).write(folder)
    return str(drive)


@pytest.mark.slow
def test_a_thousand_recordings_are_registered_in_order_and_in_bounded_steps(
    instance: dg.DagsterInstance, home: Home
) -> None:
    drives = [put_drive(home.landing, f"{number:04d}", number) for number in range(1000)]
    daemon = Daemon(instance, home)
    ticks = []
    while reported := daemon.tick():
        ticks.append(reported)
    assert [len(reported) for reported in ticks] == [RECORDINGS_PER_TICK] * 5
    assert [drive for reported in ticks for drive in reported] == drives
    assert instance.get_dynamic_partitions("drives") == drives
    assert set(instance.get_materialized_partitions(recordings.key)) == set(drives)
    # The daemon keeps eight bytes for each.
    assert len(daemon.cursor or "") < 12 * len(drives)
    assert daemon.tick() == []


def test_what_cannot_be_taken_holds_nothing_up_and_is_looked_at_again(home: Home) -> None:
    for number in range(5):
        put_document(home.landing / f"a{number}", b"no manifest")
    for number in range(3):
        put_drive(home.landing, f"b{number}", number)
    cursor, found = Cursor(), []
    for _ in range(6):
        result, cursor = step(home.landing, cursor, 2)
        found.append(([item.folder for item in result.new], len(result.rejected)))
    # Two at a time, to the end, and round again.
    assert found == [([], 2), ([], 2), (["b0"], 1), (["b1", "b2"], 0), ([], 0), ([], 2)]


def test_the_cursor_forgets_what_has_left_and_sees_a_new_manifest(home: Home) -> None:
    put_drive(home.landing, "a", 1)
    put_drive(home.landing, "b", 2)
    _, cursor = step(home.landing, Cursor(), 10)
    assert Cursor.decode(cursor.encode()) == cursor
    (home.landing / "a").rename(home.root / "gone")
    result, cursor = step(home.landing, cursor, 10)
    assert (result.new, len(cursor.seen)) == ([], 1)
    put_drive(home.landing, "b", 2, b"repaired")
    result, cursor = step(home.landing, cursor, 10)
    assert [found.folder for found in result.new] == ["b"]
    for damaged in ("", "[]", '{"seen": "?", "after": ""}', '{"seen": 1}'):
        assert Cursor.decode(damaged) == Cursor()


def test_a_late_file_makes_just_its_drive_again_and_what_depends_on_it(
    instance: dg.DagsterInstance, home: Home
) -> None:
    daemon = Daemon(instance, home)
    first, second = put_drive(home.landing, "1", 1), put_drive(home.landing, "2", 2)
    assert daemon.tick() == [first, second]
    assert daemon.due() == {key: {first, second} for key in PER_DRIVE}
    daemon.materialise(PER_DRIVE, {first, second})  # as one run does
    assert daemon.due() == {}
    put_drive(home.landing, "0 late", 2, b"more")
    assert daemon.tick() == [second]
    assert daemon.due() == {key: {second} for key in PER_DRIVE}


def test_a_new_version_of_a_file_of_context_makes_context_again_and_what_depends_on_it(
    instance: dg.DagsterInstance, home: Home
) -> None:
    daemon = Daemon(instance, home)
    drives = {put_drive(home.landing, str(number), number) for number in range(3)}
    daemon.tick()
    assert daemon.context_tick() == 0  # there is no file
    daemon.due()
    for stage in ("ingest.", "synchronise."):
        daemon.materialise([key for key in PER_DRIVE if key.startswith(stage)], drives)
        daemon.due()
    zones = home.context / "zones.csv"
    zones.write_text("h3_cell,region\n871f8d7a5ffffff,munich\n")
    assert daemon.context_tick() == 1
    assert daemon.due() == dict.fromkeys(("ingest.context", "ingest.context_claims"), drives)
    daemon.materialise(["ingest.context", "ingest.context_claims"], drives)
    behind = ("curate.scenario_hits", "curate.surroundings")
    assert daemon.due() == dict.fromkeys(behind, drives)
    daemon.materialise(behind, drives)
    assert daemon.context_tick() == 0
    # A useless version is told, and costs nothing that is there.
    zones.write_bytes(b"h3_cell,region\n\xff\xfe,x\n")
    assert daemon.context_tick() == 0
    assert daemon.due() == {}
    zones.unlink()
    assert daemon.context_tick() == 1


def test_progress_counts_each_recording_once(home: Home) -> None:
    drives = [put_drive(home.landing, str(number), number) for number in range(6)]
    put_drive(home.landing, "late part of 0", 0, b"late")
    put_files(home.landing / "half", {"a": b"a"})
    ids = {found.folder: found.manifest.recording_id for found in manifests(home.landing)}
    counts = progress(
        home.landing,
        registered=drives[:5],
        running=[drives[0], drives[1]],
        published=[drives[0], drives[2]],
        quarantined=[drives[3]],
        read=[ids[name] for name in "023"],
    )
    assert counts == {
        "landed": 7,
        "registered": 6,
        "waiting": 1,  # 4
        "running": 2,  # 1, and the late part of 0
        "published": 2,
        "quarantined": 1,
    }


def test_what_a_larger_recording_holds_too_is_as_far_as_that_one(home: Home) -> None:
    drive = DriveKey.of("car7", START)
    for name, contents in (("part", {"a": b"a"}), ("whole", {"a": b"a", "b": b"b"}), ("late", {"c": b"c"})):
        Manifest(drive, tuple(put_files(home.landing / name, contents)), {}).write(home.landing / name)
    ids = {found.folder: found.manifest.recording_id for found in manifests(home.landing)}
    key = str(drive)
    counts = progress(home.landing, registered=[key], running=[], published=[key], quarantined=[], read=[ids["whole"]])
    assert (counts["published"], counts["waiting"]) == (2, 1)

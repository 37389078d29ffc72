"""The asset graph in a file that people can read, and what the automation makes of events.

In: the definitions. A change of the graph is a change of tests/graph.txt: `python tests/test_graph.py` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from fleet_assets.definitions import defs
from fleet_assets.partitions import DRIVES

SNAPSHOT = Path(__file__).with_name("graph.txt")
STAGES = ("capture", "ingest", "synchronise", "features", "curate", "train", "evaluate", "package", "deploy", "monitor")
A, B = "car1--20260101T080000Z", "car2--20260101T090000Z"
CONTEXT_FILES = dg.AssetKey(["capture", "context_files"])
RECORDINGS = dg.AssetKey(["capture", "recordings"])
IMU, FRAMES = dg.AssetKey(["ingest", "imu"]), dg.AssetKey(["synchronise", "frames"])
GRAPH = defs.resolve_asset_graph()
PER_DRIVE = {key for key in GRAPH.materializable_asset_keys if GRAPH.get(key).partitions_def == DRIVES}


# ---- the graph -------------------------------------------------------------------------------------------------------


def told() -> Iterator[str]:
    """What a reader of the UI sees of every asset, job, schedule and sensor."""
    specs = {spec.key: spec for spec in defs.resolve_all_asset_specs()}
    for stage in (*STAGES, *sorted({str(spec.group_name) for spec in specs.values()} - set(STAGES))):
        yield stage
        for key in sorted(key for key, spec in specs.items() if spec.group_name == stage):
            yield f"  {key.to_user_string()}"
            yield f"    {specs[key].description}"
            for name, value in facts(specs[key]).items():
                yield f"    {name:<12} {value or '-'}"
    for job in defs.jobs or ():
        yield f"job {job.name}: {', '.join(node.name for node in defs.resolve_job_def(job.name).nodes_in_topological_order)}"
    for schedule in defs.schedules or ():
        yield f"schedule {schedule.name}: {schedule.cron_schedule}, {schedule.job_name}, {schedule.default_status.value}"
    for sensor in defs.sensors or ():
        yield f"sensor {sensor.name}: every {sensor.minimum_interval_seconds} s, {sensor.default_status.value}"


def facts(spec: dg.AssetSpec) -> dict[str, str]:
    node = GRAPH.get(spec.key)
    found = {
        "from": ", ".join(sorted(parent.to_user_string() for parent in node.parent_keys)),
        "owners": ", ".join(spec.owners),
        "kinds": ", ".join(sorted(spec.kinds)),
        "partitions": str(getattr(node.partitions_def, "name", "")),
    }
    if node.is_materializable:
        policy = node.backfill_policy
        found |= {
            "made by": GRAPH.assets_def_for_key(spec.key).node_def.name,
            "a run takes": f"{policy.max_partitions_per_run} partitions" if policy else "",
            "automation": str((node.automation_condition and node.automation_condition.get_label()) or ""),
            "checks": ", ".join(sorted(check.name for check in node.check_keys)),
        }
        if isinstance(spec.freshness_policy, dg.FreshnessPolicy):
            found["freshness"] = str(spec.freshness_policy.fail_window.to_timedelta())  # type: ignore[attr-defined]
    return found


def test_the_graph_is_as_it_was() -> None:
    assert "\n".join(told()) + "\n" == SNAPSHOT.read_text(), "If this is meant, run `python tests/test_graph.py`."


def test_the_flow_reads_from_capture_to_monitor() -> None:
    """Every stage has an asset, and every asset but those from outside comes from its own stage or an earlier one."""
    stage_of = {spec.key: STAGES.index(str(spec.group_name)) for spec in defs.resolve_all_asset_specs()}
    assert set(stage_of.values()) == set(range(len(STAGES)))
    for key, stage in stage_of.items():
        assert key.path[0] == STAGES[stage]
        parents = [stage_of[parent] for parent in GRAPH.get(key).parent_keys]
        assert max(parents, default=-1) <= stage, key
        assert parents or key in (RECORDINGS, CONTEXT_FILES), key


def test_every_asset_that_is_made_has_what_people_need() -> None:
    for key in GRAPH.materializable_asset_keys:
        spec = GRAPH.get(key).to_asset_spec()
        assert spec.owners, key
        assert spec.description, key
        assert spec.kinds, key
        if "deltalake" in spec.kinds:  # the registry, a snapshot and a bundle are no tables
            assert spec.metadata["dagster/column_schema"].columns, key


# ---- automation ------------------------------------------------------------------------------------------------------


# Each takes seconds: they stay out of `make check`.
automation = pytest.mark.slow


class Daemon:
    """The automation as the daemon evaluates it: again and again, with what it remembers."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self.instance = instance
        self.definitions = defs
        self.cursor = None

    def tick(self) -> dict[dg.AssetKey, set[str]]:
        """Requested partitions by asset."""
        result = dg.evaluate_automation_conditions(
            self.definitions, self.instance, dg.AssetSelection.all(), cursor=self.cursor
        )
        self.cursor = result.cursor
        found = {key: result.get_requested_partitions(key) for key in PER_DRIVE}
        return {key: {str(drive) for drive in drives} for key, drives in found.items() if drives}

    def happened(self, keys: Iterable[dg.AssetKey], *drives: str) -> None:
        """The assets were materialised for the drives, as a run or the landing sensor reports it."""
        for key in sorted(keys):
            for drive in drives:
                self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=drive))

    def began(self, keys: frozenset[dg.AssetKey], drive: str) -> dg.DagsterRun:
        """A run of the assets, by hand, that has begun."""
        return self.instance.create_run_for_job(
            job_def=defs.resolve_job_def("__ASSET_JOB").get_subset(asset_selection=keys),
            status=dg.DagsterRunStatus.STARTED,
            asset_selection=keys,
            tags={"dagster/partition": drive},
        )

    def landed(self, *drives: str) -> None:
        self.instance.add_dynamic_partitions("drives", list(drives))
        self.happened([RECORDINGS], *drives)


@pytest.fixture
def daemon() -> Iterator[Daemon]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Daemon(instance)


def every(*drives: str) -> dict[dg.AssetKey, set[str]]:
    return {key: set(drives) for key in PER_DRIVE}


@automation
def test_a_new_drive_starts_everything_that_is_made_per_drive(daemon: Daemon) -> None:
    assert daemon.tick() == {}
    daemon.landed(A)
    assert daemon.tick() == every(A)
    daemon.happened(PER_DRIVE, A)
    assert daemon.tick() == {}
    daemon.landed(B)
    assert daemon.tick() == every(B)


@automation
def test_drives_that_landed_before_the_daemon_first_looked_start_too(daemon: Daemon) -> None:
    daemon.landed(A, B)
    assert daemon.tick() == every(A, B)


@automation
def test_a_drive_that_is_registered_late_starts_when_it_is_there(daemon: Daemon) -> None:
    """Another drive went through meanwhile, and the event was there before the partition was."""
    daemon.landed(A)
    daemon.tick()
    daemon.happened(PER_DRIVE, A)
    daemon.tick()
    daemon.happened([RECORDINGS], B)
    assert daemon.tick() == {}
    daemon.instance.add_dynamic_partitions("drives", [B])
    assert daemon.tick() == every(B)


@automation
def test_a_late_recording_of_a_known_drive_makes_that_drive_again_and_no_other(daemon: Daemon) -> None:
    daemon.landed(A, B)
    daemon.tick()
    daemon.happened(PER_DRIVE, A, B)
    assert daemon.tick() == {}
    daemon.landed(B)
    assert daemon.tick() == every(B)


@automation
def test_a_changed_upstream_starts_what_depends_on_it(daemon: Daemon) -> None:
    daemon.landed(A)
    daemon.tick()
    daemon.happened(PER_DRIVE, A)
    assert daemon.tick() == {}
    ingested = {key for key in PER_DRIVE if key.path[0] == "ingest"}
    daemon.happened(ingested, A)  # by hand, such as `fleet run group:ingest`
    assert daemon.tick() == {key: {A} for key in PER_DRIVE - ingested}


@automation
def test_another_policy_makes_every_drive_again_once(daemon: Daemon) -> None:
    """It is part of the code version, with the contracts; see `made_by` of synchronise."""
    daemon.landed(A, B)
    daemon.tick()
    daemon.happened(PER_DRIVE, A, B)
    assert daemon.tick() == {}
    synchronised = {key for key in PER_DRIVE if key.path[0] == "synchronise"}
    behind = {key for key in PER_DRIVE if key.path[0] in ("features", "curate")}

    def changed(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(code_version="of another policy") if spec.key in synchronised else spec

    daemon.definitions = dg.Definitions(assets=dg.map_asset_specs(changed, defs.assets or []), resources=defs.resources)
    assert daemon.tick() == {key: {A, B} for key in synchronised | behind}
    assert daemon.tick() == {}
    daemon.happened(synchronised | behind, A, B)
    assert daemon.tick() == {}


@automation
def test_a_run_that_failed_is_not_asked_for_again_and_again(daemon: Daemon) -> None:
    daemon.landed(A)
    assert daemon.tick() == every(A)
    for _ in range(3):  # nothing was materialised
        assert daemon.tick() == {}
    daemon.landed(A)  # until something new comes
    assert daemon.tick() == every(A)


@automation
def test_what_failed_halfway_is_not_asked_for_again_either(daemon: Daemon) -> None:
    """Ingest succeeded, what follows did not."""
    daemon.landed(A)
    daemon.tick()
    daemon.happened({key for key in PER_DRIVE if key.path[0] == "ingest"}, A)
    requested = [daemon.tick() for _ in range(3)]
    assert requested[1:] == [{}, {}]


@automation
def test_what_a_run_made_since_the_last_look_is_not_asked_for_again(daemon: Daemon) -> None:
    """Its run is over, and that it was updated is not seen yet; if it was not, it is asked for a look later."""
    made = frozenset(GRAPH.get(dg.AssetKey(["features", "ego_motion"])).execution_set_asset_keys)
    before = {parent for key in made for parent in GRAPH.get(key).parent_keys} - made
    daemon.landed(A)
    daemon.tick()
    daemon.happened(PER_DRIVE, A)
    assert daemon.tick() == {}
    run = daemon.began(made, A)
    daemon.happened(before, A)
    assert not made & daemon.tick().keys()
    daemon.instance.report_run_canceled(run)
    assert not made & daemon.tick().keys()
    assert made <= daemon.tick().keys()


if __name__ == "__main__":
    SNAPSHOT.write_text("\n".join(told()) + "\n")

"""Runs through the daemon's queue, as the UI's own launch button makes them.

In: a selection in Dagster's syntax, drive keys, a profile. Out: for what is made per drive, a backfill that the daemon splits
into range runs; for what is made as a whole, one run; and their progress until they have ended.
"""

import json
import os
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
import pyarrow.compute as pc
from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

from fleet_assets.errors import FleetError
from fleet_assets.lake.lake import Lake
from fleet_assets.lake.tables import Snapshot
from fleet_assets.partitions import DRIVES
from fleet_assets.services.home import Home
from fleet_assets.specs import asset_key
from fleet_assets.synchronise.batch import outdated
from fleet_assets.synchronise.drive import OUTPUTS

BACKFILL_TAG = "dagster/backfill"
LANDING_WAIT_S = 60
_UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_LAUNCH = """
mutation Launch($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
    ... on InvalidSubsetError { message }
    ... on UnauthorizedError { message }
    ... on PartitionKeysNotFoundError { message }
  }
}
"""
_REPOSITORIES = """
query Repositories { repositoriesOrError { ... on RepositoryConnection { nodes { name location { name } } } } }
"""
_LAUNCH_WHOLE = """
mutation LaunchWhole($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
    ... on InvalidSubsetError { message }
    ... on UnauthorizedError { message }
    ... on PipelineNotFoundError { message }
  }
}
"""


def instance_of(home: Home) -> DagsterInstance:
    """The installation's Dagster instance (runs, partitions, events)."""
    os.environ["DAGSTER_HOME"] = str(home.dagster_home)
    return DagsterInstance.get()


@dataclass(frozen=True)
class Selected:
    """Executable assets of a selection, sorted: those that are made per drive, and those that are made as a whole."""

    per_drive: list[dg.AssetKey]
    whole: list[dg.AssetKey]


def select(selection: str, definitions: dg.Definitions) -> Selected:
    """What a selection names; assets that are made together come along together. Raises FleetError when that is nothing."""
    graph = definitions.resolve_asset_graph()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # of a parameter that Dagster itself passes
            keys = dg.AssetSelection.from_string(selection).resolve(graph)
    except Exception as error:  # Dagster raises several kinds for a bad selection, one of them a bare Exception
        raise FleetError(
            f"{selection!r} is no asset selection",
            where=str(error).splitlines()[0],
            remedy='Use Dagster\'s syntax, such as "group:ingest" or \'key:"synchronise/frames"\'.',
        ) from error
    together = {member for key in keys for member in graph.get(key).execution_set_asset_keys}
    chosen = sorted(key for key in together if graph.get(key).is_materializable)
    if not chosen:
        raise FleetError(f"{selection!r} selects no asset that can be run", remedy="`fleet run --help` shows examples.")
    per_drive = [key for key in chosen if graph.get(key).partitions_def == DRIVES]
    return Selected(per_drive, [key for key in chosen if key not in per_drive])


@dataclass(frozen=True)
class Due:
    """Drives of a selection that have something missing, which assets that is, and the drives that a run has in hand."""

    drives: list[str]
    keys: list[dg.AssetKey]
    in_progress: list[str]


def due(instance: DagsterInstance, keys: Sequence[dg.AssetKey], changed: Sequence[str]) -> Due:
    """Drives with an asset that is missing; a failed run leaves it so. changed: drives that were synchronised otherwise than they
    would be now."""
    registered = instance.get_dynamic_partitions("drives")
    lacking = {key: set(registered) - set(instance.get_materialized_partitions(key)) for key in keys}
    for key in lacking.keys() & {asset_key(table) for table in OUTPUTS}:
        lacking[key] |= set(changed)
    missing = set().union(*lacking.values())
    unfinished = instance.get_runs(RunsFilter(statuses=_UNFINISHED))
    busy = {drive for run in unfinished for drive in drives_of(run.tags, registered)}
    return Due(
        [drive for drive in registered if drive in missing],
        [key for key in keys if lacking[key]],
        sorted(missing & busy),
    )


def landing(instance: DagsterInstance, home: Home, snapshot: Snapshot) -> dict[str, int]:
    """How many recordings of the landing folder are how far; see capture.landing.progress."""
    from fleet_assets.capture.landing import progress

    registered = instance.get_dynamic_partitions("drives")
    started = instance.get_runs(RunsFilter(statuses=[DagsterRunStatus.STARTING, DagsterRunStatus.STARTED]))

    def of(table: str, column: str) -> set[str]:
        return set(pc.unique(snapshot.scan(table, [column])[column]).to_pylist())

    return progress(
        home.landing,
        registered=set(registered),
        running={drive for run in started for drive in drives_of(run.tags, registered)},
        published=of("ingest.drives", "drive_id"),
        quarantined=of("ingest.quarantine", "drive_id"),
        read=of("ingest.recordings", "recording_id"),
    )


def drives_of(tags: Mapping[str, str], registered: Sequence[str]) -> list[str]:
    """The drives that a run's tags name: one, or a range in order of registration."""
    if "dagster/partition" in tags:
        return [tags["dagster/partition"]]
    first, last = tags.get("dagster/asset_partition_range_start"), tags.get("dagster/asset_partition_range_end")
    if first in registered and last in registered:
        return list(registered[registered.index(first) : registered.index(last) + 1])
    return []


def launch(home: Home, keys: Sequence[dg.AssetKey], drives: Sequence[str]) -> str:
    """Queues a backfill; gives its id."""
    params = {
        "assetSelection": [{"path": list(key.path)} for key in keys],
        "partitionNames": list(drives),
        "title": f"fleet run: {len(drives)} drives",
    }
    answer = _graphql(home, _LAUNCH, {"params": params})["launchPartitionBackfill"]
    if answer["__typename"] != "LaunchBackfillSuccess":
        raise _refused(answer)
    return str(answer["backfillId"])


def launch_whole(home: Home, keys: Sequence[dg.AssetKey], profile: str) -> str:
    """Queues one run of assets that are made as a whole; gives its id."""
    (location,) = _graphql(home, _REPOSITORIES, {})["repositoriesOrError"]["nodes"]
    params = {
        "selector": {
            "repositoryLocationName": location["location"]["name"],
            "repositoryName": location["name"],
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": list(key.path)} for key in keys],
        },
        "runConfigData": {"resources": {"profile": {"config": {"name": profile}}}},
    }
    answer = _graphql(home, _LAUNCH_WHOLE, {"params": params})["launchRun"]
    if answer["__typename"] != "LaunchRunSuccess":
        raise _refused(answer)
    return str(answer["run"]["runId"])


def _refused(answer: Mapping[str, Any]) -> FleetError:
    said = (
        answer.get("message") or "; ".join(one["message"] for one in answer.get("errors", ())) or answer["__typename"]
    )
    return FleetError(
        f"Dagster refused the run: {said.splitlines()[0]}", remedy="`fleet status` shows whether all servers are up."
    )


def _graphql(home: Home, query: str, variables: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{home.webserver_url}/graphql",
        data=json.dumps({"query": query, "variables": variables}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = json.load(response)
    except (urllib.error.URLError, TimeoutError) as error:
        raise FleetError(
            f"The Dagster webserver does not answer: {error}", remedy="`fleet up` starts the servers."
        ) from error
    if answer.get("errors"):
        raise FleetError(f"Dagster refused the request: {answer['errors'][0]['message']}")
    return dict(answer["data"])


@dataclass(frozen=True)
class Ended:
    """A backfill that has ended. failures: run id and the first line of why."""

    ok: bool
    runs: int
    failures: list[tuple[str, str]]


def follow(
    instance: DagsterInstance,
    backfill_id: str,
    keys: Sequence[dg.AssetKey],
    drives: Sequence[str],
    on_progress: Callable[[int, int], None],
) -> Ended:
    """Waits until the backfill of these assets and drives has ended; on_progress gets (finished steps, steps) of its runs."""
    registered = instance.get_dynamic_partitions("drives")
    wanted = {(key, drive) for key in keys for drive in drives}
    planned: dict[str, int] = {}
    while True:
        backfill = instance.get_backfill(backfill_id)
        runs = instance.get_runs(RunsFilter(tags={BACKFILL_TAG: backfill_id}))
        on_progress(*_steps(instance, runs, planned))
        if backfill is None:
            raise FleetError(f"Backfill {backfill_id} has vanished", remedy="Start it again with `fleet run`.")
        done = {
            (key, drive)
            for run in runs
            if run.is_finished
            for key in run.asset_selection or ()
            for drive in drives_of(run.tags, registered)
        }
        # Dagster looks at backfills every 30 s; when their runs have ended, what it will say is known.
        ended = backfill.status.value.startswith("COMPLETED") or backfill.status.value in ("FAILED", "CANCELED")
        if ended or wanted <= done:
            failed = [run for run in runs if run.status is not DagsterRunStatus.SUCCESS]
            failures = [(run.run_id, failure_of(instance, run.run_id)) for run in failed]
            if not runs:
                failures.append((backfill_id, str(backfill.error.message if backfill.error else backfill.status.value)))
            return Ended(not failures, len(runs), failures)
        time.sleep(0.5)


def _steps(
    instance: DagsterInstance, runs: Sequence[dg.DagsterRun], planned: dict[str, int] | None = None
) -> tuple[int, int]:
    """Finished steps, and all: one run takes many drives, so that runs alone would tell nothing until the end. planned: steps of
    each run as far as they are known from earlier calls; those that are new are added, for a plan never changes."""
    planned = {} if planned is None else planned
    for run in runs:
        if run.run_id not in planned and run.execution_plan_snapshot_id:
            plan = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
            planned[run.run_id] = len(plan.step_keys_to_execute)
    return sum(_finished(instance, run_id) for run_id in planned), max(sum(planned.values()), 1)


def _finished(instance: DagsterInstance, run_id: str) -> int:
    """Steps of a run that have ended."""
    return sum(step.end_time is not None for step in instance.get_run_step_stats(run_id))


def follow_whole(instance: DagsterInstance, run_id: str, steps: int, on_progress: Callable[[int, int], None]) -> Ended:
    """Waits until a run has ended; on_progress gets (finished steps, steps)."""
    while True:
        found = instance.get_run_by_id(run_id)
        if found is None:
            raise FleetError(f"Run {run_id} has vanished", remedy="Start it again with `fleet run`.")
        on_progress(_finished(instance, run_id), steps)
        if found.is_finished:
            ok = found.status is DagsterRunStatus.SUCCESS
            return Ended(ok, 1, [] if ok else [(run_id, failure_of(instance, run_id))])
        time.sleep(0.5)


def failure_of(instance: DagsterInstance, run_id: str) -> str:
    """Why a run failed, in one line."""
    records = instance.get_records_for_run(run_id, of_type=dg.DagsterEventType.STEP_FAILURE).records
    for record in records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        data = event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            return data.user_failure_data.description
        if data.error:
            cause = data.error
            while cause.cause:
                cause = cause.cause
            return _last_sentence(cause.message)
    return "no step failed: the run was stopped or its process died"


def _last_sentence(message: str) -> str:
    """The line that says what went wrong: a trace from a Spark task ends with it, before Spark's own code."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("SQLSTATE")]
    return (said or lines or ["no message"])[-1]


@dataclass(frozen=True)
class Worked:
    """What `fleet run` did: drives it covers, number of runs, and what failed."""

    drives: list[str]
    ok: bool
    runs: int
    failures: list[tuple[str, str]]

    def and_then(self, ended: Ended) -> "Worked":
        """With what was run after it."""
        return Worked(self.drives, self.ok and ended.ok, self.runs + ended.runs, [*self.failures, *ended.failures])


def await_landed(instance: DagsterInstance, home: Home, on_progress: Callable[[int, int], None]) -> None:
    """Waits until the landing sensor has registered every complete recording; it looks every few seconds."""
    from fleet_assets.capture.recordings import scan

    wanted = {str(found.drive) for found in scan(home.landing).new}
    left, deadline = len(wanted) + 1, 0.0
    while missing := wanted - set(instance.get_dynamic_partitions("drives")):
        on_progress(len(wanted) - len(missing), len(wanted))
        if len(missing) < left:  # a flood takes several steps
            left, deadline = len(missing), time.monotonic() + LANDING_WAIT_S
        if time.monotonic() > deadline:
            raise FleetError(
                f"The landing sensor has not registered {len(missing)} of {len(wanted)} drives in {LANDING_WAIT_S} s",
                where=", ".join(sorted(missing)[:3]),
                remedy="`fleet status` shows whether the daemon is up; is the sensor `landing` switched on in the UI?",
            )
        time.sleep(0.5)


def run(
    instance: DagsterInstance,
    home: Home,
    keys: Sequence[dg.AssetKey],
    drives: Sequence[str] | None,
    on_progress: Callable[[int, int], None],
) -> Worked:
    """The given drives again, or, without any, all that is missing or would be made otherwise now; runs that the daemon has begun
    are waited for."""
    registered = instance.get_dynamic_partitions("drives")
    if drives:
        unknown = sorted(set(drives) - set(registered))
        if unknown:
            raise FleetError(f"No such drive: {', '.join(unknown)}", remedy="`fleet show drives` lists them.")
        if not keys:
            raise FleetError("Nothing that is selected is made per drive", remedy="Leave out --drives.")
        ended = follow(instance, launch(home, keys, drives), keys, drives, on_progress)
        return Worked(list(drives), ended.ok, ended.runs, ended.failures)
    changed = outdated(Lake.open(home).at(), registered)
    todo = due(instance, keys, changed)
    waiting = [drive for drive in todo.drives if drive not in todo.in_progress]
    ended = Ended(True, 0, [])
    if waiting:
        ended = follow(instance, launch(home, todo.keys, waiting), todo.keys, waiting, on_progress)
    while busy := due(instance, keys, changed).in_progress:
        on_progress(len(todo.drives) - len(busy), len(todo.drives))
        time.sleep(0.5)
    changed = outdated(Lake.open(home).at(), todo.drives)
    left = [drive for drive in due(instance, keys, changed).drives if drive in todo.drives]
    failures = ended.failures or [(drive, "is still due; see its run in the UI") for drive in left]
    return Worked(todo.drives, not failures, ended.runs, failures)

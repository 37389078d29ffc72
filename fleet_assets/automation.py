"""What runs without a click: the one condition of per-drive assets, and the nightly tidying.

In: the asset graph's state. Out: an automation condition, sensors and schedules, all shipped RUNNING.
"""

import dagster as dg

from fleet_assets.resources import FleetResource

# Eager, but (1) without the missing-dependency clause: a drive has no upstream table to wait for, and downstream takes
# what was accepted at its pinned commit; (2) without a check clause, which mixes drives up in range runs; (3) without
# the reset at the first evaluation: drives that landed before the daemon first looked would never start. And (4) a drive is
# in hand until the look after its run made it: Dagster reads what was updated before it reads what is in progress, so what
# a run makes in between is neither, and would be made again, many times when a thousand drives come at once.
_condition = dg.AutomationCondition
_idle = ~_condition.in_progress()
_in_hand = _condition.in_progress().since(_idle & ~_idle.newly_true()).with_label("in_progress now or at the last look")
PER_DRIVE = (
    (
        _condition.missing().newly_true().with_label("newly_missing")
        | _condition.any_deps_updated()
        | _condition.code_version_changed()  # contracts and policy are part of it, but for ingest
    ).since(_condition.newly_requested() | _condition.newly_updated())
    & ~_condition.any_deps_in_progress()
    & ~_in_hand
).with_label("new or changed drive, or made otherwise now")

per_drive_sensor = dg.AutomationConditionSensorDefinition(
    "per_drive_automation",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=15,
    description="Starts per-drive assets for new and changed drives, many drives to a run.",
)


@dg.op(description="OPTIMIZE by day, on a branch of its own, merged as it is.")
def optimise_tables(context: dg.OpExecutionContext, fleet: FleetResource) -> None:
    from fleet_assets.lake.optimise import optimise

    for line in optimise(fleet.lake):
        context.log.info(line)


@dg.op(ins={"after": dg.In(dg.Nothing)}, description="Removes published and abandoned branches.")
def sweep_branches(context: dg.OpExecutionContext, fleet: FleetResource) -> None:
    from fleet_assets.lake.sweep import sweep

    for line in sweep(fleet.lake):
        context.log.info(line)


@dg.op(
    ins={"after": dg.In(dg.Nothing)}, description="Removes objects that were never committed, and counts the others."
)
def collect_garbage(context: dg.OpExecutionContext, fleet: FleetResource) -> None:
    from fleet_assets.lake.garbage import CannotTell, collect

    try:
        mark = collect(fleet.lake)
    except CannotTell as error:
        context.log.warning(str(error))
    else:
        context.log.info(str(mark))


@dg.op(ins={"after": dg.In(dg.Nothing)}, description="Removes run logs older than 30 days.")
def tidy_logs(context: dg.OpExecutionContext, fleet: FleetResource) -> None:
    from fleet_assets.services.logs import tidy

    for line in tidy(fleet.home, older_than_days=30):
        context.log.info(line)


@dg.job(description="Keeps the lake fast and the disk tidy; publishes no new rows.")
def nightly_maintenance() -> None:
    tidy_logs(after=collect_garbage(after=sweep_branches(after=optimise_tables())))


nightly = dg.ScheduleDefinition(
    name="nightly",
    job=nightly_maintenance,
    cron_schedule="0 3 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)

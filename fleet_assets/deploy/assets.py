"""The channel as Dagster sees it.

In: releases that enough approvers have signed. Out: the channel that vehicles read, current. It has the keys of snapshot and
timestamp, and no others: what it publishes, people have signed.
"""

import dagster as dg

from fleet_assets.package.assets import CANDIDATE
from fleet_assets.resources import FleetResource

CHANNEL = dg.AssetKey(["deploy", "release_channel"])


@dg.asset(
    key=CHANNEL,
    deps=[CANDIDATE],
    group_name="deploy",
    owners=["team:fleet"],
    kinds={"tuf"},
    description="The channel of releases: publishes what enough approvers have signed, verified anew; else stays current.",
)
def release_channel(context: dg.AssetExecutionContext, fleet: FleetResource) -> dg.MaterializeResult:
    from dataclasses import asdict

    from fleet_assets.deploy.channel import advance
    from fleet_assets.package.releases import Releases

    releases = Releases(fleet.home.releases)
    published = advance(releases)
    rows = [releases.release(id_).row() for id_ in releases.ids()]
    context.log.info(
        "Nothing was approved yet." if published is None else f"The channel points to {asdict(published)}."
    )
    return dg.MaterializeResult(
        metadata={
            "releases": dg.MetadataValue.json(rows),
            "channel": str(releases.folder / "channel"),
            **({key: str(value) for key, value in asdict(published).items()} if published else {}),
        },
    )


# More often than its timestamp expires, whoever works or not.
nightly_channel = dg.ScheduleDefinition(
    name="nightly_channel",
    target=dg.AssetSelection.assets(CHANNEL),
    cron_schedule="30 4 * * *",
    default_status=dg.DefaultScheduleStatus.RUNNING,
    description="Publishes what was approved, and renews the channel's timestamp.",
)

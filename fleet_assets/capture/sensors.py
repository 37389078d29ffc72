"""Sensors of what comes in. The landing sensor registers drives and reports what has landed; the context sensor reports new
versions of the files of context.

In: manifests in the landing folder (never payload); the context folder. Out: one partition per drive and one materialisation of
capture/recordings per recording, which is what starts the drive's assets; one of capture/context_files per version.
"""

import json

import dagster as dg

from fleet_assets.capture.assets import context_files, recordings
from fleet_assets.capture.context_files import marks, read, summary
from fleet_assets.capture.landing import Cursor, step
from fleet_assets.partitions import DRIVES
from fleet_assets.resources import FleetResource

# A flood is worked off in order, so many recordings a tick; the daemon's tick has a time limit.
RECORDINGS_PER_TICK = 200
_LOGGED = 20


@dg.sensor(
    name="landing",
    target=None,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers drives whose recordings are complete; names the folders that cannot be taken.",
)
def landing_sensor(context: dg.SensorEvaluationContext, fleet: FleetResource) -> dg.SensorResult:
    result, cursor = step(fleet.home.landing, Cursor.decode(context.cursor), RECORDINGS_PER_TICK)
    for rejected in result.rejected[:_LOGGED]:
        context.log.warning(f"{rejected.folder}: {rejected.reason} {rejected.remedy}")
    if more := len(result.rejected[_LOGGED:]):
        context.log.warning(f"{more} more cannot be taken; `fleet show quarantine` names them.")
    return dg.SensorResult(
        cursor=cursor.encode(),
        dynamic_partitions_requests=[DRIVES.build_add_request(sorted({str(f.drive) for f in result.new}))],
        asset_events=[
            dg.AssetMaterialization(
                asset_key=recordings.key,
                partition=str(found.drive),
                metadata={
                    "folder": found.folder,
                    "recording_id": found.manifest.recording_id,
                    "files": len(found.manifest.files),
                    "bytes": found.manifest.bytes,
                },
            )
            for found in result.new
        ],
    )


@dg.sensor(
    name="context_files",
    target=None,
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports new versions of the files of context; says what is wrong with one that cannot be used.",
)
def context_sensor(context: dg.SensorEvaluationContext, fleet: FleetResource) -> dg.SensorResult:
    folder = fleet.home.context
    before = json.loads(context.cursor) if context.cursor else {}
    now = marks(folder)
    changed = [read(folder, name) for name, mark in now.items() if mark != before.get(name, "")]
    for file in changed:
        (context.log.warning if file.error or file.refused else context.log.info)(f"{file.name}: {summary(file)}")
    # A file that cannot be used costs no drive the context that it has.
    usable = [file for file in changed if file.error is None]
    event = dg.AssetMaterialization(
        asset_key=context_files.key, metadata={file.name: f"{file.sha256[:16]} {summary(file)}" for file in usable}
    )
    return dg.SensorResult(cursor=json.dumps(now), asset_events=[event] if usable else [])

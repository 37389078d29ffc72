"""The landing sensor: registers drives and reports what has landed.

In: manifests in the landing folder (never payload). Out: one partition per drive and one materialisation of
capture/recordings per recording, which is what starts the drive's assets.
"""

import dagster as dg

from fleet_assets.capture.assets import recordings
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

"""The landing sensor: registers drives and reports what has landed.

In: manifests in the landing folder (never payload). Out: one partition per drive and one materialisation of
capture/recordings per recording, which is what starts the drive's assets.
"""

import json

import dagster as dg

from fleet_assets.capture.assets import recordings
from fleet_assets.capture.recordings import scan
from fleet_assets.partitions import DRIVES
from fleet_assets.resources import FleetResource

# A flood is worked off in order, so many recordings a tick; the daemon's tick has a time limit.
RECORDINGS_PER_TICK = 200


@dg.sensor(
    name="landing",
    target=None,
    minimum_interval_seconds=10,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Registers drives whose recordings are complete; names the folders that cannot be taken.",
)
def landing_sensor(context: dg.SensorEvaluationContext, fleet: FleetResource) -> dg.SensorResult:
    seen = set(json.loads(context.cursor)) if context.cursor else set()
    result = scan(fleet.home.landing, seen=seen, limit=RECORDINGS_PER_TICK)
    for rejected in result.rejected:
        context.log.warning(f"{rejected.folder}: {rejected.reason} {rejected.remedy}")
    return dg.SensorResult(
        cursor=json.dumps(sorted(seen | {found.folder for found in result.new})),
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

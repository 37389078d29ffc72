"""The flow as one reads it: from capture to the channel of releases, and what will follow.

In: FLEET_HOME. Out: `defs`, which the Dagster UI, the daemon and `fleet run` load.
"""

import dagster as dg

from fleet_assets.automation import nightly, nightly_maintenance, per_drive_sensor
from fleet_assets.capture.assets import context_files, recordings
from fleet_assets.capture.sensors import context_sensor, landing_sensor
from fleet_assets.curate import assets as curate
from fleet_assets.deploy.assets import nightly_channel, release_channel
from fleet_assets.evaluate import assets as evaluate
from fleet_assets.features import assets as features
from fleet_assets.ingest.assets import drive_context, ingest
from fleet_assets.package.assets import release_candidate
from fleet_assets.resources import FleetResource, Profile
from fleet_assets.specs import coming
from fleet_assets.synchronise.assets import synchronise
from fleet_assets.train import assets as train

# What is not built yet, so that the lineage already reads in flow order.
PLANNED = [coming("monitor", "Drift and events, turned into capture requests.", after="deploy/release_channel")]

FEATURES = [
    features.live_features, features.place_context, features.lane_curvature, features.registry, features.online_snapshot,
    features.edge_bundle,
]  # fmt: skip

CURATE = [curate.scenarios, curate.dataset, curate.samples]
TRAIN = [train.training_set, train.bake_off, train.model]
RELEASE = [evaluate.report, evaluate.verdict, release_candidate, release_channel]

defs = dg.Definitions(
    assets=[
        recordings,
        context_files,
        ingest,
        drive_context,
        synchronise,
        *FEATURES,
        *CURATE,
        *TRAIN,
        *RELEASE,
        *PLANNED,
    ],
    jobs=[nightly_maintenance],
    schedules=[nightly, features.nightly_features, nightly_channel],
    sensors=[landing_sensor, context_sensor, per_drive_sensor],
    resources={"fleet": FleetResource(), "profile": Profile()},
    executor=dg.in_process_executor,
)

"""Feature views: one per feature table, made from its contract."""

from datetime import timedelta

from entities import cell, drive, frame, lane_cell, vehicle

from fleet_assets.features.define import feature_view

# What was known at a frame stays so: no limit.
_ALWAYS = timedelta(0)

ego_motion = feature_view("features.ego_motion", entities=[drive, frame], ttl=_ALWAYS)
sensor_health = feature_view("features.sensor_health", entities=[drive, frame], ttl=_ALWAYS)
vehicle_health = feature_view(
    "features.sensor_health",
    entities=[vehicle],
    ttl=timedelta(days=30),
    name="vehicle_health",
    description="Of each vehicle, whether each sensor spoke, at its rate, in time and of something new, at its last frame.",
)
scene_context = feature_view("features.scene_context", entities=[drive, frame], ttl=_ALWAYS)
position = feature_view("features.position", entities=[drive, frame], ttl=_ALWAYS)
place_context = feature_view("features.place_context", entities=[cell], ttl=timedelta(days=90))
# A map holds until another one is published.
lane_curvature = feature_view("features.lane_curvature", entities=[lane_cell], ttl=_ALWAYS)

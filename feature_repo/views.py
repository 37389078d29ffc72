"""Feature views: one per feature table, made from its contract."""

from datetime import timedelta

from entities import drive, frame

from fleet_assets.features.define import feature_view

ego_motion = feature_view("features.ego_motion", entities=[drive, frame], ttl=timedelta(0))
sensor_health = feature_view("features.sensor_health", entities=[drive, frame], ttl=timedelta(0))
scene_context = feature_view("features.scene_context", entities=[drive, frame], ttl=timedelta(0))

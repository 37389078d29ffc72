"""Feature services: what a model asks for, as one version."""

from feast import FeatureService
from on_demand import driving_margins
from views import ego_motion, lane_curvature, place_context, scene_context, sensor_health, vehicle_health

perception_context_v1 = FeatureService(
    name="perception_context_v1",
    features=[ego_motion, scene_context, sensor_health, driving_margins],
    description="Motion, scene, health of the sensors and margins at a drive frame.",
    tags={"version": "1"},
    owner="team:fleet",
)
planning_context_v1 = FeatureService(
    name="planning_context_v1",
    features=[ego_motion, scene_context, place_context, driving_margins],
    description="Motion, scene and margins at a drive frame, and what the fleet knows of the place.",
    tags={"version": "1"},
    owner="team:fleet",
)
planning_context_v2 = FeatureService(
    name="planning_context_v2",
    features=[ego_motion, scene_context, place_context, lane_curvature, driving_margins],
    description="As version 1, and the curvature of the lane that the vehicle is on, as a map has it.",
    tags={"version": "2"},
    owner="team:fleet",
)
vehicle_health_v1 = FeatureService(
    name="vehicle_health_v1",
    features=[vehicle_health],
    description="Health of a vehicle's sensors when it last drove, for at most 30 days.",
    tags={"version": "1"},
    owner="team:fleet",
)

"""Feature services: what a model asks for, as one version."""

from feast import FeatureService
from on_demand import driving_margins
from views import ego_motion, place_context, scene_context, sensor_health

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

"""Feature services: what a model asks for, as one version."""

from feast import FeatureService
from views import ego_motion, scene_context, sensor_health

perception_context_v1 = FeatureService(
    name="perception_context_v1",
    features=[ego_motion, scene_context, sensor_health],
    description="Motion, scene and health of the sensors at a frame.",
    tags={"version": "1"},
    owner="team:fleet",
)

"""What features are features of."""

from feast import Entity, ValueType

vehicle = Entity(
    name="vehicle", join_keys=["vehicle"], value_type=ValueType.STRING, description="A vehicle.", owner="team:fleet"
)
drive = Entity(
    name="drive",
    join_keys=["drive_id"],
    value_type=ValueType.STRING,
    description="A drive: vehicle and UTC start. With `frame` it names a drive frame.",
    owner="team:fleet",
)
frame = Entity(
    name="frame",
    join_keys=["frame"],
    value_type=ValueType.INT64,
    description="Number of a frame in its drive, from 0.",
    owner="team:fleet",
)
cell = Entity(
    name="h3_cell",
    join_keys=["cell"],
    value_type=ValueType.INT64,
    description="An H3 cell of resolution 9, about 350 m across.",
    owner="team:fleet",
)
lane_cell = Entity(
    name="lane_cell",
    join_keys=["lane_cell"],
    value_type=ValueType.INT64,
    description="A place to 4 m and a heading to 45 degrees, as fleet_assets/kernels/features/lane_cell.py numbers them.",
    owner="team:fleet",
)

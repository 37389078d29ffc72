"""Mining: which drives of the lake hold what a predicate asks for.

In: a predicate over the frame view, a snapshot. Out: drives with the number of frames at which it is TRUE, found by Spark at that
commit, many drives at once.
"""

from __future__ import annotations

from typing import Any

from fleet_assets.curate.frame_view import FRAMES, spark_view
from fleet_assets.curate.predicate_forms import spark_sql
from fleet_assets.curate.predicates import Predicate
from fleet_assets.errors import FleetError
from fleet_assets.lake.session import spark_session
from fleet_assets.lake.tables import Snapshot
from fleet_assets.services.home import Home


def find(home: Home, snapshot: Snapshot, predicate: Predicate, *, limit: int) -> list[dict[str, Any]]:
    """Drives with most such frames first. Raises FleetError when Spark does not answer."""
    from pyspark.errors import PySparkException

    drive, frame = f"`{FRAMES}`.`drive_id`", f"`{FRAMES}`.`frame`"
    sql = (
        f"SELECT {drive}, count(*) AS frames, min({frame}) AS first_frame, max({frame}) AS last_frame\n"
        f"{spark_view(snapshot.repository, snapshot.commit_id, predicate.columns)} AND {spark_sql(predicate)}\n"
        f"GROUP BY {drive} ORDER BY frames DESC, drive_id LIMIT {limit}"
    )
    try:
        return list(spark_session(home).sql(sql).toArrow().to_pylist())
    except PySparkException as error:
        raise FleetError(
            "The lake could not be searched",
            where=str(error).splitlines()[0],
            remedy="`fleet status` shows the servers.",
        ) from error

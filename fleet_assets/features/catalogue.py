"""What features there are, what they say of an entity, and what made them.

In: the definitions of feature_repo/, a snapshot of the lake. Out: plain rows, for `fleet features`, pages and tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fleet_assets.errors import FleetError
from fleet_assets.features import identity
from fleet_assets.lake.tables import VERSIONS, Snapshot


def catalogue() -> list[dict[str, Any]]:
    """One row per feature."""
    from fleet_assets.features.registry import definitions

    return [
        {
            "view": view.name,
            "feature": field.name,
            "type": str(field.dtype),
            "meaning": field.description,
            "owner": view.owner,
            "kernel": f"{view.tags['kernel']}@v{view.tags['kernel_version']}" if "kernel" in view.tags else "",
        }
        for view in sorted(definitions().feature_views, key=lambda view: view.name)
        for field in view.features
    ]


def look_up(service: str, entity: Mapping[str, Any], *, ref: str, time: str | None) -> dict[str, Any]:
    """The features of one entity at a commit, as known at a time (ISO 8601; now unless given), without the online store; and
    per view whether it knew of the entity."""
    import pandas as pd
    import pyarrow as pa

    from fleet_assets.features.offline_store import pinned
    from fleet_assets.features.registry import apply, feature_store

    try:
        moment = datetime.fromisoformat(time) if time else datetime.now(UTC)
    except ValueError as error:
        raise FleetError(f"{time!r} is no time", remedy="Write it as 2026-01-02T03:04:05Z.") from error
    moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    store = feature_store()
    names = [known.name for known in store.list_feature_services()]
    if service not in names:
        apply()  # a new installation has no registry yet
        names = [known.name for known in store.list_feature_services()]
    if service not in names:
        raise FleetError(f"There is no feature service {service}", remedy=f"There are {', '.join(sorted(names))}.")
    keys = {"event_timestamp": [pd.Timestamp(moment)], **{key: [value] for key, value in entity.items()}}
    with pinned(ref) as commit_id:
        job: Any = store.get_historical_features(pd.DataFrame(keys), store.get_feature_service(service))
        table: pa.Table = job.to_arrow()
        views = job.statuses().to_pylist()[0]
    features = {name: value for name, value in table.to_pylist()[0].items() if name not in keys}
    return {
        "service": service,
        "entity": dict(entity),
        "commit_id": commit_id,
        "time": moment.isoformat(),
        "status": "found" if any(value is not None for value in features.values()) else "nothing known",
        "views": views,
        "features": features,
    }


def kernel_history(snapshot: Snapshot | None) -> list[dict[str, Any]]:
    """One row per kernel and version that was ever written down, and how many of the snapshot's drives or publications it has
    made."""
    drives: Counter[str] = Counter()
    if snapshot is not None:
        rows = snapshot.scan(VERSIONS, ["table_name", "code_version"], predicate="table_name LIKE 'features.%'")
        for row in rows.to_pylist():
            view = row["table_name"].split(".")[1]
            drives.update(made for made in row["code_version"].split() if made.startswith(f"{view}@"))
    now = {f"{name}@v{version}" for name, version in identity.versions().items()}
    return [
        {
            "view": view,
            "version": version,
            "identity": written,
            "current": f"{view}@v{version}" in now,
            "drives": drives[f"{view}@v{version}:{written}"] if snapshot is not None else None,
        }
        for view, versions in sorted(identity.recorded().items())
        for version, written in sorted(versions.items(), key=lambda item: int(item[0]))
    ]

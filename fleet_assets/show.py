"""What the lake says about drives, for people.

In: one snapshot of the lake. Out: plain rows for `fleet show`, the demo's summary and tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow.compute as pc

from fleet_assets.errors import FleetError
from fleet_assets.lake.lake import Snapshot
from fleet_assets.synchronise.policy import load_alignment


def drives(snapshot: Snapshot, drive_ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One row per drive that the lake knows: published or quarantined, with reasons, frames and clock figures."""
    recordings: dict[str, list[int]] = {}  # drive -> bytes of each recording
    for row in snapshot.scan("ingest.recordings", columns=["drive_id", "bytes"], drives=drive_ids).to_pylist():
        recordings.setdefault(row["drive_id"], []).append(row["bytes"])
    streams = {
        row["drive_id"]: row["streams"]
        for row in snapshot.scan("ingest.drives", columns=["drive_id", "streams"], drives=drive_ids).to_pylist()
    }
    reasons: dict[str, list[str]] = {}
    for row in quarantine(snapshot, drive_ids):
        reasons.setdefault(row["drive_id"], []).append(f"{row['rule']}: {row['reason']}")
    frames = _frames_per_drive(snapshot, drive_ids)
    return [
        {
            "drive_id": drive_id,
            "status": "quarantined" if drive_id in reasons else "published",
            "recordings": len(recordings.get(drive_id, [])),
            "bytes": sum(recordings.get(drive_id, [])),
            "streams": streams.get(drive_id),
            "frames": frames.get(drive_id, (0, 0))[0],
            "complete_frames": frames.get(drive_id, (0, 0))[1],
            "reasons": reasons.get(drive_id, []),
        }
        for drive_id in sorted(set(recordings) | set(streams) | set(reasons))
    ]


def _frames_per_drive(snapshot: Snapshot, drive_ids: Sequence[str] | None) -> dict[str, tuple[int, int]]:
    frames = snapshot.scan(
        "synchronise.frames", columns=["drive_id", "complete"], drives=drive_ids, predicate=_shown_policy()
    )
    counted = frames.append_column("n", pc.cast(frames["complete"], "int64"))
    grouped = counted.group_by("drive_id").aggregate([("n", "count"), ("n", "sum")])
    return {row["drive_id"]: (row["n_count"], row["n_sum"]) for row in grouped.to_pylist()}


def _shown_policy() -> str:
    """Rows of the first policy."""
    return f"policy = '{load_alignment().policies[0].name}'"


def quarantine(snapshot: Snapshot, drive_ids: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """One row per drive and broken rule: drives that were not taken in, and drives that were, but have no frames."""
    columns = ["drive_id", "table_name", "rule", "reason", "rows"]
    whole = snapshot.scan("ingest.quarantine", columns=[*columns, "samples"], drives=drive_ids).to_pylist()
    frames = snapshot.scan("synchronise.quarantine", columns=columns, drives=drive_ids).to_pylist()
    return sorted([*whole, *({**row, "samples": []} for row in frames)], key=lambda row: (row["drive_id"], row["rule"]))


def drive(snapshot: Snapshot, drive_id: str) -> dict[str, Any]:
    """Everything worth knowing about one drive: streams, ledger, clocks, matches, quarantine, versions."""
    about = drives(snapshot, [drive_id])
    if not about:
        raise FleetError(
            f"No drive {drive_id} at commit {snapshot.commit_id[:12]}", remedy="`fleet show drives` lists them."
        )

    def rows(table: str) -> list[dict[str, Any]]:
        found = snapshot.scan(table, drives=[drive_id]).drop_columns(["drive_id", "day"])
        return found.to_pylist()

    return {
        **about[0],
        "commit_id": snapshot.commit_id,
        "context": rows("ingest.context_claims"),
        "streams": sorted(rows("ingest.streams"), key=lambda row: row["stream"]),
        "ledger": sorted(rows("ingest.ledger"), key=lambda row: row["stream"]),
        "clock_models": sorted(rows("synchronise.clock_models"), key=lambda row: (row["stream"], row["segment"])),
        "matches": match_quality(snapshot, drive_id),
        "quarantine": quarantine(snapshot, [drive_id]),
        "recordings": rows("ingest.recordings"),
        "versions": rows("lake.versions"),
    }


def match_quality(snapshot: Snapshot, drive_id: str) -> list[dict[str, Any]]:
    """Per channel, under the first policy: frames, matched frames, and the 95th percentile of |dt|."""
    columns = ["channel", "method", "sequence", "dt_ns"]
    matches = snapshot.scan("synchronise.matches", columns, drives=[drive_id], predicate=_shown_policy())
    quality = []
    for channel in sorted(pc.unique(matches["channel"]).to_pylist()):
        of_channel = matches.filter(pc.equal(matches["channel"], channel))
        dt_ns = pc.abs(of_channel["dt_ns"].drop_null())
        quality.append(
            {
                "channel": channel,
                "method": of_channel["method"][0].as_py(),
                "frames": of_channel.num_rows,
                "matched": of_channel.num_rows - of_channel["dt_ns"].null_count,
                "dt_p95_ms": pc.quantile(dt_ns, q=0.95)[0].as_py() / 1e6 if len(dt_ns) else None,
            }
        )
    return quality


def for_people(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as a terminal shows it: instants in UTC, durations in milliseconds, what is long by its number or start."""
    shown: dict[str, Any] = {}
    for name, value in row.items():
        if name.startswith("t_") and name.endswith("_ns"):
            shown[name.removeprefix("t_").removesuffix("_ns")] = None if value is None else _instant(value)
        elif name.endswith("_ns"):
            shown[f"{name.removesuffix('_ns')}_ms"] = None if value is None else value / 1e6
        elif name in ("files", "samples"):
            shown[name] = len(value)
        elif name in ("recording_id", "commit_id"):
            shown[name] = value[:12]
        elif name == "reasons":
            shown[name] = [reason if isinstance(reason, str) else refused(reason) for reason in value]
        else:
            shown[name] = value
    return shown


def refused(reason: Mapping[str, Any]) -> str:
    """A reason of the ledger in words. Count 0: something is lost, and nobody can say how many records."""
    return f"{reason['count'] or 'some'} x {reason['reason']}, first at {reason['first_position']}"


def _instant(t_ns: int) -> str:
    whole_s, rest_ns = divmod(t_ns, 10**9)
    return f"{datetime.fromtimestamp(whole_s, UTC):%Y-%m-%d %H:%M:%S}.{rest_ns // 10**6:03d}"

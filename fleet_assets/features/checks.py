"""Whether published features are what they should be.

In: a snapshot of the lake. Out: findings, one sentence each; none when all is well. Rules about rows of one table are in its
contract, and act before publication; these compare tables, versions and groups of drives.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

import fleet_assets.contracts
from fleet_assets.capture.drive_key import DriveKey
from fleet_assets.contracts.document import read_document
from fleet_assets.edge.feed import LIVE, Feed
from fleet_assets.features.identity import identities
from fleet_assets.features.policy import load_live_policy
from fleet_assets.features.replay import INPUTS, OUTPUTS, drive_records
from fleet_assets.lake.payload import stream_payload
from fleet_assets.lake.tables import VERSIONS, Snapshot

SIGN_OFFS = Path(fleet_assets.contracts.__file__).parent / "policies" / "feature_differences.yaml"
# A difference of means of so many standard deviations is one to explain, if its interval says that it is no less.
LARGE = 0.5
Z_90 = 1.645  # two-sided 90 %
LEAST_DRIVES = 3  # per group; with fewer, nothing can be said


@dataclass(frozen=True)
class Difference:
    """Of a feature between two groups of drives, in standard deviations between drives, with its 90 % interval."""

    view: str
    feature: str
    groups: tuple[str, str]
    size: float
    low: float
    high: float

    @property
    def large(self) -> bool:
        return self.low > LARGE or self.high < -LARGE

    def __str__(self) -> str:
        interval = f"{self.size:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"
        return (
            f"{self.view}:{self.feature} differs between {' and '.join(self.groups)} by {interval} standard deviations"
        )


def row_counts(snapshot: Snapshot, drives: Sequence[str]) -> list[str]:
    """Every frame of the policy has one row in every live table, and nothing else has."""
    frames = snapshot.scan("synchronise.frames", ["drive_id", "policy"], drives=drives)
    frames = frames.filter(pc.equal(frames["policy"], load_live_policy().alignment))
    wanted = _counts(frames)
    findings = []
    for table in (f"features.{view}" for view in LIVE):
        found = _counts(snapshot.scan(table, ["drive_id"], drives=drives))
        findings += [
            f"{table}: {found.get(drive, 0)} rows of {drive}, which has {wanted.get(drive, 0)} frames"
            for drive in drives
            if found.get(drive, 0) != wanted.get(drive, 0)
        ]
    return findings


def one_identity(snapshot: Snapshot, drives: Sequence[str]) -> list[str]:
    """All rows are made by the kernels that the definitions name."""
    wanted = {f"{view}@v{kernel.VERSION}:{identities()[view]}" for view, kernel in LIVE.items()}
    rows = snapshot.scan(VERSIONS, ["drive_id", "table_name", "code_version"], drives=drives)
    other = [
        row["drive_id"]
        for row in rows.to_pylist()
        if row["table_name"] in OUTPUTS and not wanted <= set(row["code_version"].split())
    ]
    return [f"{drive} was made by other kernels: fleet run --drives {drive}" for drive in sorted(set(other))]


def as_a_vehicle(snapshot: Snapshot, drive: str) -> list[str]:
    """The drive driven again, frame by frame: a frame sees what had arrived by its cut, and later records do not exist yet. Every
    feature has the bits that were published; so none of them ever saw later data."""
    policy = load_live_policy()
    tables = {name: snapshot.scan(name, drives=[drive]) for name in INPUTS}
    payload = lambda rows: stream_payload(snapshot.repository, snapshot.commit_id, rows)  # noqa: E731
    records = drive_records(tables, policy, payload)
    findings = []
    published = {view: snapshot.scan(f"features.{view}", drives=[drive]).sort_by("t_cut_ns") for view in LIVE}
    cut_ns = published[next(iter(LIVE))]["t_cut_ns"].drop_null().to_numpy()
    feed, begin = Feed(), 0
    made: dict[str, list[np.ndarray]] = {view: [] for view in LIVE}
    for cut in cut_ns:
        end = int(np.searchsorted(records["t_host_ns"], cut, side="right"))
        for view, values in feed.push(records[begin:end], np.array([cut])).items():
            made[view].append(values)
        begin = end
    for view, kernel in LIVE.items():
        rows = published[view].slice(0, cut_ns.size)
        again = np.concatenate(made[view]) if made[view] else np.empty((0, len(kernel.FEATURES)))
        findings += [
            f"{view}:{name} of {drive} is not what a vehicle would have had"
            for number, name in enumerate(kernel.FEATURES)
            if not pa.chunked_array([pa.array(again[:, number], from_pandas=True)]).equals(rows[name])
        ]
    return findings


def changed(before: Snapshot | None, now: Snapshot, drives: Sequence[str]) -> list[str]:
    """Those of the drives whose live features an earlier commit does not have as they are now, in their order."""
    known = before.versions(drives, OUTPUTS) if before is not None else {}
    remade = {
        drive for (drive, table), found in now.versions(drives, OUTPUTS).items() if known.get((drive, table)) != found
    }
    return [drive for drive in drives if drive in remade]


def drift(before: Snapshot, now: Snapshot) -> list[Difference]:
    """Large differences between drives that an earlier commit has, and those that have come since."""
    old = set(drives_of(before))
    new = sorted(set(drives_of(now)) - old)
    return [one for one in differences(now, {"earlier drives": sorted(old), "new drives": new}) if one.large]


def bias(snapshot: Snapshot, key: str) -> list[Difference]:
    """Large differences between drives by a column of their context, such as region or light."""
    groups: dict[str, list[str]] = {}
    for row in snapshot.scan("ingest.context", ["drive_id", key]).to_pylist():
        if row[key] is not None:
            groups.setdefault(f"{key} {row[key]}", []).append(row["drive_id"])
    return [one for one in differences(snapshot, groups) if one.large]


def signed_off(found: Difference) -> bool:
    """Whether somebody has looked at a difference, and answers for it."""
    return any(
        entry["view"] == found.view and entry["feature"] in (found.feature, "*") and entry["between"] in found.groups[0]
        for entry in sign_offs()
    )


@lru_cache(maxsize=1)
def sign_offs() -> list[Mapping[str, str]]:
    """Differences that are accepted. Each has an owner, a reason and a date. Raises ContractError."""
    document = read_document(SIGN_OFFS)
    needed = ("view", "feature", "between", "owner", "reason", "signed_off")
    return [{name: entry[name].text for name in needed} for entry in document.elements("differences")]


def differences(snapshot: Snapshot, groups: Mapping[str, Sequence[str]]) -> list[Difference]:
    """Of every feature between every two groups that have LEAST_DRIVES. Frames of one drive are alike, so a drive counts
    once, by its mean."""
    usable = {name: list(drives) for name, drives in groups.items() if len(drives) >= LEAST_DRIVES}
    pairs = [(a, b) for a in usable for b in usable if a < b]
    if not pairs:
        return []
    found = []
    for view, kernel in LIVE.items():
        means = _means(
            snapshot, view, kernel.FEATURES, sorted({drive for drives in usable.values() for drive in drives})
        )
        for feature in kernel.FEATURES:
            for a, b in pairs:
                one, other = (
                    np.array([means[drive, feature] for drive in usable[group] if (drive, feature) in means])
                    for group in (a, b)
                )
                if min(one.size, other.size) >= LEAST_DRIVES:
                    found.append(_difference(view, feature, (a, b), one, other))
    return found


def _difference(view: str, feature: str, groups: tuple[str, str], one: np.ndarray, other: np.ndarray) -> Difference:
    """Cohen's d and its large-sample interval. Source: Hedges and Olkin, Statistical Methods for Meta-Analysis, 1985."""
    n, m = one.size, other.size
    pooled = math.sqrt(((n - 1) * one.var(ddof=1) + (m - 1) * other.var(ddof=1)) / (n + m - 2))
    gap = float(one.mean() - other.mean())
    size = 0.0 if gap == 0 else gap / max(pooled, 1e-12 * abs(gap))
    spread = Z_90 * math.sqrt((n + m) / (n * m) + size * size / (2 * (n + m)))
    return Difference(view, feature, groups, size, size - spread, size + spread)


def _means(
    snapshot: Snapshot, view: str, features: Sequence[str], drives: Sequence[str]
) -> dict[tuple[str, str], float]:
    rows = snapshot.scan(f"features.{view}", ["drive_id", *features], drives=drives)
    grouped = rows.group_by("drive_id").aggregate([(feature, "mean") for feature in features]).to_pylist()
    return {
        (row["drive_id"], feature): row[f"{feature}_mean"]
        for row in grouped
        for feature in features
        if row[f"{feature}_mean"] is not None
    }


def drives_of(snapshot: Snapshot) -> list[str]:
    """Drives with live features, in order of their starts."""
    if OUTPUTS[0] not in snapshot.applied:
        return []
    found = pc.unique(snapshot.scan(OUTPUTS[0], ["drive_id"])["drive_id"]).to_pylist()
    return sorted(found, key=lambda drive: DriveKey.parse(drive).t_start_ns)


def _counts(rows: pa.Table) -> dict[str, int]:
    return {entry["values"]: entry["counts"] for entry in pc.value_counts(rows["drive_id"]).to_pylist()}

"""What a look-up gives: values, a status per feature, the event time, and the versions of what they were read from.

In: names of a view's features. Out: an Answer, memory that look-ups fill again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from fleet_assets.errors import FleetError


class Status(IntEnum):
    """Of one feature in one answer."""

    FRESH = 0
    STALE = 1  # by the device's clock, older than its view's time to live; the value is there
    NULL = 2  # the row is there, and has no value
    MISSING = 3  # no such row


@dataclass(frozen=True)
class Versions:
    """What an answer was read from. bundle: sha256 of what was signed; views: name -> version."""

    bundle: str
    service: str
    lakefs_commit: str
    delta_versions: Mapping[str, int]
    schema_hash: str
    views: Mapping[str, int]


class Answer:
    """Memory for the answers of one view, filled anew by each look-up.

    values: float64 [features], NaN where there is none. status: uint8 [features], Status. versions: of the last answer.
    For what looks up: block: uint64, what compiled code fills, of which values, time_ns (int64 [1]) and status are views.
    sources: answers of the views that an on-demand one is computed from.
    """

    __slots__ = ("block", "features", "sources", "status", "time_ns", "values", "versions")

    def __init__(self, features: tuple[str, ...], versions: Versions, sources: tuple[Answer, ...] = ()) -> None:
        count = len(features)
        self.features, self.versions, self.sources = features, versions, sources
        self.block = np.zeros(count + 1 + -(-count // 8), dtype=np.uint64)
        self.values: np.ndarray = self.block[:count].view(np.float64)
        self.time_ns: np.ndarray = self.block[count : count + 1].view(np.int64)
        self.status: np.ndarray = self.block[count + 1 :].view(np.uint8)[:count]
        self.values[:] = np.nan
        self.status[:] = Status.MISSING

    @property
    def event_time_ns(self) -> int:
        """Of the row, UTC; 0 if it is missing. Of an on-demand view: of the oldest row that it follows from."""
        return int(self.time_ns[0])

    def to_dict(self) -> dict[str, float]:
        return dict(zip(self.features, self.values.tolist(), strict=True))


# Of many rows: values float64 [n, features], status uint8 [n, features], event times int64 [n], versions.
Answers = tuple[np.ndarray, np.ndarray, np.ndarray, Versions]


def other_features(view: str) -> FleetError:
    return FleetError(f"The answer is for other features than {view} has now", remedy="Make a new one: `answer`.")

"""Records in order of arrival, fed to the live kernels: the one way in, for a vehicle and for the replay of a drive.

In: records of the vehicle's streams. Out: features of every live view at the times that are asked for. A vehicle pushes what has
arrived since the last frame and asks for one time; a replay pushes a whole drive and asks for all frames: the bits are the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType

import numpy as np

from fleet_assets.kernels.features import ego_motion, position, scene_context, sensor_health
from fleet_assets.kernels.features.records import NO_TIME, RECORD, SOURCES, VALUES

LIVE: Mapping[str, ModuleType] = {
    "ego_motion": ego_motion,
    "sensor_health": sensor_health,
    "scene_context": scene_context,
    "position": position,
}


def records_of(
    source: str,
    stream: int,
    t_host_ns: np.ndarray,
    t_device_ns: np.ndarray | None,
    sequence: np.ndarray,
    values: Sequence[np.ndarray],
) -> np.ndarray:
    """Records of one stream. stream: rank of its name among the vehicle's. Arrays [n] each; t_device_ns NO_TIME where a record
    has none. values: columns as records.py says for the source."""
    found = np.zeros(t_host_ns.size, dtype=RECORD)
    found["t_host_ns"], found["sequence"] = t_host_ns, sequence
    found["t_device_ns"] = NO_TIME if t_device_ns is None else t_device_ns
    found["source"], found["stream"] = SOURCES.index(source), stream
    found["values"] = np.nan
    if len(values) > VALUES:
        raise ValueError(f"a record has {VALUES} values, not {len(values)}")
    for index, column in enumerate(values):
        found["values"][:, index] = column
    return found


def in_order_of_arrival(parts: Iterable[np.ndarray]) -> np.ndarray:
    """Records of all streams, RECORD [n]: by arrival, then by name of the stream, then by sequence."""
    records = np.concatenate([np.zeros(0, dtype=RECORD), *parts])
    return records[np.lexsort((records["sequence"], records["stream"], records["t_host_ns"]))]


class Feed:
    """The states of live kernels. views: names of LIVE; all unless given."""

    def __init__(self, views: Iterable[str] = LIVE) -> None:
        self._kernels = {name: LIVE[name] for name in views}
        self._states = {name: np.zeros(1, dtype=kernel.STATE) for name, kernel in self._kernels.items()}

    def push(self, records: np.ndarray, cut_ns: np.ndarray) -> dict[str, np.ndarray]:
        """Feeds records in order of arrival and gives the features at each cut, float64 [cuts, features] per view.

        records: RECORD [n], none earlier than what was pushed before. cut_ns: int64 [m] on the arrival clock, ascending; a
        record counts for a cut when it arrived by then.
        """
        found = {}
        for name, kernel in self._kernels.items():
            found[name] = np.empty((cut_ns.size, len(kernel.FEATURES)))
            kernel.replay(self._states[name], records, cut_ns, found[name])
        return found

"""The vehicle's own code over recorded drives, as they were and in rehearsals, in which something goes wrong.

In: recordings, the frames of them on which a model is judged, a model, a rehearsal. Out: what the model finds then, at the times
of those frames. Messages are changed before the vehicle's code sees them, or its frames before the model does.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fleet_assets.edge.assemble import Assembler, Frame
from fleet_assets.edge.inputs import camera_input, lidar_input
from fleet_assets.edge.messages import decode, stamp_of
from fleet_assets.edge.objects import Objects
from fleet_assets.edge.recording import Recording
from fleet_assets.edge.rig import SENSORS, Rig
from fleet_assets.errors import FleetError
from fleet_assets.kernels.features.records import NO_TIME
from fleet_assets.train.frames import FrameSet
from fleet_assets.train.recordings import frames, frames_by

Message = tuple[str, str, bytes, int]  # topic, type, content, arrival [ns]
Detect = Callable[[FrameSet], Objects]

STALE_MS = (50, 150, 500)
OFFSETS_MS = (0, 10, 20, 30, 40, 50)
_CLOCK_SET_NS = 250_000_000  # by more than that no message is late that is not lost
_SAME_NS = 60_000_000  # a frame of a rehearsal stands for one of the drive no further away than this
_CONTRADICTION_FRAMES = 20  # at 10 Hz: how the road looked two seconds before
_SPIKE_FRAMES = 2
_STAMP_AT = 4  # of a message: behind the encapsulation of CDR


@dataclass(frozen=True)
class Rehearsal:
    """absent: a sensor without a stream. late: of a sensor, by how long messages arrive later. shifted: of a sensor, by how much
    stamps are wrong. changed: frames, before the model has them."""

    what: str
    absent: str | None = None
    late: tuple[str, int] | None = None
    shifted: tuple[str, int] | None = None
    changed: Callable[[Iterator[Frame]], Iterator[Frame]] | None = None


class Drives:
    """The recorded drives on which a model is judged, as they were and in rehearsals.

    recordings: of each drive of judged, one or more, in order of time. Raises FleetError if the vehicle's code makes other frames
    of them than those on which the model is judged: there is one pre-processing.
    """

    def __init__(self, recordings: Mapping[str, Sequence[Path]], judged: FrameSet, rig: Rig) -> None:
        names = [judged.drives[number] for number in np.unique(judged.drive)]
        lacking = [name for name in names if not recordings.get(name)]
        if lacking:
            raise FleetError(f"No recording of {lacking[0]}", remedy="Judge on drives whose recordings are there.")
        self._rig = rig
        self._drives = [_Drive.driven(name, recordings[name], judged.of_drives([name]), rig) for name in names]

    @property
    def otherwise(self) -> dict[str, int]:
        """How the vehicle's frames differ from the lake's: how many it does not make, and of how many it knows another context
        or age. It is judged on its own."""
        return {
            "not_made": sum(int((~drive.made).sum()) for drive in self._drives),
            "other_context": sum(drive.other_context for drive in self._drives),
        }

    def nominal(self, detect: Detect) -> Objects:
        """What a model finds when nothing goes wrong: in what the vehicle's code makes of the recordings."""
        return self._found(((drive.made, drive.seen) for drive in self._drives), detect)

    def rehearse(self, rehearsal: Rehearsal, detect: Detect) -> Objects:
        """What a model finds when this goes wrong.

        Frames that the vehicle does not get then, because there is nothing to make them of in time, are answered with nothing:
        what is there is missed.
        """
        return self._found((self._rehearsed(drive, rehearsal) for drive in self._drives), detect)

    def _rehearsed(self, drive: _Drive, rehearsal: Rehearsal) -> tuple[np.ndarray, FrameSet]:
        found = frames(_Changed.of(drive.paths, rehearsal, self._rig), self._rig)
        got = drive.made
        at = _at(rehearsal.changed(found) if rehearsal.changed else found, drive.t_ns[got])
        got[got] = [frame is not None for frame in at]
        return got, _with(drive.judged.only(got), [frame for frame in at if frame is not None])

    def _found(self, seen: Iterable[tuple[np.ndarray, FrameSet]], detect: Detect) -> Objects:
        """seen: per drive which of its frames there are, and these."""
        parts = []
        for got, there in seen:
            found = detect(there) if len(there) else Objects()
            parts.append(replace(found, frame=np.flatnonzero(got).astype(np.int32)[found.frame]))
        return Objects.concat(parts, [len(drive.judged) for drive in self._drives])


@dataclass(frozen=True)
class _Drive:
    """judged: frames as the lake has them. t_ns: int64 [frames], when the vehicle's clock had each, NO_TIME for one that it does
    not make. context, age_s: as the vehicle knows them; the lake's where it makes no frame."""

    paths: Sequence[Path]
    judged: FrameSet
    t_ns: np.ndarray
    context: np.ndarray
    age_s: np.ndarray

    @property
    def made(self) -> np.ndarray:
        """bool [frames]: those that the vehicle makes."""
        return self.t_ns != NO_TIME

    @property
    def seen(self) -> FrameSet:
        """These, as it makes them."""
        return replace(self.judged, context=self.context, age_s=self.age_s).only(self.made)

    @property
    def other_context(self) -> int:
        """Of how many of these context or ages are not the lake's."""
        same = _same_rows(self.context, self.judged.context) & _same_rows(self.age_s, self.judged.age_s)
        return int((~same).sum())

    @classmethod
    def driven(cls, name: str, paths: Sequence[Path], judged: FrameSet, rig: Rig) -> _Drive:
        """A frame is known by what the sensors saw, to the last bit: only context and ages can differ, and are the vehicle's.

        Where a clock was set, or records came in another order, the vehicle puts other ones together than the lake, which knows
        how clocks went; behind damage there are none. Such frames are answered with nothing, which can only make a model look
        worse. Any other that it does not make is of another pre-processing, and refused.
        """
        wanted = {_sight(judged.camera[row], judged.lidar[row], judged.radar[row]): row for row in range(len(judged))}
        t_ns = np.full(len(judged), NO_TIME, dtype=np.int64)
        context, age_s = np.array(judged.context), np.array(judged.age_s)
        recording = _Changed.of(paths, Rehearsal("nothing"), rig)
        assembler = Assembler(rig, recording.topics)
        for frame in frames_by(assembler, recording):
            row = wanted.get(_sight(frame.camera, frame.lidar, frame.radar))
            if row is not None:
                t_ns[row], context[row], age_s[row] = frame.t_ns, frame.context, frame.age_s
        lacking = t_ns == NO_TIME
        if lacking.any():
            explained = _Records.of(recording, rig).explain(judged.only(lacking), assembler.key)
            otherwise = np.flatnonzero(lacking)[~explained]
            if otherwise.size:
                raise FleetError(
                    f"The vehicle's code makes other frames of {name} than those on which the model is judged",
                    where=f"{otherwise.size} of {len(judged)}, the first is frame {otherwise[0]}",
                    remedy="Make the samples again with this version, from these recordings.",
                )
        return cls(paths, judged, t_ns, context, age_s)


@dataclass(frozen=True)
class _Records:
    """A drive's records, one by one. made: what the vehicle's code makes of each of camera and LiDAR, hashed, and of none; what
    it makes of a radar's depends on the frame. disordered: whether a sensor's clock was set, or its records came in another
    order. damaged: whether some are lost."""

    made: Mapping[str, Set[bytes]]
    disordered: bool
    damaged: bool

    @classmethod
    def of(cls, recording: _Changed, rig: Rig) -> _Records:
        made = {sensor: {_sight(of_record(None))} for sensor, of_record in _OF_RECORD.items()}
        stamps_ns: dict[str, list[tuple[int, int]]] = {sensor: [] for sensor in SENSORS}
        chosen = rig.chosen(recording.topics)
        sensor_of = {chosen[sensor][0]: sensor for sensor in SENSORS if sensor in chosen}
        for topic, schema_name, message, t_host_ns in recording.messages():
            sensor, stamp_ns = sensor_of.get(topic), stamp_of(message)
            if sensor is None:
                continue
            if stamp_ns is not None:
                stamps_ns[sensor].append((stamp_ns, t_host_ns))
            if sensor in made:
                made[sensor].add(_sight(_OF_RECORD[sensor](decode(sensor, schema_name, message).content)))
        return cls(made, any(map(_disordered, stamps_ns.values())), bool(recording.damaged))

    def explain(self, frames: FrameSet, key: str) -> np.ndarray:
        """bool [n]: frames that the vehicle does not make because it puts the same records together otherwise, or because the
        record that would set them is lost. key: whose records set them."""
        there = {
            sensor: np.array([_sight(content) in made for content in getattr(frames, sensor)], dtype=bool)
            for sensor, made in self.made.items()
        }
        whole = np.logical_and.reduce(list(there.values()))
        lost = ~there[key] if key in there else np.zeros(len(frames), dtype=bool)
        return np.asarray((whole & self.disordered) | (lost & self.damaged))


_OF_RECORD: Mapping[str, Callable[[np.ndarray | None], np.ndarray]] = {"camera": camera_input, "lidar": lidar_input}


def _disordered(stamps_ns: Sequence[tuple[int, int]]) -> bool:
    """stamps_ns: of a sensor's records, its own and that of arrival, which stay apart to a few milliseconds."""
    own, arrival = np.array(stamps_ns, dtype=np.int64).reshape(-1, 2).T
    return bool((np.diff(own) < 0).any() or np.ptp(arrival - own) >= _CLOCK_SET_NS if own.size else False)


def _same_rows(some: np.ndarray, other: np.ndarray) -> np.ndarray:
    """bool [n]; NaN is NaN."""
    return np.asarray(((some == other) | (np.isnan(some) & np.isnan(other))).all(axis=1))


def _sight(*arrays: np.ndarray) -> bytes:
    hashed = hashlib.sha256()
    for array in arrays:
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.digest()


def offset_rehearsals() -> dict[tuple[str, int], Rehearsal]:
    """By sensor and milliseconds: stamps that are wrong by so much, as a clock model that is off would make them."""
    return {
        (sensor, ms): Rehearsal(f"The stamps of the {sensor} are {ms} ms late", shifted=(sensor, ms * 1_000_000))
        for sensor in SENSORS
        for ms in OFFSETS_MS
    }


# ---- messages --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Changed(Recording):
    """One or more recordings of a drive, as one in which something goes wrong. damaged: of those that were read, what is wrong;
    what lies before the damage counts, as for the lake."""

    parts: tuple[Recording, ...] = ()
    rehearsal: Rehearsal = field(default_factory=lambda: Rehearsal("nothing"))
    late_topic: str | None = None
    shifted_topic: str | None = None
    damaged: list[FleetError] = field(default_factory=list)

    @classmethod
    def of(cls, paths: Sequence[Path], rehearsal: Rehearsal, rig: Rig) -> _Changed:
        parts = tuple(Recording.open(path) for path in paths)
        topics = sorted({topic for part in parts for topic in part.topics})
        chosen = {source: topic for source, (topic, _) in rig.chosen(topics).items()}
        absent = chosen.get(rehearsal.absent or "")
        topics = [topic for topic in topics if topic != absent]
        late, shifted = (chosen.get(one[0]) if one else None for one in (rehearsal.late, rehearsal.shifted))
        return cls(parts[0].path, topics, parts[0].context, True, parts, rehearsal, late, shifted)

    def messages(self) -> Iterator[Message]:
        found: Iterator[Message] = chain.from_iterable(map(self._whole, self.parts))
        if self.rehearsal.shifted and self.shifted_topic:
            found = _shifted(found, self.shifted_topic, self.rehearsal.shifted[1])
        if self.rehearsal.late and self.late_topic:
            found = _late(found, self.late_topic, self.rehearsal.late[1])
        return found

    def _whole(self, part: Recording) -> Iterator[Message]:
        try:
            yield from part.messages()
        except FleetError as error:
            self.damaged.append(error)


def _late(messages: Iterator[Message], late_topic: str, late_ns: int) -> Iterator[Message]:
    """In order of arrival, a topic's messages so much later."""
    waiting: deque[Message] = deque()
    for topic, schema_name, message, t_host_ns in messages:
        if topic == late_topic:
            waiting.append((topic, schema_name, message, t_host_ns + late_ns))
            continue
        while waiting and waiting[0][3] <= t_host_ns:
            yield waiting.popleft()
        yield topic, schema_name, message, t_host_ns
    yield from waiting


def _shifted(messages: Iterator[Message], shifted_topic: str, shift_ns: int) -> Iterator[Message]:
    """A topic's messages with stamps that say so much later."""
    for topic, schema_name, message, t_host_ns in messages:
        stamp_ns = stamp_of(message) if topic == shifted_topic else None
        if stamp_ns is not None:
            wrong = bytearray(message)
            struct.pack_into("<iI", wrong, _STAMP_AT, *divmod(stamp_ns + shift_ns, 1_000_000_000))
            message = bytes(wrong)
        yield topic, schema_name, message, t_host_ns


# ---- frames ----------------------------------------------------------------------------------------------------------


def _at(found: Iterator[Frame], t_ns: np.ndarray) -> list[Frame | None]:
    """For each time the nearest frame, None where there is none near. t_ns: as the vehicle's clock had it, which may have been
    set back."""
    chosen: list[Frame | None] = [None] * t_ns.size
    order = np.argsort(t_ns, kind="stable")
    for frame in found:
        low, high = np.searchsorted(t_ns, [frame.t_ns - _SAME_NS, frame.t_ns + _SAME_NS], side="left", sorter=order)
        for index in order[low:high].tolist():
            before = chosen[index]
            if before is None or abs(frame.t_ns - int(t_ns[index])) < abs(before.t_ns - int(t_ns[index])):
                chosen[index] = frame
    return chosen


def _with(judged: FrameSet, chosen: list[Frame]) -> FrameSet:
    """The same frames, with what the vehicle has of them in the rehearsal."""
    if not chosen:
        return judged
    arrays: dict[str, Any] = {
        name: np.stack([getattr(frame, name) for frame in chosen])
        for name in ("camera", "lidar", "radar", "context", "age_s")
    }
    return replace(judged, **arrays)


def _earlier(found: Iterator[Frame], names: tuple[str, ...], count: int) -> Iterator[Frame]:
    """Frames with some of what was there so many frames before, as if it were new."""
    kept: deque[Frame] = deque(maxlen=count + 1)
    for frame in found:
        kept.append(frame)
        if len(kept) == count + 1:
            yield replace(frame, **{name: getattr(kept[0], name) for name in names})


def _noisy(found: Iterator[Frame], sensor: str) -> Iterator[Frame]:
    """Camera: noise as of a tenth of its range. LiDAR: three in ten cells lost. Radar: echoes as strong as weak
    objects, each of any velocity."""
    for frame in found:
        random = np.random.default_rng(frame.t_ns % 2**63)
        content = getattr(frame, sensor)
        if sensor == "camera":
            noise = random.normal(0, 25, content.shape)
            content = np.clip(content + noise, 0, 255).astype(np.uint8)
        elif sensor == "lidar":
            content = content * (random.random(content.shape[1:]) >= 0.3).astype(np.float32)
        else:
            parts = []
            for sweeps in np.split(content, 2):  # of the frame's sweep, and of those before it
                velocity = random.integers(len(sweeps), size=sweeps.shape[1:])
                echoes = random.exponential(0.05, velocity.shape) * (np.arange(len(sweeps))[:, None, None] == velocity)
                parts.append(sweeps + echoes.astype(np.float32))
            content = np.concatenate(parts)
        yield replace(frame, **{sensor: content})


REHEARSALS: dict[str, Rehearsal] = {
    **{f"{one}_missing": Rehearsal(f"No {one}", absent=one) for one in SENSORS},
    **{
        f"{one}_stale_{ms}_ms": Rehearsal(f"The {one} arrives {ms} ms later", late=(one, ms * 1_000_000))
        for one in SENSORS
        for ms in STALE_MS
    },
    **{f"{one}_noisy": Rehearsal(f"Noise on the {one}", changed=partial(_noisy, sensor=one)) for one in SENSORS},
    **{
        f"{one}_contradicting": Rehearsal(
            f"The {one} shows the road of two seconds before, with new stamps",
            changed=partial(_earlier, names=(one,), count=_CONTRADICTION_FRAMES),
        )
        for one in SENSORS
    },
    "load_spike": Rehearsal(
        "The machine is busy: answers are those of two frames before",
        changed=partial(_earlier, names=("camera", "lidar", "radar", "age_s", "features"), count=_SPIKE_FRAMES),
    ),
}

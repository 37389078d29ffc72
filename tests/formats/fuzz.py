"""Damaged recordings: seeded variants of every small sample, and what becomes of them.

In: a target and a number of variants. Out: counts, or the first variant that broke the promise: a FleetError, or records
delivered and refused; nothing else, no hang, no memory beyond a bound. `make fuzz` runs it: each target in a process of its own,
so that a crash is a finding and not the end.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import random
import resource
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from formats.sample import Sample
from formats.sample_bags import split, write_rosbag1
from formats.sample_drive import counts, drive
from formats.sample_folders import kitti_raw
from formats.sample_foxglove import mcap_json, mcap_protobuf
from formats.samples import SAMPLES, radiate, write_mcap
from mcap.writer import CompressionType

from fleet_assets.errors import FleetError
from fleet_assets.formats.mcap_ros2 import McapReader
from fleet_assets.formats.mf4_frames import FILE_CPU_S
from fleet_assets.formats.reader import BATCH_ROWS, SCHEMAS, RecordingFiles, UnknownFormat, open_recording
from fleet_assets.formats.rewrite import rewrite_as_mcap
from fleet_assets.formats.rosbag1 import RosBag1Reader

SECONDS_PER_VARIANT = 120  # a guard against hanging, on however slow a machine
MEMORY_BYTES = 1024**3  # beyond what the process has once it has read the sample
SECONDS_PER_FILE = 2 * FILE_CPU_S  # more for each further file read at once: two passes, each up to the file's limit
FILES_AT_ONCE = {"mf4": 50}  # a pass over MF4 starts a process: it reads so many variants as files of one recording
TOLD = 3  # exit status after a fault that was told; 1 is that of a guard that ends the process, too
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)


def plain_mcap(root: Path) -> Sample:
    """Neither compressed nor with checksums of chunks: damage gets through to the records."""
    messages = drive(0.5, image_bytes=200)
    write_mcap(root / "drive.mcap", messages, compression=CompressionType.NONE, chunked=False)
    return Sample(McapReader, RecordingFiles(root, ("drive.mcap",)), counts(messages), "drive.mcap")


def plain_bag(root: Path) -> Sample:
    messages = drive(0.5, image_bytes=200)
    write_rosbag1(root / "drive.bag", messages, compression=None)
    return Sample(RosBag1Reader, RecordingFiles(root, ("drive.bag",)), main="drive.bag", **split(messages))


TARGETS: dict[str, Callable[[Path], Sample]] = {
    **SAMPLES,
    "mcap_plain": plain_mcap,
    "mcap_protobuf_plain": partial(mcap_protobuf, chunked=False),
    "mcap_json_plain": partial(mcap_json, chunked=False),
    "rosbag1_plain": plain_bag,
    # Without refusals of their own, so that a refusal is the damage's.
    "kitti_raw": partial(kitti_raw, whole=True),
    "radiate": partial(radiate, whole=True),
}


# ---- damage ----------------------------------------------------------------------------------------------------------


def damaged(data: bytes, chance: random.Random) -> bytes:
    """One to three changes of a file."""
    content = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 3])):
        chance.choice(CHANGES)(content, chance)
    return bytes(content)


def _range(content: bytearray, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(content) + 1)
    return start, min(len(content), start + chance.choice([1, 4, 16, 200, 5000]))


def flip(content: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 1, 8, 50]) if content else 0):
        content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)


def cut(content: bytearray, chance: random.Random) -> None:
    del content[chance.randrange(len(content) + 1) :]


def remove(content: bytearray, chance: random.Random) -> None:
    start, end = _range(content, chance)
    del content[start:end]


def repeat(content: bytearray, chance: random.Random) -> None:
    start, end = _range(content, chance)
    content[end:end] = content[start:end] * chance.choice([1, 1, 30])


def splice(content: bytearray, chance: random.Random) -> None:
    start, end = _range(content, chance)
    at = chance.randrange(len(content) + 1)
    content[at : at + end - start] = content[start:end]


def blank(content: bytearray, chance: random.Random) -> None:
    start, end = _range(content, chance)
    content[start:end] = bytes([chance.choice([0, 0xFF])]) * (end - start)


def extreme(content: bytearray, chance: random.Random) -> None:
    """What may be a length gets an extreme value, little or big end first."""
    size = chance.choice([1, 2, 4, 8])
    if len(content) >= size:
        at = chance.randrange(min(len(content) - size + 1, chance.choice([64, 512, 10**9])))
        value = chance.choice(EXTREMES) & (2 ** (8 * size) - 1)
        content[at : at + size] = value.to_bytes(size, chance.choice(["little", "little", "big"]))


def noise(content: bytearray, chance: random.Random) -> None:
    start, end = _range(content, chance)
    content[start:end] = chance.randbytes(end - start)


def number(content: bytearray, chance: random.Random) -> None:
    """A digit of a text becomes something that numbers are not made of, or too many of it."""
    digits = [at for at in range(min(len(content), 4000)) if 48 <= content[at] < 58]
    if digits:
        at = chance.choice(digits)
        content[at : at + 1] = chance.choice([b"nan", b"-", b"1e999", b"9" * 400, b"inf", b"", b"\xff", b"\n"])


CHANGES = (flip, flip, cut, remove, repeat, splice, blank, extreme, extreme, noise, number)


@dataclass
class Recording:
    """A sample on disk that is damaged, read, and restored."""

    sample: Sample
    many: int = 1
    originals: dict[str, bytes] = field(default_factory=dict)
    changed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        root = self.sample.files.root
        self.originals = {name: (root / name).read_bytes() for name in self.sample.files.names}

    def vary(self, chance: random.Random) -> RecordingFiles:
        """A damaged variant on disk."""
        names = list(self.sample.files.names)
        if self.many > 1:  # several damaged copies of the main file
            stem, dot, suffix = self.sample.main.rpartition(".")
            for at in range(self.many):
                name = f"{stem}{at}{dot}{suffix}"
                self._write(name, damaged(self.originals[self.sample.main], chance))
                names.append(name)
            names.remove(self.sample.main)
            if names[: -self.many] and chance.random() < 0.1:  # and what they are read with
                name = chance.choice(names[: -self.many])
                self._write(name, damaged(self.originals[name], chance))
            return RecordingFiles(self.sample.files.root, tuple(names))
        if len(names) > 1 and chance.random() < 0.3:
            self._rearrange(names, chance)
        else:
            # Of many files alike, as often the index as one of the others.
            folders = sorted({name.rpartition("/")[0] for name in names})
            for _ in range(chance.choice([1, 1, 3])):
                folder = chance.choice(folders)
                inside = [name for name in names if name.rpartition("/")[0] == folder and name in self.originals]
                name = self.sample.main if chance.random() < 0.3 or not inside else chance.choice(inside)
                self._write(name, damaged(self.originals[name], chance))
        return RecordingFiles(self.sample.files.root, tuple(names))

    def _rearrange(self, names: list[str], chance: random.Random) -> None:
        """Files that are missing, swapped, there twice, or called otherwise."""
        one, other = chance.choice(names), chance.choice(names)
        what = chance.choice(["missing", "not listed", "swapped", "extra", "renamed", "a folder"])
        if what == "missing":
            self._remove(one)
        elif what == "not listed":
            names.remove(one)
        elif what == "swapped":
            self._write(one, self.originals[other])
            self._write(other, self.originals[one])
        elif what == "a folder":
            self._remove(one)
            (self.sample.files.root / one).mkdir()
        else:
            folder = one.rpartition("/")[0]
            strange = chance.choice(["x", "9" * 30, "\u0661", "-1", "a.b", " ", "." * 3, "0", "t", "value"])
            name = f"{folder}/{strange}{PurePosixPath(one).suffix}" if folder else f"{strange}.bin"
            if name not in self.originals and not (self.sample.files.root / name).exists():
                self._write(name, self.originals[one])
                names.append(name)
            if what == "renamed":
                self._remove(one)
                names.remove(one)

    def _write(self, name: str, content: bytes) -> None:
        (self.sample.files.root / name).write_bytes(content)
        self.changed.add(name)

    def _remove(self, name: str) -> None:
        (self.sample.files.root / name).unlink(missing_ok=True)
        self.changed.add(name)

    def restore(self) -> None:
        for name in self.changed:
            path = self.sample.files.root / name
            if path.is_dir():
                path.rmdir()
            if name in self.originals:
                path.write_bytes(self.originals[name])
            else:
                path.unlink(missing_ok=True)
        self.changed.clear()


# ---- what becomes of it ----------------------------------------------------------------------------------------------


def read(sample: Sample, files: RecordingFiles, chance: random.Random, scratch: Path) -> str:
    """Reads everything that there is, twice in part. Gives error, refused or whole; raises what breaks the promise."""
    try:
        try:
            reader = open_recording(files)
        except UnknownFormat:
            reader = sample.reader(files)  # it is told to read what it would not choose
        info = reader.info()
        assert info.t_start_ns is None or isinstance(info.t_start_ns, int)
        topics = [channel.topic for channel in reader.channels()]
        for batch in reader.read():
            assert 0 < batch.table.num_rows <= BATCH_ROWS
            assert batch.table.schema == SCHEMAS[batch.kind]
        if chance.random() < 0.2:
            for _ in reader.read(topics=topics[:1], t_from_ns=chance.choice([0, info.t_start_ns]), t_to_ns=2**62):
                pass
        if not reader.payload_in_place:
            rewrite_as_mcap(reader.payloads(), scratch / "rewritten.mcap")
            for _ in McapReader(RecordingFiles(scratch, ("rewritten.mcap",))).read():
                pass
        for refusal in reader.refusals:
            assert refusal.count >= 0
            assert refusal.reason
            assert refusal.position
    except FleetError:
        return "error"
    return "refused" if reader.refusals else "whole"


def fuzz(
    name: str,
    variants: int,
    seed: int,
    note: Callable[[int, Counter[str]], None],
    first: int = 0,
    seconds: float = SECONDS_PER_VARIANT,
) -> Counter[str]:
    """Reads a target's variants from the first on, up to so many, in this process. note: is told the variant that comes next.
    seconds: after which a variant hangs, and the process ends."""
    outcomes: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as scratch:
        sample = TARGETS[name](Path(folder))
        recording = Recording(sample, FILES_AT_ONCE.get(name, 1))
        read(sample, sample.files, random.Random(0), Path(scratch))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
        # The soft limit alone: MF4's own process sets one of its own.
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
        seconds += (recording.many - 1) * SECONDS_PER_FILE
        for variant in range(first, variants, recording.many):
            note(variant, outcomes)
            chance = random.Random(f"{seed} {name} {variant}")
            faulthandler.dump_traceback_later(seconds, exit=True)
            outcomes[read(sample, recording.vary(chance), chance, Path(scratch))] += recording.many
            faulthandler.cancel_dump_traceback_later()
            recording.restore()
    return outcomes


def _child(arguments: argparse.Namespace) -> int:
    """One target, here. Standard output: progress, and the outcome or the fault."""
    warnings.simplefilter("error")
    variant = -1

    def note(number: int, outcomes: Counter[str]) -> None:
        nonlocal variant
        variant = number
        os.pwrite(arguments.mark, b"%12d" % number, 0)
        if arguments.progress and number % 1000 == 0 and number:
            print(f"{arguments.only}: {number} variants, {_told(outcomes)}", flush=True)

    try:
        outcomes = fuzz(arguments.only, arguments.variants, arguments.seed, note, arguments.first, arguments.seconds)
    except Exception:
        print(
            f"{arguments.only}: variant {variant} of seed {arguments.seed} broke the promise\n{traceback.format_exc()}"
        )
        return TOLD
    print(
        f"{arguments.only}: variants {arguments.first} to {arguments.variants} of seed {arguments.seed}: {_told(outcomes)}"
    )
    return 0


def _told(outcomes: Counter[str]) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))


def run_target(
    name: str,
    variants: int,
    seed: int,
    *,
    first: int = 0,
    progress: bool = False,
    seconds: float = SECONDS_PER_VARIANT,
) -> bool:
    """One target in a process of its own; prints what it prints. False when a variant broke the promise."""
    with tempfile.TemporaryFile() as mark:
        command = [sys.executable, "-m", "formats.fuzz", "--only", name, "--variants", str(variants)]
        command += ["--seed", str(seed), "--first", str(first), "--mark", str(mark.fileno())]
        command += ["--seconds", str(seconds)]
        command += ["--progress"] if progress else []
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
        done = subprocess.run(command, env=environment, pass_fds=[mark.fileno()])
        if done.returncode not in (0, TOLD):
            number = os.pread(mark.fileno(), 12, 0).decode().strip()
            print(f"{name}: the process ended with {done.returncode} at variant {number} of seed {seed}")
        return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=sorted(TARGETS), help="one target instead of all")
    parser.add_argument("--variants", type=int, default=10_000, help="variants of each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--first", type=int, default=0, help="the variant to begin with: a run that was cut short goes on"
    )
    parser.add_argument("--progress", action="store_true", help="a line every 1000 variants")
    parser.add_argument("--seconds", type=float, default=SECONDS_PER_VARIANT, help=argparse.SUPPRESS)
    parser.add_argument("--mark", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.mark is not None:
        return _child(arguments)
    targets = [arguments.only] if arguments.only else sorted(TARGETS)
    how = {"first": arguments.first, "progress": True}
    good = [run_target(name, arguments.variants, arguments.seed, **how) for name in targets]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())

"""A process that forks writers, each of which writes version after version until it is killed.

In: lines with a first version, on standard input. Out: the process id of each writer. Forked, so that each is warm at once.
"""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from features.tables import write_version

from fleet_assets.edge import bundle as bundles
from fleet_assets.features.online_files import OnlineFiles
from fleet_assets.signing.keys import KeyRing


@contextmanager
def writers(path: Path, work: str = "snapshot") -> Iterator[Callable[[int], int]]:
    """A function that starts a writer of versions from the given one on, and gives its process id."""
    command = [sys.executable, "-m", "features.writers", str(path), work]
    tests = str(Path(__file__).parents[1])
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": tests},
        start_new_session=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        stdin, stdout = server.stdin, server.stdout

        def start(first: int) -> int:
            stdin.write(f"{first}\n")
            stdin.flush()
            return int(stdout.readline())

        try:
            yield start
        finally:  # a writer that its test did not come to kill would write for ever
            os.killpg(server.pid, signal.SIGKILL)


def activate_version(root: Path, version: int) -> None:
    """Makes another of the installed bundles active; `key.pub` lies beside root."""
    installed = sorted(folder.name for folder in (root / "versions").iterdir())
    bundles.activate(root, installed[version % len(installed)], KeyRing.read(root.parent / "key.pub"))


def push_version(folder: Path, version: int) -> None:
    """Five rows of one write, whose every value is their version."""
    value = {"f": str(version).encode()}
    OnlineFiles(folder).write("t", [(bytes([key]), version, value) for key in range(5)])


def publish_version(folder: Path, version: int) -> None:
    """A snapshot whose every value is its version."""
    with TemporaryDirectory() as scratch:
        write_version(Path(scratch, "new"), version)
        OnlineFiles(folder).publish(Path(scratch, "new"), "s")


@cache
def folded_view() -> Any:
    """Of the rows that fold_version writes."""
    from feast import Entity, FeatureView, Field, FileSource
    from feast.types import Float64, Int64
    from feast.value_type import ValueType

    return FeatureView(
        name="t",
        entities=[Entity(name="cell", value_type=ValueType.INT64)],
        schema=[Field(name="cell", dtype=Int64), Field(name="f", dtype=Float64)],
        source=FileSource(name="none", path="none.parquet", timestamp_field="event_timestamp"),
    )


def fold_version(folder: Path, version: int) -> None:
    """Five rows of one write, whose every value is their version; folded at once."""
    from feast.protos.feast.types.Value_pb2 import Value

    from fleet_assets.features.online_fold import folded
    from fleet_assets.features.online_rows import pack_key

    files, value = OnlineFiles(folder), {"f": Value(double_val=version).SerializeToString()}
    files.write("t", [(pack_key([cell]), version, value) for cell in range(5)])
    files.fold("t", lambda known, path: folded(folded_view(), known, path))


WORK: dict[str, Callable[[Path, int], None]] = {
    "snapshot": write_version,
    "activate": activate_version,
    "push": push_version,
    "publish": publish_version,
    "fold": fold_version,
}


def main(path: Path, work: Callable[[Path, int], None]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the killed ones
    with TemporaryDirectory() as scratch:
        write_version(Path(scratch, "warm"), 0)
        if work in (publish_version, fold_version):  # loads Feast, before the forks
            work(Path(scratch, "online"), 0)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            for version in itertools.count(int(line)):
                work(path, version)
        print(child, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), WORK[sys.argv[2]])
